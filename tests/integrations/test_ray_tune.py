"""The interfaces that Ray Tune calls, by a loop that calls them as Ray's does, without its processes."""

import random
from collections import Counter

import pytest

ray = pytest.importorskip("ray", reason="needs gpbo[ray]")
pytest.importorskip("ray.tune", reason="needs gpbo[ray]")

from ray import cloudpickle, tune
from ray.tune.experiment import Trial as RayTrial
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.search_generator import SearchGenerator

from gpbo import ASHA, Float, Hyperband, MedianStopping, RandomSuggester, SearchSpace, State, Study
from gpbo.integrations.ray_tune import GPBOScheduler, GPBOSearch

SPACE = SearchSpace({"opt/x": Float(0, 1)})


class Host:
    """Ray's loop in short: trials, their checkpoints, and one event a step.

    `ends` says after how many iterations a trial ends by itself; `fails` raises at an iteration.
    """

    def __init__(self, search, scheduler, n_trials, *, workers=3, ends=10**9, fails=lambda config, i: False, rng=0):
        self.pickled = cloudpickle.dumps((search, scheduler))
        self.rules = {"workers": workers, "ends": ends, "fails": fails}
        self._begin(search, scheduler, n_trials, rng)

    def _begin(self, search, scheduler, n_trials, rng):
        self.search, self.scheduler = search, scheduler
        self.search_alg = SearchGenerator(search)
        self.search_alg._total_samples = n_trials
        self.rng = random.Random(rng)
        self.trials, self.at, self.checkpoints, self.saving = [], {}, {}, set()
        self.iterations = Counter()  # that were run, by config
        self.most_running = 0

    def get_trials(self):
        return self.trials

    def stop_trial(self, trial):
        if trial.status == RayTrial.RUNNING:
            self.scheduler.on_trial_complete(self, trial, dict(trial.last_result))
            self.search_alg.on_trial_complete(trial.trial_id, result=dict(trial.last_result))
        else:
            self.scheduler.on_trial_remove(self, trial)
            self.search_alg.on_trial_complete(trial.trial_id)
        trial.set_status(RayTrial.TERMINATED)

    def having(self, *statuses):
        return [trial for trial in self.trials if trial.status in statuses]

    def add(self, trial):
        self.trials.append(trial)
        self.scheduler.on_trial_add(self, trial)

    def done(self):
        return self.search_alg.is_finished() and all(trial.is_finished() for trial in self.trials)

    def step(self):
        n_pending = getattr(self.search_alg.searcher, "max_concurrent", 0) or 1
        while not self.search_alg.is_finished() and len(self.having(RayTrial.PENDING)) < n_pending:
            trial = RayTrial("host", stub=True)
            config = self.search_alg.searcher.suggest(trial.trial_id)
            if config == "FINISHED":
                self.search_alg._finished = True
            if not isinstance(config, dict):
                live = self.having(RayTrial.PENDING, RayTrial.RUNNING, RayTrial.PAUSED)
                assert live or config == "FINISHED", "Ray would wait for ten minutes"
                break
            trial.config = config
            self.search_alg._counter += 1
            self.add(trial)
        chosen = self.scheduler.choose_trial_to_run(self)
        if chosen is not None:
            assert chosen.status in (RayTrial.PENDING, RayTrial.PAUSED)
            chosen.set_status(RayTrial.PENDING)
        for trial in self.having(RayTrial.PENDING):
            if len(self.having(RayTrial.RUNNING)) < self.rules["workers"]:
                trial.set_status(RayTrial.RUNNING)
                self.at[trial.trial_id] = self.checkpoints.get(trial.trial_id, 0)
        running = self.having(RayTrial.RUNNING)
        self.most_running = max(self.most_running, len(running) - len(self.saving))
        if running:
            self.event(self.rng.choice(running))

    def event(self, trial):
        trial_id, x = trial.trial_id, trial.config["opt"]["x"]
        if trial_id in self.saving:
            self.saving.discard(trial_id)
            self.checkpoints[trial_id] = self.at[trial_id]
            trial.set_status(RayTrial.PAUSED)
            return
        self.at[trial_id] = i = self.at[trial_id] + 1
        self.iterations[x] += 1
        if self.rules["fails"](x, i):
            self.scheduler.on_trial_error(self, trial)
            self.search_alg.on_trial_complete(trial_id, error=True)
            trial.set_status(RayTrial.ERROR)
            return
        result = {"loss": loss(x, i), "training_iteration": i, "time_this_iter_s": 1.0, "done": i >= self.rules["ends"]}
        decision = "STOP" if result["done"] else self.scheduler.on_trial_result(self, trial, dict(result))
        if decision != "STOP":
            self.search_alg.on_trial_result(trial_id, dict(result))
        trial.run_metadata.last_result = {**result, "done": decision == "STOP"}
        if decision == "STOP":
            self.stop_trial(trial)
        elif decision == "PAUSE":
            self.saving.add(trial_id)

    def run(self, steps=10_000):
        for _ in range(steps):
            if self.done():
                return self
            self.step()
        raise AssertionError("it does not end")

    def save(self, folder):
        self.search_alg.save_to_dir(str(folder), "now")
        return [(t.trial_id, t.status, t.config, dict(t.last_result)) for t in self.trials], dict(self.checkpoints)

    def restored(self, saved, folder, rng):
        """What Ray makes of what it saved: what was not finished is pending."""
        other = Host.__new__(Host)
        other.pickled, other.rules = self.pickled, self.rules
        other._begin(*cloudpickle.loads(self.pickled), 0, rng)
        other.search_alg.restore_from_dir(str(folder))
        rows, other.checkpoints = saved[0], dict(saved[1])
        for trial_id, status, config, last in rows:
            trial = RayTrial("host", stub=True, trial_id=trial_id, config=config)
            trial.run_metadata.last_result = last
            trial.set_status(status if status in (RayTrial.TERMINATED, RayTrial.ERROR) else RayTrial.PENDING)
            other.add(trial)
        return other


def loss(x, i):
    return (x - 0.3) ** 2 + 1 / i


def search_for(tmp_path=None, **settings):
    settings = {"metric": "loss", "mode": "min", "suggester": RandomSuggester()} | settings
    return GPBOSearch(SPACE, store=tmp_path and tmp_path / "study.db", **settings)


SCHEDULERS = [
    ASHA(1, 9),
    ASHA(1, 9, stopping=True),
    Hyperband(1, 9),
    MedianStopping(9),
]


def facts(study):
    return [(dict(t.config), str(t.state), t.bracket, [(o.budget, o.value) for o in t.observations]) for t in study.trials]


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=repr)
def test_the_decisions_are_those_of_the_study(scheduler):
    """With one worker there is one order of events, which a study of gpbo's own has too."""

    limited = ConcurrencyLimiter(search_for(), 1)
    host = Host(limited, GPBOScheduler(scheduler), 15, workers=1).run()
    study = Study(SPACE, suggester=RandomSuggester(), scheduler=scheduler)
    while (trial := study._ask(owner=None, n_trials=15)) is not None:
        at = int(trial.observations[-1].budget) if trial.observations else 0
        while trial.state is State.RUNNING:
            at += 1
            if at in scheduler.rungs or len(scheduler.rungs) == 1:
                trial = study.tell(trial, loss(trial.config["opt/x"], at), budget=at)
    assert facts(limited.searcher.study) == facts(study)
    assert max(t.observations[-1].budget for t in study.trials) == 9


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=repr)
@pytest.mark.parametrize("where", ["file", "memory"])
def test_a_killed_driver_loses_nothing(scheduler, where, tmp_path):
    for rng in range(3 if where == "file" else 8):
        folder = tmp_path / str(rng)
        folder.mkdir()
        draw = random.Random(rng)
        host = Host(search_for(folder if where == "file" else None), GPBOScheduler(scheduler), 15, rng=rng)
        for _ in range(draw.randrange(1, 60)):
            if not host.done():
                host.step()
        saved, known = host.save(folder), facts(host.search.study)
        for _ in range(draw.randrange(20)):
            if not host.done():
                host.step()
        if where == "file":
            known = facts(host.search.study)
        host.search.study.close()

        after = host.restored(saved, folder, rng).run()
        trials = after.search.study.trials
        assert len(trials) == len(after.trials) == 15
        assert not [t for t in trials if t.state is State.RUNNING]
        for (config, _, bracket, before), now in zip(known, facts(after.search.study), strict=False):
            assert (now[0], now[2]) == (config, bracket)
            assert now[3][: len(before)] == before
        assert len({t.config["opt/x"] for t in trials}) == 15
        assert {t.config["opt"]["x"] for t in after.trials} == {t.config["opt/x"] for t in trials}
        best = after.search.study.best
        assert any(t.config["opt"]["x"] == best.config["opt/x"] and t.last_result["loss"] == best.value for t in after.trials)
        if isinstance(scheduler, Hyperband):
            reached = Counter((t.bracket, o.budget) for t in trials for o in t.observations)
            assert reached == {(0, 1): 9, (0, 3): 3, (0, 9): 1, (1, 1): 3, (1, 3): 3, (1, 9): 1, (2, 1): 3, (2, 3): 3, (2, 9): 3}
        after.search.study.close()
