"""`tagwire demo`: creates the fleet's configuration over REST, then lives its life: two MQTT messages a second each."""

import asyncio
import json
import logging
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

import click

from links.backoff import Backoff
from links.environment import PORT, MqttSettings, open_environment, read_mqtt, seal
from links.logs import start_logging
from links.loop import stop_on_signals, until
from links.mqtt import MqttLink
from links.notify import notify_ready, notify_stopping
from scada.errors import ConfigError, LinkError
from tagwire.fleet import PERIOD_S, Unit, device_document, make_fleet

log = logging.getLogger("tagwire.demo")

_HTTP_TIMEOUT_S = 10.0
_PUBLISH_TIMEOUT_S = 5.0


@click.command()
def demo() -> None:
    """Simulate twenty IoT devices: tanks, boilers, pumps, rooms and meters.

    Their configuration is created at the REST API of FLASK_APP_HOST and FLASK_APP_PORT; their values go to the broker,
    and stand in the Modbus server's registers from 1000 on, ten for each device.
    """
    env = open_environment()
    mqtt = read_mqtt(env)
    rest = (env.str("FLASK_APP_HOST", "127.0.0.1"), env.int("FLASK_APP_PORT", 5000, validate=PORT))
    modbus = (env.str("MODBUS_SERVER_HOST", "127.0.0.1"), env.int("MODBUS_SERVER_PORT", 8502, validate=PORT))
    seal(env)
    start_logging()
    asyncio.run(_run(mqtt, f"http://{_address(*rest)}", modbus))


async def _run(mqtt: MqttSettings, url: str, modbus: tuple[str, int]) -> None:
    await until(stop_on_signals(), _live(mqtt, url, modbus))
    notify_stopping()


async def _live(mqtt: MqttSettings, url: str, modbus: tuple[str, int]) -> None:
    fleet = make_fleet()
    await configure(fleet, url, _connectable(modbus[0]), modbus[1])
    link = MqttLink(mqtt, f"{mqtt.client_id_prefix}-demo", lambda *_: None, persistent=False)
    link.start()
    try:
        await link.online.wait()
        notify_ready(f"{len(fleet)} devices, {len(fleet) / PERIOD_S:g} messages/s")
        log.info("%d devices publish %g messages/s", len(fleet), len(fleet) / PERIOD_S)
        await _publish_for_ever(fleet, link)
    finally:
        await link.close()


async def configure(fleet: Sequence[Unit], url: str, host: str, port: int) -> None:
    """Create the devices that are not there, and repair those of an earlier start. Waits for the REST API."""
    backoff = Backoff(first_s=0.2, cap_s=5.0)
    for unit in fleet:
        document = device_document(unit, host, port)
        while True:
            try:
                status = await asyncio.to_thread(_send, "POST", f"{url}/api/v1/devices", document)
                if status == 409:
                    await asyncio.to_thread(_send, "PUT", f"{url}/api/v1/devices/{unit.name}", document)
                break
            except LinkError as exc:
                log.debug("%s", exc)
                await asyncio.sleep(backoff.next_delay_s())


async def _publish_for_ever(fleet: Sequence[Unit], link: MqttLink) -> None:
    loop = asyncio.get_running_loop()
    due = last = loop.time()
    while True:
        now = loop.time()
        messages = [(unit.topic, json.dumps(unit.machine.step(now - last)).encode()) for unit in fleet]
        last = now
        try:
            async with asyncio.TaskGroup() as tasks:
                for topic, payload in messages:
                    tasks.create_task(link.publish(topic, payload, timeout_s=_PUBLISH_TIMEOUT_S))
        except* LinkError:
            # The link logs that it is offline, once. A sensor does not keep what it could not send.
            await link.online.wait()
        due = max(due + PERIOD_S, loop.time())
        await asyncio.sleep(due - loop.time())


def _send(method: str, url: str, document: dict[str, Any]) -> int:
    """The status of the answer: 2xx or 409. Raises ConfigError when the API refuses, LinkError when it does not answer."""
    request = urllib.request.Request(
        url, json.dumps(document).encode(), {"Content-Type": "application/json"}, method=method
    )
    try:
        with urllib.request.urlopen(request, timeout=_HTTP_TIMEOUT_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as exc:
        body = exc.read(2000).decode(errors="replace")
        if exc.code == 409:
            return exc.code
        if exc.code >= 500:
            raise LinkError(f"{url}: {exc.code} {body}") from exc
        raise ConfigError(f"{method} {url}: {exc.code} {body}") from exc
    except OSError as exc:
        raise LinkError(f"{url}: {exc}") from exc


def _address(host: str, port: int) -> str:
    host = _connectable(host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _connectable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
