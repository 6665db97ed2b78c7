"""A study in miniature: workers, random finishing order, failures, no clock and no store."""

import random
from dataclasses import dataclass, field, replace

import pytest

from gpbo.schedulers.rungs import report_budget
from gpbo.trial import Done, Observation, Resume, Start, State, Trial, Wait


@dataclass
class Simulation:
    """Runs a scheduler; `events` holds (trials before, what was asked, the answer)."""

    scheduler: object
    value: object  # (number, budget) -> float
    workers: int = 1
    fails: float = 0.0  # the chance that a run fails
    lost: float = 0.0  # the chance that a run's worker is lost
    steps: tuple = ()  # budgets between the rungs at which trials report too
    seed: int = 0
    trials: list = field(default_factory=list)
    events: list = field(default_factory=list)
    jobs: list = field(default_factory=list)  # the budget of each run started

    def __post_init__(self):
        self.random = random.Random(self.seed)
        self.waiting = False

    def run(self, n_jobs):
        while len(self.jobs) < n_jobs:
            running = [t.number for t in self.trials if t.state is State.RUNNING]
            free = len(running) < self.workers and not self.waiting
            if free and (not running or self.random.random() < 0.6):
                if not self.ask():
                    break
            else:
                assert running, "nothing runs and the scheduler waits"
                self.report(self.random.choice(running))
                self.waiting = False
        return self

    def ask(self):
        wish = self.decide("next", None)
        if isinstance(wish, Done):
            return False
        if isinstance(wish, Wait):
            self.waiting = True
            return True
        if isinstance(wish, Start):
            self.trials.append(Trial(len(self.trials), {}, budget=wish.budget, bracket=wish.bracket))
        else:
            assert isinstance(wish, Resume)
            old = self.trials[wish.number]
            assert old.state is State.PAUSED
            self.trials[wish.number] = replace(old, state=State.RUNNING, budget=wish.budget)
        self.jobs.append(wish.budget)
        return True

    def report(self, number):
        trial = self.trials[number]
        draw = self.random.random()
        if draw < self.fails:
            self.trials[number] = replace(trial, state=State.FAILED, error="it did")
        elif draw < self.fails + self.lost:
            self.trials[number] = replace(trial, state=State.PAUSED)
        else:
            budget = self.next_budget(trial)
            rungs = self.scheduler.rungs
            if rungs:
                assert report_budget(trial, budget, rungs) == budget
            value = self.value(number, budget)
            seen = (*trial.observations, Observation((value,), budget))
            self.trials[number] = replace(trial, observations=seen)
            state = self.decide("judge", number)
            self.trials[number] = replace(self.trials[number], state=state)

    def next_budget(self, trial):
        if trial.budget is None:
            return None
        spent = trial.observations[-1].budget if trial.observations else 0
        stops = {*self.scheduler.rungs, *self.steps, trial.budget}
        return min(b for b in stops if spent < b <= trial.budget)

    def decide(self, what, number):
        trials = tuple(self.trials)
        args = (trials,) if number is None else (trials, number)
        answer = getattr(self.scheduler, what)(*args)
        self.events.append((trials, what, args[1:], answer))
        return answer


@pytest.fixture(scope="session")
def simulation():
    return Simulation
