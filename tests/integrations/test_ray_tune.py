"""The interfaces that Ray Tune calls, by a loop that calls them as Ray's does, without its processes."""

import random
import runpy
from collections import Counter

import pytest

ray = pytest.importorskip("ray", reason="needs gpbo[ray]")
tune = pytest.importorskip("ray.tune", reason="needs gpbo[ray]")

from ray import cloudpickle
from ray.tune.experiment import Trial as RayTrial
from ray.tune.search import BasicVariantGenerator, ConcurrencyLimiter
from ray.tune.search.search_generator import SearchGenerator

from gpbo import (
    ASHA,
    BOHBSuggester,
    Float,
    Hyperband,
    MedianStopping,
    RandomSuggester,
    SearchSpace,
    State,
    Study,
)
from gpbo.errors import ConfigError, ResultError, SettingError
from gpbo.integrations import ray_tune
from gpbo.integrations.ray_tune import GPBOScheduler, GPBOSearch, HyperBandForBOHB, TuneBOHB
from gpbo.schedulers.base import RunToEnd
from gpbo.trial import Resume

SPACE = SearchSpace({"opt/x": Float(0, 1)})


class Host:
    """Ray's loop in short: trials, their checkpoints, and one event a step.

    `ends` says after how many iterations a trial ends by itself; `fails` raises at an iteration.
    """

    def __init__(
        self, search, scheduler, n_trials, *, workers=3, ends=10**9, fails=lambda config, i: False, rng=0
    ):
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
        trial_id, x = trial.trial_id, trial.config.get("opt", trial.config)["x"]
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
        result = {
            "loss": loss(x, i),
            "training_iteration": i,
            "time_this_iter_s": 1.0,
            "done": i >= self.rules["ends"],
        }
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
        return [(t.trial_id, t.status, t.config, dict(t.last_result)) for t in self.trials], dict(
            self.checkpoints
        )

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
    return [
        (dict(t.config), str(t.state), t.bracket, [(o.budget, o.value) for o in t.observations])
        for t in study.trials
    ]


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=repr)
def test_the_decisions_are_those_of_the_study(scheduler):
    """With one worker there is one order of events, which a study of gpbo's own has too."""

    limited = ConcurrencyLimiter(search_for(), 1)
    Host(limited, GPBOScheduler(scheduler), 15, workers=1).run()
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
        assert any(
            t.config["opt"]["x"] == best.config["opt/x"] and t.last_result["loss"] == best.value
            for t in after.trials
        )
        if isinstance(scheduler, Hyperband):
            reached = Counter((t.bracket, o.budget) for t in trials for o in t.observations)
            assert reached == {
                (0, 1): 9,
                (0, 3): 3,
                (0, 9): 1,
                (1, 1): 3,
                (1, 3): 3,
                (1, 9): 1,
                (2, 1): 3,
                (2, 3): 3,
                (2, 9): 3,
            }
        after.search.study.close()


def told(search, host=None):
    return [(str(t.state), [(o.budget, o.value) for o in t.observations]) for t in search.study.trials]


def test_paused_trials_do_not_count_as_running():
    limited = ConcurrencyLimiter(search_for(), 2)
    host = Host(limited, GPBOScheduler(ASHA(1, 9)), 12, workers=5).run()
    assert host.most_running == 2
    assert len(limited.searcher.study.trials) == 12
    assert limited.searcher.max_concurrent == 2


def test_a_bracket_that_is_not_full_goes_on_when_nothing_more_comes():
    host = Host(search_for(), GPBOScheduler(Hyperband(1, 81)), 5).run()
    reached = Counter(len(t.observations) for t in host.search.study.trials)
    assert reached == {5: 1, 4: 2, 3: 2}  # of a bracket of 81, 27, 9, 3, 1
    best = host.search.study.best
    at_27 = [t for t in host.search.study.trials if len(t.observations) >= 4]
    assert best.observations[3].value == min(t.observations[3].value for t in at_27)


def test_trials_without_checkpoints_repeat_what_they_reported():
    host = Host(search_for(), GPBOScheduler(ASHA(1, 9)), 9, workers=1)
    with_checkpoints = facts(host.run().search.study)
    host = Host(search_for(), GPBOScheduler(ASHA(1, 9)), 9, workers=1)
    host.checkpoints = _Forgetful()
    assert facts(host.run().search.study) == with_checkpoints
    assert max(host.iterations.values()) == 1 + 3 + 9


class _Forgetful(dict):
    def __setitem__(self, key, value):
        pass


def test_a_trial_that_ends_by_itself_keeps_its_last_value():
    host = Host(search_for(), GPBOScheduler(ASHA(1, 9)), 9, ends=2).run()
    for trial in host.search.study.trials:
        if trial.state is State.COMPLETE:
            x = trial.config["opt/x"]
            assert [(o.budget, o.value) for o in trial.observations] == [
                (1, loss(x, 1)),
                (3, loss(x, 2)),
                (9, loss(x, 2)),
            ]
    states = Counter(t.state for t in host.search.study.trials)
    assert states[State.COMPLETE] >= 3
    assert set(states) == {State.COMPLETE, State.PAUSED}


def test_failures_are_failed_trials_and_the_rest_goes_on():
    host = Host(search_for(), GPBOScheduler(Hyperband(1, 9)), 15, fails=lambda x, i: i == 2 and x > 0.3).run()
    study = host.search.study
    failed = [t for t in study.trials if t.state is State.FAILED]
    assert failed
    assert all(t.config["opt/x"] > 0.3 and len(t.observations) == 1 for t in failed)
    assert "Ray keeps" in failed[0].error
    assert study.best.config["opt/x"] <= 0.3


def begun(scheduler=None, **settings):
    """A search with one trial, alone or in a host that has not stepped on."""
    search = search_for(**settings)
    if scheduler is None:
        assert isinstance(search.suggest("a"), dict)
        return search, None
    host = Host(search, scheduler, 1)
    trial = RayTrial("host", stub=True, trial_id="a", config=search.suggest("a"))
    host.add(trial)
    trial.set_status(RayTrial.RUNNING)
    return search, lambda **result: scheduler.on_trial_result(host, trial, result)


def test_reports_count_at_the_rungs_they_have_passed():
    search, report = begun(GPBOScheduler(ASHA(1, 9, stopping=True), time_attr="seconds"))
    assert report(loss=5.0, seconds=0.5) == "CONTINUE"
    assert told(search) == [("running", [])]
    assert report(loss=4.0, seconds=1.5) == "CONTINUE"
    assert report(loss=3.0, seconds=2.9) == "CONTINUE"
    assert told(search) == [("running", [(1, 4.0)])]
    assert report(loss=2.0, seconds=11.0) == "STOP"
    assert told(search) == [("complete", [(1, 4.0), (3, 2.0), (9, 2.0)])]


def test_the_median_rule_hears_every_report():
    search, report = begun(GPBOScheduler(MedianStopping(9)))
    assert [report(loss=1.0, training_iteration=i) for i in range(1, 10)] == ["CONTINUE"] * 8 + ["STOP"]
    assert [o.budget for o in search.study.trials[0].observations] == [*range(1, 10)]


def test_last_trials_may_run_on():
    search, report = begun(GPBOScheduler(ASHA(1, 3, stopping=True), stop_last_trials=False))
    assert [report(loss=1.0, training_iteration=i) for i in range(1, 6)] == ["CONTINUE"] * 5
    assert told(search) == [("complete", [(1, 1.0), (3, 1.0)])]


def test_a_promoted_trial_catches_up():
    search, report = begun(GPBOScheduler(ASHA(1, 9)))
    assert report(loss=1.0, training_iteration=1) == "PAUSE"
    trial = search.study._ask(owner=None)
    while trial.number != 0:  # until it is the best of three
        search.study.tell(trial, 2.0)
        trial = search.study._ask(owner=None)
    assert report(loss=7.0, training_iteration=1) == "CONTINUE"
    assert report(loss=0.5, training_iteration=2) == "CONTINUE"
    assert report(loss=0.4, training_iteration=3) == "PAUSE"
    assert report(loss=9.0, training_iteration=2) == "CONTINUE"  # begun anew once more
    assert report(loss=9.0, training_iteration=3) == "PAUSE"
    assert told(search)[0] == ("paused", [(1, 1.0), (3, 0.4)])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_fails_the_trial(value):
    search, report = begun(GPBOScheduler(ASHA(1, 9)))
    assert report(loss=value, training_iteration=1) == "STOP"
    assert told(search) == [("failed", [])]
    search, _ = begun()
    search.on_trial_complete("a", {"loss": value})
    assert search.study.trials[0].state is State.FAILED
    assert str(value) in search.study.trials[0].error


def test_a_missing_result_is_named():
    search, report = begun(GPBOScheduler(ASHA(1, 9)))
    with pytest.raises(
        ResultError, match=r"must report 'loss', but it reported \['los'\]. Did you mean 'los'?"
    ):
        report(los=1.0, training_iteration=1, pid=4)
    with pytest.raises(ResultError, match=r"must report 'training_iteration', but it reported \['loss'\]"):
        report(loss=1.0)
    with pytest.raises(SettingError, match="`training_iteration` must be a finite number >= 0, got 'one'"):
        report(loss=1.0, training_iteration="one")
    search, _ = begun()
    with pytest.raises(ResultError, match="must report 'loss'"):
        search.on_trial_complete("a", {"los": 1.0})
    with pytest.raises(ResultError, match="`value` must be a number, got 'high'"):
        search.on_trial_complete("a", {"loss": "high"})
    assert told(search) == [("running", [])]


def test_results_of_trials_that_are_over_or_unknown_change_nothing():
    search, _ = begun()
    search.on_trial_complete("a", {"loss": 1.0, "time_total_s": 2.0})
    search.on_trial_complete("a", {"loss": 2.0})
    search.on_trial_complete("a", error=True)
    search.on_trial_result("b", {"loss": 3.0})
    search.on_trial_complete("b", {"loss": 3.0})
    assert told(search) == [("complete", [(None, 1.0)])]
    assert search.study.trials[0].observations[0].seconds == 2.0


def test_a_trial_unknown_to_the_study_runs_to_the_full_budget():
    scheduler = GPBOScheduler(ASHA(1, 9))
    host = Host(search_for(), scheduler, 1)
    stranger = RayTrial("host", stub=True, trial_id="stranger")
    host.add(stranger)
    decide = [scheduler.on_trial_result(host, stranger, {"training_iteration": i}) for i in (1, 8, 9)]
    assert decide == ["CONTINUE", "CONTINUE", "STOP"]
    scheduler.on_trial_complete(host, stranger, {"training_iteration": 9})
    assert not host.search.study.trials


def test_a_trial_that_ray_stops_in_a_pause_has_its_last_result():
    search, _ = begun()
    search.on_trial_result("a", {"loss": 4.0})
    search.on_trial_complete("a")
    search.suggest("b")
    search.on_trial_complete("b")
    assert told(search) == [("complete", [(None, 4.0)]), ("failed", [])]
    assert "without a result" in search.study.trials[1].error


def test_a_trial_that_is_run_again_after_its_error_counts():
    search, _ = begun()
    search.on_trial_complete("a", error=True)
    assert search.study.trials[0].state is State.FAILED
    search.on_trial_complete("a", {"loss": 1.0})
    assert told(search) == [("complete", [(None, 1.0)])]


def test_values_of_trials_that_ray_stops_early_are_told_with_how_far_they_got():
    search, _ = begun(time_attr="training_iteration")
    search.on_trial_complete("a", {"loss": 1.0, "training_iteration": 4})
    assert told(search) == [("complete", [(4, 1.0)])]


def test_points_to_evaluate_come_first_and_once(tmp_path):
    points = [{"opt": {"x": 0.25}, "constant": 1}, {"opt/x": 0.75}]
    search = search_for(tmp_path, points_to_evaluate=points)
    again = cloudpickle.loads(cloudpickle.dumps(search))
    assert [search.suggest(i) for i in "ab"] == [{"opt": {"x": 0.25}}, {"opt": {"x": 0.75}}]
    search.save(str(tmp_path / "saved"))
    search.study.close()
    again.restore(str(tmp_path / "saved"))
    assert again.suggest("c")["opt"]["x"] not in (0.25, 0.75)
    again.study.close()
    for point, rule in [
        ({"x": 1}, "`opt/x` is missing"),
        ({"opt/x": 2}, r"must be in \[0.0, 1.0\], got 2.0"),
        (7, "must be a dictionary, got 7"),
    ]:
        with pytest.raises(ConfigError, match=rule):
            search_for(points_to_evaluate=[point]).suggest("a")


def test_results_from_elsewhere_are_learned_from():
    search = search_for()
    search.add_evaluated_point({"opt": {"x": 0.5}, "constant": 1}, 2.0)
    search.add_evaluated_point({"opt": {"x": 0.6}}, 2.0, error=True)
    search.add_evaluated_point({"opt": {"x": 0.7}}, 2.0, pruned=True, intermediate_values=[3.0, 2.0])
    assert told(search) == [("complete", [(None, 2.0)]), ("failed", [])]
    host = Host(search, GPBOScheduler(ASHA(1, 9)), 4).run()
    assert told(search)[0] == ("complete", [(9, 2.0)])
    search.add_evaluated_point({"opt": {"x": 0.8}}, 3.0)
    assert told(search)[-1] == ("complete", [(9, 3.0)])
    assert len(host.trials) == 4


def test_the_same_seed_gives_the_same_configs():
    def configs(seed):
        search = GPBOSearch(SPACE, metric="loss", mode="max", seed=seed)
        for i in range(8):
            search.on_trial_complete(str(i), {"loss": search.suggest(str(i))["opt"]["x"]})
        return facts(search.study)

    assert configs(1) == configs(1) != configs(2)


def test_several_metrics():
    search = GPBOSearch(SPACE, metric=["a", "b"], mode=["min", "max"])
    search.suggest("t")
    search.on_trial_complete("t", {"a": 1.0, "b": 2.0})
    assert search.study.directions == ("minimize", "maximize")
    assert search.study.pareto_front[0].values == (1.0, 2.0)


def test_a_finite_space_comes_to_its_end():
    search = GPBOSearch({"n": tune.randint(0, 3), "c": 7}, metric="loss", mode="min")
    assert [search.suggest(i) for i in "abcd"][3] == "FINISHED"
    assert sorted(t.config["n"] for t in search.study.trials) == [0, 1, 2]
    assert {t.config["c"] for t in search.study.trials} == {7}


class _Disturbed:
    """Has another process amend a paused trial, once, when it is about to be resumed."""

    def __init__(self, scheduler, other):
        self.scheduler, self.other, self.resumes = scheduler, other, 0
        self.rungs, self.judge = scheduler.rungs, scheduler.judge

    def next(self, trials):
        wish = self.scheduler.next(trials)
        if isinstance(wish, Resume):
            self.resumes += 1
            if self.resumes == 2:  # the first look is the search's own, the second is that of `ask`
                self.other.amend(wish.number, -1.0)
        return wish


def test_a_resume_that_another_process_foils_is_not_the_end(tmp_path):
    path = tmp_path / "study.db"
    study = Study(SPACE, scheduler=ASHA(1, 9), suggester=RandomSuggester(), store=path)
    for trial in study.ask(3):
        study.tell(trial, trial.number)
    search = search_for(tmp_path)
    scheduler = _Disturbed(ASHA(1, 9), study)
    search.schedule(scheduler)
    assert search.suggest("a") is None
    assert scheduler.resumes == 2
    assert search.suggest("a") == {"opt": {"x": search.study.trials[0].config["opt/x"]}}
    assert search.study.trials[0].value == -1.0
    search.study.close()
    study.close()


def test_the_space_and_the_objective_may_come_from_the_tuner():
    search = GPBOSearch()
    assert search.set_search_properties(
        "loss", "max", {"opt": {"x": tune.uniform(0, 1)}, "n": 1}, num_samples=3
    )
    assert search.suggest("a").keys() == {"opt"}
    assert search.study.directions == ("maximize",)
    search = GPBOSearch(SPACE)
    assert not search.set_search_properties(None, "min", {"y": tune.uniform(0, 1)})
    search.suggest("a")
    search.on_trial_complete("a", {"_metric": 1.0})
    assert search.study.best.value == 1.0


def test_a_study_in_a_file_goes_on_in_another_experiment(tmp_path):
    first = Host(search_for(tmp_path), GPBOScheduler(Hyperband(1, 9)), 4, workers=1)
    for _ in range(7):
        first.step()
    first.search.study.close()
    second = Host(search_for(tmp_path), GPBOScheduler(Hyperband(1, 9)), 12, workers=1).run()
    study = second.search.study
    assert len(second.trials) == 12
    assert len(study.trials) > 12
    assert Counter(o.budget for t in study.trials for o in t.observations if t.bracket == 0) == {
        1: 9,
        3: 3,
        9: 1,
    }
    study.close()


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"mode": "minimize"}, "`mode` must be 'min' or 'max', or a list of these, got 'minimize'"),
        ({"metric": 3}, "`metric` must be a name or a list of names, got 3"),
        ({"metric": ["a", "b"], "mode": ["min"]}, "`mode` must have one entry for each metric"),
        ({"metric": ["a"], "mode": "min"}, "`mode` must have one entry for each metric"),
        ({"store": 5}, "`store` must be a path or a database URL, which Ray can save, got 5"),
        ({"points_to_evaluate": 5}, "`points_to_evaluate` must be a list of configs, got 5"),
        ({"seed": 0.5}, "`seed` must be a whole number, got 0.5"),
        ({"device": "cuda:99"}, "`device` must name a device of this machine, .* got 'cuda:99'"),
    ],
)
def test_a_search_that_cannot_be_is_refused(settings, rule):
    with pytest.raises(SettingError, match=rule):
        GPBOSearch(SPACE, **settings)


def test_what_is_missing_is_named():
    with pytest.raises(SettingError, match="GPBOSearch has no search space"):
        GPBOSearch(metric="loss", mode="min").suggest("a")
    with pytest.raises(SettingError, match="GPBOSearch has no `metric` and `mode`"):
        GPBOSearch(SPACE).suggest("a")
    with pytest.raises(SettingError, match=r"`scheduler` must have budgets, such as ASHA\(1, 81\), got"):
        GPBOScheduler(ASHA)
    with pytest.raises(SettingError, match="`scheduler` must have budgets"):
        GPBOScheduler(RunToEnd())
    trial = RayTrial("host", stub=True)
    host = Host(GPBOSearch(SPACE, metric="loss", mode="min"), GPBOScheduler(ASHA(1, 9)), 1)
    host.search_alg = BasicVariantGenerator()
    with pytest.raises(SettingError, match="in the study of a GPBOSearch, got BasicVariantGenerator"):
        host.add(trial)
    host = Host(GPBOSearch(SPACE, metric="loss", mode="min"), GPBOScheduler(ASHA(1, 9), metric="acc"), 1)
    with pytest.raises(SettingError, match="`metric` must be that of the search, 'loss', got 'acc'"):
        host.add(trial)


def test_what_the_tuner_says_of_the_objective_reaches_the_scheduler_once():
    assert GPBOScheduler(ASHA(1, 9)).set_search_properties("loss", "min")
    assert not GPBOScheduler(ASHA(1, 9), metric="loss").set_search_properties("loss", None)
    assert not GPBOScheduler(ASHA(1, 9), mode="min").set_search_properties(None, "min")
    assert "ASHA" in GPBOScheduler(ASHA(1, 9)).debug_string()


def test_bohb_by_its_own_names():
    search = TuneBOHB(
        {"x": tune.uniform(0, 1)},
        {"top_n_percent": 20, "num_samples": 8, "min_points_in_model": 3},
        metric="loss",
        mode="min",
        max_concurrent=2,
    )
    assert search._suggester == BOHBSuggester(top_fraction=0.2, n_candidates=8, min_points=3)
    scheduler = HyperBandForBOHB(max_t=9, reduction_factor=3)
    assert search.max_concurrent == 2
    Host(search, scheduler, 15).run()
    sources = Counter(t.info["source"] for t in search.study.trials)
    assert sources["bohb"] >= 2
    assert {o.budget for t in search.study.trials for o in t.observations} == {1, 3, 9}
    with pytest.raises(SettingError, match=r"`bohb_config` must have none but .*, got 'top'"):
        TuneBOHB(bohb_config={"top": 1})
    spaces = pytest.importorskip("ConfigSpace")
    space = spaces.ConfigurationSpace({"x": (0.0, 1.0)})
    assert TuneBOHB(space, metric="loss", mode="min").suggest("a").keys() == {"x"}


def test_another_version_of_ray_is_named_once(monkeypatch):
    monkeypatch.setattr(ray, "__version__", "9.1.0")
    with pytest.warns(UserWarning, match="gpbo is tested with Ray 2.50 to 2.60; this is Ray 9.1.0") as caught:
        runpy.run_path(ray_tune.__file__)
    assert len(caught) == 1


@pytest.mark.parametrize("version", ["2.50", "2.60rc1", "2.60.0.dev0"])
def test_a_version_of_ray_that_is_tested(monkeypatch, version):
    monkeypatch.setattr(ray, "__version__", version)
    runpy.run_path(ray_tune.__file__)  # a warning would be an error


def test_errors_stay_unless_ray_runs_the_trial_again(tmp_path):
    broken = {"yes": True}
    host = Host(search_for(tmp_path), GPBOScheduler(ASHA(1, 9)), 3, fails=lambda x, i: broken["yes"]).run()
    errors = [t.error for t in host.search.study.trials]
    saved = host.save(tmp_path)
    host.search.study.close()

    same = host.restored(saved, tmp_path, 0).run()
    assert [t.error for t in same.search.study.trials] == errors
    assert {t.status for t in same.trials} == {RayTrial.ERROR}
    same.search.study.close()

    broken["yes"] = False
    (rows, checkpoints) = saved
    again = host.restored(
        ([(a, RayTrial.PENDING, c, {}) for a, _, c, _ in rows], checkpoints), tmp_path, 0
    ).run()
    assert all(t.error is None and t.observations for t in again.search.study.trials)
    again.search.study.close()


def test_that_nothing_was_run_in_full_is_said(caplog):
    Host(search_for(), GPBOScheduler(ASHA(1, 9)), 2).run()
    assert "no trial has reached the full budget, 9; with more trials some get there." in caplog.messages


def test_a_store_is_found_from_another_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    search = GPBOSearch(SPACE, metric="loss", mode="min", store="here.db")
    pickled = cloudpickle.dumps(search)
    search.suggest("a")
    search.study.close()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    restored = cloudpickle.loads(pickled)
    assert len(restored.study.trials) == 1
    restored.study.close()


def test_a_trial_that_was_being_suggested_when_the_program_died_is_suggested_again(tmp_path):
    search = search_for(tmp_path)
    pickled = cloudpickle.dumps(search)
    search.suggest("a")
    search.save(str(tmp_path / "saved"))
    search.study._ask(search._experiment)
    search.study.close()
    again = cloudpickle.loads(pickled)
    again.restore(str(tmp_path / "saved"))
    assert again.suggest("b") == {"opt": {"x": again.study.trials[1].config["opt/x"]}}
    assert len(again.study.trials) == 2
    assert again.suggest("c")
    assert len(again.study.trials) == 3
    again.study.close()


def test_they_say_what_they_are(tmp_path):
    assert repr(GPBOSearch()) == "GPBOSearch(metric=None, mode=None, no parameters yet)"
    search = GPBOSearch(SPACE, metric="loss", mode="min", store=tmp_path / "s.db")
    begun = f"GPBOSearch(metric='loss', mode='min', store={str(tmp_path / 's.db')!r}, "
    assert repr(search) == f"{begun}1 parameter yet)"
    search.suggest("a")
    assert repr(search) == f"{begun}Study('default', 1 parameters, 1 running))"
    search.study.close()
    server = GPBOSearch(SPACE, store="postgresql+psycopg://me:secret@host/db")
    assert "store='postgresql+psycopg://me:***@host/db'" in repr(server)
    asha = ASHA(1, 9)
    assert repr(GPBOScheduler(asha)) == f"GPBOScheduler({asha!r}, time_attr='training_iteration')"
