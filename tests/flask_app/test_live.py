"""The REST program on the bus, with real brokers and an owner that is none of ours."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from flask_app.live import EXTENSION, Live
from flask_app.waiters import Waiters
from links.bus import Bus
from links.environment import MqttSettings
from scada.commands import Command, CommandState, step_of
from scada.topics import BusTopics
from scada.values import Quality, Sample
from tests.support.brokers import Broker
from tests.support.fake_owner import FakeOwner, fake_owner
from tests.support.processes import wait_until
from tests.support.rest import INOUT, LEVEL, TANK, application

NOW = 1_700_000_000_000


@pytest.fixture(params=["mosquitto", "nats"])
def broker(request: pytest.FixtureRequest) -> Broker:
    found: Broker = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def app(tmp_path: Path, broker: Broker) -> Iterator[Flask]:
    app = application(tmp_path, mqtt=MqttSettings(port=broker.port))
    live: Live = app.extensions[EXTENSION]
    live.start()
    wait_until(lambda: live.online, 20, "the bus is online")
    yield app
    live.waiters.let_go()
    live.close()


@pytest.fixture
def live(app: Flask) -> Live:
    found: Live = app.extensions[EXTENSION]
    return found


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    client = app.test_client()
    assert client.post("/api/v1/devices", json=TANK).status_code == 201
    return client


@pytest.fixture
def owner(broker: Broker) -> Iterator[FakeOwner]:
    with fake_owner(broker.port) as owner:
        yield owner


def value(client: FlaskClient, tag: str = "tank@level") -> dict[str, Any]:
    answer = client.get(f"/api/v1/tags/{tag}/value")
    assert answer.status_code == 200, answer.text
    return dict(answer.json)


def wait_for(client: FlaskClient, tag: str = "tank@level", **expected: Any) -> dict[str, Any]:
    """The value once it is as expected."""
    wait_until(lambda: expected.items() <= value(client, tag).items(), 10, f"{tag} is {expected}")
    return value(client, tag)


def test_values_follow_state_and_data(client: FlaskClient, owner: FakeOwner) -> None:
    empty = {
        "tag": 1,
        "name": "tank@level",
        "value": None,
        "quality": "bad",
        "reason": "not_connected",
        "time_ms": None,
    }
    assert value(client) == value(client, "1") == empty
    owner.server(True)
    owner.link("tank", True)
    owner.state("tank", level=5.5, pump=True)
    found = wait_for(client, value=5.5, quality="good", reason="")
    assert abs(found["time_ms"] - time.time() * 1000) < 60_000
    now_ms = time.time_ns() // 1_000_000
    owner.data("tank", ["level", 6.5, "good", now_ms], ["level", 7.5, "uncertain", now_ms + 1, {"reason": "stale"}])
    assert wait_for(client, value=7.5) == {
        **empty,
        "value": 7.5,
        "quality": "uncertain",
        "reason": "stale",
        "time_ms": now_ms + 1,
    }
    # What comes late does not go back in time; what is newer but has an older clock does, once that is sure.
    owner.data("tank", ["level", 1.5, "good", NOW, {"late": True}], ["pump", False, "good", NOW - 10**6])
    wait_for(client, "tank@pump", value=False)
    assert value(client)["value"] == 7.5


def test_lists_of_values_have_patterns_and_pages(client: FlaskClient, owner: FakeOwner) -> None:
    client.post("/api/v1/devices", json={"name": "tower", "tags": [{"name": "level"}]})
    owner.state("tank", level=5.5, pump=True)
    wait_for(client, value=5.5)

    def names(query: str) -> tuple[list[str], int]:
        answer = client.get(f"/api/v1/values{query}")
        assert answer.status_code == 200, answer.text
        return [item["name"] for item in answer.json["items"]], answer.json["total"]

    own = [f"tank@{tag['name']}" for tag in TANK["tags"]]
    assert names("?name=tank@*") == (own, 6)
    assert names("?name=tank@*&page=2&page_size=4") == (own[4:], 6)
    assert names("?name=t*@l*") == (["tank@level", "tank@lamp", "tank@loose", "tower@level"], 4)
    assert names("?name=level") == (["tank@level", "tower@level"], 2)
    assert names("?name=nobody@*") == ([], 0)
    assert names("?name=*") == names("") == ([*own, "tower@level"], 7)
    assert client.get("/api/v1/values?name=tank@level").json["items"][0]["value"] == 5.5
    assert client.get("/api/v1/values?nome=tank").status_code == 422


def test_a_value_is_only_as_good_as_its_owner_and_link(client: FlaskClient, owner: FakeOwner) -> None:
    owner.state("tank", level=5.5)
    wait_for(client, value=5.5, quality="good")
    owner.link("tank", False, "connection refused")
    wait_for(client, value=5.5, quality="bad", reason="comm_failure")
    link = client.get("/api/v1/devices/tank/link").json
    assert (link["device"], link["online"], link["since"], link["error"]) == ("tank", False, NOW, "connection refused")
    owner.link("tank", True)
    wait_for(client, value=5.5, quality="good", reason="")
    assert client.get("/api/v1/devices/1/link").json["online"] is True
    owner.server(False)
    wait_for(client, value=5.5, quality="bad", reason="not_connected")
    assert client.get("/api/v1/devices/tank/link").json["error"] == "field_server is not running"
    owner.server(True)
    wait_for(client, quality="good")
    # Another program's word on the same tag counts for nothing.
    with fake_owner(int(owner._client._port), "mqtt_server") as other:
        other.state("tank", level=99, sensor=3)
        wait_for(client, "tank@sensor", value=3)
        assert value(client)["value"] == 5.5
    owner.publish("tagwire/state/field_server/tank", None, retain=True)
    wait_for(client, value=None, reason="not_connected")
    client.patch("/api/v1/devices/tank", json={"enabled": False})
    assert value(client, "tank@sensor")["value"] is None


def test_a_value_of_a_program_that_hangs_is_uncertain(
    client: FlaskClient, owner: FakeOwner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_app.live_values.SILENT_S", 2.0)
    owner.server(True)
    owner.link("tank", True)
    owner.state("tank", level=5.5)
    wait_for(client, value=5.5, quality="good")
    time.sleep(2.5)
    assert value(client)["quality"] == "good", "it has never sent a heartbeat"
    owner.publish("tagwire/heartbeat/field_server", None)
    wait_for(client, value=5.5, quality="uncertain", reason="stale")
    link = client.get("/api/v1/devices/tank/link").json
    assert (link["online"], link["error"]) == (False, "field_server says nothing any more")
    owner.publish("tagwire/heartbeat/field_server", None)
    wait_for(client, value=5.5, quality="good", reason="")
    owner.link("tank", False, "refused")
    wait_for(client, quality="bad", reason="comm_failure")
    owner.server(False)
    wait_for(client, quality="bad", reason="not_connected")


def test_link_and_plan_of_a_device(client: FlaskClient, owner: FakeOwner) -> None:
    link = client.get("/api/v1/devices/tank/link").json
    assert (link["online"], link["owners"]) == (False, [])
    assert client.get("/api/v1/devices/tank/plan").status_code == 404
    assert client.get("/api/v1/devices/nobody/plan").status_code == 404
    assert client.get("/api/v1/devices/99/link").status_code == 404
    plan = {"requests": [{"text": "read 1-2", "tags": 2}], "requests_per_s": 1.5, "load": 0.01, "tags": 2}
    owner.publish("tagwire/plan/field_server/tank", plan, retain=True)
    wait_until(lambda: client.get("/api/v1/devices/tank/plan").status_code == 200)
    assert client.get("/api/v1/devices/tank/plan").json == {"device": "tank", "owner": "field_server", **plan}


def test_a_command_comes_back_verified(client: FlaskClient, owner: FakeOwner) -> None:
    owner.values["old"] = 4.5
    before_ms = time.time_ns() // 1_000_000
    answer = client.post("/api/v1/tags/tank@level/commands?wait=10", json={"value": 5})
    assert answer.status_code == 200, answer.text
    document = answer.json
    assert answer.headers["Location"] == f"/api/v1/commands/{document['id']}"
    assert [step["state"] for step in document["steps"]] == ["accepted", "sent", "acknowledged", "verified"]
    assert all(before_ms <= step["time_ms"] <= time.time_ns() // 1_000_000 for step in document["steps"])
    shown = {"device": "tank", "tag": "level", "state": "verified", "final": True, "value": 5.0, "old_value": 4.5}
    assert shown.items() <= document.items()
    assert (document["by"], document["from"]) == ("rest 127.0.0.1", "rest 127.0.0.1")
    ((topic, retained, sent),) = owner.received
    assert (topic, retained) == ("tagwire/set/tank", False)
    assert {"id": document["id"], "tag": "level", "value": 5.0, "by": "rest 127.0.0.1"}.items() <= sent.items()
    assert 0 < sent["expires_ms"] - before_ms <= 15_000
    assert client.get(f"/api/v1/commands/{document['id']}").json == document


def test_what_was_set_is_read_at_once(client: FlaskClient, owner: FakeOwner, live: Live) -> None:
    """The verdict and the value come over two topics, and the verdict may be first."""
    owner.tells = True
    owner.server(True)
    owner.link("tank", True)
    for number in range(200):
        answer = client.post("/api/v1/tags/tank@level/commands?wait=10", json={"value": number % 100})
        assert answer.json["state"] == "verified"
        assert value(client)["value"] == number % 100
    answer = client.post("/api/v1/device_ctrl?wait=10", json={"device": "tank", "values": {"level": 3, "pump": True}})
    assert answer.json["state"] == "verified"
    assert (value(client)["value"], value(client, "tank@pump")["value"]) == (3, True)
    # A value that is never told keeps nobody waiting for long.
    owner.tells = False
    for value_set, way in ((4, ("accepted", "sent", "acknowledged", "verified")), (5, ("accepted", "sent", "failed"))):
        owner.way = way
        begun = time.monotonic()
        answer = client.post("/api/v1/tags/tank@level/commands?wait=10", json={"value": value_set})
        assert (answer.status_code, answer.json["state"]) == (200, way[-1])
        assert time.monotonic() - begun < 5


def test_a_command_without_waiting_is_on_its_way(client: FlaskClient, owner: FakeOwner) -> None:
    owner.way = ("accepted", "failed")
    owner.reason = "illegal data address"
    answer = client.post("/api/v1/tags/1/commands", json={"value": 5, "expires_s": 60})
    assert (answer.status_code, answer.json["state"], answer.json["final"]) == (202, "accepted", False)
    where = answer.headers["Location"]
    wait_until(lambda: client.get(where).json["final"])
    found = client.get(where).json
    assert (found["state"], found["reason"]) == ("failed", "illegal data address")
    owner.way = ("accepted", "sent")
    answer = client.post("/api/v1/tags/1/commands?wait=2", json={"value": 5})
    assert (answer.status_code, answer.json["state"], len(answer.json["steps"])) == (202, "sent", 2)


def test_a_command_that_nobody_answers_expires(client: FlaskClient, live: Live) -> None:
    begun = time.monotonic()
    answer = client.post("/api/v1/tags/tank@level/commands?wait=20", json={"value": 5, "expires_s": 0.5})
    assert (answer.status_code, answer.json["state"], answer.json["reason"]) == (200, "expired", "nobody answered")
    assert time.monotonic() - begun < 10
    wait_until(lambda: live.command_log().steps(answer.json["id"]))
    listed = client.get("/api/v1/commands?state=expired&device=tank&tag=level").json
    assert listed["total"] == 1
    steps = answer.json.pop("steps")
    assert listed["items"] == [{name: each for name, each in answer.json.items() if name != "steps"}]
    assert [step["state"] for step in steps] == ["expired"]


def test_a_command_whose_owner_falls_silent_expires_too(client: FlaskClient, owner: FakeOwner) -> None:
    owner.way = ("accepted", "sent")
    answer = client.post("/api/v1/tags/tank@level/commands?wait=20", json={"value": 5, "expires_s": 0.5})
    assert (answer.json["state"], answer.json["reason"]) == ("expired", "its program has said nothing since sent")


def test_the_log_of_the_owner_wins_over_silence_on_the_bus(client: FlaskClient, live: Live) -> None:
    """Feedback comes with QoS 0 and may be lost; what the owner has stored is the truth."""
    answer = client.post("/api/v1/tags/tank@level/commands", json={"value": 5, "expires_s": 1.0})
    command = Command(answer.json["id"], "tank", {"level": 5.0}, 0)
    live.command_log().append([step_of(command, state, NOW) for state in (CommandState.ACCEPTED, CommandState.FAILED)])
    time.sleep(2.5)
    assert [step.state for step in live.command_log().steps(command.id)] == ["accepted", "failed"]
    assert client.get(f"/api/v1/commands/{command.id}").json["state"] == "failed"


def test_what_cannot_be_set_is_refused_before_anything_is_sent(client: FlaskClient, owner: FakeOwner) -> None:
    def refused(tag: str, body: Any, status: int) -> str:
        answer = client.post(f"/api/v1/tags/{tag}/commands", json=body)
        assert answer.status_code == status, answer.text
        return str(answer.json["errors"][0]["message"] if "errors" in answer.json else answer.json["detail"])

    assert refused("tank@level", {"value": 101}, 422) == "101 is above the tag's limit high, 100"
    assert refused("tank@speed", {"value": 501}, 422) == "501 is above the binding's limit high, 500"
    assert refused("tank@speed", {"value": 1.5}, 422) == "must be an integer, not 1.5"
    assert refused("tank@pump", {"value": 2}, 422) == "must be true, false, 1 or 0, not integer 2"
    assert refused("tank@level", {"value": "high"}, 422) == "must be a number, not text 'high'"
    refused("tank@level", {"value": None}, 422)
    refused("tank@level", {}, 422)
    refused("tank@level", {"value": 5, "expires_s": 3601}, 422)
    refused("tank@level", {"value": 5, "retain": True}, 422)
    assert "read from mqtt" in refused("tank@sensor", {"value": 5}, 409)
    assert "no binding" in refused("tank@loose", {"value": 5}, 409)
    assert refused("tank@nothing", {"value": 5}, 404) == "no tag 'tank@nothing'"
    refused("99", {"value": 5}, 404)
    client.patch("/api/v1/devices/tank", json={"enabled": False})
    assert "is disabled" in refused("tank@level", {"value": 5}, 409)
    assert client.get("/api/v1/commands/nothing").status_code == 404
    assert owner.received == []


def test_device_ctrl_takes_items_terms_tags_and_groups(client: FlaskClient, owner: FakeOwner) -> None:
    client.post("/api/v1/items", json={"name": "power"})
    meter = {"name": "power", "item": "power", "bindings": [{**INOUT, "address": LEVEL}]}
    assert client.post("/api/v1/devices/tank/terms", json={"name": "meter1"}).status_code == 201
    assert client.post("/api/v1/devices/tank/terms", json={"name": "meter2"}).status_code == 201
    for term in ("meter1", "meter2"):
        body = {**meter, "name": f"power_{term}", "term": term}
        assert client.post("/api/v1/devices/tank/tags", json=body).status_code == 201

    def post(**body: Any) -> Any:
        return client.post("/api/v1/device_ctrl?wait=10", json=body)

    for body, tag in (
        ({"device": "tank", "tag": "level"}, "level"),
        ({"device": 1, "tag": 1}, "level"),
        ({"tag": "tank@level"}, "level"),
        ({"tag": 1}, "level"),
        ({"device": "tank", "term": "meter2", "item": "power"}, "power_meter2"),
        ({"device": 1, "term": 1, "item": 1}, "power_meter1"),
    ):
        answer = post(**body, value=5)
        assert (answer.status_code, answer.json.get("tag")) == (200, tag), (body, answer.text)
    answer = post(device="tank", values={"level": 6, "pump": 1})
    assert (answer.status_code, answer.json["tag"], answer.json["state"]) == (200, None, "verified")
    assert answer.json["value"] == {"level": 6.0, "pump": True}
    assert owner.received[-1][2]["values"] == {"level": 6.0, "pump": True}
    sent = len(owner.received)
    for body, status, text in (
        (
            {"device": "tank", "item": "power", "value": 5},
            422,
            "means 2 tags (power_meter1, power_meter2): name the tag",
        ),
        ({"device": "tank", "value": 5}, 422, "is required, or an item"),
        ({"value": 5}, 422, "is required, unless tag is an id or a full name"),
        ({"device": "tank", "tag": "level"}, 422, "is required, or values"),
        ({"device": "tank", "tag": "level", "values": {"pump": 1}}, 422, "does not go together with values"),
        ({"values": {"level": 1}}, 422, "is required with values"),
        ({"device": "tank", "values": {}}, 422, "Must be 1 to 1968 tags"),
        ({"device": "tank", "values": {"level": 500, "pump": 1}}, 422, "above the tag's limit high"),
        ({"device": "tank", "values": {"level": 5, "lamp": 1}}, 409, "set by field_server and mqtt_server"),
        ({"device": "tank", "values": {"level": 5, "sensor": 1}}, 409, "read only"),
        ({"device": "tank", "values": {"nothing": 5}}, 404, "the device has no tag 'nothing'"),
        ({"device": "tank", "tag": "nothing", "value": 5}, 404, "the device has no tag 'nothing'"),
        ({"device": "tank", "item": "nothing", "value": 5}, 404, "no item 'nothing'"),
        ({"device": "tank", "item": "power", "term": "x", "value": 5}, 404, "no term 'x'"),
        ({"device": "nobody", "tag": "level", "value": 5}, 404, "no device 'nobody'"),
        ({"device": [1], "tag": "level", "value": 5}, 422, ""),
    ):
        answer = post(**body)
        assert (answer.status_code, text in answer.text) == (status, True), (body, answer.text)
    assert len(owner.received) == sent


def test_what_is_wrong_with_a_command_is_said_in_words_and_by_its_field(client: FlaskClient, owner: FakeOwner) -> None:
    def refused(path: str, body: Any) -> list[tuple[str, str]]:
        answer = client.post(f"/api/v1/{path}", json=body)
        assert answer.status_code == 422, answer.text
        return [(each["field"], each["message"]) for each in answer.json["errors"]]

    scalar = "Must be a number, text, true or false"
    group = {"device": "tank", "values": {"level": [1], "pump": None}}
    assert refused("device_ctrl", group) == [("values.level", scalar), ("values.pump", "Field may not be null")]
    for values in ({}, {f"t{number}": 1 for number in range(100_000)}):
        found = refused("device_ctrl", {"device": "tank", "values": values})
        assert found == [("values", "Must be 1 to 1968 tags")]
    for name in ("device", "tag", "item", "term"):
        for wrong in (1.0, True, [1], {"id": 1}):
            found = refused("device_call", {"device": "tank", "item": "power", name: wrong})
            assert (name, "Must be an id, an integer, or a name") in found
    for path in ("device_ctrl", "device_call", "tags/tank@level/commands"):
        for nothing in ([], "x", 5):
            assert refused(path, nothing) == [("", "must be an object")]
    answer = client.post("/api/v1/device_call", json={"device": "tank", "tags": ["no", "no", "level"]})
    assert (answer.status_code, answer.json["detail"]) == (404, "the device has no tag 'no'")
    assert owner.received == []


def test_commands_are_sorted_by_the_fields_that_are_shown(client: FlaskClient, live: Live) -> None:
    """by and from were refused, and who and origin, which nobody sees, were named instead."""
    for number, (by, origin) in enumerate([("b", "x"), ("a", "x"), ("a", "y")]):
        command = Command(f"c{number}", "tank", {"level": number}, 0, by, origin)
        live.command_log().append([step_of(command, CommandState.FAILED, NOW)])
    for sort, expected in (("by,-from", [2, 1, 0]), ("-by,%2Bfrom", [0, 1, 2]), ("from,-id", [1, 0, 2])):
        answer = client.get(f"/api/v1/commands?sort={sort}")
        assert answer.status_code == 200, answer.text
        assert [each["value"] for each in answer.json["items"]] == expected
    for wrong in ("who", "command_id", "value", "-steps"):
        answer = client.get(f"/api/v1/commands?sort={wrong}")
        assert answer.status_code == 422
        assert "possible are id, device, tag, state, final, reason, by, from, time_ms" in answer.text


def test_device_call_reads_now(client: FlaskClient, owner: FakeOwner) -> None:
    owner.values |= {"level": 7.5, "pump": True}
    answer = client.post("/api/v1/device_call", json={"device": "tank", "tags": ["level", "pump"]})
    assert answer.status_code == 200, answer.text
    assert [(item["name"], item["value"], item["quality"]) for item in answer.json["items"]] == [
        ("tank@level", 7.5, "good"),
        ("tank@pump", True, "good"),
    ]
    assert owner.received[-1][0] == "tagwire/call/tank"
    assert owner.received[-1][2]["tags"] == ["level", "pump"]
    assert client.get(f"/api/v1/commands/{answer.json['id']}").status_code == 404
    one = client.post("/api/v1/device_call", json={"tag": "tank@level"})
    assert [item["value"] for item in one.json["items"]] == [7.5]
    owner.way, owner.reason = ("failed",), "the device does not answer"
    answer = client.post("/api/v1/device_call", json={"tag": "tank@level"})
    assert (answer.status_code, answer.json["detail"]) == (424, "the device does not answer")
    owner.way = ()
    owner.close()


def test_a_call_for_a_setpoint_goes_to_who_sets_it(client: FlaskClient, owner: FakeOwner, broker: Broker) -> None:
    """It was 409, although a user who names it wants to know what stands there."""
    with fake_owner(broker.port, "mqtt_server") as other:
        owner.own, other.own, other.values = ["level"], ["lamp"], {"lamp": 3}
        answer = client.post("/api/v1/device_call", json={"tag": "tank@lamp"})
        assert answer.status_code == 200, answer.text
        assert [(item["name"], item["value"]) for item in answer.json["items"]] == [("tank@lamp", 3)]
        other.way, other.reason = ("failed",), "nothing was set yet"
        answer = client.post("/api/v1/device_call", json={"tag": "tank@lamp"})
        assert (answer.status_code, answer.json["detail"]) == (424, "nothing was set yet")


def test_a_call_asks_every_owner_for_its_own_tags(client: FlaskClient, owner: FakeOwner, broker: Broker) -> None:
    read = [tag["name"] for tag in TANK["tags"] if any(each["direction"] != "out" for each in tag.get("bindings", []))]
    own = [name for name in read if name != "sensor"]

    def call(**body: Any) -> dict[str, tuple[Any, str, str]]:
        answer = client.post("/api/v1/device_call?wait=1", json={"device": "tank", **body})
        assert answer.status_code == 200, answer.text
        return {each["name"][5:]: (each["value"], each["quality"], each["reason"]) for each in answer.json["items"]}

    with fake_owner(broker.port, "mqtt_server") as other:
        owner.own, owner.values = own, dict.fromkeys(own, 1)
        other.own, other.values = ["sensor"], {"sensor": 3}
        good = dict.fromkeys(own, (1, "good", ""))
        # What is only set is asked of nobody.
        assert call() == {**good, "sensor": (3, "good", "")}
        assert owner.received[-1][2]["tags"] == read
        # Named, it is in the answer, and says that nobody reads it.
        assert call(tags=["lamp", "level"]) == {"lamp": (None, "bad", "not_connected"), "level": (1, "good", "")}
        missing = (None, "bad", "comm_failure")
        for way in (("failed",), ()):
            other.way, other.reason = way, "nothing was heard yet"
            assert call() == {**good, "sensor": missing}
        owner.way, owner.reason = ("failed",), "the device does not answer"
        answer = client.post("/api/v1/device_call?wait=1", json={"device": "tank"})
        assert (answer.status_code, answer.json["detail"]) == (424, "the device does not answer")


def test_a_dead_device_does_not_take_the_places_of_those_who_wait_for_others(
    app: Flask, client: FlaskClient, owner: FakeOwner, live: Live
) -> None:
    live.waiters = Waiters(most=12, most_for_one=4)
    client.post("/api/v1/devices", json={**TANK, "name": "dead"})
    owner.dead, owner.values = ["dead"], {"level": 5}
    body = {"value": 5, "expires_s": 10}

    def ask_the_dead(number: int) -> tuple[float, int, str | None]:
        begun = time.monotonic()
        answer = app.test_client().post("/api/v1/tags/dead@level/commands?wait=4", json={**body, "value": number})
        return time.monotonic() - begun, answer.status_code, answer.headers.get("Tagwire-Not-Waited")

    with ThreadPoolExecutor(12) as threads:
        waiting = [threads.submit(ask_the_dead, number) for number in range(12)]
        wait_until(lambda: sum(each.done() for each in waiting) == 8, 3, "four still wait")
        assert client.post("/api/v1/tags/tank@level/commands?wait=4", json=body).json["state"] == "verified"
        assert client.post("/api/v1/device_call?wait=4", json={"tag": "tank@level"}).status_code == 200
        refused = client.post("/api/v1/device_call?wait=4", json={"tag": "dead@level"})
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")
        assert refused.json["detail"] == "4 requests wait for this device already; try again"
        assert not all(each.done() for each in waiting)
        results = sorted(each.result() for each in waiting)
    assert {status for _, status, _ in results} == {202}
    assert [seconds > 3.5 for seconds, _, _ in results] == [False] * 8 + [True] * 4
    assert [why for _, _, why in results] == ["4 requests wait for this device already"] * 8 + [None] * 4
    assert client.post("/api/v1/device_call?wait=0.1", json={"tag": "dead@level"}).status_code == 424


def test_a_call_that_nobody_answers_ends_in_time(client: FlaskClient) -> None:
    begun = time.monotonic()
    answer = client.post("/api/v1/device_call?wait=0.3", json={"device": "tank", "tag": "level"})
    assert (answer.status_code, answer.json["detail"]) == (424, "nobody answered within 0.3 s")
    assert time.monotonic() - begun < 5
    assert client.post("/api/v1/device_call", json={"device": "tank", "tag": "loose"}).status_code == 409
    assert (
        client.post("/api/v1/device_call", json={"device": "tank", "tags": ["level"], "tag": "pump"}).status_code == 422
    )


def test_changes_of_the_configuration_are_announced(app: Flask, broker: Broker) -> None:
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    seen: list[tuple[bytes, bool]] = []
    watcher = Client(CallbackAPIVersion.VERSION2, client_id="watcher")
    watcher.on_message = lambda *each: seen.append((each[2].payload, each[2].retain))
    watcher.connect("127.0.0.1", broker.port)
    watcher.subscribe("tagwire/config", 1)
    watcher.loop_start()
    try:
        client = app.test_client()
        wait_until(lambda: any(payload == b"0" for payload, _ in seen), 10, "the revision at the start")
        client.post("/api/v1/devices", json={"name": "a"})
        wait_until(lambda: (b"1", False) in seen)
        assert client.post("/api/v1/devices", json={"name": "a"}).status_code == 409
        client.delete("/api/v1/devices/a")
        wait_until(lambda: (b"2", False) in seen)
        watcher.unsubscribe("tagwire/config")
        watcher.subscribe("tagwire/config", 1)
        wait_until(lambda: (b"2", True) in seen)
        assert [payload for payload, retained in seen if not retained].count(b"1") == 1
    finally:
        watcher.disconnect()
        watcher.loop_stop()


async def test_what_programs_count_is_among_the_metrics(client: FlaskClient, broker: Broker) -> None:
    bus = Bus(MqttSettings(port=broker.port), BusTopics(), "field_server")
    bus.start()
    try:
        bus.publish("tank", [Sample("level", number, Quality.GOOD, NOW + number) for number in range(5)])
        bus.publish("tank", [Sample("level", "x" * 300_000, Quality.GOOD, NOW + 5)])
        wanted = {"published": 5, "late": 0, "dropped": 0, "poisoned": 1}
        lines = [f'tagwire_bus_samples_total{{kind="{kind}",owner="field_server"}}' for kind in wanted]
        expected = {line: f"{count}.0" for line, count in zip(lines, wanted.values(), strict=True)}
        expected['tagwire_bus_buffered_samples{owner="field_server"}'] = "0.0"
        async with asyncio.timeout(15):
            while True:
                text = (await asyncio.to_thread(client.get, "/metrics")).text
                found = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
                if expected.items() <= found.items():
                    break
                await asyncio.sleep(0.1)
    finally:
        await bus.close()


def test_nonsense_on_the_bus_is_ignored(client: FlaskClient, owner: FakeOwner, live: Live) -> None:
    for topic in ("state/field_server/tank", "data/field_server/tank", "link/field_server/tank", "server/field_server"):
        for payload in (b"", b"\xff", b"[", b"[]", b"{}", b"5", b'{"level": 5}', b'[["level"]]', b"null"):
            owner._client.publish(f"tagwire/{topic}", payload, 1)
    for payload in (b"", b"{}", b'{"id": 5}', b'{"id": "a", "state": "x", "time_ms": 1}'):
        owner._client.publish("tagwire/feedback/tank", payload, 1)
    owner.state("tank", level=5.5)
    wait_for(client, value=5.5, quality="good")
    assert client.get("/api/v1/devices/tank/link").status_code == 200
    assert client.get("/api/v1/devices/tank/plan").status_code == 404
    assert client.post("/api/v1/tags/tank@level/commands?wait=10", json={"value": 5}).status_code == 200
