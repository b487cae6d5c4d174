"""``cspr --end-with PID``: a command does not outlive the program that started it, not even one that was killed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]
# starts a command that would take minutes, says its number and waits
PARENT = """
import os, subprocess, sys, time
words = [sys.executable, "-m", "pyp_cspr.engine.cli", *sys.argv[1:]]
child = subprocess.Popen([word.replace("SELF", str(os.getpid())) for word in words], stderr=subprocess.DEVNULL)
print(child.pid, flush=True)
time.sleep(60)
"""
SAMPLE = ["--series", "20", "--particles", "200", "--tilts", "60", "--box", "64", "--threads", "1"]


def is_running(number) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("options, survives", [(["--end-with", "SELF"], False), ([], True), (["--end-with", "1"], True)])
def test_a_command_ends_with_its_parent(tmp_path, options, survives) -> None:
    line = [sys.executable, "-c", PARENT, *options, "sample", str(tmp_path / "data"), *SAMPLE]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        if not select.select([parent.stdout], [], [], 20)[0]:
            parent.kill()
            pytest.fail("the command was not started within 20 s")
        child = int(parent.stdout.readline())
        try:
            end = time.time() + 30
            while time.time() < end and not (tmp_path / "data").exists():  # it is at work
                time.sleep(0.1)
            os.kill(parent.pid, signal.SIGKILL)
            end = time.time() + (2 if survives else 20)
            while time.time() < end and is_running(child):
                time.sleep(0.1)
            assert is_running(child) == survives
        finally:
            if is_running(child):
                os.kill(child, signal.SIGKILL)
