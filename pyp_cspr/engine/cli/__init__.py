"""The command ``cspr``. Each of its commands is a module of this package, whose docstring is its help."""

from __future__ import annotations

import argparse
import atexit
import importlib
import json
import os
import sys
from contextlib import suppress
from typing import Any, Callable, List, NoReturn, Optional, Sequence

from .. import __version__
from ..errors import CsprError, InputError

ABOUT = "Constrained single-particle refinement of tilt series. `cspr COMMAND --help` says what a command does."
COMMANDS = ("sample", "check", "reconstruct", "refine", "plan", "chunk", "merge", "fsc", "info", "compare", "filter",
            "postprocess", "convert")


def command() -> NoReturn:
    """The program ``cspr``: ``main`` as a process of its own."""
    run_and_leave(main)


def run_and_leave(run: Callable[[], int]) -> NoReturn:
    """Run the command of this process, and end the process with the exit code.

    Python ends by taking apart all it has loaded, which takes a twentieth of a second, and a quarter where numba has compiled.
    What Python code has registered for the end of the process is done, and what was printed is passed on; the rest the system
    takes back at once. Under MPI a process ends the ordinary way: MPI has its own last words, which it says as the C library
    ends.
    """
    code = run()
    if "mpi4py.MPI" in sys.modules:
        sys.exit(code)
    try:
        atexit._run_exitfuncs()
    except Exception:  # noqa: BLE001 - as Python's own end does: it is shown, and changes no exit code
        sys.excepthook(*sys.exc_info())
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            with suppress(OSError):  # guarded has told what can be told
                stream.flush()
    os._exit(code)


def main(argv: Optional[List[str]] = None) -> int:
    """Run a command; returns its exit code: 0 done, 1 failed, 2 wrong input."""
    parser = argparse.ArgumentParser(prog="cspr", description=ABOUT)
    parser.add_argument("--version", action="version", version=f"cspr {__version__}")
    parser.add_argument("--end-with", type=int, default=0, metavar="PID",
                        help="end when this process, which started the command, ends: for programs")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    words = sys.argv[1:] if argv is None else argv
    # Only the command that is asked for is imported, so that it starts at once.
    asked = _command_of(words)
    for name in [asked] if asked in COMMANDS else COMMANDS:
        module = importlib.import_module(f".{name}", __name__)
        text = module.__doc__ or ""
        sub = commands.add_parser(
            name, help=text.strip().splitlines()[0], description=text, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.add_args(sub)
        sub.set_defaults(run=module.main)
    args = parser.parse_args(words)
    if args.end_with and os.getppid() == args.end_with:
        from ..pipeline.local import leave_with_parent

        leave_with_parent(args.end_with)
    return guarded(f"cspr {args.command}", lambda: int(args.run(args)))


def _command_of(words: Sequence[str]) -> str:
    """The first word that is no option, nor the value of one."""
    for before, word in zip(["", *words], words):
        if not word.startswith("-") and before != "--end-with":
            return word
    return ""


def guarded(name: str, run: Callable[[], int]) -> int:
    """The exit code of ``run``, whose errors are said in one line: 1 failed, 2 wrong input, 130 stopped."""
    try:
        code = run()
        if sys.stdout is not None and not sys.stdout.closed:
            sys.stdout.flush()  # here, where it is told if it cannot be written
        return code
    except BrokenPipeError:
        # The reader of our output has gone; what is left to print has no reader.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (CsprError, OSError) as error:
        known = error if isinstance(error, CsprError) else _of_the_system(error)
        print(f"{name}: error: {' '.join(str(known).split())}", file=sys.stderr)
        return known.exit_code
    except KeyboardInterrupt:
        print(f"{name}: stopped; start it again to go on", file=sys.stderr)
        return 130


def _of_the_system(error: OSError) -> CsprError:
    """What the system refused, which is no fault of the program: a disk that is full, a folder that may not be read."""
    where = "" if error.filename is None else f"{error.filename}: "
    return InputError(f"{where}{error.strerror or error}")


def print_json(values: Any) -> None:
    """One JSON object on standard output, for programs."""
    print(json.dumps(values, indent=1, allow_nan=False))
