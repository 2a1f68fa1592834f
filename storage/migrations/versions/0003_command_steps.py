"""Steps of commands."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "command_step",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("command_id", sa.String(length=64), nullable=False),
        sa.Column("time_ms", sa.BigInteger(), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("tag", sa.String(length=64), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("final", sa.Boolean(), nullable=False),
        sa.Column("value", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("old_value", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("reason", sa.String(length=256), nullable=False),
        sa.Column("who", sa.String(length=64), nullable=False),
        sa.Column("origin", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_command_step")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_command_step_command", "command_step", ["command_id", "id"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_command_step_command", table_name="command_step")
    op.drop_table("command_step")
