"""`tagwire publish`: one MQTT message, sent and confirmed."""

import asyncio
import logging
import sys

import click

from links.environment import open_environment, read_mqtt, seal
from links.mqtt_publish import publish_once
from scada.errors import ConfigError, Fault, LinkError
from scada.topics import check_topic_name


@click.command()
@click.argument("topic")
@click.argument("payload", metavar="JSON|-")
@click.option("--retain", is_flag=True, help="Have the broker keep it for those who subscribe later.")
@click.option("--qos", type=click.IntRange(0, 1), default=1, show_default=True)
@click.option("--timeout", "timeout_s", type=click.FloatRange(0.1, 60), default=5.0, show_default=True, help="Seconds.")
def publish(topic: str, payload: str, retain: bool, qos: int, timeout_s: float) -> None:
    """Publish one message and wait until the broker has it.

    The payload is sent as it is; it may be any text. "-" reads it from the standard input. The broker is the one of
    MQTT_HOST and MQTT_PORT. Exit code 1: the broker was not reached or did not take it.
    """
    check_topic(topic)
    env = open_environment()
    settings = read_mqtt(env)
    seal(env)
    data = sys.stdin.buffer.read() if payload == "-" else payload.encode()
    # What the link would log is in the error already.
    logging.getLogger("links").addHandler(logging.NullHandler())
    try:
        asyncio.run(publish_once(settings, topic, data, qos=qos, retain=retain, timeout_s=timeout_s))
    except LinkError as exc:
        raise click.ClickException(str(exc)) from exc


def check_topic(topic: str) -> None:
    """Raise ConfigError for what nobody may publish to."""
    try:
        check_topic_name(topic)
    except ConfigError as exc:
        raise ConfigError([Fault("TOPIC", fault.message) for fault in exc.faults]) from exc
