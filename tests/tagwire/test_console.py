"""`tagwire console` over real brokers, against an owner that was written from the bus's description alone."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.brokers import Broker, start_mosquitto
from tests.support.fake_owner import FakeOwner, fake_owner
from tests.support.processes import clean_environment, free_port, start

CONSOLE = [sys.executable, "-m", "tagwire", "console"]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with start_mosquitto(tmp_path_factory.mktemp("mosquitto")) as running:
        yield running


@pytest.fixture(scope="module")
def owner(broker: Broker) -> Iterator[FakeOwner]:
    with fake_owner(broker.port) as found:
        found.server(True)
        found.state("boiler", temperature=71.5, setpoint=20, mode="auto")
        found.state("pump", speed=1500, running=True)
        found.link("boiler", True)
        found.link("pump", False, "no reply within 1 s")
        plan = {
            "requests": [{"text": "fc 3 0 x 4", "unit": 1, "tags": 2, "period_ms": 1000, "duration_ms": 1.5}],
            "tags": 2,
        }
        found.publish("tagwire/plan/field_server/boiler", plan | {"requests_per_s": 1.0, "load": 0.1}, retain=True)
        yield found


def console(
    broker: Broker | None, *arguments: str, typed: str | None = None, port: int = 0, timeout_s: float = 30
) -> subprocess.CompletedProcess[str]:
    env = clean_environment(MQTT_HOST="127.0.0.1", MQTT_PORT=broker.port if broker else port)
    stdin = {"stdin": subprocess.DEVNULL} if typed is None else {"input": typed}
    return subprocess.run(
        [*CONSOLE, *arguments], env=env, capture_output=True, text=True, timeout=timeout_s, check=False, **stdin
    )


def test_list_has_a_line_for_each_tag(broker: Broker, owner: FakeOwner) -> None:
    done = console(broker, "list")
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[:3] for row in rows] == [
        ["boiler@mode", "auto", "good"],
        ["boiler@setpoint", "20", "good"],
        ["boiler@temperature", "71.5", "good"],
        ["pump@running", "true", "good"],
        ["pump@speed", "1500", "good"],
    ]
    assert all(row[3].endswith("Z") for row in rows)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("temp", ["boiler@temperature"]),
        ("p@", ["pump@running", "pump@speed"]),
        ("boiler@*e*t*", ["boiler@setpoint", "boiler@temperature"]),
        ("*@m?de", ["boiler@mode"]),
    ],
)
def test_list_by_part_and_by_glob(broker: Broker, owner: FakeOwner, pattern: str, names: list[str]) -> None:
    done = console(broker, "list", pattern)
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == names


def test_get_needs_the_whole_name(broker: Broker, owner: FakeOwner) -> None:
    assert console(broker, "get", "boiler@temperature").stdout.split("\t")[:3] == ["boiler@temperature", "71.5", "good"]
    done = console(broker, "get", "pump@*", "boiler@temp")
    assert done.returncode == 1
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["pump@running", "pump@speed"]
    assert done.stderr == "no tag boiler@temp\n"


@pytest.mark.parametrize(
    ("typed", "value"),
    [("5", 5), ("-2.5", -2.5), ("true", True), ("auto", "auto"), ('"5"', "5"), ("very hot", "very hot")],
)
def test_set_prints_every_step_and_asks_for_what_was_typed(
    broker: Broker, owner: FakeOwner, typed: str, value: object
) -> None:
    count = len(owner.received)
    done = console(broker, "set", "boiler@setpoint", typed)
    assert done.returncode == 0, done.stderr
    assert [line.split("\t")[1] for line in done.stdout.splitlines()] == list(owner.way)
    topic, retained, asked = owner.received[count]
    assert topic == "tagwire/set/boiler"
    assert not retained
    assert (asked["tag"], asked["value"], asked["from"]) == ("setpoint", value, "console")
    assert type(asked["value"]) is type(value)
    assert asked["by"]
    assert asked["expires_ms"] > time.time() * 1000


def test_a_command_that_fails_is_exit_code_1_with_the_reason(broker: Broker, owner: FakeOwner) -> None:
    owner.way, owner.reason = ("accepted", "failed"), "above the tag's limit"
    try:
        done = console(broker, "set", "boiler@setpoint", "500")
    finally:
        owner.way, owner.reason = ("accepted", "sent", "acknowledged", "verified"), ""
    assert done.returncode == 1
    assert "above the tag's limit" in done.stderr


@pytest.mark.parametrize("kind", ["mosquitto", "nats"])
def test_what_was_set_is_what_get_shows_next(kind: str, request: pytest.FixtureRequest) -> None:
    """What programs keep at the broker is up to a second old: `get` showed the value before."""
    running: Broker = request.getfixturevalue(kind)
    with fake_owner(running.port) as owner:
        owner.tells = True
        owner.state("boiler", setpoint=20, mode="auto")
        lines = [f"set boiler@setpoint {number}\nget boiler@setpoint\nlist boiler@*\n" for number in range(5)]

        def renew() -> None:
            # As a program does: a second after the change.
            owner.wait_for(5)
            time.sleep(1)
            owner.state("boiler", setpoint=4, mode="auto")

        renewing = threading.Thread(target=renew)
        renewing.start()
        try:
            done = console(running, typed="".join(lines))
        finally:
            renewing.join()
        assert done.returncode == 0, done.stderr
        shown = [line.split("\t")[1] for line in done.stdout.splitlines() if line.startswith("boiler@setpoint")]
        assert shown == [str(number) for number in range(5) for _ in range(2)]
        assert done.stdout.count("boiler@mode\tauto") == 5
        # And it is over when the next one sees it as well.
        assert console(running, "get", "boiler@setpoint").stdout.split("\t")[1] == "4"


def test_bytes_that_are_no_text_were_a_traceback(broker: Broker, owner: FakeOwner) -> None:
    count = len(owner.received)
    env = clean_environment(MQTT_HOST="127.0.0.1", MQTT_PORT=broker.port)
    typed = b"\xef\xbb\xbfget boiler@mode\nset boiler@mode \xff\xfe\nset boiler@\xff 5\n\xff\nservers\n"
    for more in ({}, {"LC_ALL": "C.UTF-8", "PYTHONUTF8": "0"}):
        done = subprocess.run(CONSOLE, input=typed, env=env | more, capture_output=True, timeout=30, check=False)
        assert done.returncode == 2
        assert done.stderr.decode() == 3 * "this line is not UTF-8\n"
        assert done.stdout.startswith(b"boiler@mode\tauto")
        assert b"field_server\tonline" in done.stdout
    done = subprocess.run(
        [*CONSOLE, "set", "boiler@mode", b"\xff"], env=env, capture_output=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (2, b"this line is not UTF-8\n")
    assert len(owner.received) == count


def test_read_shows_what_the_device_answered(broker: Broker, owner: FakeOwner) -> None:
    owner.values = {"temperature": 72.25}
    done = console(broker, "read", "boiler@temperature")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\t")[:3] == ["boiler@temperature", "72.25", "good"]


def test_read_of_a_device_shows_the_answers_of_all_its_programs(broker: Broker, owner: FakeOwner) -> None:
    owner.values, owner.own = {"temperature": 72.25}, ["temperature"]
    try:
        with fake_owner(broker.port, "mqtt_server") as other:
            other.values, other.own = {"mode": "auto"}, ["mode"]
            done = console(broker, "read", "boiler")
            assert done.returncode == 0, done.stderr
            rows = sorted(line.split("\t")[:3] for line in done.stdout.splitlines())
            assert rows == [["boiler@mode", "auto", "good"], ["boiler@temperature", "72.25", "good"]]
            other.way, other.reason = ("failed",), "nothing was heard yet"
            done = console(broker, "read", "boiler")
            assert (done.returncode, done.stdout.split("\t")[:2]) == (1, ["boiler@temperature", "72.25"])
            assert "was not read by all its programs: failed, nothing was heard yet" in done.stderr
    finally:
        owner.own = None


def test_links_servers_and_plan(broker: Broker, owner: FakeOwner) -> None:
    rows = [line.split("\t") for line in console(broker, "links").stdout.splitlines()]
    assert [(row[0], row[2], row[4]) for row in rows] == [
        ("boiler", "online", ""),
        ("pump", "offline", "no reply within 1 s"),
    ]
    assert "field_server\tonline" in console(broker, "servers").stdout
    plan = console(broker, "plan", "boiler").stdout
    assert "requests_per_s 1.0" in plan
    assert "fc 3 0 x 4\t1\t2\t1000\t1.5" in plan
    assert console(broker, "plan", "pump").returncode == 1


def test_commands_from_a_file(broker: Broker, owner: FakeOwner) -> None:
    done = console(broker, typed="# a comment\nget boiler@mode\n\nset pump@speed 1200\nquit\nget nothing@here\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("boiler@mode\tauto\tgood\t")
    assert done.stdout.count("\n") == 1 + len(owner.way)


@pytest.mark.parametrize(
    ("typed", "code"),
    [("get no@tag\nservers\n", 1), ("frobnicate\nservers\n", 2), ("frobnicate\nget no@tag\nservers\n", 2)],
)
def test_commands_from_a_file_go_on_behind_a_failed_one(
    broker: Broker, owner: FakeOwner, typed: str, code: int
) -> None:
    done = console(broker, typed=typed)
    assert done.returncode == code
    assert "field_server\tonline" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("frobnicate",),
        ("set", "boiler", "5"),
        ("set", "boiler@setpoint"),
        ("set", "boiler@setpoint", "[1]"),
        ("set", "boiler@setpoint", "null"),
        ("set", "boi/ler@setpoint", "5"),
        ("get",),
        ("watch",),
        ("plan", "+"),
        ("wait", "x"),
    ],
    ids=" ".join,
)
def test_what_is_written_wrong_is_exit_code_2(broker: Broker, owner: FakeOwner, arguments: tuple[str, ...]) -> None:
    count = len(owner.received)
    done = console(broker, *arguments)
    assert done.returncode == 2
    assert done.stderr
    assert len(owner.received) == count


def test_subscriptions_print_changes_until_they_are_given_back(broker: Broker, owner: FakeOwner) -> None:
    env = clean_environment(MQTT_HOST="127.0.0.1", MQTT_PORT=broker.port)
    with subprocess.Popen(
        CONSOLE, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write("sub setpoint\nsub temp pump@*\nunsub setpoint\nservers\nwait 60\n")
            assert process.stdout.readline().startswith("field_server\tonline")
            owner.data(
                "boiler", ["temperature", 80.0, "good", 1_763_712_000_000], ["setpoint", 1, "good", 1_763_712_000_000]
            )
            owner.data("pump", ["speed", None, "bad", 1_763_712_000_000, {"reason": "comm_failure", "late": True}])
            assert process.stdout.readline() == "boiler@temperature\t80.0\tgood\t2025-11-21T08:00:00.000Z\n"
            assert process.stdout.readline() == "pump@speed\tnull\tbad (comm_failure) late\t2025-11-21T08:00:00.000Z\n"
        finally:
            process.kill()


def test_sub_without_a_pattern_lists_and_that_may_be_nothing(broker: Broker, owner: FakeOwner) -> None:
    done = console(broker, "sub")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("nothing is subscribed to")
    done = console(broker, typed="sub\nsub setpoint pump@*\nsub\nunsub *\nsub\n")
    assert (done.returncode, done.stdout) == (0, "setpoint\npump@*\n")
    assert done.stderr.count("nothing is subscribed to") == 2


def test_watch_and_sub_alone_go_on_until_a_signal(broker: Broker, owner: FakeOwner) -> None:
    env = clean_environment(MQTT_HOST="127.0.0.1", MQTT_PORT=broker.port)
    for command, first in (("watch", "boiler@temperature\t71.5"), ("sub", "")):
        with start([*CONSOLE, command, "boiler@temp*"], env) as process:
            process.wait_output(first)
            stop = threading.Event()

            def change(stop: threading.Event = stop) -> None:
                while not stop.wait(0.1):
                    owner.data("boiler", ["temperature", 99.5, "good", 1_763_712_000_000])

            changing = threading.Thread(target=change)
            changing.start()
            try:
                process.wait_output("boiler@temperature\t99.5\tgood")
            finally:
                stop.set()
                changing.join()
            process.signal(signal.SIGINT)
            assert process.wait() == 0


def test_the_same_over_the_embedded_broker(nats: Broker) -> None:
    with fake_owner(nats.port) as owner:
        owner.server(True)
        for number in range(150):
            owner.state(f"boiler{number:03}", temperature=number)
        typed = "list --all\nset boiler007@temperature 5\nget boiler149@*\nservers\nread boiler001@temperature\n"
        done = console(nats, typed=typed)
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[:2] for row in rows[:150]] == [[f"boiler{number:03}@temperature", str(number)] for number in range(150)]
    assert [row[1] for row in rows[150:154]] == list(owner.way)
    assert [row[:2] for row in rows[154:156]] == [["boiler149@temperature", "149"], ["field_server", "online"]]
    assert rows[156][0] == "boiler001@temperature"


def test_ctrl_c_while_a_verdict_is_waited_for_is_no_success(mosquitto: Broker) -> None:
    env = clean_environment(MQTT_HOST="127.0.0.1", MQTT_PORT=mosquitto.port)
    with fake_owner(mosquitto.port) as owner, start([*CONSOLE, "set", "ghost@tag", "1"], env) as process:
        owner.dead = ["ghost"]
        owner.wait_for(1)
        process.signal(signal.SIGINT)
        assert process.wait() == 130


def test_nobody_answers_a_command(mosquitto: Broker) -> None:
    done = console(mosquitto, "set", "ghost@tag", "1")
    assert done.returncode == 1
    assert "nobody answered" in done.stderr


@pytest.mark.alone
def test_an_absent_broker_is_told_at_once() -> None:
    port = free_port()
    begun = time.monotonic()
    done = console(None, "list", port=port)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == f"broker 127.0.0.1:{port}: nobody listens there (connection refused)\n"
    assert time.monotonic() - begun < 4


def test_a_wrong_password_is_told_at_once(tmp_path: Path) -> None:
    conf = "listener {port} 127.0.0.1\nallow_anonymous false\n"
    with start_mosquitto(tmp_path, conf) as broker:
        done = console(broker, "list")
    assert done.returncode == 1
    assert "Not authorized" in done.stderr


def test_wrong_settings_are_exit_code_2() -> None:
    done = console(None, "list", port=70_000)
    assert done.returncode == 2
    assert "MQTT_PORT" in done.stderr


def test_a_hundred_thousand_tags_are_counted_and_not_printed(tmp_path: Path) -> None:
    conf = "listener {port} 127.0.0.1\nallow_anonymous true\nlog_type all\n"
    with start_mosquitto(tmp_path, conf) as broker:
        with fake_owner(broker.port) as owner:
            for device in range(100):
                row = [1.5, "good", 1_763_712_000_000]
                document = {f"tag{number:04}": row for number in range(1000)}
                owner.publish(f"tagwire/state/field_server/device{device:03}", document, retain=True)
            done = console(broker, "list")
            assert done.returncode == 0
            assert len(done.stdout.splitlines()) == 200
            assert "99,800 more, 100,000 in all" in done.stderr
            assert len(console(broker, "list", "--all").stdout.splitlines()) == 100_000
            whole = console(broker, "list", "device042@tag0001")
            logged = len(broker.log.read_text())
            one = console(broker, "get", "device042@tag0001")
            assert one.stdout == whole.stdout
        asked = broker.log.read_text()[logged:]
    assert "tagwire/state/+/device042 (QoS" in asked
    assert "tagwire/state/+/+ (QoS" not in asked, "one name asks for one device's state only"


def test_who_reads_only_the_beginning_does_not_see_a_traceback(mosquitto: Broker) -> None:
    with fake_owner(mosquitto.port) as owner:
        owner.publish("tagwire/state/field_server/big", {f"t{n}": [n, "good", 0] for n in range(20_000)}, retain=True)
    env = clean_environment(MQTT_HOST="127.0.0.1", MQTT_PORT=mosquitto.port)
    command = f"{' '.join(CONSOLE)} list --all | head -1"
    done = subprocess.run(["bash", "-c", command], env=env, capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.startswith("big@t0\t0\tgood")
    assert done.stderr == ""


def test_text_from_a_device_cannot_move_the_cursor(mosquitto: Broker) -> None:
    with fake_owner(mosquitto.port) as owner:
        owner.state("evil", text="\x1b[2Jgone\nnext")
    assert console(mosquitto, "get", "evil@text").stdout.split("\t")[1] == "\\x1b[2Jgone\\nnext"
