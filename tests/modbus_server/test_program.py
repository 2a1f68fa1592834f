"""The program: how it starts, what it keeps, how it refuses."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.modbus_wire import Wire, modbus_server
from tests.support.processes import CHECKOUT, clean_environment, free_port, start, start_program


def test_it_says_where_it_listens(tmp_path: Path) -> None:
    with modbus_server(tmp_path) as (process, port):
        process.wait_output(f"Modbus server listens on 127.0.0.1:{port}")
        assert f"STATUS=Modbus server listens on 127.0.0.1:{port}" in "\n".join(process.notified)


def test_registers_survive_kill_9(tmp_path: Path) -> None:
    with modbus_server(tmp_path) as (process, port):
        with Wire(port) as wire:
            wire.ask("10 00 0A 00 02 04 12 34 56 78")
            wire.ask("0F 00 05 00 03 01 05")
        process.kill()
    with modbus_server(tmp_path) as (_, port), Wire(port) as wire:
        assert wire.ask("03 00 0A 00 02") == bytes.fromhex("030412345678")
        assert wire.ask("01 00 05 00 03") == bytes.fromhex("010105")


def test_persistence_can_be_switched_off(tmp_path: Path) -> None:
    with modbus_server(tmp_path, PERSIST="false") as (_, port), Wire(port) as wire:
        wire.ask("06 00 00 00 01")
    assert not list(tmp_path.rglob("registers*"))
    with modbus_server(tmp_path, PERSIST="false") as (_, port), Wire(port) as wire:
        assert wire.ask("03 00 00 00 01") == bytes.fromhex("03020000")


def test_a_corrupt_file_is_moved_aside_and_the_server_serves(tmp_path: Path) -> None:
    folder = tmp_path / "modbus_server"
    folder.mkdir()
    (folder / "registers.bin").write_bytes(b"\x00" * 5000)
    with modbus_server(tmp_path) as (process, port), Wire(port) as wire:
        assert wire.ask("03 00 00 00 01") == bytes.fromhex("03020000")
        assert process.output.count("moved to") == 1
    aside = [path for path in folder.iterdir() if ".damaged-" in path.name]
    assert [path.read_bytes() for path in aside] == [b"\x00" * 5000]


def test_the_start_command_in_its_folder_needs_no_installation(tmp_path: Path) -> None:
    port = free_port()
    env = clean_environment(TAGWIRE_DATA_DIR=tmp_path, MODBUS_SERVER_PORT=port)
    del env["PYTHONPATH"]
    with start([sys.executable, "server.py"], env, CHECKOUT / "modbus_server") as process:
        process.wait_ready()
        with Wire(port) as wire:
            assert wire.ask("03 00 00 00 01") == bytes.fromhex("03020000")
        assert process.terminate() == 0


def test_a_relative_data_dir_starts_at_the_current_folder(tmp_path: Path) -> None:
    settings = {"MODBUS_SERVER_PORT": free_port(), "MODBUS_SERVER_DATA_DIR": "here"}
    with start_program("modbus_server", cwd=tmp_path, **settings) as process:
        process.wait_ready()
        assert (tmp_path / "here" / "registers.bin").exists()


def refused(**settings: str | int | Path) -> str:
    env = clean_environment(**settings)
    done = subprocess.run(
        [sys.executable, "-m", "modbus_server"], capture_output=True, text=True, env=env, timeout=20, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_every_fault_of_the_settings_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text('[[unit]]\nids = [300]\ncoil = ["x"]\n')
    faults = {
        "MODBUS_SERVER_PORT": "70000",
        "MODBUS_SERVER_HOST": "",
        "MODBUS_SERVER_ALLOW": "10.0.0.0/8,nonsense",
        "MODBUS_SERVER_IDLE_TIMEOUT_S": "0",
        "MODBUS_SERVER_MAX_CONNECTIONS": "many",
        "MODBUS_SERVER_PERSIST": "perhaps",
        "MODBUS_SERVER_READ_ONLY": "2",
        "MODBUS_SERVER_UNKNOWN_UNIT": "shrug",
        "MODBUS_SERVER_MAP": tmp_path / "map.toml",
        "MODBUS_SERVER_TLS": "true",
        "MODBUS_SERVER_TLS_ROLES": "Operator=everything",
        "MODBUS_SERVER_NAME": "x" * 245,
    }
    message = refused(TAGWIRE_DATA_DIR=tmp_path, **faults)
    for name in [*faults, "MODBUS_SERVER_TLS_CERT", "MODBUS_SERVER_TLS_KEY", "MODBUS_SERVER_TLS_CA"]:
        assert re.search(rf"^  {name}:", message, re.MULTILINE) or name == "MODBUS_SERVER_TLS", (name, message)
    assert "unit.0.ids.0" in message
    assert "unit.0.coil.0" in message


@pytest.mark.parametrize("name", ["Kessel Süd", "two\nlines", "line\n", "\x7f"])
def test_a_name_that_is_no_ascii_string_is_refused(tmp_path: Path, name: str) -> None:
    # APS 6.21: the objects 00 to 06 are of the type ASCII String.
    assert "MODBUS_SERVER_NAME: must be printable ASCII" in refused(TAGWIRE_DATA_DIR=tmp_path, MODBUS_SERVER_NAME=name)


@pytest.mark.parametrize("name", ["MAP", "TLS_CERT"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    tls = {f"MODBUS_SERVER_TLS_{part}": "/no/such/file" for part in ("CERT", "KEY", "CA")} | {
        "MODBUS_SERVER_TLS": "true"
    }
    settings = {"MODBUS_SERVER_MAP": "/no/such/file"} if name == "MAP" else tls
    assert f"MODBUS_SERVER_{name}" in refused(TAGWIRE_DATA_DIR=tmp_path, **settings)


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port}" in refused(TAGWIRE_DATA_DIR=tmp_path, MODBUS_SERVER_PORT=port)


def test_a_data_dir_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = refused(MODBUS_SERVER_DATA_DIR=tmp_path / "file" / "below", MODBUS_SERVER_PORT=free_port())
    assert str(tmp_path / "file") in message


SETTING = re.compile(r'f"\{_P\}([A-Z_]+)"')


def settings_read() -> set[str]:
    source = (CHECKOUT / "modbus_server" / "settings.py").read_text()
    return {f"MODBUS_SERVER_{name}" for name in SETTING.findall(source)} | {
        f"MODBUS_SERVER_TLS_{part}" for part in ("CERT", "KEY", "CA")
    }


@pytest.mark.parametrize("document", ["docs/modbus_server.md", "modbus_server/.env.example"])
def test_every_setting_is_documented_and_nothing_else(document: str) -> None:
    text = (CHECKOUT / document).read_text()
    assert set(re.findall(r"\bMODBUS_SERVER_[A-Z_]+[A-Z]", text)) == settings_read()
    assert len(settings_read()) >= 16


def test_the_example_file_is_the_defaults(tmp_path: Path) -> None:
    example = (CHECKOUT / "modbus_server" / ".env.example").read_text()
    (tmp_path / ".env").write_text(re.sub(r"(?m)^#\s*(?=MODBUS_SERVER_)", "", example))
    script = "from modbus_server.settings import from_env; print(from_env())"
    outputs = []
    for folder in (tmp_path, Path("/")):
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            cwd=folder,
            env=clean_environment(),
            check=False,
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]


def test_no_descriptor_or_process_is_left_behind(tmp_path: Path) -> None:
    with modbus_server(tmp_path) as (process, port):
        fds = Path(f"/proc/{process.pid}/fd")
        with Wire(port) as wire:
            wire.ask("03 00 00 00 01")
            before = len(os.listdir(fds))
            for _ in range(200):
                with Wire(port) as other:
                    other.ask("03 00 00 00 01")
            wire.ask("03 00 00 00 01")
            assert len(os.listdir(fds)) <= before + 2
