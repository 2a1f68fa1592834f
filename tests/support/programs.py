"""Programs that tests run but that we did not write."""

import os
import shutil

import pytest


def need(name: str) -> str:
    """The path of a program. Where it is missing the test is skipped; it fails if TAGWIRE_REQUIRE_ALL is set (CI)."""
    # Debian puts daemons into sbin, which a user's PATH lacks.
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")
    if path is not None:
        return path
    if os.environ.get("TAGWIRE_REQUIRE_ALL"):
        pytest.fail(f"{name} is not installed, and TAGWIRE_REQUIRE_ALL is set")
    pytest.skip(f"{name} is not installed")
