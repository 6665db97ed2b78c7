"""The store in a database: what it reads, how studies are named, and many processes at once."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from gpbo.errors import StoreError
from gpbo.stores.sql import SQLStore, study_names
from gpbo.trial import Observation, State, Trial


def numbered(n: int, start: int = 0) -> list[Trial]:
    return [Trial(number=k, config={"x": k / 7}) for k in range(start, start + n)]


def told(trial: Trial, value: float = 1.0, **info: Any) -> Trial:
    return replace(trial, state=State.COMPLETE, observations=(Observation((value,)),), info=info)


class TestReading:
    @pytest.fixture
    def fetched(self) -> Iterator[list[Any]]:
        """Every row that any connection opened from now on fetches."""
        rows: list[Any] = []

        def count(connection: sqlite3.Connection, _: Any) -> None:
            def kept(_: sqlite3.Cursor, row: Any) -> Any:
                rows.append(row)
                return row

            connection.row_factory = kept

        event.listen(sa.Engine, "connect", count)
        yield rows
        event.remove(sa.Engine, "connect", count)

    def test_only_what_is_new_is_fetched(
        self, open_store: Callable[..., SQLStore], fetched: list[Any]
    ) -> None:
        one, two = open_store(), open_store()
        one.add(numbered(1000))
        fetched.clear()
        assert len(two.trials()) == 1000
        assert len(fetched) == 1000
        fetched.clear()
        assert two.trials() is two.trials()
        assert fetched == []
        assert one.swap(numbered(1000)[500], told(numbered(1000)[500]))
        one.add(numbered(2, start=1000))
        fetched.clear()
        assert [t.number for t in two.trials() if t.state is State.COMPLETE] == [500]
        assert len(fetched) == 3

    def test_writing_fetches_no_other_trials(
        self, open_store: Callable[..., SQLStore], fetched: list[Any]
    ) -> None:
        store = open_store()
        store.add(numbered(1000))
        fetched.clear()
        store.add(numbered(1, start=1000))
        assert store.swap(numbered(1)[0], told(numbered(1)[0]))
        assert len(fetched) <= 4

    def test_a_changed_copy_does_not_hide_the_stored_value(self, open_store: Callable[..., SQLStore]) -> None:
        store = open_store()
        store.add(numbered(2))
        spoiled = store.trials()[1]
        spoiled.config.clear()  # type: ignore[attr-defined]
        assert store.swap(spoiled, told(spoiled)) is False
        assert list(store.trials()) == numbered(2)
        assert store.swap(store.trials()[1], told(store.trials()[1])) is True

    def test_a_handle_that_has_read_nothing_may_swap_in_vain(
        self, open_store: Callable[..., SQLStore]
    ) -> None:
        open_store().add(numbered(3))
        late = open_store()
        assert late.swap(told(numbered(3)[2]), numbered(3)[2]) is False
        assert list(late.trials()) == numbered(3)


class TestNames:
    def test_studies_of_one_file_are_apart(self, path: Path, open_store: Callable[..., SQLStore]) -> None:
        one, two = open_store(name="one"), open_store(name="two")
        one.add(numbered(2))
        two.add(numbered(1))
        one.meta["seed"], two.meta["seed"] = 1, 2
        assert (len(one.trials()), len(two.trials())) == (2, 1)
        assert (one.meta["seed"], two.meta["seed"]) == (1, 2)
        assert study_names(path) == ["one", "two"]
        assert study_names(f"sqlite:///{path}") == ["one", "two"]

    def test_an_unknown_name_is_answered_with_those_there_are(
        self, path: Path, open_store: Callable[..., SQLStore]
    ) -> None:
        open_store(name="digits")
        with pytest.raises(StoreError, match=r"no study 'digit'; it holds 'digits'\. Did you mean 'digits'"):
            open_store(name="digit", create=False)
        assert study_names(path) == ["digits"]

    def test_what_is_there_is_opened(self, open_store: Callable[..., SQLStore]) -> None:
        open_store().add(numbered(1))
        assert len(open_store(create=False).trials()) == 1

    @pytest.mark.parametrize("look", [study_names, lambda path: SQLStore(path, "s", create=False)])
    def test_a_file_that_is_not_there_is_not_made(self, path: Path, look: Callable[[Path], Any]) -> None:
        with pytest.raises(StoreError, match=r"there is no study file .*study.db"):
            look(path)
        assert list(path.parent.iterdir()) == []

    @pytest.mark.parametrize("look", [study_names, lambda path: SQLStore(path, "s", create=False)])
    def test_an_empty_file_holds_no_study(self, path: Path, look: Callable[[Path], Any]) -> None:
        path.touch()
        with pytest.raises(StoreError, match=r"study.db holds no study"):
            look(path)
        assert path.read_bytes() == b""

    def test_an_empty_file_becomes_a_study(self, path: Path, open_store: Callable[..., SQLStore]) -> None:
        path.touch()
        open_store().add(numbered(1))
        assert study_names(path) == ["s"]

    def test_a_relative_path_stays_the_same_file(
        self, path: Path, open_store: Callable[..., SQLStore], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(path.parent)
        store = open_store("study.db")
        monkeypatch.chdir("/")
        store.add(numbered(1))
        assert study_names(path) == ["s"]

    def test_odd_characters_in_a_path(self, tmp_path: Path, open_store: Callable[..., SQLStore]) -> None:
        odd = tmp_path / "50% of #1? ü.db"
        open_store(odd).close()
        assert study_names(odd) == ["s"]


class TestValues:
    def test_what_is_not_json_is_refused(self, open_store: Callable[..., SQLStore]) -> None:
        store = open_store()
        with pytest.raises(
            StoreError, match=r"the config of trial 0 must be made of JSON values .*; convert it"
        ):
            store.add([Trial(number=0, config={"x": object()})])
        store.add(numbered(1))
        with pytest.raises(StoreError, match="the info of trial 0 must be made of JSON values"):
            store.swap(numbered(1)[0], told(numbered(1)[0], chol={1, 2}))
        with pytest.raises(StoreError, match="the study's 'seed' must be made of JSON values"):
            store.meta["seed"] = {1}
        assert list(store.trials()) == numbered(1)
        assert dict(store.meta) == {}


HAMMER = """
import sys
from dataclasses import replace
from gpbo.stores.sql import SQLStore
from gpbo.trial import Observation, State, Trial

store = SQLStore(sys.argv[1], "s")
for k in range(200):
    with store.asking():
        trial = Trial(number=len(store.trials()), config={"who": sys.argv[2], "k": k})
        store.add([trial])
    done = replace(trial, state=State.COMPLETE, observations=(Observation((float(k),)),))
    assert store.swap(trial, done)
    while True:  # everybody counts on trial 0
        old = store.trials()[0]
        if store.swap(old, replace(old, info={"n": old.info.get("n", 0) + 1})):
            break
assert "torch" not in sys.modules
store.close()
"""


class TestProcesses:
    def test_two_processes_lose_and_double_nothing(
        self, path: Path, open_store: Callable[..., SQLStore]
    ) -> None:
        open_store().add([Trial(number=0, config={"who": "nobody", "k": -1})])
        processes = [subprocess.Popen([sys.executable, "-c", HAMMER, str(path), who]) for who in "ab"]
        assert [process.wait() for process in processes] == [0, 0]
        first, *trials = open_store().trials()
        assert first.info == {"n": 400}
        assert [t.number for t in trials] == list(range(1, 401))
        assert all(t.value == t.config["k"] for t in trials)
        for who in "ab":
            assert [t.config["k"] for t in trials if t.config["who"] == who] == list(range(200))

    def test_importing_it_loads_neither_torch_nor_alembic(self) -> None:
        code = "import sys, gpbo.stores.sql; assert not {'torch', 'alembic'} & set(sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
