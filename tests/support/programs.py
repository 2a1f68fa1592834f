"""Programs that tests need and that Tagwire does not bring: skipped without them for a user, failed without them in CI."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def need(name: str) -> str:
    """The path of a program. Without it the test is skipped, or failed when TAGWIRE_REQUIRE_ALL is set."""
    # Debian keeps daemons in sbin, which a user's PATH leaves out.
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin")
    if path is None:
        lacking(f"{name} is not installed")
    return str(path)


def lacking(reason: str) -> None:
    """Skip the test for a reason outside our code, or fail it when TAGWIRE_REQUIRE_ALL is set."""
    if os.environ.get("TAGWIRE_REQUIRE_ALL"):
        pytest.fail(reason)
    pytest.skip(reason)


def compile_with_libmodbus(source: Path, folder: Path) -> Path:
    """The program made from a C file that uses libmodbus."""
    pkg_config = need("pkg-config")
    if subprocess.run([pkg_config, "--exists", "libmodbus"], check=False).returncode:
        lacking("libmodbus (Debian: libmodbus-dev) is not installed")
    flags = subprocess.run([pkg_config, "--cflags", "--libs", "libmodbus"], capture_output=True, text=True, check=True)
    program = folder / source.stem
    subprocess.run([need("gcc"), "-Wall", "-Werror", source, "-o", program, *flags.stdout.split()], check=True)
    return program
