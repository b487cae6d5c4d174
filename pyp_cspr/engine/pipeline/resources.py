"""What the machine has and what the process used."""

from __future__ import annotations

import math
import os
import resource
import sys

from ..errors import InputError

GIB = 1024**3


def cores() -> int:
    """Cores that this process may use: the affinity mask, which SLURM and containers set."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_memory() -> int:
    """Largest resident size of this process so far, bytes."""
    try:  # what getrusage says starts, on Linux, from the size of the process that started this one
        with open("/proc/self/status", encoding="ascii") as stream:
            lines = [line.split() for line in stream if line.startswith("VmHWM:")]
        return int(lines[0][1]) * 1024
    except (OSError, IndexError, ValueError):
        pass  # not Linux
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def available_memory() -> int:
    """Free memory of the machine, or of the SLURM job where that is less, in bytes; 4 GiB where it cannot be asked."""
    try:
        free = int(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError):
        free = 4 * GIB
    # SLURM ends a job that takes more than it asked for. Its numbers are in MiB; 0 is all of the node
    node, cpu, cpus = (os.environ.get(f"SLURM_{name}", "") for name in ("MEM_PER_NODE", "MEM_PER_CPU", "CPUS_ON_NODE"))
    asked = int(node) if node.isdigit() else int(cpu) * int(cpus) if cpu.isdigit() and cpus.isdigit() else 0
    return min(free, asked * 1024**2) if asked else free


def check_machine(processes: int, threads: int, memory: float) -> None:
    """Raise InputError for numbers that cannot be."""
    if processes < 0 or threads < 0:
        raise InputError(f"processes {processes}, threads {threads}; they must be 0 (choose) or above")
    if not 0 <= memory < math.inf:
        raise InputError(f"memory {memory:g} GB; it must be 0 (choose) or above")


def share_out(processes: int, threads: int, memory: float, chunks: int) -> tuple[int, int, int]:
    """(processes, threads, bytes for each process) from the user's numbers, where 0 means: choose.

    Raises InputError for numbers that cannot be.
    """
    check_machine(processes, threads, memory)
    count = processes or max(1, min(cores(), chunks))
    each = threads or max(1, cores() // count)
    total = memory * GIB if memory else 0.5 * available_memory()
    return count, each, int(total / count)
