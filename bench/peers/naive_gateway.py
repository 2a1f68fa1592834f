"""The gateway as it is often written first: for each message a new database session and a new Modbus connection.

`python -m bench.peers.naive_gateway MQTT_PORT MODBUS_PORT DATABASE_URI COUNT` prints "ready", then, after COUNT messages, the
seconds since the first. paho's own thread, SQLAlchemy's ORM, the Modbus library's blocking client.
"""

import json
import struct
import sys
import threading
import time

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion
from pymodbus.client import ModbusTcpClient
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from storage.models import Binding, Device, Network, Tag


def handle(uri: str, modbus_port: int, message: MQTTMessage) -> None:
    """One message, the naive way."""
    engine = create_engine(uri)
    document = json.loads(message.payload)
    with Session(engine) as session:
        networks = session.scalars(select(Network).where(Network.protocol == "mqtt")).all()
        network = next(each for each in networks if each.settings["topic"] == message.topic)
        device = session.get_one(Device, network.device_id)
        for tag in session.scalars(select(Tag).where(Tag.device_id == device.id)):
            bindings = {b.protocol: b for b in session.scalars(select(Binding).where(Binding.tag_id == tag.id))}
            value = document[bindings["mqtt"].address["path"]]
            client = ModbusTcpClient("127.0.0.1", port=modbus_port)
            client.connect()
            registers = list(struct.unpack(">2H", struct.pack(">f", value)))
            client.write_registers(bindings["modbus"].address["register"], registers, device_id=1)
            client.close()
    engine.dispose()


def main() -> None:
    mqtt_port, modbus_port, uri, count = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    done = threading.Event()
    times: list[float] = []

    def on_message(_client: Client, _userdata: object, message: MQTTMessage) -> None:
        if not times:
            times.append(time.perf_counter())
        handle(uri, modbus_port, message)
        times.append(time.perf_counter())
        if len(times) > count:
            done.set()

    client = Client(CallbackAPIVersion.VERSION2, client_id="naive", clean_session=True)
    client.on_message = on_message
    client.on_connect = lambda *_: client.subscribe("bench/#", 1)
    client.on_subscribe = lambda *_: print("ready", flush=True)
    client.connect("127.0.0.1", mqtt_port)
    client.loop_start()
    done.wait(120)
    print(times[-1] - times[0], flush=True)
    client.disconnect()
    client.loop_stop()


if __name__ == "__main__":
    main()
