"""How often a binding is read."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("binding", sa.Column("period_ms", sa.Integer(), nullable=True))
    op.add_column("binding", sa.Column("scan", sa.String(length=16), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("binding") as batch:
        batch.drop_column("scan")
        batch.drop_column("period_ms")
