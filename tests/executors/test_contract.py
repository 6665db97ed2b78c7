"""What every executor does; objectives are nested functions, as in a script, and are shipped by value."""

import inspect
import time

import pytest

from gpbo.executors.base import Executor
from gpbo.executors.local import InlineExecutor, ProcessExecutor

FACTORIES = {
    "inline": InlineExecutor,
    "process": lambda objective, **options: ProcessExecutor(objective, 2, **options),
}


@pytest.fixture(params=list(FACTORIES))
def make(request):
    """Make an executor of each kind; closed afterwards."""
    made = []

    def factory(objective, **options):
        made.append(FACTORIES[request.param](objective, **options))
        return made[-1]

    yield factory
    for executor in made:
        executor.close()


def finish(executor, n=1):
    """The next `n` outcomes by number."""
    outcomes = []
    give_up = time.monotonic() + 30
    while len(outcomes) < n and time.monotonic() < give_up:
        outcomes += executor.poll(1.0)
    assert len(outcomes) == n
    return {outcome.number: outcome for outcome in outcomes}


def run_one(executor, config=None, number=0):
    executor.submit(number, config or {})
    return finish(executor)[number]


def test_signatures_are_the_protocols(make):
    executor = make(lambda config: 0.0)
    for name in ("submit", "poll", "cancel", "close"):
        wanted = inspect.signature(getattr(Executor, name)).parameters
        assert list(inspect.signature(getattr(type(executor), name)).parameters) == list(wanted)


def test_fills_its_capacity_and_reports_each_run_once(make):
    executor = make(lambda config: config["x"] ** 2)
    numbers = range(7, 7 + executor.capacity)
    for number in numbers:
        executor.submit(number, {"x": number})
    outcomes = finish(executor, executor.capacity)
    assert {number: outcome.value for number, outcome in outcomes.items()} == {n: n**2 for n in numbers}
    assert all(outcome.error is None and outcome.seconds >= 0 for outcome in outcomes.values())
    assert executor.poll(0.0) == []


def test_runs_one_after_another(make):
    executor = make(lambda config: config["x"])
    assert [run_one(executor, {"x": k}, k).value for k in range(4)] == [0, 1, 2, 3]


def test_seconds_are_those_of_the_run(make):
    executor = make(lambda config: time.sleep(0.05))
    assert run_one(executor).seconds >= 0.05


def test_poll_with_nothing_running_does_not_wait(make):
    assert make(lambda config: 0.0).poll(1e9) == []


def test_any_value_is_handed_on(make):
    executor = make(lambda config: config["give"])
    for value in (None, "0.3", [1.0, 2.0], {"loss": 1}, float("inf"), b"ready", b""):
        assert run_one(executor, {"give": value}).value == value


def test_an_exception_is_an_outcome_with_the_users_traceback(make):
    def inner(config):
        raise ValueError("no such learning rate")

    def objective(config):
        return 1.0 if config["ok"] else inner(config)

    executor = make(objective)
    outcome = run_one(executor, {"ok": False})
    assert outcome.error.startswith("Traceback")
    assert outcome.error.endswith("ValueError: no such learning rate")
    assert ", in objective" in outcome.error
    assert ", in inner" in outcome.error
    assert "worker.py" not in outcome.error
    assert run_one(executor, {"ok": True}).value == 1.0


def test_system_exit_is_a_failure(make):
    def objective(config):
        raise SystemExit(2)

    assert run_one(make(objective)).error.endswith("SystemExit: 2")


def test_a_wrong_signature_is_a_failure(make):
    assert "TypeError" in run_one(make(lambda: 0.0)).error


def test_the_objective_cannot_change_the_config(make):
    config = {"x": 1}
    executor = make(lambda config: config.pop("x"))
    assert run_one(executor, config).value == 1
    assert config == {"x": 1}


def test_a_cancelled_run_is_not_reported_and_its_place_is_free(make):
    executor = make(lambda config: time.sleep(config["seconds"]))
    for number in range(executor.capacity):
        executor.submit(number, {"seconds": 60})
    executor.cancel(0)
    executor.submit(9, {"seconds": 0})
    assert finish(executor).keys() == {9}


def test_cancel_of_a_run_that_is_over_does_nothing(make):
    executor = make(lambda config: 1.0)
    run_one(executor)
    executor.cancel(0)
    assert run_one(executor).value == 1.0


def test_close_stops_what_runs_and_may_be_repeated(make):
    executor = make(lambda config: time.sleep(60))
    executor.submit(0, {})
    executor.close()
    executor.close()
    assert executor.poll(0.0) == []


def test_messages_are_answered_while_the_run_goes_on(make):
    heard = []

    def hear(number, content):
        heard.append((number, content))
        return content * 2

    def objective(config, send):
        return [send(config["x"] + k) for k in range(3)]

    executor = make(objective, hear=hear)
    numbers = range(executor.capacity)
    for number in numbers:
        executor.submit(number, {"x": 10 * number})
    outcomes = finish(executor, executor.capacity)
    for number in numbers:
        x = 10 * number
        assert outcomes[number].value == [2 * x, 2 * x + 2, 2 * x + 4]
        assert [content for n, content in heard if n == number] == [x, x + 1, x + 2]


def test_an_answer_may_be_an_exception(make):
    def objective(config, send):
        answer = send("?")
        return str(answer), type(answer).__name__

    executor = make(objective, hear=lambda number, content: ValueError(content))
    assert tuple(run_one(executor).value) == ("?", "ValueError")
