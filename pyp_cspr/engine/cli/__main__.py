"""``python -m pyp_cspr.engine.cli``: the command ``cspr``."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
