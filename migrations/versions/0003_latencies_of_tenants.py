"""each tenant has its own times of layers; what was measured for all is forgotten"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_table("latencies")
    tenant = sa.Column("key_id", sa.String(length=36), nullable=False)
    name = op.f("fk_latencies_key_id_api_keys")
    _create(tenant, sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name=name))


def downgrade() -> None:
    op.drop_table("latencies")
    _create()


def _create(*of_tenant: Any) -> None:
    key = [column.name for column in of_tenant if isinstance(column, sa.Column)]
    op.create_table(
        "latencies",
        *of_tenant,
        sa.Column("machine", sa.String(length=200), nullable=False),
        sa.Column("signature", sa.String(length=64), nullable=False),
        sa.Column("ms", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("measured_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint(*key, "machine", "signature", name=op.f("pk_latencies")),
    )
