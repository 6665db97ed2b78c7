"""A server's lock, on SQLite with functions of the server's names: what becomes of its connection."""

import sqlite3
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from gpbo.errors import StoreError
from gpbo.stores.locks import SessionLock


class Server:
    """Advisory locks for the connections of one engine, which can be lost."""

    def __init__(self) -> None:
        self.engine = sa.create_engine("sqlite://", poolclass=sa.pool.QueuePool)
        self.keys: list[int] = []
        self.is_lost = False
        self.closed = 0
        event.listen(self.engine, "connect", self._connect)
        event.listen(self.engine, "close", self._close)

    def _connect(self, connection: sqlite3.Connection, _: object) -> None:
        connection.create_function("pg_advisory_lock", 1, self._wait)
        connection.create_function("pg_try_advisory_lock", 1, self._try)
        connection.create_function("pg_advisory_unlock", 1, self._unlock)

    def _close(self, *_: object) -> None:
        self.closed += 1

    def _wait(self, key: int) -> None:
        assert self._try(key)

    def _try(self, key: int) -> bool:
        if self.is_lost or key in self.keys:
            return False
        self.keys.append(key)
        return True

    def _unlock(self, key: int) -> bool:
        if self.is_lost:
            raise ConnectionError
        self.keys.remove(key)
        return True


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.engine.dispose()


@pytest.mark.parametrize("way", ["held", "tried"])
@pytest.mark.parametrize("is_lost", [False, True])
def test_what_is_raised_in_a_block_comes_out_as_it_is(server: Server, way: str, is_lost: bool) -> None:
    error = sqlite3.OperationalError("mine")
    lock = SessionLock(server.engine, "a")

    def fail() -> None:
        assert len(server.keys) == 1
        server.is_lost = is_lost
        raise error

    with pytest.raises(sqlite3.OperationalError) as raised, getattr(lock, way)():
        fail()
    assert raised.value is error
    assert (len(server.keys), server.closed) == ((1, 1) if is_lost else (0, 0))


def test_a_lock_that_is_not_had_is_not_freed(server: Server) -> None:
    one, two = SessionLock(server.engine, "a"), SessionLock(server.engine, "a")
    with one.tried() as mine:
        with two.tried() as theirs:
            assert (mine, theirs) == (True, False)
        assert len(server.keys) == 1
    assert server.keys == []


@pytest.mark.parametrize("way", ["held", "tried"])
def test_what_the_server_raises_is_explained(way: str) -> None:
    engine = sa.create_engine("sqlite://")  # which knows no such function
    with pytest.raises(StoreError, match="cannot be used: no such function"):
        getattr(SessionLock(engine, "a"), way)().__enter__()
    engine.dispose()
