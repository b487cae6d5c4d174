"""A command ends its process at once, but not before what it owes: its exit code, its last words, what waits for the end."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import atexit, sys
from pyp_cspr.engine.cli import run_and_leave

def run():
    print("last words", end="")
    print("a warning", end="", file=sys.stderr)
    return {code}

atexit.register(lambda: open(sys.argv[1], "w").write("left"))
run_and_leave(run)
print("never")
"""


@pytest.mark.parametrize("code", [0, 2])
def test_what_is_owed_is_done(tmp_path: Path, code: int) -> None:
    left = tmp_path / "left"
    command = [sys.executable, "-c", PROGRAM.format(code=code), str(left)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, "last words", "a warning")
    assert left.read_text() == "left"


def test_words_that_nobody_can_take_are_a_failure(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", PROGRAM.format(code=0), str(tmp_path / "left")], stdout=full, timeout=60,
                              stderr=subprocess.DEVNULL, check=False)
    assert done.returncode == 1


def test_an_error_of_the_program_still_shows_itself(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", "from pyp_cspr.engine.cli import run_and_leave; run_and_leave(lambda: 1 / 0)"],
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
