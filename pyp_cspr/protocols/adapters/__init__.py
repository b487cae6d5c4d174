"""Between Scipion's sets and the engine's data set, both ways."""
