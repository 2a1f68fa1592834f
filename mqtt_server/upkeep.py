"""What a binding is owed without a new value: cyclic rewrites, and a fail-safe value or flag when its source is silent."""

import asyncio
import logging
from collections.abc import Callable
from typing import cast

from mqtt_server.slots import Slot
from scada.outputs import OutPlan, Write
from scada.values import BadValue, RejectCode, Value

log = logging.getLogger(__name__)


class Upkeep:
    """One timer for each slot and purpose. `put` hands a value of ours to the outlet, `report` lists what cannot be written."""

    def __init__(
        self,
        put: Callable[[Slot, Write, None], None],
        report: Callable[[RejectCode, str, OutPlan, Value, None], None],
    ) -> None:
        self._put = put
        self._report = report
        self._timers: dict[Slot, dict[str, asyncio.TimerHandle]] = {}
        self._loop = asyncio.get_running_loop()

    def start(self, slot: Slot) -> None:
        """Watch the source of a slot that has a fail-safe; it counts as heard now."""
        slot.last_source = self._loop.time()
        self._arm_failsafe(slot)

    def heard(self, slot: Slot) -> None:
        """The source of a slot that has a fail-safe spoke."""
        slot.last_source = self._loop.time()
        if slot.silent is not False:
            self._set_silent(slot, False)
            self._arm_failsafe(slot)

    def source(self, slot: Slot, well: bool) -> bool:
        """Whether a source that speaks only of changes is there. True when the fail-safe was in force until now."""
        was_silent = slot.silent is True
        slot.is_well = well
        if slot.out.options.failsafe is not None:
            if well:
                self.heard(slot)
            else:
                slot.last_source = self._loop.time()
                self._arm_failsafe(slot)
        return was_silent and well

    def written(self, slot: Slot) -> None:
        """A value was confirmed: the next rewrite counts from here."""
        if slot.out.options.rewrite_s:
            self._arm(slot, slot.out.options.rewrite_s, self._rewrite)

    def forget(self, slot: Slot) -> None:
        """The slot is gone."""
        for timer in self._timers.pop(slot, {}).values():
            timer.cancel()

    def close(self) -> None:
        """End every timer."""
        for slot in list(self._timers):
            self.forget(slot)

    def _arm(self, slot: Slot, delay_s: float, action: Callable[[Slot], None]) -> None:
        if slot.gone:
            return
        timers = self._timers.setdefault(slot, {})
        name = action.__name__
        if name in timers:
            timers[name].cancel()
        timers[name] = self._loop.call_later(delay_s, action, slot)

    def _rewrite(self, slot: Slot) -> None:
        """The last value once more, whatever the binding's options say of unchanged values."""
        self.written(slot)
        if slot.last is None or slot.queue or slot.inflight is not None:
            return
        slot.is_assured = False
        self._put(slot, slot.last, None)

    def _arm_failsafe(self, slot: Slot) -> None:
        failsafe = slot.out.options.failsafe
        if failsafe is not None:
            self._arm(slot, max(slot.last_source + failsafe.after_s - self._loop.time(), 0.01), self._check_silence)

    def _check_silence(self, slot: Slot) -> None:
        failsafe = slot.out.options.failsafe
        if failsafe is None or slot.is_well:
            return
        silent_s = self._loop.time() - slot.last_source
        if silent_s < failsafe.after_s:
            self._arm_failsafe(slot)
            return
        self._set_silent(slot, True)
        where = f"{slot.out.device}@{slot.out.tag}"
        log.warning("%s: silent for %.1f s", where, silent_s)
        if failsafe.value is None:
            return
        value = cast(Value, failsafe.value)
        try:
            write = Write(slot.out, slot.out.encode(value), value, 0)
        except BadValue as error:
            log.error("%s: its fail-safe value cannot be written: %s", where, error)
            reason = f"{slot.out.place}: its fail-safe value cannot be written: {error}"
            self._report(error.code, reason, slot.out, value, None)
            return
        log.warning("%s: fail-safe value %r is written", where, value)
        slot.is_assured = False
        self._put(slot, write, None)

    def _set_silent(self, slot: Slot, silent: bool) -> None:
        """Remember it, and raise or lower the flag."""
        slot.silent = silent
        if slot.flag is not None:
            out = slot.flag.out
            self._put(slot.flag, Write(out, out.encode(int(silent)), int(silent), 0), None)
