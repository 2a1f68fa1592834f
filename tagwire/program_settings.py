"""The programs' settings, read by the programs' own code without starting them.

Programs do not import one another, and we import none: it happens in a process of its own, one for all of them.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from links.environment import CHECKOUT
from scada.errors import Fault

_TIMEOUT_S = 20.0
_READ = """
import json, sys
from importlib import import_module
from scada.errors import ConfigError
found = {}
for name in sys.argv[1:]:
    module = import_module(name + ".settings")
    try:
        (getattr(module, "from_env", None) or module.Settings.from_env)()
    except ConfigError as exc:
        found[name] = [[fault.field, fault.message] for fault in exc.faults]
print(json.dumps(found))
"""


def setting_faults_of(programs: Sequence[str]) -> Mapping[str, list[Fault]]:
    """The faults of each program's settings; a program without one is left out. Takes about 0.3 s for all of them."""
    if not programs:
        return {}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _READ, *programs],
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _unread(f"it took longer than {_TIMEOUT_S:g} s")
    if done.returncode:
        return _unread(done.stderr.decode(errors="replace").strip().rpartition("\n")[2])
    return {name: [Fault(*each) for each in faults] for name, faults in json.loads(done.stdout).items()}


def _unread(why: str) -> Mapping[str, list[Fault]]:
    return {"the programs": [Fault("", f"their settings could not be read: {why}")]}
