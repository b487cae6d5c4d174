"""A plugin that tests add to the host beside ours: the host's fixed waits, and ours, are shorter, and reports may be left out.

The host looks for the end of steps every 3 s, and for that of jobs in a queue after 3, 6, 9 ... s.
"""

from __future__ import annotations

import os
import time
from types import SimpleNamespace
from typing import Any, List

import pwem
from pyworkflow.protocol import executor

from pyp_cspr.protocols import jobs, refine_jobs

FASTER = 0.1
NO_REPORT = "CSPR_TEST_NO_REPORT"  # where it is set, refinements write no reports, which take most of their time

executor.time = SimpleNamespace(sleep=lambda seconds: time.sleep(FASTER * seconds))
jobs.RETRY_WAIT, jobs.POLL = 4.0, 1.0
_options = refine_jobs.RefineJobs._options


def _without_report(*arguments: Any) -> List[Any]:
    return _options(*arguments) + ["--no-report"] * (NO_REPORT in os.environ)


refine_jobs.RefineJobs._options = _without_report


class Plugin(pwem.Plugin):
    """What the host wants of a plugin."""

    @classmethod
    def _defineVariables(cls) -> None:
        pass
