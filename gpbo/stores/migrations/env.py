"""Run by alembic: the migrations, on the connection and within the transaction that the store opened."""

from __future__ import annotations

from alembic import context

from gpbo.stores.schema import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
context.run_migrations()
