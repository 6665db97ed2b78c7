"""What users and their machines do to studies with budgets, and what becomes of it."""

import math
import random

import pytest
import torch

import gpbo
from gpbo import (
    ASHA,
    BOHBSuggester,
    Categorical,
    Float,
    Hyperband,
    Int,
    MedianStopping,
    MultiFidelitySuggester,
    RandomSuggester,
    SearchSpace,
    State,
    Study,
    SuccessiveHalving,
)
from gpbo.errors import NoResultError, ResultError, SettingError, TrialStateError
from gpbo.suggesters.base import Suggestion

LINE = SearchSpace(x=Float(0, 1))
SCHEDULERS = {
    "asha": lambda: ASHA(1, 9),
    "stopping": lambda: ASHA(1, 9, stopping=True),
    "hyperband": lambda: Hyperband(1, 9),
    "halving": lambda: SuccessiveHalving(1, 9),
    "median": lambda: MedianStopping(9),
}
every = pytest.mark.parametrize("name", SCHEDULERS)


def study_of(scheduler, space=LINE, suggester=None):
    return Study(space, scheduler=scheduler, suggester=suggester or RandomSuggester(), device="cpu")


def states(study):
    return {trial.state for trial in study.trials}


class InOrder:
    """Proposes the places of a list, and then the last of them again."""

    def __init__(self, *places):
        self.places = places

    def suggest(self, data, cube, n, seed):
        place = self.places[min(data.number, len(self.places) - 1)]
        return Suggestion(torch.tensor([[place]], dtype=torch.float64))


@pytest.mark.parametrize("make", [ASHA, Hyperband, SuccessiveHalving])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, 3), "`min_budget` must be below `max_budget`, got min_budget=3, max_budget=3"),
        ((9, 3), "`min_budget` must be below `max_budget`"),
        ((1, 9, 1), "`reduction_factor` must be a finite number >= 2, got 1"),
        ((1, 9, 1.99), "`reduction_factor` must be a finite number >= 2, got 1.99"),
        ((0, 9), "`min_budget` must be a finite number > 0, got 0"),
        ((1, math.nan), "`max_budget` must be a finite number > 0, got nan"),
    ],
)
def test_settings(make, arguments, message):
    with pytest.raises(SettingError, match=message):
        make(*arguments)


def test_a_report_after_the_end_changes_nothing():
    """Of a trial that is paused, complete or failed; from a worker that was thought dead, too."""
    study = study_of(ASHA(1, 9))
    late = study.ask()
    study.tell(late, 0.5)  # paused at 1
    with pytest.raises(TrialStateError, match="only a running trial can be told, but trial 0 is paused"):
        study.tell(0, 0.4, budget=3)
    for _ in range(2):
        study.tell(study.ask(), 0.9)
    again = study.ask()
    assert (again.number, again.budget) == (0, 3)
    before = study.trials
    assert study.tell(late, 0.1) == before[0]  # of the first run, which was at 1: told already
    assert study.trials == before
    failed = study.ask()
    study.fail(failed, "the worker died")
    before = study.trials
    with pytest.raises(TrialStateError, match="is failed with error 'the worker died'"):
        study.tell(failed, 0.0)
    with pytest.raises(TrialStateError, match="only a running trial can be failed"):
        study.fail(failed, "again")
    assert study.trials == before


@every
@pytest.mark.parametrize("form", ["job", "plain"])
def test_a_value_that_is_no_number_half_way_ends_the_trial_alone(name, form):
    """Every second config's loss is nan from budget 3 on."""

    def breaks(config):
        return int(config["x"] * 1000) % 2 == 1

    def loss(config, budget):
        return math.nan if breaks(config) and budget >= 3 else config["x"]

    def train(job):
        for budget in (1, 3, 9):
            if budget > job.budget or not job.report(loss(job.config, budget), budget):
                return

    def plain(config, budget):
        return loss(config, budget)

    study = study_of(SCHEDULERS[name]())
    study.optimize(train if form == "job" else plain, n_trials=24, progress=False)
    failed = [trial for trial in study.trials if trial.state is State.FAILED]
    assert failed
    for trial in failed:
        assert "value was nan at budget" in trial.error
        assert all(math.isfinite(seen.value) and seen.budget == 1 for seen in trial.observations)
    assert not any(trial.state is State.RUNNING for trial in study.trials)
    assert all(breaks(trial.config) for trial in failed)
    assert not breaks(study.best.config)
    assert study.best.observations[-1].budget == 9


@every
def test_every_trial_failing_ends_at_the_number_of_trials(name):
    study = study_of(SCHEDULERS[name](), suggester=BOHBSuggester())

    def broken(config, budget):
        raise ZeroDivisionError("no luck")

    study.optimize(broken, n_trials=12, progress=False)
    assert states(study) == {State.FAILED}
    assert len(study.trials) == 12
    assert all("no luck" in trial.error for trial in study.trials)
    with pytest.raises(NoResultError, match="no complete trial"):
        _ = study.best


@every
def test_workers_join_and_leave(name):
    """The number of workers is another one at every step; one that leaves hands its trial back as lost."""
    draws, study, running = random.Random(4), study_of(SCHEDULERS[name]()), []
    for step in range(150):
        while len(running) < draws.randint(1, 9):
            running.append(study.ask())
            assert running[-1] is not None
        trial = running.pop(draws.randrange(len(running)))
        if step % 10 == 9:
            study.fail(trial, "the worker left")
        else:
            behind = trial.observations[-1].budget if trial.observations else 0
            for budget in [b for b in (1, 3, 9) if behind < b <= trial.budget]:
                told = study.tell(trial, trial.config["x"], budget=budget)
                if told.state is not State.RUNNING:
                    break
            assert told.state is not State.RUNNING
    known = {trial.number for trial in running}
    assert {trial.number for trial in study.trials if trial.state is State.RUNNING} == known
    assert study.best.config["x"] < 0.2
    if name == "median":
        return
    stood = [sum(any(o.budget == b for o in t.observations) for t in study.trials) for b in (1, 3, 9)]
    assert stood[0] > stood[1] > stood[2] > 0


def test_median_stopping_of_a_function_of_config_and_budget():
    """It is called at 1, 3 and 9; from the third config on, those above the median of the others stop."""
    called = []

    def loss(config, budget):
        called.append((round(config["x"], 1), budget))
        return config["x"]

    scheduler = MedianStopping(9, min_trials=2)
    assert scheduler.stops == (1, 3, 9)
    assert MedianStopping(1.0, 0.2).stops == pytest.approx((1 / 3, 1))
    study = study_of(scheduler, suggester=InOrder(0.5, 0.3, 0.9, 0.1))
    study.optimize(loss, n_trials=4, progress=False)
    half, third, last = ([(x, budget) for budget in (1, 3, 9)] for x in (0.5, 0.3, 0.1))
    assert called == [*half, *third, (0.9, 1), *last]
    assert [str(trial.state) for trial in study.trials] == ["complete", "complete", "stopped", "complete"]


@pytest.mark.parametrize("suggester", [BOHBSuggester(), MultiFidelitySuggester()], ids=["bohb", "default"])
def test_sixty_four_workers_get_distinct_proposals(suggester):
    study = study_of(ASHA(1, 9), suggester=suggester)
    for _ in range(20):
        trial = study.ask()
        study.tell(trial, trial.config["x"])
    asked = [study.ask() for _ in range(64)]
    new = [trial.config["x"] for trial in asked if not trial.observations]
    assert len(new) > 50
    assert len(set(new)) == len(new)


def test_the_best_is_never_of_a_low_budget():
    """Trial 0 is far the best at budget 1 and the worst at the full one."""
    space = SearchSpace(x=Float(0, 1), kind=Categorical(["early", "late"]), n=Int(1, 3))
    study = study_of(ASHA(1, 9, delay=False), space)

    def loss(config, budget):
        early = config["kind"] == "early"
        return -9.0 if early and budget < 9 else 9.0 if early else config["x"]

    study.optimize(loss, n_trials=60, progress=False)
    assert study.best.observations[-1].budget == 9
    full = [t.observations[-1].value for t in study.trials if t.state is State.COMPLETE]
    assert study.best.value == min(full)
    assert any(o.value == -9.0 for t in study.trials for o in t.observations)


def test_a_result_beyond_the_full_budget_is_not_added():
    study = gpbo.Study({"x": gpbo.Float(0, 1)}, scheduler=ASHA(1, 9))
    with pytest.raises(SettingError, match=r"`budget` must be at most the full budget, 9, got 99"):
        study.add({"x": 0.5}, 0.1, budget=99)
    assert study.trials == []


def test_where_every_trial_failed_the_log_says_so_and_why(caplog):
    def objective(config, budget):
        raise RuntimeError("boom")

    study = gpbo.Study({"x": gpbo.Float(0, 1)}, scheduler=ASHA(1, 9), suggester=gpbo.RandomSuggester())
    study.optimize(objective, n_trials=3, progress=False)
    assert "all 3 trials that ended have failed; the last: RuntimeError: boom" in caplog.text


def test_where_every_trial_of_this_run_failed_the_log_says_so_though_older_ones_did_not(caplog):
    study = gpbo.Study({"x": gpbo.Float(0, 1)}, suggester=gpbo.RandomSuggester())
    study.optimize(lambda config: config["x"], n_trials=2, progress=False)
    assert "failed" not in caplog.text

    def objective(config):
        raise RuntimeError("boom")

    study.optimize(objective, n_trials=4, progress=False)
    assert "all 2 trials that ended in this run have failed; the last: RuntimeError: boom" in caplog.text
    caplog.clear()
    study.optimize(objective, n_trials=4, progress=False)  # nothing is left to do
    assert "failed" not in caplog.text


@pytest.mark.parametrize("scheduler", [ASHA(1, 9), Hyperband(1, 9), SuccessiveHalving(1, 9)])
def test_a_paused_trial_is_given_up_and_others_take_its_place(scheduler):
    study = study_of(scheduler)
    run = study.ask()
    paused = study.tell(run, 0.0)
    with pytest.raises(TrialStateError, match="only a running trial can be failed, but trial 0 is paused"):
        study.fail(run, "its worker was thought dead")  # of a run that was told
    assert study.trials == [paused]
    given_up = study.fail(paused, "this config is not allowed any more")
    assert (given_up.state, given_up.value) == (State.FAILED, 0.0)
    assert study.fail(study.tell(study.ask(), 0.1).number, "nor is this").error == "nor is this"
    with pytest.raises(TrialStateError, match="trial 0 is failed"):
        study.fail(0, "again")
    for _ in range(40):
        trial = study.ask()
        assert trial.number > 1
        study.tell(trial, trial.config["x"] + 1)
    assert {State.COMPLETE} <= states(study)


def test_a_lost_loop_does_not_give_up_what_another_has_paused():
    study = study_of(ASHA(1, 9))
    study.tell(study.ask(), 0.5)
    with pytest.raises(TrialStateError, match="only a running trial can be failed"):
        study._fail(0, "its worker died")
    assert states(study) == {State.PAUSED}


def test_a_report_beyond_the_full_budget_names_what_the_trial_was_given():
    study = gpbo.Study({"x": gpbo.Float(0, 1)}, scheduler=ASHA(1, 9), suggester=gpbo.RandomSuggester())
    trial = study.ask()
    with pytest.raises(ResultError, match="must be at most what trial 0 was given, 1, got 99"):
        study.tell(trial, 0.1, budget=99)
    assert study.trials == [trial]
