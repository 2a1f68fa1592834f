"""The configuration as programs need it: typed records, inheritance applied, from many thousands of rows in bulk.

Rows are read as text and parsed once per distinct text: equal scalings, options and addresses become one object.
What cannot be understood is left out and becomes a fault of its device: a bad row never stops a program.
"""

import dataclasses
import gc
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import orjson
from sqlalchemy import Column, Connection, Engine, Text, cast, select

from scada.config import BindingConfig, DeviceConfig, Direction, LimitsConfig, ScalingConfig, ScanClass, TagConfig
from scada.errors import ConfigError, Fault
from scada.registry import Protocol, protocol
from scada.schema import join, parse
from scada.values import DataType
from storage.engine import reading
from storage.revisions import current_revision, found
from storage.shapes import BINDING, DEVICE, ITEM, NETWORK, TAG, TERM, default_topic, unit_id

# Devices read at a time: few statements, and never the rows of the whole plant in memory beside the records.
BATCH = 50

# Dictionaries: calling an enum's class costs ten times as much, and there is one call per row.
_DIRECTIONS = {each.value: each for each in Direction}
_SCANS = {each.value: each for each in ScanClass}
_DATA_TYPES = {each.value: each for each in DataType}

Row = Sequence[Any]


class ConfigReader:
    """Reads only. Raises LinkError when the database fails."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def revision(self) -> int:
        """The number of the newest change; 0 in a new database. It falls only when the database is replaced."""
        with reading(self.engine) as connection:
            return current_revision(connection)

    def device_ids(self) -> set[int]:
        """The enabled devices."""
        with reading(self.engine) as connection:
            return set(connection.execute(select(DEVICE.c.id).where(DEVICE.c.enabled)).scalars())

    def load_devices(self, since: int = 0) -> list[DeviceConfig]:
        """The enabled devices that changed after revision `since`, whole, by id."""
        with reading(self.engine) as connection:
            query = select(DEVICE.c.id, DEVICE.c.name, DEVICE.c.revision).where(
                DEVICE.c.enabled, DEVICE.c.revision > since
            )
            devices = connection.execute(query.order_by(DEVICE.c.id)).all()
            if not devices:
                return []
            load = _Load(connection)
            result = []
            with _collector_paused():
                for start in range(0, len(devices), BATCH):
                    result += load.batch(devices[start : start + BATCH])
            return result

    def load_tags(self, device_id: int, tag_ids: Sequence[int] | None) -> DeviceConfig:
        """One device with these of its tags (None: all), enabled or not; raises NotFound without the device."""
        with reading(self.engine) as connection:
            query = select(DEVICE.c.id, DEVICE.c.name, DEVICE.c.revision).where(DEVICE.c.id == device_id)
            device = found(connection.execute(query).first(), "device", device_id)
            return _Load(connection).batch([device], tag_ids)[0]


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Half of the time went into looking for garbage among records that all stay."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Load:
    """One reading of the configuration, with what its devices share."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._records: dict[tuple[type, str], Any] = {}
        self._addresses: dict[tuple[str, str, int], Any] = {}
        self._protocols: dict[str, Protocol] = {}
        query = select(ITEM.c.id, ITEM.c.data_type, _text(ITEM.c.scaling), _text(ITEM.c.limits), ITEM.c.deadband)
        self._items: dict[int, Row] = {row[0]: row for row in connection.execute(query)}

    def batch(self, devices: Sequence[Row], tag_ids: Sequence[int] | None = None) -> list[DeviceConfig]:
        """The devices with their tags, or with those of `tag_ids` only."""
        ids = [row[0] for row in devices]
        wanted = TAG.c.device_id.in_(ids) if tag_ids is None else TAG.c.device_id.in_(ids) & TAG.c.id.in_(tag_ids)
        networks = self._grouped(
            select(NETWORK.c.device_id, NETWORK.c.protocol, _text(NETWORK.c.settings)).where(
                NETWORK.c.device_id.in_(ids)
            )
        )
        terms = self._grouped(
            select(TERM.c.device_id, TERM.c.id, TERM.c.name, _text(TERM.c.settings)).where(TERM.c.device_id.in_(ids))
        )
        tags = self._grouped(
            select(
                TAG.c.device_id, TAG.c.id, TAG.c.name, TAG.c.term_id, TAG.c.item_id, TAG.c.data_type,
                _text(TAG.c.scaling), _text(TAG.c.limits), TAG.c.deadband,
            ).where(wanted)
        )  # fmt: skip
        bindings = self._grouped(
            select(
                BINDING.c.tag_id, BINDING.c.id, BINDING.c.protocol, BINDING.c.direction, _text(BINDING.c.address),
                _text(BINDING.c.options), _text(BINDING.c.scaling), _text(BINDING.c.limits),
                BINDING.c.period_ms, BINDING.c.scan,
            ).where(BINDING.c.tag_id == TAG.c.id, wanted)
        )  # fmt: skip
        return [self._device(row, networks[row[0]], tags[row[0]], terms[row[0]], bindings) for row in devices]

    def _grouped(self, query: Any) -> dict[int, list[Row]]:
        """Rows by their first column."""
        result: dict[int, list[Row]] = defaultdict(list)
        for row in self._connection.execute(query).all():
            result[row[0]].append(row)
        return result

    def _device(
        self,
        device: Row,
        networks: Sequence[Row],
        tags: Sequence[Row],
        terms: Sequence[Row],
        bindings: Mapping[int, Sequence[Row]],
    ) -> DeviceConfig:
        device_id, name, revision = device
        faults: list[Fault] = []
        known: dict[str, object] = {}
        for _, protocol_name, settings in networks:
            try:
                kind = self._protocol(protocol_name)
                network = self._record(kind.network, settings)
                if kind.name == "mqtt" and network.topic is None:
                    network = dataclasses.replace(network, topic=default_topic(device_id))
                known[kind.name] = network
            except ConfigError as error:
                faults += _below(f"network.{protocol_name}", error)
        settings_of = {row[1]: row[3] for row in terms}
        own = []
        for row in sorted(tags, key=_second):
            term = settings_of.get(row[3], "") if row[3] is not None else ""
            try:
                own.append(self._tag(row, term, bindings.get(row[1], ()), known, faults))
            except ConfigError as error:
                faults += _below(f"tags.{row[2]}", error)
        said = self._terms(terms, faults)
        return DeviceConfig(device_id, name, revision, known, tuple(own), tuple(faults), said)

    def _terms(self, rows: Sequence[Row], faults: list[Fault]) -> Mapping[str, tuple[object, ...]]:
        """What a device's terms say, by protocol."""
        result: dict[str, tuple[object, ...]] = {}
        for _, _, name, settings in sorted(rows, key=_second):
            try:
                for protocol_name, each in _object(settings).items():
                    kind = self._protocol(protocol_name)
                    if kind.term is not None:
                        record = self._record(kind.term, orjson.dumps(each).decode())
                        result[kind.name] = (*result.get(kind.name, ()), record)
            except ConfigError as error:
                faults += _below(f"terms.{name}", error)
        return result

    def _tag(
        self, row: Row, term: str, bindings: Sequence[Row], networks: Mapping[str, object], faults: list[Fault]
    ) -> TagConfig:
        _, tag_id, name, _, item_id, data_type, scaling, limits, deadband = row
        if item_id is not None:
            item = self._items[item_id]
            data_type = data_type or item[1]
            scaling = scaling or item[2]
            limits = limits or item[3]
            deadband = item[4] if deadband is None else deadband
        own = []
        for binding in bindings if len(bindings) < 2 else sorted(bindings, key=_second):
            try:
                own.append(self._binding(binding, term, networks))
            except ConfigError as error:
                faults += _below(f"tags.{name}.bindings.{binding[2]}", error)
        return TagConfig(
            tag_id,
            name,
            _data_type(data_type),
            self._optional(ScalingConfig, scaling),
            self._optional(LimitsConfig, limits),
            deadband or 0.0,
            tuple(own),
        )

    def _binding(self, row: Row, term: str, networks: Mapping[str, object]) -> BindingConfig:
        _, binding_id, protocol_name, direction, address, options, scaling, limits, period_ms, scan = row
        kind = self._protocol(protocol_name)
        if kind.name not in networks:
            raise ConfigError([Fault("protocol", "the device has no usable network of this protocol")])
        return BindingConfig(
            binding_id,
            kind.name,
            _direction(direction),
            self._address(kind, address, term),
            self._record(kind.options, options or "{}"),
            self._optional(ScalingConfig, scaling),
            self._optional(LimitsConfig, limits),
            period_ms,
            _scan(scan),
        )

    def _address(self, kind: Protocol, text: str, term: str) -> object:
        """The address; what it leaves to the term is filled in."""
        record = self._record(kind.address, text, "address")
        if kind.term is None or record.unit_id is not None:
            return record
        unit = 1 if not term else unit_id(kind.name, _object(term))
        key = kind.name, text, unit
        if key not in self._addresses:
            self._addresses[key] = dataclasses.replace(record, unit_id=unit)
        return self._addresses[key]

    def _optional(self, kind: type, text: str | None) -> Any:
        return None if text is None else self._record(kind, text)

    def _record(self, kind: type, text: str, path: str = "") -> Any:
        key = kind, text
        found = self._records.get(key)
        if found is None:
            found = parse(kind, _object(text), path)
            self._records[key] = found
        return found

    def _protocol(self, name: str) -> Protocol:
        found = self._protocols.get(name)
        if found is None:
            found = self._protocols[name] = protocol(name)
        return found


def _text(column: Column[Any]) -> Any:
    return cast(column, Text)


def _second(row: Row) -> int:
    found: int = row[1]
    return found


def _object(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        raise ConfigError(f"is no JSON: {exc}") from exc


def _data_type(text: str | None) -> DataType:
    found = _DATA_TYPES.get(text or "float")
    if found is None:
        raise ConfigError([Fault("data_type", f"{text!r} is unknown")])
    return found


def _direction(text: str) -> Direction:
    found = _DIRECTIONS.get(text)
    if found is None:
        raise ConfigError([Fault("direction", f"{text!r} is unknown")])
    return found


def _scan(text: str | None) -> ScanClass | None:
    if text is None:
        return None
    found = _SCANS.get(text)
    if found is None:
        raise ConfigError([Fault("scan", f"{text!r} is unknown")])
    return found


def _below(path: str, error: ConfigError) -> list[Fault]:
    return [Fault(join(path, fault.field), fault.message) for fault in error.faults]
