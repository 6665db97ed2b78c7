"""The tables behind a store, as the migrations have left them.

    gpbo_studies   a study and `seq`, which every write to the study increments
    gpbo_trials    one row a trial, with the `seq` of its last write, so that readers fetch only what is new
    gpbo_meta      named JSON values of a study
    gpbo_schema    the revision of this schema, kept by alembic
    gpbo_writer    the version of gpbo that last migrated the schema; every later schema keeps this table

A change here needs a new migration in `migrations/versions`, and its number as `HEAD`. JSON is kept as
text: it gives back every float to the last bit, and tells 1 from 1.0 and True.
"""

from __future__ import annotations

import sqlalchemy as sa

HEAD = "0001"  # the revision that this gpbo reads and writes; revisions are numbered in order
VERSION_TABLE = "gpbo_schema"

METADATA = sa.MetaData()

STUDIES = sa.Table(
    "gpbo_studies",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("seq", sa.BigInteger, nullable=False),
)

TRIALS = sa.Table(
    "gpbo_trials",
    METADATA,
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
    sa.Index("gpbo_trials_seq", "study_id", "seq"),
)

META = sa.Table(
    "gpbo_meta",
    METADATA,
    sa.Column("study_id", sa.Integer, sa.ForeignKey("gpbo_studies.id"), primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

WRITER = sa.Table("gpbo_writer", METADATA, sa.Column("gpbo", sa.Text, nullable=False))
