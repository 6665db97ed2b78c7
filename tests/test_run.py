import functools
import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import gpbo
from gpbo.errors import ObjectiveError, SettingError, SignatureError, StoreError
from gpbo.executors.base import Outcome
from gpbo.executors.owner import RELEASED, process_start
from gpbo.run import _record, _record_all
from gpbo.stores.memory import MemoryStore
from gpbo.stores.sql import SQLStore
from gpbo.trial import State

SPACE = gpbo.SearchSpace(x=gpbo.Float(0, 1))


@pytest.fixture(autouse=True)
def defaults():
    """The handlers of a plain script, whatever runs the tests."""
    old = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    old = {number: signal.signal(number, handler) for number, handler in old.items()}
    yield
    for number, handler in old.items():
        signal.signal(number, handler)


def test_objectives_with_outcomes():
    study = make_study(outcome_constraints=["t <= 0.5"])
    study.optimize(lambda c: (-c["x"], {"t": c["x"]}), 20, progress=False)
    assert study.best.value == max((t.value for t in study.trials if t.value >= -0.5), key=abs)
    assert all(t.outcomes == {"t": t.config["x"]} for t in study.trials)


def test_outcomes_of_several_objectives():
    study = make_study(outcome_constraints=["t <= 0.5"], direction=["minimize"] * 2)
    study.optimize(lambda c: ([c["x"], 1.0], {"t": 0.0}), 1, progress=False)
    assert study.trials[0].observations[0].outcomes == {"t": 0.0}


@pytest.mark.parametrize("value", [1.0, (1.0, 0.3), {"t": 1}, ({"t": 1}, 1.0), (1.0, {}), (1.0, {"t": None})])
def test_an_objective_without_its_outcomes_fails(value):
    study = make_study(outcome_constraints=["t <= 0.5"])
    study.optimize(lambda config: value, 1, progress=False)
    assert study.trials[0].state is State.FAILED
    assert (
        "must return a pair of a number, and a dictionary with a number for 't'; it returned"
        in study.trials[0].error
    )


def make_study(**options):
    return gpbo.Study(SPACE, suggester=gpbo.RandomSuggester(), **options)


def queued(values, **options):
    """A study that asks for these values of x first."""
    study = make_study(**options)
    for x in values:
        study.enqueue({"x": x})
    return study


def identity(config):
    return config["x"]


def states(study):
    return [str(trial.state) for trial in study.trials]


def test_runs_the_trials_of_ask_and_tell():
    study, by_hand = make_study(), make_study()
    assert study.optimize(lambda config: config["x"] ** 2, 5) is study
    for _ in range(5):
        trial = by_hand.ask()
        by_hand.tell(trial, trial.config["x"] ** 2)
    assert [(t.config, t.value) for t in study.trials] == [(t.config, t.value) for t in by_hand.trials]
    for trial in study.trials:
        assert trial.state is State.COMPLETE
        assert trial.owner is None
        assert trial.observations[0].seconds >= 0


def test_workers_run_every_trial_once(tmp_path):
    def objective(config):
        (tmp_path / str(config["x"])).touch(exist_ok=False)
        return config["x"]

    study = make_study().optimize(objective, 12, workers=3)
    assert states(study) == ["complete"] * 12
    assert sorted(float(path.name) for path in tmp_path.iterdir()) == sorted(t.value for t in study.trials)


def test_several_objectives():
    study = make_study(direction=["minimize", "maximize"]).optimize(lambda c: (c["x"], 1 - c["x"]), 3)
    assert [t.values for t in study.trials] == [(t.config["x"], 1 - t.config["x"]) for t in study.trials]


class TestStopRules:
    def test_n_trials_counts_earlier_ones_but_not_those_from_elsewhere(self, caplog):
        study = make_study()
        study.add({"x": 0.5}, 0.5)
        study.tell(study.ask(), 0.1)
        study.optimize(identity, 4)
        assert len(study.trials) == 5
        caplog.set_level(logging.INFO, "gpbo.run")
        study.optimize(identity, 4)
        assert len(study.trials) == 5
        assert "nothing is left to do; 0 trials were run" in caplog.text
        caplog.clear()
        study.optimize(identity, 5)
        assert "n_trials=5 reached; 1 trial was run." in caplog.text

    def test_a_finite_space_ends(self, caplog):
        caplog.set_level(logging.INFO, "gpbo.run")
        study = gpbo.Study({"n": gpbo.Int(1, 3)}, suggester=gpbo.GridSuggester())
        study.optimize(lambda config: config["n"])
        assert "there is nothing more to try; 3 trials were run." in caplog.text

    def test_n_trials_is_kept_by_loops_side_by_side(self):
        study = make_study()
        threads = [threading.Thread(target=study.optimize, args=(identity, 30)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert states(study) == ["complete"] * 30

    def test_a_finite_space_ends_by_itself(self):
        space = gpbo.SearchSpace(a=gpbo.Categorical(["x", "y"]), n=gpbo.Int(1, 2))
        study = gpbo.Study(space, suggester=gpbo.RandomSuggester())
        study.optimize(lambda config: config["n"])
        assert len({tuple(t.config.items()) for t in study.trials}) == len(study.trials) == 4

    def test_an_endless_space_needs_a_rule(self):
        with pytest.raises(SettingError, match="needs a stop rule"):
            make_study().optimize(identity)

    def test_after_the_time_nothing_is_started(self):
        study = make_study().optimize(identity, timeout=1e-9)
        assert study.trials == []

    def test_what_runs_when_the_time_is_over_is_finished(self):
        def objective(config):
            time.sleep(0.6)
            return 1.0

        study = make_study().optimize(objective, timeout=0.5)
        assert states(study) == ["complete"]

    @pytest.mark.parametrize(("direction", "target"), [("minimize", 0.3), ("maximize", 0.5)])
    def test_target(self, direction, target):
        given = [0.4, 0.35, 0.31, 0.3, 0.2] if direction == "minimize" else [0.3, 0.35, 0.4, 0.6, 0.8]
        study = queued(given, direction=direction).optimize(identity, 10, target=target)
        assert len(study.trials) == 4
        study.optimize(identity, 10, target=target)
        assert len(study.trials) == 4

    @pytest.mark.parametrize("direction", ["minimize", "maximize"])
    def test_patience_survives_a_restart(self, direction):
        given = [0.5, 0.4, 0.45, 0.4, 0.9, 0.9]  # the second is the best; an equal value is no improvement
        if direction == "maximize":
            given = [1 - x for x in given]
        study = queued(given, direction=direction).optimize(identity, 4, patience=3)
        assert len(study.trials) == 4
        study.optimize(identity, 50, patience=3)
        assert len(study.trials) == 5
        study.optimize(identity, 50, patience=3)
        assert len(study.trials) == 5

    def test_patience_counts_failures_and_not_results_from_elsewhere(self):
        study = queued([0.5, 0.6])
        study.add({"x": 0.1}, 0.1)
        study.add({"x": 0.2}, 0.2)
        study.optimize(lambda config: config["x"] if config["x"] == 0.5 else None, 50, patience=2)
        assert states(study)[2:] == ["complete", "failed"]

    def test_stop_in_a_callback_and_go_on_later(self):
        study = make_study()
        study.optimize(identity, 50, callbacks=[lambda s, t: s.stop() if t.number == 2 else None])
        assert len(study.trials) == 3
        study.optimize(identity, 5)
        assert len(study.trials) == 5

    def test_stop_ends_every_loop_that_runs_and_none_that_starts_later(self):
        inner = []

        def callback(study, trial):
            if trial.number == 2:
                study.stop()
                study.optimize(identity, 5)  # begins after the stop, and does not undo it
                inner.append(len(study.trials))

        study = make_study()
        study.optimize(identity, 50, callbacks=[callback])
        assert inner == [len(study.trials)] == [5]

    def test_stop_reaches_loops_side_by_side(self):
        both = threading.Barrier(2)

        def objective(config):
            both.wait(30)
            return config["x"]

        def callback(study, trial):
            if trial.number == 0:
                study.stop()
                stopped.set()
            assert stopped.wait(30)

        stopped = threading.Event()
        study = make_study()
        options = {"callbacks": [callback]}
        threads = [
            threading.Thread(target=study.optimize, args=(objective, 50), kwargs=options) for _ in "ab"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert states(study) == ["complete"] * 2

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"n_trials": 0}, "`n_trials` must be a whole number >= 1, got 0"),
            ({"n_trials": 2.5}, r"`n_trials` must be a whole number >= 1, got 2\.5"),
            ({"n_trials": True}, "`n_trials` must be a whole number >= 1, got True"),
            ({"workers": 0}, "`workers` must be a whole number >= 1, got 0"),
            ({"workers": "4"}, "`workers` must be a whole number >= 1, got '4'"),
            ({"timeout": 0}, "`timeout` must be a finite number of seconds > 0, got 0"),
            ({"timeout": float("inf")}, "`timeout` must be a finite number of seconds > 0, got inf"),
            ({"trial_timeout": -1}, "`trial_timeout` must be a finite number of seconds > 0, got -1"),
            ({"trial_timeout": "1h"}, "`trial_timeout` must be a finite number of seconds > 0, got '1h'"),
            ({"target": float("nan")}, "`target` must be a finite number, got nan"),
            ({"target": 10**400}, "`target` must be a finite number, got 10"),
            ({"patience": 0}, "`patience` must be a whole number >= 1, got 0"),
            ({"gpus_per_trial": -1}, "`gpus_per_trial` must be a whole number >= 0, got -1"),
            ({"callbacks": print}, "`callbacks` must be a list of functions of a study and a trial"),
            ({"callbacks": ["x"]}, "`callbacks` must be a list of functions of a study and a trial"),
        ],
    )
    def test_bad_arguments(self, given, message):
        study = make_study()
        with pytest.raises(SettingError, match=message):
            study.optimize(identity, **{"n_trials": 1, **given})
        assert study.trials == []

    def test_the_objective_must_be_a_function(self):
        with pytest.raises(SettingError, match=r"`objective` must be a function of a config, got 0\.5"):
            make_study().optimize(0.5, 1)

    @pytest.mark.parametrize("rule", ["target", "patience"])
    def test_rules_for_one_objective(self, rule):
        study = make_study(direction=["minimize", "minimize"])
        with pytest.raises(SettingError, match=f"`{rule}` needs one objective; this study has 2"):
            study.optimize(identity, 1, **{rule: 1})


class TestFailures:
    def test_an_exception_fails_the_trial_and_the_study_goes_on(self):
        def objective(config):
            if config["x"] == 0.2:
                raise RuntimeError("no memory")
            return config["x"]

        study = queued([0.1, 0.2, 0.3]).optimize(objective, 3)
        assert states(study) == ["complete", "failed", "complete"]
        assert study.trials[1].error.startswith("Traceback")
        assert study.trials[1].error.endswith("RuntimeError: no memory")

    @pytest.mark.parametrize(
        ("value", "m", "error"),
        [
            (None, 1, "must return a number; it returned None of type NoneType"),
            ("0.3", 1, "must return a number; it returned '0.3' of type str"),
            ([1.0, 2.0], 1, r"must return a number; it returned \[1.0, 2.0\] of type list"),
            ({"loss": 1}, 1, "must return a number; it returned {'loss': 1} of type dict"),
            (0.5, 2, "must return a sequence of 2 numbers, one for each objective; it returned 0.5 of type"),
            (
                [0.5],
                2,
                r"must return a sequence of 2 numbers, one for each objective; it returned \[0.5\] of",
            ),
            (float("nan"), 1, "the objective's value was nan"),
            (float("-inf"), 1, "the objective's value was -inf"),
            (list(range(10**5)), 1, r"it returned \[0, 1, 2, 3, 4, 5, \.\.\.\] of type list"),
        ],
    )
    def test_what_is_no_result_fails_the_trial(self, value, m, error):
        study = make_study(direction=["minimize"] * m).optimize(lambda config: value, 2)
        assert states(study) == ["failed", "failed"]
        with pytest.raises(ValueError, match=error):
            raise ValueError(study.trials[0].error)

    def test_dead_and_hanging_workers_fail_their_trials(self):
        def objective(config):
            if config["x"] == 0.1:
                os.kill(os.getpid(), signal.SIGKILL)
            if config["x"] == 0.2:
                time.sleep(60)
            return config["x"]

        study = queued([0.3, 0.1, 0.2, 0.4]).optimize(objective, 4, workers=2, trial_timeout=1)
        assert states(study) == ["complete", "failed", "failed", "complete"]
        assert "SIGKILL" in study.trials[1].error
        assert "over its limit of 1 seconds" in study.trials[2].error

    def test_a_time_limit_alone_needs_a_worker(self):
        study = make_study().optimize(lambda config: os.getpid(), 1, trial_timeout=60)
        assert study.trials[0].value != os.getpid()

    def test_an_objective_that_cannot_be_shipped_ends_it_and_loses_no_trial(self):
        lock = threading.Lock()
        study = make_study()
        with pytest.raises(ObjectiveError, match="cannot be sent to worker processes"):
            study.optimize(lambda config: lock, 3, workers=2)
        assert study.trials == []

    def test_a_result_that_comes_too_late_is_logged(self, caplog):
        study = make_study()

        def objective(config):
            study.tell(len(study.trials) - 1, 7.0)
            return 1.0

        study.optimize(objective, 2)
        assert [t.value for t in study.trials] == [7.0, 7.0]
        assert "a result came too late: only a running trial can be told" in caplog.text


class TestCallbacks:
    def test_are_called_in_order_after_every_finished_trial(self):
        calls = []
        study = make_study()
        study.optimize(
            lambda config: 1.0 if config["x"] > 0.5 else None,
            6,
            callbacks=[lambda s, t: calls.append((s, t)), lambda s, t: calls.append("second")],
        )
        assert calls[1::2] == ["second"] * 6
        assert calls[::2] == [(study, trial) for trial in study.trials]

    @pytest.mark.parametrize("workers", [1, 2])
    def test_an_exception_goes_on_and_loses_nothing(self, workers):
        def stumble(study, trial):
            raise ZeroDivisionError

        def objective(config):
            time.sleep(0.3 if config["x"] == 0.2 else 0.0)
            return config["x"]

        study = queued([0.1, 0.2])
        with pytest.raises(ZeroDivisionError):
            study.optimize(objective, 2, workers=workers, callbacks=[stumble])
        assert study.trials[0].value == 0.1
        assert all(t.owner == RELEASED for t in study.trials if t.state is State.RUNNING)
        study.optimize(objective, 2)
        assert [t.value for t in study.trials] == [0.1, 0.2]
        assert all(t.info.get("attempts", 1) == 1 for t in study.trials)


class TestInterrupts:
    """Ctrl-C in this process; the objective or a callback sends the signal."""

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)
    @pytest.mark.parametrize("swallow", [False, True])
    def test_the_objective_is_interrupted_and_its_trial_released(self, number, swallow):
        def objective(config):
            if config["x"] != 0.2 or study.trials[1].owner in done:
                return config["x"]
            done.append(study.trials[1].owner)
            try:
                os.kill(os.getpid(), number)
            except KeyboardInterrupt:
                if not swallow:
                    raise
            return -1.0

        done = []
        study = queued([0.1, 0.2, 0.3])
        with pytest.raises(KeyboardInterrupt):
            study.optimize(objective, 3)
        assert [(t.state, t.owner) for t in study.trials] == [
            (State.COMPLETE, None),
            (State.RUNNING, RELEASED),
        ]
        done[:] = [study.trials[1].owner, *done]
        study.optimize(lambda config: config["x"], 3)
        assert [t.value for t in study.trials] == [0.1, 0.2, 0.3]

    def test_a_callback_is_not_torn_apart(self):
        seen = []

        def callback(study, trial):
            os.kill(os.getpid(), signal.SIGINT)
            seen.append(trial.value)

        study = queued([0.1])
        with pytest.raises(KeyboardInterrupt):
            study.optimize(identity, 3, callbacks=[callback])
        assert seen == [0.1]
        assert states(study) == ["complete"]


class FailingStore:
    """A store whose disk is full for writes of which `fails` is true."""

    def __init__(self, fails, inner=None):
        self._inner = inner or MemoryStore()
        self._fails = fails
        self.meta = self._inner.meta
        self.trials = self._inner.trials
        self.add = self._inner.add
        self.asking = self._inner.asking
        self.close = self._inner.close

    def swap(self, old, new):
        if self._fails(new):
            raise StoreError("the disk is full")
        return self._inner.swap(old, new)


class TestStoreErrors:
    def test_name_the_value_that_was_not_stored_and_the_trial_is_released(self):
        study = queued([0.25], store=FailingStore(lambda new: new.state is State.COMPLETE))
        with pytest.raises(StoreError, match=r"the value 0\.25 of trial 0 could not be stored: the disk is"):
            study.optimize(identity, 3)
        assert [(t.state, t.owner) for t in study.trials] == [(State.RUNNING, RELEASED)]

    def test_name_the_failure_that_was_not_stored(self):
        def objective(config):
            raise ValueError("bad luck")

        study = make_study(store=FailingStore(lambda new: new.state is State.FAILED))
        with pytest.raises(StoreError, match=r"the failure of trial 0 \(ValueError: bad luck\) could not be"):
            study.optimize(objective, 1)

    def test_name_all_results_that_were_at_hand(self):
        study = queued([0.25, 0.75], store=FailingStore(lambda new: new.state is State.COMPLETE))
        outcomes = [
            Outcome(study.ask().number, 0.25),
            Outcome(study.ask().number, error="...\nOSError: gone"),
        ]
        with pytest.raises(
            StoreError, match=r"the value 0\.25 of trial 0, the failure of trial 1 \(OSError: gone\) could"
        ):
            _record_all(partial(_record, study), outcomes)

    def test_while_releasing_do_not_hide_what_happened(self, caplog):
        def objective(config):
            raise KeyboardInterrupt

        broken = FailingStore(lambda new: broken_now[0])
        broken_now = [True]
        study = make_study(store=broken)
        with pytest.raises(KeyboardInterrupt):
            study.optimize(objective, 2)
        assert "could not be released: the disk is full" in caplog.text
        broken_now[0] = False
        study.optimize(identity, 2)  # the loop that ran trial 0 is known to be over all the same
        assert states(study) == ["complete"] * 2
        assert study.trials[0].info["attempts"] == 2


@pytest.fixture
def dead_owner():
    """An owner whose process was killed."""
    with subprocess.Popen(["sleep", "60"]) as process:
        owner = f"{socket.gethostname()}/{process.pid}/{process_start(process.pid)}/0"
        process.kill()
    return owner


class TestTakeOver:
    def test_trials_of_the_dead_run_first_and_in_order(self, dead_owner):
        study, order = queued([0.1, 0.2, 0.3]), []
        for _ in range(2):
            study._ask(dead_owner)
        study.optimize(lambda config: order.append(config["x"]) or config["x"], 3)
        assert order == [0.1, 0.2, 0.3]
        assert [t.info.get("attempts") for t in study.trials] == [2, 2, None]

    def test_trials_of_the_living_and_of_ask_are_left_alone(self):
        study = queued([0.1, 0.2, 0.3])
        parent = f"{socket.gethostname()}/{os.getppid()}/{process_start(os.getppid())}/0"
        study._ask(parent)
        study._ask("somewhere-else/1/2/0")
        asked = study.ask()
        before = study.trials
        study.optimize(identity, 4)
        assert study.trials[:3] == before
        assert states(study) == ["running"] * 3 + ["complete"]
        study.tell(asked, 0.5)

    def test_a_trial_lost_too_often_fails(self, dead_owner):
        study, told = queued([0.1, 0.2]), []
        trial = study._ask(dead_owner)
        lost = replace(trial, info={**trial.info, "attempts": 10})
        assert study._store.swap(study.trials[0], lost)
        study.optimize(identity, 2, callbacks=[lambda s, t: told.append(t.number)])
        assert study.trials[0].error == "lost 10 times: the driver died while it ran."
        assert states(study) == ["failed", "complete"]
        assert told == [0, 1]

    def test_a_clean_release_begins_the_count_anew(self, dead_owner):
        def objective(config):
            raise KeyboardInterrupt

        study = queued([0.1])
        study._ask(dead_owner)
        for _ in range(4):
            with pytest.raises(KeyboardInterrupt):
                study.optimize(objective, 1)
            assert study.trials[0].info["attempts"] == 0
        study.optimize(identity, 1)
        assert study.trials[0].info["attempts"] == 1

    def test_a_driver_that_dies_before_the_trial_runs_does_not_count(self, dead_owner):
        study = queued([0.1, 0.2])
        for _ in range(2):
            study._ask(dead_owner)

        def objective(config):
            raise KeyboardInterrupt

        study._store = FailingStore(lambda new: new.owner == RELEASED, study._store)
        with pytest.raises(KeyboardInterrupt):
            study.optimize(objective, 2)
        assert [t.info.get("attempts") for t in study.trials] == [2, None]

    def test_one_that_was_told_meanwhile_is_not_run(self, dead_owner):
        study = queued([0.1, 0.2])
        for _ in range(2):
            study._ask(dead_owner)
        study.optimize(identity, 2, callbacks=[lambda s, t: s.tell(1, 7.0) if t.number == 0 else None])
        assert [t.value for t in study.trials] == [0.1, 7.0]

    def test_a_stop_rule_that_holds_leaves_them_for_later(self, dead_owner):
        study = queued([0.1])
        study.add({"x": 0.0}, 0.0)
        study._ask(dead_owner)
        study.optimize(identity, 1, target=0.0)
        assert study.trials[1].state is State.RUNNING
        study.optimize(identity, 1)
        assert study.trials[1].value == 0.1


DRIVER = textwrap.dedent("""
    # No guard: workers must not run this again. Queued configs need no torch, so that it starts fast.
    import os, subprocess, sys, time
    from pathlib import Path
    import gpbo

    folder, workers, slow = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "slow"
    study = gpbo.Study({"x": gpbo.Float(0, 1)}, store=folder / "study.db")
    if not study.trials:
        for k in range(6):
            study.enqueue({"x": k / 10})

    def objective(config):
        if slow and config["x"] >= 0.2:
            child = subprocess.Popen(["sleep", "60"], stderr=subprocess.DEVNULL)
            (folder / f"{child.pid}.pid").touch()
            (folder / f"{os.getpid()}.pid").touch()
            time.sleep(60)
        return config["x"] ** 2

    study.optimize(objective, 6, workers=workers)
""")


def drive(folder, workers, speed):
    script = folder / "driver.py"
    script.write_text(DRIVER)
    command = [sys.executable, str(script), str(folder), str(workers), speed]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_for(condition, what):
    give_up = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up, what
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "workers"),
    [(signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGTERM, 2), (signal.SIGKILL, 1), (signal.SIGKILL, 2)],
)
def test_a_driver_that_is_stopped_loses_nothing(number, workers, tmp_path):
    def stored():
        store = SQLStore(tmp_path / "study.db", "default", create=False)
        try:
            return store.trials()
        finally:
            store.close()

    with drive(tmp_path, workers, "slow") as driver:
        wait_for(lambda: len(list(tmp_path.glob("*.pid"))) == 2 * workers, "the trials did not start")
        driver.send_signal(number)
        if number != signal.SIGKILL:
            driver.send_signal(number)  # the impatient press it twice
        errors = driver.communicate(timeout=60)[1]
    assert driver.returncode == (-signal.SIGKILL if number == signal.SIGKILL else -signal.SIGINT)
    assert ("KeyboardInterrupt" in errors) == (number != signal.SIGKILL)
    if workers > 1:
        for path in tmp_path.glob("*.pid"):
            wait_for(lambda pid=int(path.stem): process_start(pid) is None, "an orphan lives")
    trials = stored()
    assert [t.value for t in trials] == [0.0, 0.1**2] + [None] * workers
    if number != signal.SIGKILL:
        assert {t.owner for t in trials[2:]} == {RELEASED}

    with drive(tmp_path, workers, "fast") as driver:
        assert driver.communicate(timeout=60)[1] == ""
    trials = stored()
    assert [t.value for t in trials] == [(k / 10) ** 2 for k in range(6)]
    attempts = 2 if number == signal.SIGKILL else 1
    assert [t.info.get("attempts") for t in trials[2 : 2 + workers]] == [attempts] * workers
    for path in tmp_path.glob("*.pid"):  # an objective in the driver itself leaves what it started
        if process_start(int(path.stem)) is not None:
            os.kill(int(path.stem), signal.SIGKILL)


DECIDING = textwrap.dedent("""
    import os, signal, sys
    import gpbo
    from gpbo.seeding import derive
    from gpbo.suggesters.base import Suggestion

    class Deciding:
        '''Points that depend on everything seen.'''

        def suggest(self, data, cube, n, seed):
            told = float(data.Y.sum()) if len(data.Y) else 0.0
            X = cube.snap(0 * cube.sobol(n, seed) + (derive(seed, data.number, repr(told)) % 10**6) / 10**6)
            return Suggestion(X)

    def objective(config):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return (config["x"] - 0.3) ** 2

    left = int(sys.argv[2])
    suggester = {"all": Deciding(), "gp": gpbo.GPSuggester(n_initial=3)}[sys.argv[3]]
    study = gpbo.Study({"x": gpbo.Float(0, 1)}, suggester=suggester, store=sys.argv[1], device="cpu")
    study.optimize(objective, 8)
""")


@pytest.mark.parametrize("suggester", ["all", "gp"])
def test_after_a_crash_the_decisions_are_those_of_an_undisturbed_run(suggester, tmp_path):
    script = tmp_path / "deciding.py"
    script.write_text(DECIDING)

    def go(name, fuse):
        command = [sys.executable, str(script), str(tmp_path / name), str(fuse), suggester]
        return subprocess.run(command).returncode

    assert go("whole.db", 0) == 0
    assert [go("torn.db", fuse) for fuse in (5, 0)] == [-signal.SIGKILL, 0]
    whole, torn = (gpbo.Study.load(tmp_path / name).trials for name in ("whole.db", "torn.db"))
    assert len({t.config["x"] for t in whole}) == 8
    assert [(t.number, t.config, t.value) for t in torn] == [(t.number, t.config, t.value) for t in whole]


def test_importing_the_loop_loads_no_torch():
    code = "import sys, gpbo.run; print({'torch', 'numpy', 'sqlalchemy', 'tqdm'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_progress_is_quiet_in_a_log(capfd):
    make_study().optimize(identity, 3, progress=True)
    assert capfd.readouterr() == ("", "")


def test_the_driver_folder_is_left_clean(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_study().optimize(lambda config: 1.0, 2, workers=2)
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("scheduler", [None, gpbo.ASHA(1, 9)])
def test_an_objective_of_another_form_costs_no_trial(workers, scheduler):
    study = gpbo.Study({"x": gpbo.Float(0, 1)}, scheduler=scheduler)
    with pytest.raises(SignatureError, match=r"`objective` must be .*, got <lambda>\(a, b, c\)"):
        study.optimize(lambda a, b, c: 0.0, n_trials=3, workers=workers)
    assert study.trials == []


class Listener:
    def heard(self, study, trial):
        pass

    def __call__(self, study):
        pass


@pytest.mark.parametrize(
    ("callback", "named"),
    [
        (lambda trial: None, r"<lambda>\(trial\)"),
        (lambda a, b, c: None, r"<lambda>\(a, b, c\)"),
        (lambda study, *, trial: None, r"<lambda>\(study, \*, trial\)"),
        (Listener(), r"Listener\(study\)"),
        (Listener.heard, r"heard\(self, study, trial\)"),
    ],
)
def test_a_callback_of_another_form_costs_no_trial(callback, named):
    study = make_study()
    rule = rf"`callbacks` must be functions f\(study, trial\), got {named}\."
    with pytest.raises(SignatureError, match=rule):
        study.optimize(identity, 3, callbacks=[print, callback])
    assert study.trials == []


def test_callbacks_of_every_form_that_can_be_called():
    seen = []

    def many(*given, also=None):
        seen.append(given[1].number)

    callbacks = [
        many,
        Listener().heard,
        functools.partial(lambda by, s, t: None, 1),
        lambda s, t, more=0: None,
    ]
    make_study().optimize(identity, 2, callbacks=callbacks)
    assert seen == [0, 1]
