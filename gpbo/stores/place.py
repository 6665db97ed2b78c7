"""Where a store is: from a path or a URL to a place that is fit to be opened.

All that can be known without opening a database is checked here. A file that is not ours is only ever
read, so that naming the wrong one does it no harm.
"""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from gpbo.errors import GpboError, StoreError
from gpbo.stores import failures
from gpbo.stores.schema import VERSION_TABLE

_MAGIC = b"SQLite format 3\0"  # sqlite.org/fileformat2.html, section 1.3.1


@dataclass(frozen=True, slots=True)
class Place:
    """A database's address.

    Attributes:
        url: What SQLAlchemy connects to.
        path: The SQLite file, symbolic links resolved, or None for a server.
        label: How messages call it; never with a password.
    """

    url: URL
    path: Path | None
    label: str


def locate(where: str | Path, *, create: bool) -> Place:
    """The place that a path or a URL names.

    Args:
        where: A file's path, or a URL with the scheme ``sqlite`` or ``postgresql``.
        create: Whether a file that is not there may be made.

    Raises:
        StoreError: if it can be no study's place, and why.
    """
    if isinstance(where, Path) or "://" not in where:
        return _file(Path(where), create=create)
    try:
        url = make_url(where)
    except (ArgumentError, ValueError):
        raise StoreError(f"`store` must be a path or a database URL, got {shown(where)!r}.") from None
    if url.get_backend_name() == "postgresql":
        label = url.render_as_string(hide_password=True)
        return Place(url.set(drivername="postgresql+psycopg"), None, label)
    if url.get_backend_name() != "sqlite":
        raise StoreError(
            "`store` must be a path, or a URL like 'sqlite:///study.db' or 'postgresql+psycopg://host/db'; "
            f"got {url.get_backend_name()!r}."
        )
    if url.query:
        raise StoreError(f"an SQLite URL takes no options, got {shown(where)!r}; name the file alone.")
    return _file(Path(url.database or ":memory:"), create=create)


def shown(where: str | Path) -> str:
    """A path or a URL as it may be shown: without its password."""
    try:
        return (
            make_url(str(where)).render_as_string(hide_password=True) if "://" in str(where) else str(where)
        )
    except (ArgumentError, ValueError):
        return re.sub(r"(://[^:/]*:).*@", r"\1***@", str(where))


def _file(path: Path, *, create: bool) -> Place:
    if str(path) == ":memory:":
        raise StoreError("`store` must name a file; use store=None to keep a study in memory.")
    try:
        # Resolved, so that all processes agree on the lock's name, whatever their working directory.
        path = path.resolve()
        _check(path, create=create)
    except GpboError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise StoreError(f"{str(path)!r} cannot be opened: {error}; name another file.") from None
    return Place(URL.create("sqlite", database=str(path)), path, str(path))


def _check(path: Path, *, create: bool) -> None:
    if path.is_dir():
        raise StoreError(f"{path} is a directory; name a file in it, such as {path / 'study.db'}.")
    if not path.exists():
        if not create:
            raise StoreError(f"there is no study file {path}; check the path.")
        if not path.parent.is_dir():
            what = "is not a directory" if path.parent.exists() else "does not exist"
            raise StoreError(f"{path} cannot be made: {path.parent} {what}; create it, or name another file.")
        return
    if not path.is_file():
        raise StoreError(f"{path} is not a regular file; name another file.")
    with path.open("rb") as file:
        start = file.read(len(_MAGIC))
    if start and start != _MAGIC:  # SQLite takes an empty file for a new database, and so do we
        raise StoreError(f"{path} is not an SQLite file; it was left as it is. Name another file.")
    tables = _tables(path) if start else []
    if tables and VERSION_TABLE not in tables:
        listed = ", ".join(tables[:5]) + (", ..." if len(tables) > 5 else "")
        raise StoreError(
            f"{path} is another program's SQLite file (it holds {listed}); it was left as it is. "
            "Name another file."
        )


def read_only(path: Path) -> str | None:
    """The URI that opens a file which this user may not write, or None where they may.

    SQLite keeps its write-ahead log in the same directory, so that must be writable too. Where there is no
    log nobody writes, and the file is read as one that never changes: it needs nothing beside it.
    """
    if not path.exists() or (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        return None
    return f"{path.as_uri()}?mode=ro" + ("" if Path(f"{path}-wal").exists() else "&immutable=1")


def _tables(path: Path) -> list[str]:
    # A connection that may write would, when it closes, move what a crashed program left in its
    # write-ahead log into the file; one that may not write cannot make the log's index where it is missing.
    mode = "ro" if Path(f"{path}-wal").exists() else "rw"
    address = read_only(path) or f"{path.as_uri()}?mode={mode}"
    with (
        failures.explained(str(path)),
        closing(sqlite3.connect(address, timeout=failures.BUSY_SECONDS, uri=True)) as file,
    ):
        return [name for (name,) in file.execute("SELECT name FROM sqlite_master ORDER BY name")]
