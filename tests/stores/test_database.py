"""The database behind a store: its schema, its locks, forks, and disks that fail it."""

import copy
import gc
import logging
import os
import pickle
import resource
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event

from gpbo._version import __version__
from gpbo.errors import StoreError
from gpbo.stores import database, failures
from gpbo.stores.schema import HEAD, METADATA, VERSION_TABLE
from gpbo.stores.sql import SQLStore, study_names
from gpbo.trial import Observation, State, Trial


def numbered(n: int, start: int = 0) -> list[Trial]:
    return [Trial(number=k, config={"x": k / 7}) for k in range(start, start + n)]


def told(trial: Trial, value: float = 1.0, **info: Any) -> Trial:
    return replace(trial, state=State.COMPLETE, observations=(Observation((value,)),), info=info)


def snapshot(folder: Path) -> dict[str, bytes]:
    """All files but the index of a write-ahead log, which every reader writes."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.endswith("-shm")}


class TestSchema:
    def migrations(self, connection: sa.Connection | None = None) -> Config:
        config = Config()
        config.set_main_option("script_location", "gpbo.stores:migrations")
        config.attributes["connection"] = connection
        return config

    def dump(self, path: Path) -> list[Any]:
        with closing(sqlite3.connect(path)) as file:
            return file.execute(
                "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name"
            ).fetchall()

    def test_the_head_is_the_last_migration(self) -> None:
        assert ScriptDirectory.from_config(self.migrations()).get_heads() == [HEAD]

    def test_the_migrations_make_the_tables_that_the_store_uses(
        self, path: Path, open_store: Callable[..., SQLStore]
    ) -> None:
        open_store()
        engine = sa.create_engine(f"sqlite:///{path}")
        with engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
            assert compare_metadata(context, METADATA) == []
        engine.dispose()

    @pytest.mark.parametrize(
        "revision",
        [
            script.revision
            for script in ScriptDirectory(str(Path(failures.__file__).parent / "migrations")).walk_revisions()
        ],
    )
    def test_a_migrated_database_is_as_a_fresh_one(
        self, path: Path, tmp_path: Path, open_store: Callable[..., SQLStore], revision: str
    ) -> None:
        old = tmp_path / "old.db"
        engine = sa.create_engine(f"sqlite:///{old}")
        with engine.begin() as connection:
            command.upgrade(self.migrations(connection), revision)
        engine.dispose()
        open_store(old)
        open_store(path)
        assert self.dump(old) == self.dump(path)

    @pytest.fixture
    def migrate_next(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
        """Makes the next gpbo's migration, of one statement, the last one."""

        def add(statement: str) -> None:
            folder = tmp_path / "migrations"
            shutil.copytree(Path(failures.__file__).parent / "migrations", folder)
            (folder / "versions" / "9999_next.py").write_text(
                f"from alembic import op\nrevision, down_revision = '9999', {HEAD!r}\n"
                "def upgrade():\n    op.execute('CREATE TABLE gpbo_next (x)')\n"
                f"    op.execute({statement!r})\n"
            )
            monkeypatch.setattr(database, "_MIGRATIONS", str(folder))
            monkeypatch.setattr(database, "HEAD", "9999")

        return add

    def test_an_older_one_is_migrated_and_keeps_its_trials(
        self, path: Path, open_store: Callable[..., SQLStore], migrate_next: Callable[[str], None]
    ) -> None:
        open_store().add(numbered(3))
        migrate_next("ALTER TABLE gpbo_trials ADD COLUMN extra TEXT")
        assert list(open_store().trials()) == numbered(3)
        assert "extra TEXT" in str(self.dump(path))
        with closing(sqlite3.connect(path)) as file:
            assert file.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchall() == [("9999",)]
            assert file.execute("SELECT gpbo FROM gpbo_writer").fetchall() == [(__version__,)]

    def test_reading_an_older_one_is_refused_and_leaves_it_as_it_is(
        self, path: Path, open_store: Callable[..., SQLStore], migrate_next: Callable[[str], None]
    ) -> None:
        open_store().close()
        before = path.read_bytes()
        migrate_next("ALTER TABLE gpbo_trials ADD COLUMN extra TEXT")
        message = rf"schema {HEAD}; reading does not upgrade it to schema 9999\. `gpbo run` does"
        for look in (lambda: open_store(create=False), lambda: study_names(path)):
            with pytest.raises(StoreError, match=message):
                look()
        assert path.read_bytes() == before

    def test_a_migration_that_fails_leaves_no_trace(
        self, path: Path, open_store: Callable[..., SQLStore], migrate_next: Callable[[str], None]
    ) -> None:
        open_store().add(numbered(3))
        before = self.dump(path)
        migrate_next("CREATE TABLE gpbo_trials (x)")
        with pytest.raises(StoreError, match="table gpbo_trials already exists"):
            open_store()
        assert self.dump(path) == before

    def test_a_newer_one_is_refused_and_left_as_it_is(
        self, path: Path, open_store: Callable[..., SQLStore]
    ) -> None:
        open_store().close()
        with closing(sqlite3.connect(path, isolation_level=None)) as file:
            file.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
            file.execute("UPDATE gpbo_writer SET gpbo = '77.0'")
        before = snapshot(path.parent)
        with pytest.raises(StoreError, match=r"written by gpbo 77\.0 and has schema 9999.*Upgrade gpbo"):
            open_store()
        with pytest.raises(StoreError, match="Upgrade gpbo"):
            study_names(path)
        assert snapshot(path.parent) == before

    def test_it_is_durable(self, path: Path, open_store: Callable[..., SQLStore]) -> None:
        settings = {}

        def see(connection: sa.Connection, *_: Any) -> None:
            cursor = connection.connection.cursor()
            for name in ("journal_mode", "synchronous", "foreign_keys"):
                settings[name] = cursor.execute(f"PRAGMA {name}").fetchone()[0]

        store = open_store()
        event.listen(sa.Engine, "before_cursor_execute", see)
        try:
            store.add(numbered(1))
        finally:
            event.remove(sa.Engine, "before_cursor_execute", see)
        assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}

    def test_opening_says_nothing(
        self,
        open_store: Callable[..., SQLStore],
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        before = list(logging.root.handlers), logging.root.level, logging.getLogger("alembic").disabled
        open_store()
        after = list(logging.root.handlers), logging.root.level, logging.getLogger("alembic").disabled
        assert before == after
        assert capfd.readouterr() == ("", "")


class TestBusy:
    def test_a_locked_database(
        self, path: Path, open_store: Callable[..., SQLStore], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(failures, "BUSY_SECONDS", 0.05)
        store = open_store()
        store.add(numbered(1))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(
                StoreError, match=r"study.db cannot be used: database is locked; another process"
            ):
                store.add(numbered(1, start=1))
            with pytest.raises(StoreError, match="another process holds it; end that process, or try again"):
                store.swap(numbered(1)[0], told(numbered(1)[0]))
            assert list(store.trials()) == numbered(1)
            other.execute("ROLLBACK")
        assert store.swap(numbered(1)[0], told(numbered(1)[0])) is True

    def test_a_file_that_stays_locked_while_it_is_made(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(failures, "BUSY_SECONDS", 0.05)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("CREATE TABLE t (x)")
            other.execute("DROP TABLE t")
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="database is locked"):
                SQLStore(path, "s")

    def test_waiting_to_write_is_said_once_and_goes_on(
        self,
        path: Path,
        open_store: Callable[..., SQLStore],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr(failures, "NOTICE_SECONDS", 0.05)
        store = open_store()
        thread = threading.Thread(target=store.add, args=(numbered(1),))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            thread.start()
            while not caplog.messages:
                time.sleep(0.01)
            other.execute("ROLLBACK")
        thread.join()
        assert caplog.messages == [f"waiting for {path}, which another process is writing."]
        assert list(store.trials()) == numbered(1)

    def test_waiting_to_ask_is_said_and_goes_on(
        self,
        open_store: Callable[..., SQLStore],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr(failures, "NOTICE_SECONDS", 0.05)
        one, two = open_store(), open_store()
        order = []

        def ask() -> None:
            with two.asking():
                order.append("two")

        thread = threading.Thread(target=ask)
        with one.asking():
            thread.start()
            while not any("which another process or thread holds" in message for message in caplog.messages):
                time.sleep(0.01)
            order.append("one")
        thread.join()
        assert order == ["one", "two"]


@contextmanager
def no_larger_files(folder: Path) -> Iterator[None]:
    """A disk that takes no more: what is written past the log's present end fails, partly written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = max(p.stat().st_size for p in folder.iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 60_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """A small disk with nothing left of it but 60 kB."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            file.truncate(file.tell() - 15 * 4096)
    try:
        yield
    finally:
        ballast.unlink()


def tell_all(store: SQLStore, stored: list[Trial]) -> None:
    """Tell one trial after the other; what was told is written to `stored`."""
    for k, old in enumerate(stored):
        new = told(old, note="x" * 2000)
        assert store.swap(old, new)
        stored[k] = new


class TestDiskFull:
    @pytest.fixture
    def small_disk(self, tmp_path: Path) -> Iterator[Path]:
        folder = tmp_path / "disk"
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
        try:
            mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
        except FileNotFoundError:
            mounted = False
        if not mounted:
            pytest.skip("a small disk can only be mounted as root")
        yield folder
        subprocess.run(["umount", str(folder)], check=True)

    def check(self, folder: Path, failing: Callable[[Path], Any], message: str) -> None:
        path, stored = folder / "study.db", numbered(100)
        with closing(SQLStore(path, "s")) as store, closing(SQLStore(path, "s")) as other:
            store.add(stored)
            with failing(folder), pytest.raises(StoreError, match=message):
                tell_all(store, stored)
            lost = next(trial for trial in stored if trial.state is State.RUNNING)
            assert lost.number > 0
            assert list(store.trials()) == list(other.trials()) == stored
            assert store.swap(lost, told(lost)) is True
            store.add(numbered(1, start=100))
            stored[lost.number] = told(lost)
            assert list(store.trials()) == list(other.trials()) == stored + numbered(1, start=100)
        with closing(sqlite3.connect(path)) as file:
            assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    def test_a_tell_that_is_written_in_part_is_lost_and_said_so(self, tmp_path: Path) -> None:
        self.check(tmp_path, no_larger_files, "study.db cannot be used: disk I/O error; see to the disk")

    def test_a_tell_on_a_full_disk_is_lost_and_said_so(self, small_disk: Path) -> None:
        self.check(small_disk, full_disk, r"study.db cannot be used: .*full; free some space and try again")


class TestDamage:
    @pytest.fixture
    def full(self, path: Path) -> Path:
        """A closed store of some pages."""
        store = SQLStore(path, "s")
        store.add([told(trial, note="x" * 500) for trial in numbered(100)])
        store.meta["study"] = {"seed": 0}
        store.close()
        return path

    def read_all(self, path: Path) -> None:
        store = SQLStore(path, "s", create=False)
        try:
            store.trials()
            store.meta["study"]
        finally:
            store.close()

    @pytest.mark.parametrize("keep", [20, 50, 100, 1000, 4096, 8192, 0.5, 0.9])
    def test_a_truncated_file(self, full: Path, keep: float) -> None:
        size = full.stat().st_size
        os.truncate(full, int(keep if keep > 1 else keep * size))
        with pytest.raises(StoreError, match=r"study.db cannot be used: .*; the file is damaged; use a copy"):
            self.read_all(full)

    def test_pages_of_garbage(self, full: Path) -> None:
        content = full.read_bytes()
        full.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))
        with pytest.raises(StoreError, match="the file is damaged"):
            self.read_all(full)

    @pytest.mark.parametrize(
        "change", ["config = '{'", "state = 'dreaming'", "observations = '[1]'", "error = 'not JSON'"]
    )
    def test_a_row_that_is_no_trial(self, full: Path, change: str) -> None:
        with closing(sqlite3.connect(full, isolation_level=None)) as file:
            file.execute(f"UPDATE gpbo_trials SET {change} WHERE number = 7")
        with pytest.raises(StoreError, match="is damaged: trial 7 of study 's' cannot be read"):
            self.read_all(full)

    def test_meta_that_is_not_json(self, full: Path) -> None:
        with closing(sqlite3.connect(full, isolation_level=None)) as file:
            file.execute("UPDATE gpbo_meta SET value = '{'")
        with pytest.raises(StoreError, match="is damaged: 'study' in it cannot be read"):
            self.read_all(full)

    @pytest.mark.parametrize("copied", [pickle.dumps, copy.deepcopy])
    def test_it_says_how_to_have_it_elsewhere(
        self, copied: Callable[..., Any], path: Path, open_store: Callable[..., SQLStore]
    ) -> None:
        with pytest.raises(StoreError, match=r"open its study again .* gpbo.Study.load\('.*', name='s'\)"):
            copied(open_store())

    @pytest.mark.parametrize("how", ["deleted", "moved", "replaced"])
    def test_a_file_that_goes_away_while_it_is_in_use(
        self, how: str, path: Path, open_store: Callable[..., SQLStore]
    ) -> None:
        store = open_store()
        store.add(numbered(2))
        aside = path.with_name("aside.db")
        if how == "replaced":
            shutil.copy(path, aside)
            aside.replace(path)
        elif how == "moved":
            path.rename(aside)
        else:
            path.unlink()
        what = "was replaced by another file" if how == "replaced" else "was deleted or moved"
        for write in (
            lambda: store.add(numbered(1, start=2)),
            lambda: store.swap(numbered(1)[0], told(numbered(1)[0])),
            lambda: store.meta.__setitem__("k", 1),
        ):
            with pytest.raises(StoreError, match=what):
                write()
        assert list(store.trials()) == numbered(2)  # they can still be saved
        assert path.exists() is (how == "replaced")
        if how == "moved":
            aside.rename(path)
            store.add(numbered(1, start=2))
            assert len(store.trials()) == 3

    def test_a_missing_table(self, full: Path) -> None:
        with closing(sqlite3.connect(full, isolation_level=None)) as file:
            file.execute("DROP TABLE gpbo_trials")
        with pytest.raises(StoreError, match="no such table: gpbo_trials; check the file"):
            self.read_all(full)


def forked(work: Callable[[], None]) -> int:
    """The process id of a child that does `work` and ends with status 0, or, if it failed, another."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking while threads run
        pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        signal.alarm(30)  # rather than hang
        work()
        status = 0
    finally:
        os._exit(status)


def status_of(pid: int) -> int:
    return os.waitpid(pid, 0)[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
class TestForks:
    def test_parent_and_child_go_on(self, open_store: Callable[..., SQLStore]) -> None:
        store = open_store()
        store.add(numbered(2))
        store.trials()

        def child() -> None:
            with store.asking():
                store.add(numbered(1, start=len(store.trials())))
            assert store.swap(store.trials()[0], told(store.trials()[0]))
            store.meta["child"] = True

        assert status_of(forked(child)) == 0
        assert [t.state for t in store.trials()] == [State.COMPLETE, State.RUNNING, State.RUNNING]
        assert dict(store.meta) == {"child": True}
        store.add(numbered(1, start=3))
        assert status_of(forked(lambda: store.add(numbered(1, start=4)))) == 0
        assert len(store.trials()) == 5

    def test_a_child_that_outlives_its_parents_store(self, open_store: Callable[..., SQLStore]) -> None:
        # Had the child inherited SQLite's idea of the locks it holds, its writes would be lost here.
        store = open_store()
        store.add(numbered(1))
        reader, writer = os.pipe()

        def child() -> None:
            os.close(writer)
            store.add(numbered(1, start=1))
            os.read(reader, 1)
            store.add(numbered(1, start=2))

        pid = forked(child)
        while len(store.trials()) < 2:
            time.sleep(0.01)
        store.close()
        late = open_store()
        assert len(late.trials()) == 2
        late.close()
        os.close(writer)
        assert status_of(pid) == 0
        os.close(reader)
        assert list(open_store().trials()) == numbered(3)

    def test_a_lock_that_the_parent_holds_is_not_the_childs(
        self, open_store: Callable[..., SQLStore]
    ) -> None:
        store = open_store()
        reader, writer = os.pipe()

        def child() -> None:
            os.write(writer, b"1")
            with store.asking():
                store.add(numbered(1, start=len(store.trials())))

        with store.asking():
            held = threading.Event()

            def fork() -> None:
                pids.append(forked(child))
                held.set()

            pids: list[int] = []
            thread = threading.Thread(target=fork)
            thread.start()
            held.wait()
            os.read(reader, 1)
            store.add(numbered(1))
            time.sleep(0.05)
            store.add(numbered(1, start=1))
        thread.join()
        assert status_of(pids[0]) == 0
        os.close(reader)
        os.close(writer)
        assert list(store.trials()) == numbered(3)

    def test_forks_while_a_thread_writes(self, open_store: Callable[..., SQLStore]) -> None:
        store = open_store()
        stop = threading.Event()

        def write() -> None:
            while not stop.is_set():
                with store.asking():
                    store.add(numbered(1, start=len(store.trials())))

        def child() -> None:
            with store.asking():
                store.add([Trial(number=len(store.trials()), config={"child": True})])

        thread = threading.Thread(target=write)
        thread.start()
        try:
            pids = [forked(child) for _ in range(20)]
            assert [status_of(pid) for pid in pids] == [0] * 20
        finally:
            stop.set()
            thread.join()
        trials = store.trials()
        assert [t.number for t in trials] == list(range(len(trials)))
        assert sum("child" in t.config for t in trials) == 20

    def test_many_processes_make_one_file(self, tmp_path: Path) -> None:
        for turn in range(3):
            path = tmp_path / f"{turn}.db"
            reader, writer = os.pipe()

            def child(path: Path = path, reader: int = reader, writer: int = writer) -> None:
                os.close(writer)
                os.read(reader, 1)  # until all are there
                store = SQLStore(path, "s")
                with store.asking():
                    store.add(numbered(1, start=len(store.trials())))
                store.close()

            pids = [forked(child) for _ in range(6)]
            os.close(writer)
            assert [status_of(pid) for pid in pids] == [0] * 6
            os.close(reader)
            store = SQLStore(path, "s", create=False)
            assert list(store.trials()) == numbered(6)
            store.close()

    def test_the_lock_dies_with_its_holder(self, open_store: Callable[..., SQLStore]) -> None:
        store = open_store()
        reader, writer = os.pipe()

        def child() -> None:
            with store.asking():
                os.write(writer, b"1")
                signal.pause()

        pid = forked(child)
        os.read(reader, 1)
        os.kill(pid, signal.SIGKILL)
        assert status_of(pid) == signal.SIGKILL
        with store.asking():
            store.add(numbered(1))
        os.close(reader)
        os.close(writer)

    def test_being_alone_ends_with_the_process(self, path: Path, open_store: Callable[..., SQLStore]) -> None:
        store = open_store()
        reader, writer = os.pipe()

        def child() -> None:
            with SQLStore(path, "s").alone(), SQLStore(path, "other").alone():  # each study its own
                os.write(writer, b"1")
                signal.pause()

        pid = forked(child)
        os.read(reader, 1)
        with pytest.raises(
            StoreError, match=r"another process or thread is at work on study 's' in .*study\.db"
        ):
            store.alone().__enter__()
        os.kill(pid, signal.SIGKILL)
        assert status_of(pid) == signal.SIGKILL
        with store.alone():
            store.add(numbered(1))
        os.close(reader)
        os.close(writer)


class TestEnd:
    def test_closing_leaves_one_file_and_its_lock(self, path: Path) -> None:
        store = SQLStore(path, "s")
        store.add(numbered(1))
        store.close()
        store.close()
        assert sorted(p.name for p in path.parent.iterdir()) == ["study.db", "study.db.lock"]

    def test_a_store_that_is_dropped_is_closed(self, path: Path) -> None:
        store = SQLStore(path, "s")
        store.add(numbered(1))
        assert path.with_name("study.db-wal").exists()
        del store
        gc.collect()
        assert not path.with_name("study.db-wal").exists()
