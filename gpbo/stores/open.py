"""From what the user names to a store."""

from __future__ import annotations

from pathlib import Path

from gpbo.errors import SettingError
from gpbo.stores.base import Store
from gpbo.stores.memory import MemoryStore


def open_store(where: Store | str | Path | None, name: str, *, create: bool = True) -> Store:
    """The store for study `name`: in memory for None, an SQLite file for a path, a database for a URL.

    Args:
        where: None, a path, a URL such as ``postgresql+psycopg://host/db``, or a store, returned as it is.
        name: The study's name.
        create: Whether a file or a study that is not there is made.

    Raises:
        SettingError: if `where` is none of these.
        StoreError: if it cannot be opened, or is not there and must not be made.
    """
    if where is None:
        return MemoryStore()
    if not isinstance(where, str | Path):
        if isinstance(where, type) or not hasattr(where, "asking"):
            raise SettingError(f"`store` must be None, a path, a database URL or a store, got {where!r}.")
        return where
    if not str(where):
        raise SettingError("`store` must name a file or a database, got an empty string.")
    from gpbo.stores.sql import SQLStore

    return SQLStore(where, name, create=create)
