"""Files written by other programs, with the program, version and command that made them."""
