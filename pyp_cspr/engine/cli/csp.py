"""csp: refines the PYP project in this folder, as PYP's command of that name.

    csp -csp_refine alignments.txt -csp_model map.mrc -particle_fmt frealign -tasks_per_arr 2

Options are PYP's keys; ``csp -help`` lists them. Started again it goes on after the last iteration; ``-csp_skip True`` starts
fresh.
"""

from __future__ import annotations

import os
import sys
from typing import List, NoReturn, Optional

from . import guarded, run_and_leave

HELP = ("-help", "--help", "-h")


def command() -> NoReturn:
    """The program ``csp``: ``main`` as a process of its own."""
    run_and_leave(main)


def main(argv: Optional[List[str]] = None) -> int:
    """Run the command in the present folder; returns its exit code: 0 done, 1 failed, 2 wrong input."""
    words = sys.argv[1:] if argv is None else argv
    return guarded("csp", lambda: _run(words))


def _run(words: List[str]) -> int:
    if any(word in HELP for word in words):
        from ..model.pyp_settings import help_text

        print(help_text(), end="")
        return 0
    if words in (["-version"], ["--version"]):
        from .. import __version__

        print(f"csp of cspr {__version__}")
        return 0
    from ..io.pyp_config import read_configuration
    from ..pipeline.pyp_run import run_csp
    from .options import projections_bar

    run_csp(os.getcwd(), read_configuration(os.getcwd(), words), _say, projections_bar)
    return 0


def _say(line: str) -> None:
    """Warnings and notes to standard error, what was done to standard output."""
    print(line, file=sys.stderr if line.startswith(("warning:", "note:")) else sys.stdout, flush=True)


if __name__ == "__main__":
    command()
