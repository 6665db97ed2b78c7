"""What every scheduler keeps to, whatever the workers do."""

import copy
import pickle
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpbo.schedulers.asha import ASHA
from gpbo.schedulers.base import RunToEnd
from gpbo.schedulers.hyperband import Hyperband, SuccessiveHalving
from gpbo.schedulers.median import MedianStopping
from gpbo.trial import Observation, State, Trial

MAKERS = {
    "RunToEnd": RunToEnd,
    "ASHA": lambda: ASHA(1, 9, 3),
    "ASHA delayed": lambda: ASHA(1, 9, 3, delay=True),
    "ASHA stopping": lambda: ASHA(1, 9, 3, stopping=True),
    "ASHA audited": lambda: ASHA(1, 9, 3, audit=0.3),
    "ASHA stopping audited": lambda: ASHA(1, 9, 3, stopping=True, audit=0.3),
    "ASHA given rungs": lambda: ASHA(budgets=(0.5, 2, 5)),
    "Hyperband": lambda: Hyperband(1, 9, 3),
    "SuccessiveHalving": lambda: SuccessiveHalving(1, 9, 3),
    "MedianStopping": lambda: MedianStopping(9, 2),
}
every = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


def curve(seed):
    """Values that tie now and then and change their order between budgets."""

    def value(number, budget):
        draw = random.Random(f"{seed}/{number}")
        return round(draw.random() + draw.random() / (budget or 1), 1)

    return value


settings_of_a_study = {
    "seed": st.integers(0, 10**6),
    "workers": st.integers(1, 12),
    "fails": st.sampled_from([0.0, 0.1, 0.6]),
    "lost": st.sampled_from([0.0, 0.2]),
    "steps": st.sampled_from([(), (1, 2, 4)]),
}


@every
@settings(deadline=None, max_examples=25)
@given(**settings_of_a_study)
def test_any_study(simulation, make, **study):
    """A simulation asserts that nobody waits while nothing runs and that every report is in order."""
    found = simulation(make(), curve(study["seed"]), **study).run(120)
    rungs = found.scheduler.rungs
    for trial in found.trials:
        budgets = [seen.budget for seen in trial.observations]
        if rungs:
            assert trial.budget in rungs
            assert budgets == sorted(set(budgets))
            assert all(budget <= trial.budget <= rungs[-1] for budget in budgets)
            finished = bool(budgets) and budgets[-1] == rungs[-1]
            assert (trial.state is State.COMPLETE) == finished
        if trial.state is State.PAUSED and budgets and budgets[-1] == trial.budget:
            assert trial.budget < rungs[-1]
    for trials, what, args, answer in found.events:
        fresh = make()
        assert getattr(fresh, what)(list(trials), *args) == answer  # every prefix, read anew


@every
def test_answers_are_pure(simulation, make):
    found = simulation(make(), curve(1), workers=4, fails=0.1, lost=0.1, seed=3).run(60)
    kept = copy.deepcopy(found.trials)
    once = found.scheduler
    for trials, what, args, answer in found.events[::-1]:  # backwards: no memory of a later state matters
        assert getattr(once, what)(trials, *args) == answer
        assert getattr(once, what)(trials, *args) == answer
    assert found.trials == kept


@every
def test_schedulers_are_values(simulation, make):
    found = simulation(make(), curve(1)).run(30)
    travelled = pickle.loads(pickle.dumps(found.scheduler))
    assert travelled.next(found.trials) == found.scheduler.next(found.trials)
    if make is not RunToEnd:
        assert travelled == found.scheduler == make()
        assert hash(travelled) == hash(make())


@every
def test_rungs_rise(make):
    rungs = make().rungs
    assert list(rungs) == sorted(set(rungs))
    assert all(r > 0 for r in rungs)


@every
def test_every_run_failing_goes_on(simulation, make):
    found = simulation(make(), curve(0), workers=3, fails=1.0).run(60)
    assert len(found.trials) == 60


@every
def test_most_trials_end_well_below_the_full_budget(simulation, make):
    found = simulation(make(), curve(2), workers=4, steps=(1, 2, 4)).run(300)
    if not found.scheduler.rungs:
        return
    spent = [t.observations[-1].budget for t in found.trials if t.observations]
    assert sum(spent) < 0.75 * found.scheduler.rungs[-1] * len(found.trials)
    assert sum(t.state is State.COMPLETE for t in found.trials) >= 5


@every
def test_trials_added_from_elsewhere_do_no_harm(simulation, make):
    found = simulation(make(), curve(0))
    budget = found.scheduler.rungs[-1] if found.scheduler.rungs else None
    found.trials = [
        Trial(0, {}, State.COMPLETE, observations=(Observation((0.0,), budget),)),
        Trial(1, {}, State.COMPLETE, observations=(Observation((0.0,), None),)),
        Trial(2, {}, State.FAILED, error="elsewhere"),
    ]
    found.run(60)
    assert all(t.budget is not None for t in found.trials[3:]) or not found.scheduler.rungs


@every
def test_a_worker_that_never_reports_holds_nobody_up(simulation, make):
    found = simulation(make(), curve(4), workers=2)
    found.ask()  # trial 0 runs for ever
    for _ in range(80):
        found.ask()
        running = [t.number for t in found.trials if t.number and t.state is State.RUNNING]
        while found.trials[running[0]].state is State.RUNNING:
            found.report(running[0])
    assert len(found.jobs) == 81


def test_schedulers_do_not_load_torch():
    code = (
        "import sys, gpbo.schedulers.asha, gpbo.schedulers.hyperband, gpbo.schedulers.median;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
