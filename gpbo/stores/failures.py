"""What can go wrong with a database, in plain words with what to do about it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

from gpbo.errors import StoreError

BUSY_SECONDS = 60.0  # how long another process may keep a database from being written
NOTICE_SECONDS = 3.0  # after which the user is told what is being waited for

_DAMAGED = "the file is damaged; use a copy, or save what `sqlite3 FILE .recover` still finds"
_WHAT_TO_DO = {
    sqlite3.SQLITE_BUSY: "another process holds it; end that process, or try again",
    sqlite3.SQLITE_FULL: "free some space and try again; what was stored before is unchanged",
    sqlite3.SQLITE_IOERR: "see to the disk and try again; what was stored before is unchanged",
    sqlite3.SQLITE_READONLY: "make the file and its directory writable",
    sqlite3.SQLITE_CANTOPEN: "make the file and its directory readable and writable",
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
}


@contextmanager
def explained(label: str) -> Iterator[None]:
    """A block in which whatever the database raises becomes a `StoreError`.

    Args:
        label: How the message calls the database.

    Raises:
        StoreError: naming the database, what is wrong, and what to do.
    """
    try:
        yield
    except (sqlite3.Error, SQLAlchemyError) as error:
        raise StoreError(_message(label, error)) from None


def _message(label: str, error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    what = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
    if not isinstance(cause, sqlite3.Error):
        return f"the database {label} cannot be used: {what}; check its URL, and that its server runs."
    # The low byte is the kind of error, the rest its details: sqlite.org/rescode.html.
    advice = _WHAT_TO_DO.get(getattr(cause, "sqlite_errorcode", 0) & 0xFF, "check the file")
    return f"{label} cannot be used: {what}; {advice}."
