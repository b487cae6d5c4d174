"""What the data and the settings are."""
