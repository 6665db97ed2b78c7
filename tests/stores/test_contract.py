"""What every store promises, checked on each of them."""

import os
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpbo.errors import StoreError
from gpbo.stores.base import Store
from gpbo.stores.memory import MemoryStore
from gpbo.stores.sql import SQLStore
from gpbo.trial import Observation, State, Trial

Opener = Callable[[], Store]

_POSTGRES = os.environ.get("GPBO_TEST_POSTGRES")


def _sql_opener(where: str | Path, opened: list[Store]) -> Opener:
    name = uuid.uuid4().hex

    def open_again() -> Store:
        store = SQLStore(where, name)
        opened.append(store)
        return store

    return open_again


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def open_again(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Opens the same new study each time it is called; what has no file or server is the same object."""
    if request.param == "memory":
        store: Store = MemoryStore()
        yield lambda: store
        return
    if request.param == "postgres" and _POSTGRES is None:
        pytest.skip("GPBO_TEST_POSTGRES names no PostgreSQL database to test on")
    opened: list[Store] = []
    yield _sql_opener(_POSTGRES or "" if request.param == "postgres" else tmp_path / "study.db", opened)
    for one in opened:
        one.close()


FULL = Trial(
    number=0,
    config={"lr": 0.1 + 0.2, "n": 3, "one": 1, "one_float": 1.0, "on": True, "none": None, "opt": "sgd"},
    state=State.PAUSED,
    budget=9.0,
    bracket=2,
    observations=(Observation((1e-320, -0.0), 3.0, 0.25), Observation((1.0, 1e308), outcomes={"a b": -0.0})),
    error="Traceback:\n\x00 \udcff ü",
    info={"source": "gp", "hypers": [0.1, {"a": None}], "jitter": float("nan")},
    owner="host/1/2/3",
    started=1700000000.123456,
    finished=1700000001.0,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
# SQLite keeps no sign on a zero of its own columns; +0.0 takes it off
NUMBERS = st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0)
TRIALS = st.builds(
    Trial,
    number=st.just(0),
    config=st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | NUMBERS | st.text()),
    state=st.sampled_from(State),
    budget=st.none() | NUMBERS,
    bracket=st.none() | st.integers(0, 9),
    observations=st.lists(
        st.builds(
            Observation,
            values=st.lists(NUMBERS, min_size=1, max_size=3).map(tuple),
            budget=st.none() | NUMBERS,
            seconds=st.none() | NUMBERS,
            outcomes=st.dictionaries(st.text(), NUMBERS, max_size=2),
        ),
        max_size=3,
    ).map(tuple),
    error=st.none() | st.text(st.characters()),
    info=st.dictionaries(st.text(), JSON, max_size=3),
    started=st.none() | NUMBERS,
    finished=st.none() | NUMBERS,
)


def numbered(n: int, start: int = 0) -> list[Trial]:
    return [Trial(number=k, config={"x": k / 7}) for k in range(start, start + n)]


def told(trial: Trial, value: float = 1.0) -> Trial:
    return replace(trial, state=State.COMPLETE, observations=(Observation((value,)),))


def in_threads(n: int, work: Callable[[int], None]) -> None:
    failures: list[BaseException] = []

    def guarded(k: int) -> None:
        try:
            work(k)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(k,)) for k in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


class TestTrials:
    def test_a_new_study_is_empty(self, open_again: Opener) -> None:
        store = open_again()
        assert list(store.trials()) == []
        assert dict(store.meta) == {}

    def test_every_field_comes_back_with_its_type(self, open_again: Opener) -> None:
        open_again().add([FULL])
        assert repr(list(open_again().trials())) == repr([FULL])

    @given(trial=TRIALS)
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
    def test_any_trial_comes_back(self, open_again: Opener, trial: Trial) -> None:
        store = open_again()
        number = len(store.trials())
        store.add([replace(trial, number=number)])
        assert repr(open_again().trials()[-1]) == repr(replace(trial, number=number))
        store.close()

    def test_adding_numbers_on(self, open_again: Opener) -> None:
        store = open_again()
        store.add(numbered(3))
        store.add([])
        store.add(numbered(2, start=3))
        assert list(store.trials()) == numbered(5)

    @pytest.mark.parametrize("wrong", [[1], [3, 4], [2, 2], [2, 4], [3], [-1]])
    def test_a_number_taken_or_skipped_adds_nothing(self, open_again: Opener, wrong: list[int]) -> None:
        store = open_again()
        store.add(numbered(2))
        with pytest.raises(StoreError, match="new trials must be numbered on from 2, got"):
            store.add([Trial(number=k, config={}) for k in wrong])
        assert list(store.trials()) == list(open_again().trials()) == numbered(2)

    def test_what_was_returned_never_changes(self, open_again: Opener) -> None:
        store = open_again()
        store.add(numbered(2))
        before = store.trials()
        store.add(numbered(1, start=2))
        assert store.swap(before[0], told(before[0]))
        assert list(before) == numbered(2)
        assert len(store.trials()) == 3

    def test_one_handle_sees_what_another_wrote(self, open_again: Opener) -> None:
        one, two = open_again(), open_again()
        one.add(numbered(2))
        assert list(two.trials()) == numbered(2)
        assert one.swap(numbered(2)[1], told(numbered(2)[1]))
        one.add(numbered(1, start=2))
        assert list(two.trials()) == [numbered(1)[0], told(numbered(2)[1]), *numbered(1, start=2)]


class TestSwap:
    def test_the_old_value_gives_way(self, open_again: Opener) -> None:
        store = open_again()
        store.add(numbered(2))
        old = store.trials()[1]
        assert store.swap(old, told(old)) is True
        assert list(open_again().trials()) == [numbered(1)[0], told(old)]

    def test_a_value_that_is_not_the_stored_one_changes_nothing(self, open_again: Opener) -> None:
        one, two = open_again(), open_again()
        one.add(numbered(1))
        old = two.trials()[0]
        assert one.swap(old, told(old, 1.0)) is True
        assert two.swap(old, told(old, 2.0)) is False
        assert list(one.trials()) == list(two.trials()) == [told(old, 1.0)]

    def test_every_field_may_be_swapped(self, open_again: Opener) -> None:
        store = open_again()
        store.add(numbered(1))
        assert store.swap(store.trials()[0], FULL)
        assert repr(open_again().trials()[0]) == repr(FULL)

    def test_nan_in_the_info_is_still_the_stored_value(self, open_again: Opener) -> None:
        store = open_again()
        store.add([FULL])
        old = store.trials()[0]
        assert store.swap(old, replace(old, budget=27.0)) is True

    def test_an_equal_value_is_the_stored_value(self, open_again: Opener) -> None:
        store = open_again()
        store.add([Trial(number=0, config={"a": 1, "b": 2.0}, budget=9)])
        assert store.swap(Trial(number=0, config={"b": 2, "a": 1.0}, budget=9.0), told(numbered(1)[0]))

    @pytest.mark.parametrize("number", [-1, 1, 7])
    def test_a_trial_that_is_not_there_is_not_stored(self, open_again: Opener, number: int) -> None:
        store = open_again()
        store.add(numbered(1))
        missing = Trial(number=number, config={})
        assert store.swap(missing, told(missing)) is False
        assert list(store.trials()) == numbered(1)

    def test_one_of_many_threads_wins(self, open_again: Opener) -> None:
        store = open_again()
        store.add(numbered(1))
        old = store.trials()[0]
        won: list[int] = []

        def tell(k: int) -> None:
            if store.swap(old, told(old, float(k))):
                won.append(k)

        in_threads(8, tell)
        assert len(won) == 1
        assert store.trials()[0] == told(old, float(won[0]))


class TestMeta:
    @pytest.mark.parametrize(
        "value", [None, True, 1, 1.0, 0.1 + 0.2, "ü\x00", [], [1, [2.5]], {"a": {"b": None}}, float("inf")]
    )
    def test_a_value_comes_back_with_its_type(self, open_again: Opener, value: Any) -> None:
        open_again().meta["study"] = value
        assert repr(open_again().meta["study"]) == repr(value)

    def test_it_is_a_mapping(self, open_again: Opener) -> None:
        meta = open_again().meta
        meta["b"], meta["a"] = 1, 2
        meta["b"] = [3]
        assert dict(meta) == {"a": 2, "b": [3]}
        assert len(meta) == 2
        del meta["a"]
        assert "a" not in meta
        assert meta.get("a", "default") == "default"
        assert dict(open_again().meta) == {"b": [3]}

    def test_a_name_that_is_not_there_is_a_key_error(self, open_again: Opener) -> None:
        meta = open_again().meta
        with pytest.raises(KeyError, match="nothing"):
            meta["nothing"]
        with pytest.raises(KeyError, match="nothing"):
            del meta["nothing"]


class TestAlone:
    def test_another_is_refused_until_the_first_is_gone(self, open_again: Opener) -> None:
        one, two = open_again(), open_again()
        for _ in range(2):
            with one.alone():
                with pytest.raises(StoreError, match=r"another .* is at work on .*, and only one may be"):
                    two.alone().__enter__()
                with two.asking():  # which is another lock
                    two.add([Trial(number=len(two.trials()), config={})])
        with two.alone():
            assert len(one.trials()) == 2

    def test_an_exception_frees_it(self, open_again: Opener) -> None:
        one, two = open_again(), open_again()
        with pytest.raises(ZeroDivisionError), one.alone():
            raise ZeroDivisionError
        with two.alone():
            pass

    @pytest.mark.parametrize(
        "error", [sqlite3.OperationalError("mine"), sa.exc.InvalidRequestError("mine"), OSError("mine")]
    )
    def test_what_is_raised_in_it_comes_out_as_it_is(self, open_again: Opener, error: Exception) -> None:
        with pytest.raises(type(error), match="mine") as raised, open_again().alone():
            raise error
        assert raised.value is error
        with open_again().alone():
            pass


class TestAsking:
    def test_it_can_be_entered_again(self, open_again: Opener) -> None:
        store = open_again()
        with store.asking(), store.asking():
            store.add(numbered(1))
        with store.asking():
            assert len(store.trials()) == 1

    def test_one_thread_at_a_time(self, open_again: Opener) -> None:
        store = open_again()

        def add(k: int) -> None:
            mine = store if k % 2 else open_again()
            for _ in range(10):
                with mine.asking():
                    mine.add([Trial(number=len(mine.trials()), config={"thread": k})])

        in_threads(4, add)
        trials = store.trials()
        assert [t.number for t in trials] == list(range(40))
        assert sorted(t.config["thread"] for t in trials) == sorted([0, 1, 2, 3] * 10)

    def test_an_exception_frees_it(self, open_again: Opener) -> None:
        store = open_again()
        with pytest.raises(ZeroDivisionError), store.asking():
            raise ZeroDivisionError
        entered = []

        def enter(_: int) -> None:
            with store.asking():
                entered.append(True)

        in_threads(1, enter)
        assert entered == [True]
