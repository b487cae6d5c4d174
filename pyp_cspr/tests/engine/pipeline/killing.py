"""Runs that are killed in the middle of their work, and what of it was finished."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Callable, Dict, List, Tuple

LONGEST = 120.0  # seconds that a command may take


def hears_ctrl_c() -> None:
    """``preexec_fn`` of a command that gets SIGINT: what a shell starts in the background ignores it, and hands that down."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def is_killed(command: List[str], reached: Callable[[], bool], delay: float) -> bool:
    """Start a command and send SIGKILL to its process group ``delay`` seconds after ``reached()``; False where it was done."""
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + LONGEST
        while process.poll() is None and not reached():
            assert time.monotonic() < end, "it did not come as far as that"
            time.sleep(0.002)
        process.wait(delay)
    except subprocess.TimeoutExpired:
        pass
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
    return process.returncode == -signal.SIGKILL


def finished_chunks(run: Path, pattern: str = "chunks/*/manifest.json") -> Dict[Path, Tuple[int, bytes]]:
    """When each chunk's manifest was written, and what it says: a chunk that is done again has another."""
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.glob(pattern)}
