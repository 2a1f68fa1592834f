"""The examples of docs/gateway.md do what it says."""

import re
from pathlib import Path

import orjson
import pytest

from scada.mapping import compile_device
from storage.config_reader import ConfigReader
from storage.config_store import ConfigStore
from storage.engine import open_engine
from storage.migrate import migrate
from tests.support.processes import CHECKOUT

GUIDE = (CHECKOUT / "docs/gateway.md").read_text()
DEVICES = [orjson.loads(text) for text in re.findall(r"```json\n(.*?)```", GUIDE, re.DOTALL)]
MESSAGE = re.findall(r"```\n(\{.*?)```", GUIDE, re.DOTALL)[0]


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: str(device["name"]))
def test_the_devices_are_accepted_and_the_message_is_mapped_as_told(device: dict[str, object], tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/guide.sqlite")
    migrate(engine)
    ConfigStore(engine).create_device(device)
    (config,) = ConfigReader(engine).load_devices()
    plan = compile_device(config)
    engine.dispose()
    assert plan is not None
    assert plan.faults == ()
    if device["name"] == "meter":
        mapped = plan.map(MESSAGE.encode(), 0)
        assert mapped.rejects == []
        assert [write.value for write in mapped.writes] == [1, 2, 12.5]
        assert [write.data.hex() for write in mapped.writes] == ["0001", "0002", "007d0000"]
        assert mapped.writes[0].time_ms == 1_767_323_045_000
