"""what layers take on each kind of machine"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "latencies",
        sa.Column("machine", sa.String(length=200), nullable=False),
        sa.Column("signature", sa.String(length=64), nullable=False),
        sa.Column("ms", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("measured_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("machine", "signature", name=op.f("pk_latencies")),
    )


def downgrade() -> None:
    op.drop_table("latencies")
