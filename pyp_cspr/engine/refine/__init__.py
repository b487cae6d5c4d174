"""Joint constrained refinement: parameters and their chain rules, the arrowhead system, its solution."""
