"""The least a subscriber can do: paho on the same event loop, QoS 1, every message acknowledged by paho and counted.

`python -m bench.peers.bare_subscriber PORT CLIENT_ID COUNT` prints "ready", then, after COUNT messages, the seconds since the
first. With COUNT 0 it makes its persistent session, subscribes and leaves.
"""

import asyncio
import sys
import time

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from links.loop import new_event_loop

LIMIT_S = 60.0


async def run(port: int, client_id: str, count: int) -> None:
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    subscribed = asyncio.Event()
    client = Client(CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=False)
    received = 0
    first = 0.0

    def on_message(*_: object) -> None:
        nonlocal received, first
        if received == 0:
            first = time.perf_counter()
        received += 1
        if received == count:
            done.set()

    def read() -> None:
        for _ in range(64):
            before = received
            if client.loop_read() != MQTTErrorCode.MQTT_ERR_SUCCESS:
                raise SystemExit("the broker is gone")
            if received == before:
                return

    client.on_message = on_message
    client.on_socket_register_write = lambda *_: loop.call_soon(client.loop_write)
    client.on_connect = lambda *_: client.subscribe("bench/#", 1)
    client.on_subscribe = lambda *_: subscribed.set()
    client.connect("127.0.0.1", port)
    loop.add_reader(client.socket(), read)
    async with asyncio.timeout(LIMIT_S):
        await subscribed.wait()
    print("ready", flush=True)
    if count:
        async with asyncio.timeout(LIMIT_S):
            await done.wait()
        print(time.perf_counter() - first, flush=True)
    loop.remove_reader(client.socket())
    client.disconnect()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(run(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
