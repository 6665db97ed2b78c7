"""Locks between processes, freed by the operating system or the server when their holder dies.

Both kinds exclude other threads as well as other processes. A thread that is in `held` may enter it again;
`tried` promises nothing to a thread that has the lock already.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import filelock
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from gpbo.errors import StoreError
from gpbo.seeding import derive
from gpbo.stores import failures

_POLL_SECONDS = 0.002  # between looks at a file lock that another process holds

logger = logging.getLogger(__name__)


class Lock(Protocol):
    """What only one thread of all processes holds at a time."""

    def held(self) -> AbstractContextManager[None]:
        """A block that runs while the lock is held; waits for it without limit."""
        ...

    def tried(self) -> AbstractContextManager[bool]:
        """A block that knows whether the lock is held in it; does not wait."""
        ...


class FileLock:
    """A lock on a file beside an SQLite file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._by_process: dict[int, filelock.BaseFileLock] = {}

    @contextmanager
    def held(self) -> Iterator[None]:
        """A block that runs while the lock is held; waits for it without limit."""
        lock = self._own()
        self._acquire(lock)
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def tried(self) -> Iterator[bool]:
        """A block that knows whether the lock is held in it; does not wait."""
        lock = self._own()
        try:
            with self._explained():
                lock.acquire(blocking=False)
        except filelock.Timeout:
            is_held = False
        else:
            is_held = True
        try:
            yield is_held
        finally:
            if is_held:
                lock.release()

    def _own(self) -> filelock.BaseFileLock:
        # A forked child needs a lock of its own, and must not let go of its parent's.
        pid = os.getpid()
        return self._by_process.get(pid) or self._by_process.setdefault(pid, filelock.FileLock(self._path))

    def _acquire(self, lock: filelock.BaseFileLock) -> None:
        with self._explained():
            try:
                lock.acquire(timeout=failures.NOTICE_SECONDS, poll_interval=_POLL_SECONDS)
            except filelock.Timeout:
                logger.warning("waiting for %s, which another process or thread holds.", self._path)
                lock.acquire(timeout=-1, poll_interval=_POLL_SECONDS)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except filelock.Timeout:  # an OSError, too
            raise
        except OSError as error:
            raise StoreError(
                f"{self._path} cannot be locked: {error}; make its directory writable, or name another file."
            ) from None


class SessionLock:
    """An advisory lock of a PostgreSQL server, on a connection of its own."""

    def __init__(self, engine: sa.Engine, key: str) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._key = derive(0, "lock", key)
        self._depth = threading.local()

    @contextmanager
    def held(self) -> Iterator[None]:
        """A block that runs while the lock is held; waits for it without limit."""
        if getattr(self._depth, "value", 0):
            yield
            return
        with self._session(sa.func.pg_advisory_lock(self._key)):
            self._depth.value = 1
            try:
                yield
            finally:
                self._depth.value = 0

    @contextmanager
    def tried(self) -> Iterator[bool]:
        """A block that knows whether the lock is held in it; does not wait."""
        with self._session(sa.func.pg_try_advisory_lock(self._key, type_=sa.Boolean)) as is_held:
            yield is_held

    @contextmanager
    def _session(self, locking: sa.ColumnElement[Any]) -> Iterator[Any]:
        """A block that knows what `locking` has said, after which nothing is locked.

        What is raised within the block is not the database's, and comes out as it is.
        """
        label = self._engine.url.render_as_string(hide_password=True)
        with failures.explained(label):
            connection = self._engine.connect()
        try:
            with failures.explained(label):
                said = connection.scalar(sa.select(locking))
            try:
                yield said
            finally:
                if said is not False:
                    self._unlock(connection)
        finally:
            connection.close()

    def _unlock(self, connection: sa.Connection) -> None:
        try:
            connection.execute(sa.select(sa.func.pg_advisory_unlock(self._key)))
        except SQLAlchemyError:  # a session that ends frees its locks
            connection.invalidate()
