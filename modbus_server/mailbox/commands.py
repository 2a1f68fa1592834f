"""Commands for tags whose registers are here: written at once, and verified by what then stands in the image."""

from links.command_desk import Report
from modbus_server.mailbox.mailbox import Mailbox
from modbus_server.mailbox.plans import PROTOCOL
from scada.commands import Call, Command, CommandState
from scada.config import DeviceConfig
from scada.errors import ConfigError
from scada.setpoints import is_reached
from scada.values import Quality, Sample, Value


class MailboxCommands:
    """The Modbus server behind its command desk (`links.command_desk.Performer`)."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    def device(self, name: str) -> DeviceConfig | None:
        """The configuration of a device with registers here."""
        plan = self._mailbox.device(name)
        return None if plan is None else plan.config

    def is_mine(self, owner: str) -> bool:
        """Only our own: field_server answers for tags that nobody can set."""
        return owner == PROTOCOL

    def last_value(self, device: str, tag: str) -> Value | None:
        """The value told last."""
        sample = self._mailbox.inbox.last(device, tag)
        return None if sample is None else sample.value

    async def carry_out(self, command: Command, report: Report, seconds: float) -> None:
        """See `links.command_desk.Performer`. Several tags are encoded first and then written together, or none is."""
        values = []
        for name, value in command.values.items():
            tag = self._mailbox.settable(command.device, name)
            assert tag.encode is not None
            values.append((tag, tag.encode(value)))
        if not report(CommandState.SENT):
            return
        self._mailbox.put(values)
        if not report(CommandState.ACKNOWLEDGED):
            return
        wrong = []
        for tag, _ in values:
            wanted, found = command.values[tag.name], self._mailbox.present(tag)
            if found.quality is Quality.BAD or not is_reached(tag.binding, wanted, found.value):
                wrong.append(f"{tag.name} shows {found.value!r}, not {wanted!r}")
        if wrong:
            report(CommandState.FAILED, "; ".join(wrong))
        else:
            report(CommandState.VERIFIED)

    async def read(self, call: Call) -> tuple[Sample, ...]:
        """See `links.command_desk.Performer`: what stands in the registers now, whether or not it was worth telling."""
        found = self._mailbox.read(call.device, call.tags)
        missing = set(call.tags) - {sample.tag for sample in found}
        if missing:
            raise ConfigError(f"{', '.join(sorted(missing))}: not in the registers of this program")
        return tuple(found)
