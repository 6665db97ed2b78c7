"""Where a store may be, and every path or URL that can be no study's place."""

import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from gpbo.errors import MissingExtraError, StoreError
from gpbo.stores.place import shown
from gpbo.stores.sql import SQLStore
from gpbo.trial import Trial


def numbered(n: int, start: int = 0) -> list[Trial]:
    return [Trial(number=k, config={"x": k / 7}) for k in range(start, start + n)]


def snapshot(folder: Path) -> dict[str, bytes]:
    """All files but the index of a write-ahead log, which every reader writes."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.endswith("-shm")}


class TestBadPlaces:
    def test_a_missing_directory(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"cannot be made: .*nowhere does not exist; create it"):
            SQLStore(tmp_path / "nowhere" / "study.db", "s")

    def test_a_directory_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(StoreError, match=r"cannot be made: .*file is not a directory"):
            SQLStore(tmp_path / "file" / "study.db", "s")

    def test_a_file_that_is_a_directory(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"is a directory; name a file in it"):
            SQLStore(tmp_path, "s")

    def test_a_pipe(self, path: Path) -> None:
        os.mkfifo(path)
        with pytest.raises(StoreError, match="is not a regular file"):
            SQLStore(path, "s")

    @pytest.mark.parametrize("name", ["a" * 300, "a\0b"])
    def test_a_name_that_no_file_can_have(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(StoreError, match=r"cannot be opened: .*; name another file"):
            SQLStore(tmp_path / name, "s")

    @pytest.mark.parametrize("where", [":memory:", "sqlite://", "sqlite:///:memory:"])
    def test_sqlites_own_memory(self, where: str) -> None:
        with pytest.raises(StoreError, match="use store=None to keep a study in memory"):
            SQLStore(where, "s")

    @pytest.mark.parametrize("where", ["://", "post gres://host/db", "sqlite://:port:/x"])
    def test_a_url_that_is_none(self, where: str) -> None:
        with pytest.raises(StoreError, match="must be a path or a database URL, got"):
            SQLStore(where, "s")

    def test_a_database_of_another_kind(self) -> None:
        with pytest.raises(StoreError, match=r"must be a path, or a URL like .*; got 'mysql'"):
            SQLStore("mysql://host/db", "s")

    def test_options_of_sqlite(self) -> None:
        with pytest.raises(StoreError, match="takes no options"):
            SQLStore("sqlite:///study.db?timeout=5", "s")

    def test_postgres_without_its_driver(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "psycopg", None)
        with pytest.raises(
            MissingExtraError, match=r"psycopg is not installed; pip install 'gpbo\[postgres\]'"
        ):
            SQLStore("postgresql://host/db", "s")

    def test_postgres_without_a_server(self) -> None:
        pytest.importorskip("psycopg", reason="psycopg is not installed")
        with pytest.raises(StoreError, match=r"cannot be used: .*; check its URL") as caught:
            SQLStore("postgresql+psycopg://user:secret@127.0.0.1:1/db", "s")
        assert "secret" not in str(caught.value)

    def test_a_lock_that_cannot_be_made(self, path: Path) -> None:
        path.with_name("study.db.lock").mkdir()
        with pytest.raises(
            StoreError, match=r"study.db.lock cannot be locked: .*; make its directory writable"
        ):
            SQLStore(path, "s")

    def test_a_file_that_may_not_be_written(self, path: Path, open_store: Callable[..., SQLStore]) -> None:
        def only_read(connection: sqlite3.Connection, _: Any) -> None:
            connection.execute("PRAGMA query_only = ON")  # what SQLite answers where it may not write

        open_store().add(numbered(1))
        event.listen(sa.Engine, "connect", only_read)
        try:
            store = open_store()
            with pytest.raises(StoreError, match=r"study.db cannot be used: .*readonly.*; make the file"):
                store.add(numbered(1, start=1))
        finally:
            event.remove(sa.Engine, "connect", only_read)
        assert list(store.trials()) == numbered(1)


class TestForeignFiles:
    @pytest.mark.parametrize("content", [b"my notes\n", b"\0" * 5000, b"SQLite format 2\0" + b"x" * 100])
    def test_a_file_that_is_not_sqlite(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        with pytest.raises(StoreError, match="is not an SQLite file; it was left as it is"):
            SQLStore(path, "s")
        assert snapshot(path.parent) == {"study.db": content}

    @pytest.mark.parametrize("journal", ["delete", "wal"])
    def test_another_programs_file(self, path: Path, journal: str) -> None:
        with closing(sqlite3.connect(path)) as file:
            file.execute(f"PRAGMA journal_mode = {journal}")
            file.execute("CREATE TABLE bookmarks (url TEXT)")
        before = snapshot(path.parent)
        with pytest.raises(StoreError, match=r"another program's SQLite file \(it holds bookmarks\)"):
            SQLStore(path, "s")
        assert snapshot(path.parent) == before
        assert sorted(p.name for p in path.parent.iterdir()) == ["study.db"]

    def test_another_programs_file_after_its_crash(self, path: Path, tmp_path: Path) -> None:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        with closing(sqlite3.connect(elsewhere / "study.db")) as file:
            file.execute("PRAGMA journal_mode = wal")
            file.execute("CREATE TABLE a (x)")
            for name in ("study.db", "study.db-wal"):
                (tmp_path / name).write_bytes((elsewhere / name).read_bytes())
        before = {name: (tmp_path / name).read_bytes() for name in ("study.db", "study.db-wal")}
        with pytest.raises(StoreError, match=r"another program's SQLite file \(it holds a\)"):
            SQLStore(path, "s")
        assert {name: (tmp_path / name).read_bytes() for name in before} == before

    def test_a_long_list_of_tables_is_cut(self, path: Path) -> None:
        with closing(sqlite3.connect(path)) as file:
            for k in range(7):
                file.execute(f"CREATE TABLE t{k} (x)")
        with pytest.raises(StoreError, match=r"\(it holds t0, t1, t2, t3, t4, \.\.\.\)"):
            SQLStore(path, "s")


@pytest.mark.parametrize(
    ("where", "seen"),
    [
        ("postgresql+psycopg://me:secret@host/db", "postgresql+psycopg://me:***@host/db"),
        ("postgresql://me:sec@ret@host:port/db", "postgresql://me:***@host:port/db"),
        ("postgresql://host/db", "postgresql://host/db"),
        (Path("a") / "study.db", str(Path("a") / "study.db")),
    ],
)
def test_a_password_is_not_shown(where: str | Path, seen: str) -> None:
    assert shown(where) == seen


def test_a_password_is_not_in_the_error_of_a_url_that_is_none() -> None:
    with pytest.raises(StoreError, match=r"database URL, got 'postgresql://me:\*\*\*@host:port/db'"):
        SQLStore("postgresql://me:secret@host:port/db", "s")
