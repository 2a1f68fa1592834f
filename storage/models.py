"""The tables. What the JSON columns hold is declared in `scada.config` and, for each protocol, in `scada.protocols`."""

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAME_LENGTH = 64

# SQLite gives automatic ids to INTEGER primary keys only.
BigId = BigInteger().with_variant(Integer, "sqlite")

# An id names a device in topics and a binding in the outbox: that of a deleted row must not come back with another meaning.
NO_REUSE = {"sqlite_autoincrement": True}


# A migration can drop only a constraint that has a name.
NAMING = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """What every table's class derives from."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {dict[str, Any]: JSON(none_as_null=True)}  # noqa: RUF012 - SQLAlchemy reads a class attribute


class Device(Base):
    """One piece of equipment. `revision` is that of the newest change to it or to anything below it."""

    __tablename__ = "device"
    __table_args__ = (NO_REUSE,)
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(String(NAME_LENGTH), unique=True)
    description: Mapped[str] = mapped_column(String(500), default="")
    enabled: Mapped[bool] = mapped_column(Boolean, default=True)
    revision: Mapped[int] = mapped_column(BigInteger, index=True)


class Network(Base):
    """How a device speaks one protocol."""

    __tablename__ = "network"
    __table_args__ = (UniqueConstraint("device_id", "protocol"), NO_REUSE)
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    device_id: Mapped[int] = mapped_column(ForeignKey("device.id", ondelete="CASCADE"))
    protocol: Mapped[str] = mapped_column(String(32))
    settings: Mapped[dict[str, Any]]


class Term(Base):
    """A logical unit behind a device; `settings` says how each protocol addresses it: {"modbus": {"unit_id": 3}}."""

    __tablename__ = "term"
    __table_args__ = (UniqueConstraint("device_id", "name"), NO_REUSE)
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    device_id: Mapped[int] = mapped_column(ForeignKey("device.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(NAME_LENGTH))
    description: Mapped[str] = mapped_column(String(500), default="")
    settings: Mapped[dict[str, Any]]


class Item(Base):
    """A reusable definition of a quantity. `revision` is that of its newest change."""

    __tablename__ = "item"
    __table_args__ = (NO_REUSE,)
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(String(NAME_LENGTH), unique=True)
    description: Mapped[str] = mapped_column(String(500), default="")
    data_type: Mapped[str] = mapped_column(String(16))
    unit: Mapped[str] = mapped_column(String(32), default="")
    scaling: Mapped[dict[str, Any] | None]
    limits: Mapped[dict[str, Any] | None]
    deadband: Mapped[float] = mapped_column(Float, default=0.0)
    revision: Mapped[int] = mapped_column(BigInteger)


class Tag(Base):
    """One value of a device. What is null comes from the tag's item."""

    __tablename__ = "tag"
    __table_args__ = (
        UniqueConstraint("device_id", "name"),
        Index("ix_tag_name", "name"),
        Index("ix_tag_item", "item_id"),
        NO_REUSE,
    )
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    device_id: Mapped[int] = mapped_column(ForeignKey("device.id", ondelete="CASCADE"))
    term_id: Mapped[int | None] = mapped_column(ForeignKey("term.id", ondelete="SET NULL"), index=True)
    item_id: Mapped[int | None] = mapped_column(ForeignKey("item.id", ondelete="RESTRICT"))
    name: Mapped[str] = mapped_column(String(NAME_LENGTH))
    description: Mapped[str] = mapped_column(String(500), default="")
    data_type: Mapped[str | None] = mapped_column(String(16))
    unit: Mapped[str | None] = mapped_column(String(32))
    scaling: Mapped[dict[str, Any] | None]
    limits: Mapped[dict[str, Any] | None]
    deadband: Mapped[float | None] = mapped_column(Float)


class Binding(Base):
    """How one protocol reaches one tag."""

    __tablename__ = "binding"
    __table_args__ = (UniqueConstraint("tag_id", "protocol"), NO_REUSE)
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    tag_id: Mapped[int] = mapped_column(ForeignKey("tag.id", ondelete="CASCADE"))
    protocol: Mapped[str] = mapped_column(String(32))
    direction: Mapped[str] = mapped_column(String(8))
    address: Mapped[dict[str, Any]]
    options: Mapped[dict[str, Any] | None]
    scaling: Mapped[dict[str, Any] | None]
    limits: Mapped[dict[str, Any] | None]
    period_ms: Mapped[int | None] = mapped_column(Integer)
    scan: Mapped[str | None] = mapped_column(String(16))


class ConfigRevision(Base):
    """One committed change of the configuration; the highest revision is the current one. The audit log of the configuration."""

    __tablename__ = "config_revision"
    revision: Mapped[int] = mapped_column(BigId, primary_key=True)
    time_ms: Mapped[int] = mapped_column(BigInteger)
    changed_by: Mapped[str] = mapped_column(String(64))
    summary: Mapped[str] = mapped_column(String(200))
    difference: Mapped[dict[str, Any] | None]


class Outbox(Base):
    """A value that was acknowledged to its source and is not yet confirmed by its device. Written by mqtt_server only."""

    __tablename__ = "outbox"
    __table_args__ = (NO_REUSE,)
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    binding_id: Mapped[int] = mapped_column(ForeignKey("binding.id", ondelete="CASCADE"), index=True)
    value: Mapped[dict[str, Any]]
    time_ms: Mapped[int] = mapped_column(BigInteger)


class Heard(Base):
    """A device that has sent a live message on its topic: a retained one may be older. Written by mqtt_server only."""

    __tablename__ = "heard"
    device_id: Mapped[int] = mapped_column(
        ForeignKey("device.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    topic: Mapped[str] = mapped_column(Text)


class Reject(Base):
    """A message or value that was not written; the last 1,000, the newest has the highest id. Written by mqtt_server only."""

    __tablename__ = "reject"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    time_ms: Mapped[int] = mapped_column(BigInteger)
    topic: Mapped[str] = mapped_column(String(512))
    payload: Mapped[str] = mapped_column(String(256))
    code: Mapped[str] = mapped_column(String(32), index=True)
    reason: Mapped[str] = mapped_column(String(512))
    device: Mapped[str | None] = mapped_column(String(NAME_LENGTH))
    tag: Mapped[str | None] = mapped_column(String(NAME_LENGTH))


class RejectCount(Base):
    """How often each reason occurred since the database was made. Written by mqtt_server only."""

    __tablename__ = "reject_count"
    __table_args__ = (CheckConstraint("count >= 0", name="not_negative"),)
    code: Mapped[str] = mapped_column(String(32), primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)


class CommandStep(Base):
    """One step of a command: append only, the newest 200,000. Written by the owner of the command's tag, and by flask_app for
    commands that no owner answered. `value` and `old_value` are {"v": ...}: a scalar, or for a group an object by tag."""

    __tablename__ = "command_step"
    __table_args__ = (Index("ix_command_step_command", "command_id", "id"), NO_REUSE)
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    command_id: Mapped[str] = mapped_column(String(64))
    time_ms: Mapped[int] = mapped_column(BigInteger)
    device: Mapped[str] = mapped_column(String(NAME_LENGTH))
    tag: Mapped[str | None] = mapped_column(String(NAME_LENGTH))
    state: Mapped[str] = mapped_column(String(16))
    final: Mapped[bool] = mapped_column(Boolean)
    value: Mapped[dict[str, Any]]
    old_value: Mapped[dict[str, Any]]
    reason: Mapped[str] = mapped_column(String(256))
    who: Mapped[str] = mapped_column(String(64))
    origin: Mapped[str] = mapped_column(String(64))
