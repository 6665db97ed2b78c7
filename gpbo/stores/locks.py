"""Locks between processes, freed by the operating system or the server when their holder dies.

Both kinds are reentrant within a thread and exclude other threads as well as other processes.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import filelock
import sqlalchemy as sa

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
                logger.warning("waiting for %s, which another process holds.", self._path)
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
        label = self._engine.url.render_as_string(hide_password=True)
        with failures.explained(label), self._engine.connect() as connection:
            connection.execute(sa.select(sa.func.pg_advisory_lock(self._key)))
            self._depth.value = 1
            try:
                yield
            finally:
                self._depth.value = 0
                connection.execute(sa.select(sa.func.pg_advisory_unlock(self._key)))

    @contextmanager
    def tried(self) -> Iterator[bool]:
        """A block that knows whether the lock is held in it; does not wait."""
        label = self._engine.url.render_as_string(hide_password=True)
        with failures.explained(label), self._engine.connect() as connection:
            is_held = bool(connection.scalar(sa.select(sa.func.pg_try_advisory_lock(self._key))))
            try:
                yield is_held
            finally:
                if is_held:
                    connection.execute(sa.select(sa.func.pg_advisory_unlock(self._key)))
