"""A command ends its process at once, but not before what it owes: its exit code, its last words, what waits for the end."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import atexit, sys
from pyp_cspr.engine.cli import guarded, run_and_leave

def run():
    print("last words", end="")
    if sys.stderr is not None:
        print("a warning", end="", file=sys.stderr)
    return {code}

atexit.register(lambda: open(sys.argv[1], "w").write("left"))
{more}
run_and_leave(lambda: guarded("cspr x", run))
print("never")
"""
# Words that are written at once owe nothing at the end.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def _run(left: Path, code: int = 0, more: str = "", **options: Any) -> Any:
    program = PROGRAM.format(code=code, more=more)
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": ENVIRONMENT, **options}
    return subprocess.run([sys.executable, "-c", program, str(left)], text=True, timeout=60, check=False, **given)


@pytest.mark.parametrize("code", [0, 2])
def test_what_is_owed_is_done(tmp_path: Path, code: int) -> None:
    done = _run(tmp_path / "left", code)
    assert (done.returncode, done.stdout, done.stderr) == (code, "last words", "a warning")
    assert (tmp_path / "left").read_text() == "left"


def test_a_failure_at_the_end_is_shown_and_changes_nothing(tmp_path: Path) -> None:
    done = _run(tmp_path / "left", more="atexit.register(lambda: 1 / 0)")
    assert (done.returncode, done.stdout) == (0, "last words")
    assert "ZeroDivisionError" in done.stderr
    assert (tmp_path / "left").read_text() == "left"


def test_words_that_cannot_be_written_are_told_in_one_line(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = _run(tmp_path / "left", stdout=full)
    assert done.returncode == 2
    assert done.stderr.endswith("cspr x: error: No space left on device\n")
    assert done.stderr.count("\n") == 1


def test_a_reader_that_has_gone_is_no_failure(tmp_path: Path) -> None:
    theirs, ours = os.pipe()
    os.close(theirs)
    done = _run(tmp_path / "left", stdout=ours)
    os.close(ours)
    assert (done.returncode, done.stderr) == (0, "a warning")


@pytest.mark.parametrize("closed", ["1", "2"])
def test_without_standard_output_or_error(tmp_path: Path, closed: str) -> None:
    program = PROGRAM.format(code=0, more="")
    command = ["sh", "-c", f'exec "$0" -c "$1" "$2" {closed}>&-', sys.executable, program, str(tmp_path / "left")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=ENVIRONMENT)
    assert done.returncode == 0
    assert done.stdout + done.stderr == ("last words" if closed == "2" else "a warning")


def test_an_error_of_the_program_still_shows_itself() -> None:
    done = subprocess.run([sys.executable, "-c", "from pyp_cspr.engine.cli import run_and_leave; run_and_leave(lambda: 1 / 0)"],
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr

