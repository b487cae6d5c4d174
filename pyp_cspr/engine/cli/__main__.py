"""``python -m pyp_cspr.engine.cli``: the command ``cspr``."""

from . import command

if __name__ == "__main__":
    command()
