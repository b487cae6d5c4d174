"""Figures and the report page. The only engine package that draws."""
