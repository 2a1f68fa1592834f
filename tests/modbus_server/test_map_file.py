import pytest

from modbus_server.map_file import parse_map
from scada.errors import ConfigError
from scada.modbus.image import WHOLE, Span
from scada.modbus.limits import Table


def test_separate_units() -> None:
    plan = parse_map(
        """
        [[unit]]
        ids = [1, 2]
        holding_register = ["0-99", "4000", 7]
        coil = "all"

        [[unit]]
        ids = [255]
        input_register = ["0 - 9"]
        """
    )
    assert plan.shared is None
    assert set(plan.units) == {1, 2, 255}
    assert plan.units[1].spans[Table.HOLDING_REGISTER] == (Span(0, 99), Span(4000, 4000), Span(7, 7))
    assert plan.units[2].spans[Table.COIL] == (WHOLE,)
    assert plan.units[255].spans == {Table.INPUT_REGISTER: (Span(0, 9),)}


def test_a_shared_image_with_a_map() -> None:
    plan = parse_map('[shared]\nholding_register = ["0-9"]')
    assert plan.shared is not None
    assert plan.shared.spans == {Table.HOLDING_REGISTER: (Span(0, 9),)}


FAULTY = """
other = 1
[[unit]]
ids = [1, 256, true]
holding_register = ["9-0", "0-65536", "x", true, "-1"]
coils = ["0"]
[[unit]]
coil = 5
[[unit]]
ids = [1]
"""


def test_every_fault_is_listed_with_its_place() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_map(FAULTY)
    assert {fault.field for fault in caught.value.faults} == {
        "other", "unit.0.ids.1", "unit.0.ids.2", "unit.0.coils", "unit.1.ids", "unit.1.coil", "unit.2", "unit.2.ids",
        *(f"unit.0.holding_register.{at}" for at in range(5)),
    }  # fmt: skip


@pytest.mark.parametrize(
    "text", ["", "[[", "[shared]\n[[unit]]\nids=[1]\ncoil='all'", "unit = 3", "shared = 3", "unit = [3]"]
)
def test_what_is_no_map_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_map(text)
