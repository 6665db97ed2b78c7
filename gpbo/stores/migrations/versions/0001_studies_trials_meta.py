"""The first tables: studies, their trials and their named values."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "gpbo_studies",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("seq", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "gpbo_trials",
        sa.Column("study_id", sa.Integer, sa.ForeignKey("gpbo_studies.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("config", sa.Text, nullable=False),
        sa.Column("budget", sa.Double),
        sa.Column("bracket", sa.Integer),
        sa.Column("observations", sa.Text, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("info", sa.Text, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("started", sa.Double),
        sa.Column("finished", sa.Double),
    )
    op.create_index("gpbo_trials_seq", "gpbo_trials", ["study_id", "seq"])
    op.create_table(
        "gpbo_meta",
        sa.Column("study_id", sa.Integer, sa.ForeignKey("gpbo_studies.id"), primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    op.create_table("gpbo_writer", sa.Column("gpbo", sa.Text, nullable=False))
