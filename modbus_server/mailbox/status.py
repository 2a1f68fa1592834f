"""What clients are shown of a tag's quality in its status register. Pure."""

from enum import IntEnum

from modbus_server.mailbox.plans import BoundTag
from scada.modbus.image import Image
from scada.modbus.limits import Table
from scada.values import Quality, Reason, Sample


class Status(IntEnum):
    """The number in the register."""

    GOOD = 0
    UNCERTAIN = 1
    BAD = 2


def status_of(sample: Sample) -> Status:
    """Of a sample alone."""
    if sample.quality is Quality.GOOD:
        return Status.GOOD
    return Status.UNCERTAIN if sample.quality is Quality.UNCERTAIN else Status.BAD


def is_dated(sample: Sample) -> bool:
    """Whether its own owner calls the value old."""
    return sample.quality is not Quality.GOOD and sample.reason is Reason.STALE


def show_status(image: Image, tag: BoundTag, status: Status) -> None:
    """Write the status register of a tag that has one."""
    if tag.status is not None:
        image.write_registers(Table.HOLDING_REGISTER, tag.status, status.to_bytes(2, "big"))
