"""The database behind a store: its connections, its transactions and its schema.

A write is a transaction that takes the write lock at its start, and is on the disk when it ends
(write-ahead log, synchronous=FULL). A process has one connection to an SQLite file, which its threads take
in turns and which is closed before a fork, because SQLite's locks belong to the process that took them:
a child that inherited a connection would take part without holding any.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from gpbo._version import __version__
from gpbo.errors import MissingExtraError, StoreError
from gpbo.stores import failures
from gpbo.stores.locks import FileLock, Lock, SessionLock
from gpbo.stores.place import Place, read_only
from gpbo.stores.schema import HEAD, VERSION_TABLE, WRITER

logger = logging.getLogger(__name__)

_MIGRATIONS = "gpbo.stores:migrations"
_WRITING = "gpbo_writing"  # the execution option that tells a write from a read


class Database:
    """Connections to one place; safe for threads, and usable in forked children.

    Args:
        place: Where it is.
        create: Whether a schema is made where there is none, and an older one is upgraded.

    Raises:
        StoreError: if it cannot be opened, holds no study and must not be made, has an older schema that
            must not be upgraded, or needs a newer gpbo.
        MissingExtraError: if the database's driver is not installed.
    """

    def __init__(self, place: Place, *, create: bool) -> None:
        self.label = place.label
        self.path = place.path
        self._place = place
        self._turn = threading.RLock()
        self._engine = _engine(place)
        self._writer = self._engine.execution_options(**{_WRITING: True})
        self._finalizer = weakref.finalize(self, self._engine.dispose)
        with _fork_guard:
            _databases.add(self)
        self._file: os.stat_result | None = None  # the SQLite file that was opened
        try:
            self._prepare(create=create)
            self._file = None if self.path is None else self.path.stat()
        except BaseException:
            self.close()
            raise

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection for statements that read, while no other thread of this process has one."""
        with self._turn, failures.explained(self.label), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A connection within a transaction that is kept at the end, or on an error leaves no trace.

        Raises:
            StoreError: if the file that was opened is not there any more: what is written would be lost.
        """
        self._check_file()
        with self._turn, failures.explained(self.label), self._writer.begin() as connection:
            yield connection

    def lock(self, key: str, *, file: str = "lock") -> Lock:
        """A lock between processes; those of an SQLite file are one unless they have another `file`."""
        if self._place.path is None:
            return SessionLock(self._engine, key)
        return FileLock(self._place.path.with_name(f"{self._place.path.name}.{file}"))

    def close(self) -> None:
        """Let go of all connections."""
        self._finalizer()

    def _check_file(self) -> None:
        if self._file is None or self.path is None:
            return
        try:
            found = self.path.stat()
        except OSError:
            what = "was deleted or moved"
        else:
            if os.path.samestat(found, self._file):
                return
            what = "was replaced by another file"
        raise StoreError(
            f"{self.label} {what} while it was in use, so that nothing more can be stored in it; put it "
            "back, or begin anew with another name. What this process has read is still in `study.trials`."
        )

    def _prepare(self, *, create: bool) -> None:
        revision, writer = self._written()
        if revision > HEAD:
            raise StoreError(
                f"{self.label} was written by gpbo {writer} and has schema {revision}; this is gpbo "
                f"{__version__}, which knows schemas up to {HEAD}. Upgrade gpbo."
            )
        if not revision and not create:
            raise StoreError(f"{self.label} holds no study; check its name.")
        if revision and revision < HEAD and not create:
            raise StoreError(
                f"{self.label} was written by gpbo {writer} and has schema {revision}; reading does not "
                f"upgrade it to schema {HEAD}. `gpbo run` does, and so does Study(space, store=...)."
            )
        if revision < HEAD:
            with self.lock("schema").held():
                self._migrate()

    def _written(self) -> tuple[str, str]:
        """The schema's revision and the gpbo that made it; empty where there is none yet."""
        with self.reading() as connection:
            if not sa.inspect(connection).has_table(VERSION_TABLE):
                return "", ""
            revision = connection.scalar(sa.text(f"SELECT version_num FROM {VERSION_TABLE}"))
            return revision or "", connection.scalar(sa.select(WRITER.c.gpbo)) or ""

    def _migrate(self) -> None:
        from alembic import command
        from alembic.config import Config

        if self._place.path is not None:
            self._log_ahead()
        config = Config()
        config.set_main_option("script_location", _MIGRATIONS.replace("%", "%%"))
        with self.writing() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.execute(WRITER.delete())
            connection.execute(WRITER.insert().values(gpbo=__version__))

    def _log_ahead(self) -> None:
        """Switch the file to its write-ahead log, for good.

        SQLite does not wait for readers here as it does elsewhere, so we do.
        """
        end = time.monotonic() + failures.BUSY_SECONDS
        with self.reading() as connection:
            while True:
                try:
                    connection.exec_driver_sql("PRAGMA journal_mode = WAL")
                    return
                except sa.exc.OperationalError:
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.01)

    def _before_fork(self) -> None:
        self._turn.acquire()
        self._engine.dispose()

    def _after_fork_in_parent(self) -> None:
        self._turn.release()

    def _after_fork_in_child(self) -> None:
        self._turn = threading.RLock()


def _engine(place: Place) -> sa.Engine:
    if place.path is None:
        try:
            # Without a limit, because threads that wait for a `SessionLock` keep a connection each.
            return sa.create_engine(place.url, pool_pre_ping=True, max_overflow=-1)
        except ImportError:
            raise MissingExtraError("psycopg is not installed; pip install 'gpbo[postgres]'.") from None
    options: dict[str, Any] = {"timeout": failures.BUSY_SECONDS, "check_same_thread": False}
    address = read_only(place.path)
    engine = (
        sa.create_engine(place.url, connect_args=options)
        if address is None
        else sa.create_engine(place.url, creator=lambda: sqlite3.connect(address, uri=True, **options))
    )
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    return engine


def _configure(connection: sqlite3.Connection, record: Any) -> None:
    connection.isolation_level = None  # the driver begins no transactions of its own
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin(connection: sa.Connection) -> None:
    # A read is one statement, which is a transaction by itself.
    if not connection.get_execution_options().get(_WRITING):
        return
    driver: Any = connection.connection.dbapi_connection
    soon = min(failures.NOTICE_SECONDS, failures.BUSY_SECONDS)
    try:
        _begin_within(driver, soon)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        logger.warning("waiting for %s, which another process is writing.", connection.engine.url.database)
        _begin_within(driver, failures.BUSY_SECONDS - soon)


def _begin_within(driver: sqlite3.Connection, seconds: float) -> None:
    driver.execute(f"PRAGMA busy_timeout = {round(1000 * seconds)}")
    try:
        driver.execute("BEGIN IMMEDIATE")
    finally:
        driver.execute(f"PRAGMA busy_timeout = {round(1000 * failures.BUSY_SECONDS)}")


_databases: weakref.WeakSet[Database] = weakref.WeakSet()
_fork_guard = threading.RLock()  # held from before a fork until after it, so that no database comes between
_forking: list[Database] = []


def _before_fork() -> None:
    _fork_guard.acquire()
    _forking[:] = _databases
    for database in _forking:
        database._before_fork()


def _after_fork_in_parent() -> None:
    for database in _forking:
        database._after_fork_in_parent()
    _forking.clear()
    _fork_guard.release()


def _after_fork_in_child() -> None:
    global _fork_guard
    for database in _forking:
        database._after_fork_in_child()
    _forking.clear()
    _fork_guard = threading.RLock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
