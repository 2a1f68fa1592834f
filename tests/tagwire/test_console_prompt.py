"""The console's prompt, typed at in a pseudo-terminal."""

import sys
from pathlib import Path

from tests.support.brokers import Broker, start_mosquitto
from tests.support.fake_owner import fake_owner
from tests.support.processes import clean_environment, free_port
from tests.support.terminal import Terminal, at_terminal

CONSOLE = [sys.executable, "-m", "tagwire", "console"]
PROMPT = "tagwire> "


def environment(folder: Path, port: int) -> dict[str, str]:
    return clean_environment(MQTT_HOST="127.0.0.1", MQTT_PORT=port, XDG_STATE_HOME=folder)


def enter(terminal: Terminal, line: str, wanted: str) -> None:
    since = terminal.type(f"{line}\r")
    terminal.wait_text(wanted, since + len(line))
    terminal.wait_text(PROMPT, since + len(line))


def test_a_session(mosquitto: Broker, tmp_path: Path) -> None:
    with fake_owner(mosquitto.port) as owner:
        owner.state("boiler", temperature=71.5, setpoint=20)
        with at_terminal(CONSOLE, environment(tmp_path, mosquitto.port), tmp_path) as terminal:
            terminal.wait_text(PROMPT)
            enter(terminal, "get boiler@temperature", "71.5")
            enter(terminal, "set boiler@setpoint 21", "verified")
            enter(terminal, "frobnicate", "there is no command 'frobnicate'")

            # Completion of a command, and of a tag that is known since the start.
            since = terminal.type("ge\tboiler@te\t")
            terminal.wait_text("get boiler@temperature", since)
            terminal.type("\r")
            terminal.wait_text("71.5", since)

            # A change comes over the line that is being typed, which is then there again.
            enter(terminal, "sub temp", PROMPT)
            since = terminal.type("serv")
            terminal.wait_text("serv", since)
            owner.data("boiler", ["temperature", 88.25, "good", 1_763_712_000_000])
            terminal.wait_text("88.25", since)
            terminal.wait_text(f"{PROMPT}serv", since)
            enter(terminal, "ers", "no program has said")
            enter(terminal, "unsub *", PROMPT)

            # Ctrl-C ends the watch and not the console.
            since = terminal.type("watch boiler@*\r")
            terminal.wait_text("Ctrl-C ends it", since)
            owner.data("boiler", ["temperature", 90.125, "good", 1_763_712_000_000])
            terminal.wait_text("90.125", since)
            since = terminal.type("\x03")
            terminal.wait_text(PROMPT, since)
            enter(terminal, "get boiler@setpoint", "20")

            # Ctrl-C at the prompt drops the line only; Ctrl-D leaves.
            since = terminal.type("set boiler@setpoint 99\x03")
            terminal.wait_text(f"\n{PROMPT}", since)
            terminal.type("\x04")
            assert terminal.popen.wait(10) == 0
        assert [asked["value"] for topic, _, asked in owner.received] == [21]
    history = (tmp_path / "tagwire" / "console_history").read_text().splitlines()
    assert history[:2] == ["get boiler@temperature", "set boiler@setpoint 21"]
    assert (tmp_path / "tagwire" / "console_history").stat().st_mode & 0o077 == 0


def test_the_history_is_there_the_next_time(mosquitto: Broker, tmp_path: Path) -> None:
    for keys in ("help quit\r", "\x1b[A\x1b[A\r"):
        with at_terminal(CONSOLE, environment(tmp_path, mosquitto.port), tmp_path) as terminal:
            terminal.wait_text(PROMPT)
            since = terminal.type(keys)
            terminal.wait_text("leave; so does Ctrl-D", since)
            terminal.wait_text(PROMPT, since + len("help quit"))
            terminal.type("quit\r")
            assert terminal.popen.wait(10) == 0


def test_the_broker_comes_later(tmp_path: Path) -> None:
    port = free_port()
    with at_terminal(CONSOLE, environment(tmp_path, port), tmp_path) as terminal:
        terminal.wait_text("nobody listens there (connection refused); trying again", timeout_s=10)
        enter(terminal, "list", f"broker 127.0.0.1:{port}")
        with start_mosquitto(tmp_path / "broker", port=port):
            terminal.wait_text(f"broker 127.0.0.1:{port}: online")
            enter(terminal, "servers", "no program has said")
        terminal.wait_text("offline; trying again")
        since = terminal.type("quit\r")
        assert terminal.popen.wait(10) == 0
        assert terminal.text[since:] == "quit\n"


def test_a_history_that_cannot_be_kept_is_no_reason_not_to_work(mosquitto: Broker, tmp_path: Path) -> None:
    (tmp_path / "tagwire").write_text("a file where the folder should be")
    with at_terminal(CONSOLE, environment(tmp_path, mosquitto.port), tmp_path) as terminal:
        terminal.wait_text("the history is not kept")
        terminal.wait_text(PROMPT)
        terminal.type("quit\r")
        assert terminal.popen.wait(10) == 0


def test_a_flood_of_changes_leaves_the_prompt_usable(mosquitto: Broker, tmp_path: Path) -> None:
    env = environment(tmp_path, mosquitto.port)
    with fake_owner(mosquitto.port) as owner, at_terminal(CONSOLE, env, tmp_path) as terminal:
        terminal.wait_text(PROMPT)
        enter(terminal, "sub *", PROMPT)
        since = len(terminal.text)
        owner.data("boiler", *([f"t{number}", number, "good", 1_763_712_000_000] for number in range(3_000)))
        terminal.wait_text("changes not shown)", since)
        terminal.wait_text("boiler@t2999", since)
        enter(terminal, "servers", "no program has said")
