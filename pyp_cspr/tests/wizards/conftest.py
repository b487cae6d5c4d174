"""The host as the tests of the protocols have it."""

from __future__ import annotations

import pytest

from pyp_cspr.tests.protocols.conftest import pytest_pycollect_makemodule  # noqa: F401 - a hook


def pytest_collection_modifyitems(items):
    """Warnings of the host's own code are not ours to mend."""
    for item in items:
        if "tests/wizards" in str(item.path):
            item.add_marker(pytest.mark.filterwarnings("default"))
