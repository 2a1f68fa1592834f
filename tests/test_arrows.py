"""The house's rules that a machine can check: imports point inward, wire libraries have one door, nothing happens at import."""

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import CHECKOUT, clean_environment

MAY_IMPORT = {
    "scada": set(),
    "links": {"scada"},
    "storage": {"scada"},
    "drivers": {"scada", "links"},
    "flask_app": {"scada", "links", "storage"},
    "history_server": {"scada", "links", "storage"},
    "modbus_server": {"scada", "links", "storage"},
    "logic_server": {"scada", "links", "storage"},
    "mqtt_server": {"scada", "links", "storage", "drivers"},
    "field_server": {"scada", "links", "storage", "drivers"},
    "tagwire": {"scada", "links", "storage"},
}
PACKAGES = [name for name in MAY_IMPORT if (CHECKOUT / name).is_dir()]
ONE_DOOR = {"paho", "pymodbus", "serial", "amqtt"}
WEB_SERVER = {"uvicorn", "h11"}
# What scada/ may use of the standard library, and the one library beside it (docs/decisions/0002).
INPUT_OUTPUT = {
    "asyncio", "concurrent", "ctypes", "datetime.datetime.now", "fcntl", "ftplib", "glob", "http", "io", "logging", "mmap",
    "multiprocessing", "os", "pathlib", "queue", "random", "sched", "select", "selectors", "shutil", "signal", "socket",
    "socketserver", "sqlite3", "ssl", "subprocess", "sys", "tempfile", "threading", "time", "urllib", "uuid",
}  # fmt: skip
CORE_LIBRARIES = {"orjson"}


def modules(package: str) -> Iterator[Path]:
    return (path for path in sorted((CHECKOUT / package).rglob("*.py")) if "static" not in path.parts)


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it, as a dotted name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def dotted(path: Path) -> str:
    parts = path.relative_to(CHECKOUT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_inward(package: str) -> None:
    allowed = MAY_IMPORT[package] | {package}
    wrong = [
        f"{path.relative_to(CHECKOUT)} imports {name}"
        for path in modules(package)
        for name in imports(path)
        if name.split(".")[0] in MAY_IMPORT and name.split(".")[0] not in allowed
    ]
    assert not wrong


def test_no_program_is_missing_from_the_table() -> None:
    found = {path.parent.name for path in CHECKOUT.glob("*/__init__.py")}
    assert found <= set(MAY_IMPORT)


def test_each_wire_library_is_imported_in_one_file() -> None:
    doors = defaultdict(set)
    for package in PACKAGES:
        for path in modules(package):
            for name in imports(path):
                if name.split(".")[0] in ONE_DOOR:
                    doors[name.split(".")[0]].add(str(path.relative_to(CHECKOUT)))
    assert {library: sorted(files) for library, files in doors.items() if len(files) > 1} == {}


def test_the_web_server_library_stays_in_the_rest_program() -> None:
    wrong = [
        f"{path.relative_to(CHECKOUT)} imports {name}"
        for package in PACKAGES
        if package != "flask_app"
        for path in modules(package)
        for name in imports(path)
        if name.split(".")[0] in WEB_SERVER
    ]
    assert not wrong


def test_the_core_imports_no_input_or_output() -> None:
    wrong = [
        f"{path.relative_to(CHECKOUT)} imports {name}"
        for path in modules("scada")
        for name in imports(path)
        if name.split(".")[0] in INPUT_OUTPUT
        or (name.split(".")[0] not in sys.stdlib_module_names | CORE_LIBRARIES | {"scada"})
    ]
    assert not wrong


def test_importing_everything_does_nothing() -> None:
    """No thread, socket, process or file of ours comes from an import; an audit hook watches."""
    names = [dotted(path) for package in PACKAGES for path in modules(package) if is_importable(path)]
    script = f"""
import sys, threading
names = {names!r}
seen = []
def watch(event, arguments):
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if writes or event in ("socket.bind", "socket.connect", "subprocess.Popen", "os.fork", "sqlite3.connect", "os.mkdir"):
        seen.append((event, arguments[:2]))
import importlib
for name in names:
    if name.split(".")[0] not in sys.modules: importlib.import_module(name.split(".")[0])
sys.dont_write_bytecode = True
sys.addaudithook(watch)
for name in names:
    before = len(seen)
    importlib.import_module(name)
    assert len(seen) == before, (name, seen)
    assert threading.active_count() == 1, (name, threading.enumerate())
print("imported", len(names))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env=clean_environment(), capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"imported {len(names)}\n"


def is_importable(path: Path) -> bool:
    """Alembic runs its own environment and versions, with a database at hand."""
    return "migrations" not in path.parts


def test_no_module_is_longer_than_400_lines_without_saying_why() -> None:
    long = [
        f"{path.relative_to(CHECKOUT)}: {len(lines)} lines"
        for package in PACKAGES
        for path in modules(package)
        if len(lines := path.read_text(encoding="utf-8").splitlines()) > 400 and "lines" not in lines[0]
    ]
    assert not long


def test_tests_are_no_packages() -> None:
    assert not list((CHECKOUT / "tests").rglob("__init__.py"))
