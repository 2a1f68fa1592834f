"""The first tables: configuration, its revisions, outbox, rejects."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "config_revision",
        sa.Column("revision", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("time_ms", sa.BigInteger(), nullable=False),
        sa.Column("changed_by", sa.String(length=64), nullable=False),
        sa.Column("summary", sa.String(length=200), nullable=False),
        sa.Column("difference", sa.JSON(none_as_null=True), nullable=True),
        sa.PrimaryKeyConstraint("revision", name=op.f("pk_config_revision")),
    )
    op.create_table(
        "device",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("description", sa.String(length=500), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_device")),
        sa.UniqueConstraint("name", name=op.f("uq_device_name")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_device_revision"), "device", ["revision"], unique=False)
    op.create_table(
        "item",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("description", sa.String(length=500), nullable=False),
        sa.Column("data_type", sa.String(length=16), nullable=False),
        sa.Column("unit", sa.String(length=32), nullable=False),
        sa.Column("scaling", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("limits", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("deadband", sa.Float(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_item")),
        sa.UniqueConstraint("name", name=op.f("uq_item_name")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "reject",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("time_ms", sa.BigInteger(), nullable=False),
        sa.Column("topic", sa.String(length=512), nullable=False),
        sa.Column("payload", sa.String(length=256), nullable=False),
        sa.Column("code", sa.String(length=32), nullable=False),
        sa.Column("reason", sa.String(length=512), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=True),
        sa.Column("tag", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reject")),
    )
    op.create_index(op.f("ix_reject_code"), "reject", ["code"], unique=False)
    op.create_table(
        "reject_count",
        sa.Column("code", sa.String(length=32), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("count >= 0", name=op.f("ck_reject_count_not_negative")),
        sa.PrimaryKeyConstraint("code", name=op.f("pk_reject_count")),
    )
    op.create_table(
        "network",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("device_id", sa.Integer(), nullable=False),
        sa.Column("protocol", sa.String(length=32), nullable=False),
        sa.Column("settings", sa.JSON(none_as_null=True), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["device.id"], name=op.f("fk_network_device_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_network")),
        sa.UniqueConstraint("device_id", "protocol", name=op.f("uq_network_device_id_protocol")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "term",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("device_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("description", sa.String(length=500), nullable=False),
        sa.Column("settings", sa.JSON(none_as_null=True), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["device.id"], name=op.f("fk_term_device_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_term")),
        sa.UniqueConstraint("device_id", "name", name=op.f("uq_term_device_id_name")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "tag",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("device_id", sa.Integer(), nullable=False),
        sa.Column("term_id", sa.Integer(), nullable=True),
        sa.Column("item_id", sa.Integer(), nullable=True),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("description", sa.String(length=500), nullable=False),
        sa.Column("data_type", sa.String(length=16), nullable=True),
        sa.Column("unit", sa.String(length=32), nullable=True),
        sa.Column("scaling", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("limits", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("deadband", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["device_id"], ["device.id"], name=op.f("fk_tag_device_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["item_id"], ["item.id"], name=op.f("fk_tag_item_id"), ondelete="RESTRICT"),
        sa.ForeignKeyConstraint(["term_id"], ["term.id"], name=op.f("fk_tag_term_id"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tag")),
        sa.UniqueConstraint("device_id", "name", name=op.f("uq_tag_device_id_name")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_tag_item", "tag", ["item_id"], unique=False)
    op.create_index("ix_tag_name", "tag", ["name"], unique=False)
    op.create_index(op.f("ix_tag_term_id"), "tag", ["term_id"], unique=False)
    op.create_table(
        "binding",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("tag_id", sa.Integer(), nullable=False),
        sa.Column("protocol", sa.String(length=32), nullable=False),
        sa.Column("direction", sa.String(length=8), nullable=False),
        sa.Column("address", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("options", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("scaling", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("limits", sa.JSON(none_as_null=True), nullable=True),
        sa.ForeignKeyConstraint(["tag_id"], ["tag.id"], name=op.f("fk_binding_tag_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_binding")),
        sa.UniqueConstraint("tag_id", "protocol", name=op.f("uq_binding_tag_id_protocol")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("binding_id", sa.Integer(), nullable=False),
        sa.Column("value", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("time_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["binding_id"], ["binding.id"], name=op.f("fk_outbox_binding_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_outbox_binding_id"), "outbox", ["binding_id"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_outbox_binding_id"), table_name="outbox")
    op.drop_table("outbox")
    op.drop_table("binding")
    op.drop_index(op.f("ix_tag_term_id"), table_name="tag")
    op.drop_index("ix_tag_name", table_name="tag")
    op.drop_index("ix_tag_item", table_name="tag")
    op.drop_table("tag")
    op.drop_table("term")
    op.drop_table("network")
    op.drop_table("reject_count")
    op.drop_index(op.f("ix_reject_code"), table_name="reject")
    op.drop_table("reject")
    op.drop_table("item")
    op.drop_index(op.f("ix_device_revision"), table_name="device")
    op.drop_table("device")
    op.drop_table("config_revision")
