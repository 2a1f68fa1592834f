"""What the server answers: a unit id and a request PDU in, a response PDU out. Pure."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final

from modbus_server.plans import PLAN_KEY, PLANNED, Plan, is_repeatable, make_plan
from scada.errors import DeviceRefused
from scada.modbus.identification import answer_identification
from scada.modbus.image import Image
from scada.modbus.limits import MAX_UNIT_ID, Table
from scada.modbus.pdu import (
    ExceptionCode,
    Function,
    decode_mask_write_request,
    decode_read_request,
    decode_read_write_request,
    decode_write_coil_request,
    decode_write_coils_request,
    decode_write_register_request,
    decode_write_registers_request,
    encode_data_response,
    encode_exception,
    write_echo,
)

Handler = Callable[[Image, bytes], bytes]


class Right(StrEnum):
    """What a client may do."""

    NONE = "none"
    READ = "read"
    WRITE = "write"


class UnknownUnit(StrEnum):
    """What a request to a unit id that is not configured gets."""

    EXCEPTION = "exception"
    SILENCE = "silence"


_MAX_PLANS = 4096  # about 2 MB; somebody who asks for everything once must not fill the memory

_HOLDING: Final = Table.HOLDING_REGISTER


def _read_bits(table: Table) -> Handler:
    def handle(image: Image, pdu: bytes) -> bytes:
        function, address, quantity = decode_read_request(pdu)
        return encode_data_response(function, image.read_bits(table, address, quantity))

    return handle


def _read_registers(table: Table) -> Handler:
    def handle(image: Image, pdu: bytes) -> bytes:
        function, address, quantity = decode_read_request(pdu)
        return encode_data_response(function, image.read_registers(table, address, quantity))

    return handle


def _write_coil(image: Image, pdu: bytes) -> bytes:
    _, address, quantity, data = decode_write_coil_request(pdu)
    image.write_bits(Table.COIL, address, quantity, data)
    return write_echo(pdu)


def _write_coils(image: Image, pdu: bytes) -> bytes:
    _, address, quantity, data = decode_write_coils_request(pdu)
    image.write_bits(Table.COIL, address, quantity, data)
    return write_echo(pdu)


def _write_register(image: Image, pdu: bytes) -> bytes:
    _, address, _, data = decode_write_register_request(pdu)
    image.write_registers(_HOLDING, address, data)
    return write_echo(pdu)


def _write_registers(image: Image, pdu: bytes) -> bytes:
    _, address, _, data = decode_write_registers_request(pdu)
    image.write_registers(_HOLDING, address, data)
    return write_echo(pdu)


def _mask_write(image: Image, pdu: bytes) -> bytes:
    address, and_mask, or_mask, _ = decode_mask_write_request(pdu)
    old = int.from_bytes(image.read_registers(_HOLDING, address, 1), "big")
    new = (old & and_mask) | (or_mask & ~and_mask & 0xFFFF)
    image.write_registers(_HOLDING, address, new.to_bytes(2, "big"))
    return write_echo(pdu)


def _read_write(image: Image, pdu: bytes) -> bytes:
    address, quantity, write_address, data, function = decode_read_write_request(pdu)
    # APS 6.17, Figure 27: the write comes before the read, but neither happens when either is refused.
    image.read_registers(_HOLDING, address, quantity)
    image.write_registers(_HOLDING, write_address, data)
    return encode_data_response(function, image.read_registers(_HOLDING, address, quantity))


_READERS: Mapping[int, Handler] = {
    Function.READ_COILS: _read_bits(Table.COIL),
    Function.READ_DISCRETE_INPUTS: _read_bits(Table.DISCRETE_INPUT),
    Function.READ_HOLDING_REGISTERS: _read_registers(Table.HOLDING_REGISTER),
    Function.READ_INPUT_REGISTERS: _read_registers(Table.INPUT_REGISTER),
}

_WRITERS: Mapping[int, Handler] = {
    Function.WRITE_SINGLE_COIL: _write_coil,
    Function.WRITE_SINGLE_REGISTER: _write_register,
    Function.WRITE_MULTIPLE_COILS: _write_coils,
    Function.WRITE_MULTIPLE_REGISTERS: _write_registers,
    Function.MASK_WRITE_REGISTER: _mask_write,
    Function.READ_WRITE_MULTIPLE_REGISTERS: _read_write,
}


class Answers:
    """The server as one kind of client sees it: the units' images behind the functions that its right allows.

    A function outside the right is answered with exception 1, as if it did not exist (Security R-31 asks for this code).
    """

    __slots__ = ("_handlers", "_images", "_plans", "_unknown_unit")

    def __init__(
        self,
        units: Mapping[int, Image],
        identity: Mapping[int, bytes],
        right: Right = Right.WRITE,
        unknown_unit: UnknownUnit = UnknownUnit.EXCEPTION,
    ) -> None:
        """`identity`: see answer_identification."""
        self._images = _by_id(units)
        self._unknown_unit = unknown_unit
        self._plans: dict[bytes, Plan] = {}
        self._handlers: dict[int, Handler] = {}
        if right is not Right.NONE:
            self._handlers |= _READERS
            self._handlers[Function.ENCAPSULATED_INTERFACE] = lambda _, pdu: answer_identification(pdu, identity)
        if right is Right.WRITE:
            self._handlers |= _WRITERS

    def use(self, units: Mapping[int, Image]) -> None:
        """Answer out of these images from now on, which may differ from the former ones in what has effects."""
        self._images = _by_id(units)
        self._plans.clear()

    def __call__(self, unit_id: int, pdu: bytes) -> bytes | None:
        """The response to a request of at least one byte, None where there shall be none."""
        image = self._images[unit_id]
        if image is None:
            if self._unknown_unit is UnknownUnit.SILENCE:
                return None
            # APS 7, code 0B: usually means that the device is not present on the network.
            return encode_exception(pdu[0], ExceptionCode.GATEWAY_TARGET_FAILED_TO_RESPOND)
        handler = self._handlers.get(pdu[0])
        if handler is None:
            return encode_exception(pdu[0], ExceptionCode.ILLEGAL_FUNCTION)
        try:
            response = handler(image, pdu)
        except DeviceRefused as refusal:
            return encode_exception(pdu[0], refusal.code)
        if pdu[0] in PLANNED and is_repeatable(pdu, image):
            if len(self._plans) >= _MAX_PLANS:
                self._plans.clear()
            key, plan = make_plan(unit_id, pdu, image)
            self._plans[key] = plan
        return response

    def repeat(self, frame: bytes) -> bytes | None:
        """The answering frame to one whole frame like one that was answered before; None for anything else.

        Clients ask for the same registers, and write the same block, again and again. Such a request was checked when it came
        for the first time, and nothing that was checked can change before `use`.
        """
        plan = self._plans.get(frame[PLAN_KEY])
        return None if plan is None else plan(frame)


def _by_id(units: Mapping[int, Image]) -> tuple[Image | None, ...]:
    return tuple(units.get(unit_id) for unit_id in range(MAX_UNIT_ID + 1))
