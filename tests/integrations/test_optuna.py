import importlib.util
import math
import os
import pickle
import runpy
import signal
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import optuna
import pytest
import torch
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)
from optuna.trial import TrialState, create_trial

import gpbo
import gpbo.integrations.optuna as integration
from gpbo.errors import MissingExtraError, SettingError
from gpbo.integrations.optuna import GPBOPruner, GPBOSampler

optuna.logging.set_verbosity(optuna.logging.ERROR)

PLANE = {"x": FloatDistribution(-1, 1), "y": FloatDistribution(-1, 1)}


def bowl(trial):
    return (trial.suggest_float("x", -1, 1) - 0.3) ** 2 + trial.suggest_float("y", -1, 1) ** 2


def points(study):
    return [tuple(trial.params.values()) for trial in study.trials]


@dataclass
class Recorder:
    """A suggester that remembers what it was told, and proposes the next Sobol point."""

    told: list = field(default_factory=list)

    def suggest(self, data, cube, n, seed):
        self.told.append((data, cube))
        return gpbo.SobolSuggester().suggest(data, cube, n, seed)


def told(study, distributions=None):
    """The data and the cube with which the next trial of a study would be proposed."""
    recorder = Recorder()
    study.sampler = GPBOSampler(suggester=recorder)
    trial = study.ask()
    study.sampler.sample_relative(
        study,
        study.get_trials(deepcopy=False)[trial.number],
        distributions or study.sampler.infer_relative_search_space(study, trial),
    )
    return recorder.told[-1]


class TestOptunasOwnSuite(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self):
        return GPBOSampler


class TestDecisions:
    def test_they_are_those_of_a_study_of_gpbo(self):
        def value(config):
            return (config["x"] - 0.3) ** 2 + 0.01 * (config["k"] - 4) ** 2 + (config["o"] == "b") * 0.1

        space = gpbo.SearchSpace(  # by name
            k=gpbo.Int(1, 9), o=gpbo.Categorical(["a", "b"]), x=gpbo.Float(1e-3, 1, log=True)
        )
        expected = gpbo.Study(space, seed=3).optimize(value, 12, progress=False)

        def objective(trial):
            return value(
                {
                    "x": trial.suggest_float("x", 1e-3, 1, log=True),
                    "k": trial.suggest_int("k", 1, 9),
                    "o": trial.suggest_categorical("o", ["a", "b"]),
                }
            )

        study = optuna.create_study(sampler=GPBOSampler(seed=3))
        study.optimize(objective, 12)
        assert [t.params for t in study.trials] == [t.config for t in expected.trials]
        assert sum("hypers" in t.system_attrs.get("gpbo", {}).get("info", {}) for t in study.trials) == 7

    def test_a_study_that_is_loaded_again_goes_on_as_if_it_had_not_stopped(self, tmp_path):
        one = optuna.create_study(sampler=GPBOSampler(seed=1))
        one.optimize(bowl, 9)
        storage = f"sqlite:///{tmp_path / 'study.db'}"
        for n in (7, 2):
            other = optuna.create_study(
                study_name="s", storage=storage, sampler=GPBOSampler(seed=1), load_if_exists=True
            )
            other.optimize(bowl, n)
        assert points(other) == points(one)
        assert len(set(points(one))) == 9

    def test_two_studies_may_share_a_sampler(self):
        def other(trial):
            return trial.suggest_int("k", 0, 50) + trial.suggest_float("z", 0, 1)

        shared = GPBOSampler(seed=2)
        pairs = [
            (objective, optuna.create_study(sampler=shared), optuna.create_study(sampler=GPBOSampler(seed=2)))
            for objective in (bowl, other)
        ]
        for _ in range(7):
            for objective, study, alone in pairs:
                study.optimize(objective, 1)
                alone.optimize(objective, 1)
        for _, study, alone in pairs:
            assert points(study) == points(alone)

    def test_a_study_that_is_rebuilt_from_its_results_goes_on(self):
        study = optuna.create_study(sampler=GPBOSampler())
        study.optimize(bowl, 8)
        asked = []
        for _ in range(2):  # as W&B does: parameters and values are all there is
            again = optuna.create_study(sampler=GPBOSampler())
            for trial in study.trials:
                again.add_trial(create_trial(params=trial.params, distributions=PLANE, value=trial.value))
            asked.append(tuple(again.ask(PLANE).params.values()))
        assert asked[0] == asked[1]
        assert asked[0] not in points(study)

    def test_no_seed_is_one_of_its_own(self):
        first, second = (optuna.create_study(sampler=GPBOSampler(seed=None)) for _ in range(2))
        for study in (first, second):
            study.optimize(lambda trial: trial.suggest_float("x", 0, 1), 4)
        assert points(first) != points(second)

    def test_seeds_differ(self):
        first, second = (optuna.create_study(sampler=GPBOSampler(seed=seed)) for seed in (0, 1))
        for study in (first, second):
            study.optimize(bowl, 2)
        assert points(first)[0] == points(second)[0] == (0.0, 0.0)
        assert points(first)[1] != points(second)[1]

    def test_it_finds_an_optimum(self):
        study = optuna.create_study(sampler=GPBOSampler(), direction="maximize")
        study.optimize(lambda trial: -bowl(trial), 16)
        assert study.best_value > -1e-3

    def test_a_suggester_can_be_chosen(self):
        study = optuna.create_study(sampler=GPBOSampler(suggester=gpbo.RandomSuggester()))
        study.optimize(bowl, 3)
        assert study.trials[-1].system_attrs["gpbo"]["info"] == {"source": "random"}

    @pytest.mark.parametrize("directions", [["minimize", "maximize"], ["maximize", "maximize", "minimize"]])
    def test_several_objectives_are_turned_to_be_maximised(self, directions):
        study = optuna.create_study(directions=directions, sampler=GPBOSampler())
        study.tell(study.ask(PLANE), range(1, 1 + len(directions)))
        data, _ = told(study)
        signs = [1 if direction == "maximize" else -1 for direction in directions]
        assert data.Y.tolist() == [[sign * k for k, sign in enumerate(signs, start=1)]]

    def test_a_front_is_approached(self):
        def objective(trial):
            x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
            return x, (1 - x) ** 2 + y

        study = optuna.create_study(directions=["minimize", "minimize"], sampler=GPBOSampler())
        study.optimize(objective, 12)
        assert min(trial.params["y"] for trial in study.best_trials) < 0.02
        assert study.trials[-1].system_attrs["gpbo"]["info"]["source"] == "multi_objective"

    def test_a_finite_space_can_run_out(self, caplog):
        study = optuna.create_study(sampler=GPBOSampler())
        study.optimize(lambda trial: trial.suggest_int("k", 0, 3), 7)
        assert len(set(points(study)[:4])) == 4
        fallbacks = ["fallback" in t.system_attrs.get("gpbo", {}).get("info", {}) for t in study.trials]
        assert fallbacks == 4 * [False] + 3 * [True]
        assert [record.message for record in caplog.records if "asked for" in record.message] == [
            f"study {study.study_name!r}: every point of the space was asked for; trials are random now."
        ]

    def test_what_gpbo_cannot_represent_is_drawn_alone(self):
        def objective(trial):
            trial.suggest_int("big", 0, 2**60)
            trial.suggest_float("wide", 1e-200, 1e200, log=True)
            assert trial.suggest_categorical("c", [math.nan, "a", 1.5]) in ("a", 1.5) or True
            assert trial.suggest_float("one", 2, 2) == 2
            return trial.suggest_float("x", 0, 1)

        study = optuna.create_study(sampler=GPBOSampler())
        study.optimize(objective, 4)
        assert set(study.trials[-1].system_attrs["gpbo"]["config"]) == {"c", "x"}
        assert len({trial.params["big"] for trial in study.trials}) == 4

    def test_choices_may_be_any_objects(self):
        shape, other = (1, 2), (3, 4)
        study = optuna.create_study(sampler=GPBOSampler())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            study.optimize(
                lambda t: t.suggest_categorical("s", [shape, other])[0] + t.suggest_float("x", 0, 1), 6
            )
        assert {trial.params["s"] for trial in study.trials} == {shape, other}

    def test_bad_settings(self):
        with pytest.raises(SettingError, match="`seed` must be a whole number, got '7'"):
            GPBOSampler(seed="7")
        for given in (gpbo.GPSuggester, "gp"):
            with pytest.raises(
                SettingError, match=r"`suggester` must be an object such as GPSuggester\(\), got"
            ):
                GPBOSampler(suggester=given)
        with pytest.raises(SettingError, match=r"`device` must name a device of .* 'cpu'.*, got 'cuda:99'"):
            GPBOSampler(device="cuda:99")

    def test_it_says_what_it_is(self):
        assert repr(GPBOSampler(seed=3)) == "GPBOSampler(seed=3)"
        suggester = gpbo.GPSuggester()
        given = f"GPBOSampler(seed=0, suggester={suggester!r}, device='cpu')"
        assert repr(GPBOSampler(suggester=suggester, device="cpu")) == given
        assert repr(GPBOPruner(1, 9)) == "GPBOPruner(budgets=[1, 3, 9], reduction_factor=3)"
        given = "GPBOPruner(budgets=[2, 5], reduction_factor=3, audit=0.25)"
        assert repr(GPBOPruner(budgets=[2, 5], audit=0.25)) == given


class TestWorkers:
    def test_threads(self):
        study = optuna.create_study(sampler=GPBOSampler())
        study.optimize(lambda trial: time.sleep(0.01) or bowl(trial), 14, n_jobs=2)
        assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}
        assert len(set(points(study))) == 14

    def test_a_proposal_is_pending_before_the_program_has_asked_for_it(self):
        study = optuna.create_study(sampler=GPBOSampler())
        study.optimize(bowl, 7)
        trial = study.ask()
        x = trial.suggest_float("x", -1, 1)
        data, _ = told(study)
        assert data.pending.shape == (1, 2)
        assert data.pending[0, 0].item() == pytest.approx((x + 1) / 2)
        assert data.pending[0, 1].item() == pytest.approx((trial.suggest_float("y", -1, 1) + 1) / 2)

    def test_running_trials_are_kept_away_from(self):
        study = optuna.create_study(sampler=GPBOSampler())
        study.optimize(bowl, 10)
        asked = torch.tensor([list(study.ask(PLANE).params.values()) for _ in range(4)])
        assert torch.pdist(asked).min() > 1e-3

    def test_threads_that_ask_at_once_see_each_other(self):
        recorder = Recorder()
        study = optuna.create_study(sampler=GPBOSampler(suggester=recorder))
        study.ask(PLANE)
        start = threading.Barrier(3)

        def ask():
            start.wait()
            study.ask(PLANE)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [len(data.pending) for data, _ in recorder.told] == [1, 2, 3]

    def test_studies_do_not_wait_for_each_other(self):
        meeting = threading.Barrier(2)

        class Meeting(Recorder):
            def suggest(self, data, cube, n, seed):
                meeting.wait(20)
                return super().suggest(data, cube, n, seed)

        storage = optuna.storages.InMemoryStorage()
        samplers = [GPBOSampler(suggester=Meeting()) for _ in range(2)]
        studies = [optuna.create_study(storage=storage, sampler=sampler) for sampler in samplers]
        for study in studies:
            study.ask(PLANE)
        threads = [threading.Thread(target=study.ask, args=(PLANE,)) for study in studies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [len(sampler._suggester.told) for sampler in samplers] == [1, 1]

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forking while threads run
    def test_a_fork_amid_a_proposal_can_ask(self):
        inside, forked = threading.Event(), threading.Event()

        class Slow(Recorder):
            def suggest(self, data, cube, n, seed):
                inside.set()
                assert forked.wait(60)
                return super().suggest(data, cube, n, seed)

        study = optuna.create_study(sampler=GPBOSampler(suggester=Slow(), device="cpu"))
        study.ask(PLANE)
        thread = threading.Thread(target=study.ask, args=(PLANE,))
        thread.start()
        assert inside.wait(60)
        pid = os.fork()
        if pid == 0:
            try:
                signal.alarm(20)  # rather than hang
                study.sampler = GPBOSampler(suggester=gpbo.SobolSuggester(), device="cpu")
                os._exit(0 if set(study.ask(PLANE).params) == {"x", "y"} else 1)
            finally:
                os._exit(2)
        forked.set()
        thread.join()
        assert os.waitpid(pid, 0)[1] == 0

    @pytest.mark.parametrize(("elsewhere_first", "calls"), [(True, 4), (False, 2)])
    def test_who_asks_while_another_process_does_asks_again(self, elsewhere_first, calls):
        study = optuna.create_study(sampler=GPBOSampler())
        study.tell(study.ask(PLANE), 1.0)
        one, two = study.ask(), study.ask()
        here, elsewhere = (two, one) if elsewhere_first else (one, two)
        changes = iter([0.5, 0.0, -0.5])

        class Slow(Recorder):
            def suggest(self, data, cube, n, seed):
                if (x := next(changes, None)) is not None:
                    proposal = {"config": {"x": x, "y": 0.0}, "info": {}}
                    study._storage.set_trial_system_attr(elsewhere._trial_id, "gpbo", proposal)
                return super().suggest(data, cube, n, seed)

        recorder = Slow()
        study.sampler = GPBOSampler(suggester=recorder)
        here.suggest_float("x", -1, 1)
        seen = [data.pending[:, 0].tolist() for data, _ in recorder.told]
        assert seen == [[], [0.75], [0.5], [0.25]][:calls]

    def test_processes_on_one_storage(self, tmp_path):
        code = """
import sys, optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from gpbo.integrations.optuna import GPBOSampler
optuna.logging.set_verbosity(optuna.logging.ERROR)
storage = JournalStorage(JournalFileBackend(sys.argv[1]))
study = optuna.load_study(study_name="s", storage=storage, sampler=GPBOSampler())
study.optimize(lambda t: (t.suggest_float("x", 0, 1) - 0.3) ** 2 + (t.suggest_float("y", 0, 1) - 0.6) ** 2, 4)
"""
        path = str(tmp_path / "journal.log")
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(path))
        study = optuna.create_study(study_name="s", storage=storage)
        workers = [
            subprocess.Popen([sys.executable, "-c", code, path], stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        errors = [worker.communicate(timeout=120)[1] for worker in workers]
        assert [worker.returncode for worker in workers] == [0, 0], errors
        assert [trial.state for trial in study.trials] == 8 * [TrialState.COMPLETE]
        assert len(set(points(study))) == 8

    def test_it_can_be_pickled(self):
        study = optuna.create_study(sampler=GPBOSampler(seed=5))
        study.optimize(bowl, 6)
        again = pickle.loads(pickle.dumps(study))
        assert again.ask(PLANE).params == study.ask(PLANE).params


class TestProgramsWithBranches:
    def test_a_parameter_is_active_where_its_branch_is_taken(self):
        def objective(trial):
            kind = trial.suggest_categorical("kind", ["a", "b", "c"])
            x = trial.suggest_float("x", 0, 1)
            if kind == "a":
                return x + trial.suggest_float("p", 0, 1)
            return x + trial.suggest_float("q", 0, 1) if kind == "b" else x

        study = optuna.create_study(sampler=GPBOSampler())
        study.optimize(objective, 9)
        data, cube = told(study)
        trials = study.trials[:9]
        assert {trial.params["kind"] for trial in trials} == {"a", "b", "c"}
        for column, name in [(1, "p"), (2, "q")]:  # kind, p, q, x
            assert cube.active(data.X)[:, column].tolist() == [name in trial.params for trial in trials]
        names = {frozenset(t.system_attrs["gpbo"]["config"]) for t in study.trials[6:9]}
        assert names <= {frozenset("x") | {"kind", more} for more in "pq"} | {frozenset({"kind", "x"})}

    def test_a_whole_number_says_how_many_layers_there_are(self):
        study = optuna.create_study()
        for n in (1, 4, 2):
            params = {"n": n, **{f"u{i}": 5 for i in range(n)}}
            ranges = {"n": IntDistribution(1, 6), **{f"u{i}": IntDistribution(1, 9) for i in range(n)}}
            study.add_trial(create_trial(params=params, distributions=ranges, value=n))
        data, cube = told(study)
        conditions = {one.column: (one.parent, one.allowed.tolist()) for one in cube.conditions}
        # u1 is column 2, u2 and u3 are 3 and 4; n = 3 was not tried, and is taken to have all of them
        assert conditions == {
            2: (0, [False, True, True, True, True, True]),
            3: (0, [False, False, True, True, True, True]),
            4: (0, [False, False, True, True, True, True]),
        }
        assert cube.active(data.X).sum(-1).tolist() == [2, 5, 3]

    def test_the_order_in_which_a_storage_lists_parameters_says_nothing(self):
        told_of = []
        for turn in (1, -1):
            study = optuna.create_study()
            for k in range(9):
                params = {"a": k % 3, "b": k // 3, "x": k / 9} | ({"c": 0.5} if k % 3 == 1 else {})
                ranges = {"a": IntDistribution(0, 2), "b": IntDistribution(0, 2)}
                ranges |= {name: FloatDistribution(0, 1) for name in params if name in "cx"}
                params, ranges = (dict(list(one.items())[::turn]) for one in (params, ranges))
                study.add_trial(create_trial(params=params, distributions=ranges, value=0.0))
            told_of.append(told(study))
        (data, cube), (other_data, other_cube) = told_of
        assert torch.equal(data.X, other_data.X)
        for one in (cube, other_cube):
            assert [(c.column, c.parent, c.allowed.tolist()) for c in one.conditions] == [
                (2, 0, [False, True, False])
            ]

    def test_two_conditions_at_once(self):
        study = optuna.create_study()
        for a in range(3):
            for b in range(3):
                params = {"a": a, "b": b} | ({"z": 0.5} if a == 1 and b == 2 else {})
                ranges = {"a": CategoricalDistribution(range(3)), "b": CategoricalDistribution(range(3))}
                ranges |= {"z": FloatDistribution(0, 1)} if "z" in params else {}
                study.add_trial(create_trial(params=params, distributions=ranges, value=0.0))
        _, cube = told(study)
        assert {(one.column, one.parent, *one.allowed.tolist()) for one in cube.conditions} == {
            (2, 0, False, True, False),
            (2, 1, False, False, True),
        }

    def test_a_parameter_that_came_later_is_at_the_middle_before(self):
        study = optuna.create_study()
        for k in range(4):
            params = {"x": k / 4} | ({"m": 0.9} if k == 3 else {})
            ranges = {name: FloatDistribution(0, 1) for name in params}
            study.add_trial(create_trial(params=params, distributions=ranges, value=0.0))
        data, cube = told(study)
        assert cube.conditions == ()
        assert data.X[:, 0].tolist() == [0.5, 0.5, 0.5, 0.9]

    def test_a_proposal_that_no_condition_makes_useless_counts_as_tried(self):
        def objective(trial):  # whether m exists depends on a continuous parameter
            x = trial.suggest_float("x", 0, 1)
            return x if x < 0.5 else x + trial.suggest_float("m", 0, 1)

        study = optuna.create_study(sampler=GPBOSampler())
        study.optimize(objective, 6)
        data, cube = told(study)
        assert cube.conditions == ()
        ignored = [t for t in study.trials[1:6] if "m" not in t.params]
        assert ignored
        for trial in ignored:
            assert data.X[trial.number, 0].item() == trial.system_attrs["gpbo"]["config"]["m"]

    def test_what_a_failed_trial_did_not_get_to_is_as_proposed(self):
        study = optuna.create_study(sampler=GPBOSampler())
        study.optimize(bowl, 2)

        def failing(trial):
            trial.suggest_float("x", -1, 1)
            raise ValueError

        study.optimize(failing, 1, catch=ValueError)
        data, _ = told(study)
        assert data.Y.isnan().flatten().tolist() == [False, False, True]
        y = study.trials[2].system_attrs["gpbo"]["config"]["y"]
        assert data.X[2, 1].item() == pytest.approx((y + 1) / 2)


class TestRangesThatChange:
    @pytest.fixture
    def study(self):
        study = optuna.create_study()
        for x in (0.0, 4.0, 8.0):
            study.add_trial(
                create_trial(params={"x": x}, distributions={"x": FloatDistribution(0, 10)}, value=x)
            )
        return study

    def add(self, study, low, high, n):
        ranges = {"x": FloatDistribution(low, high)}
        for _ in range(n):
            study.add_trial(create_trial(params={"x": low}, distributions=ranges, value=0.0))

    @pytest.mark.parametrize(
        ("low", "high", "joined"), [(0, 5, (0, 10)), (0, 20, (0, 20)), (20, 30, (0, 30))]
    )
    def test_for_ten_trials_it_is_what_holds_both(self, study, low, high, joined):
        self.add(study, low, high, 7)
        assert GPBOSampler().infer_relative_search_space(study, study.ask()) == {
            "x": FloatDistribution(*joined)
        }

    def test_then_it_is_the_new_one_and_what_lies_outside_is_left_out(self, study):
        self.add(study, 0, 5, 10)
        assert GPBOSampler().infer_relative_search_space(study, study.ask()) == {"x": FloatDistribution(0, 5)}
        data, _ = told(study)
        assert data.X.flatten().tolist() == [0.0, 0.8] + 10 * [0.0]

    def test_a_proposal_that_does_not_fit_is_replaced(self, study):
        study.sampler = GPBOSampler(suggester=gpbo.RandomSuggester())
        study.optimize(lambda trial: trial.suggest_float("x", 20, 21), 14)
        assert all(20 <= trial.params["x"] <= 21 for trial in study.trials[3:])
        proposed = [trial.system_attrs["gpbo"]["config"]["x"] for trial in study.trials[3:]]
        assert any(x < 20 for x in proposed[:10])
        assert all(x >= 20 for x in proposed[10:])

    def test_a_new_step_joins_to_none(self):
        study = optuna.create_study()
        for step in (2, 3):
            ranges = {"k": IntDistribution(0, 12, step=step)}
            study.add_trial(create_trial(params={"k": step}, distributions=ranges, value=0.0))
        assert GPBOSampler().infer_relative_search_space(study, study.ask()) == {"k": IntDistribution(0, 12)}

    def test_values_between_steps_are_outside(self):
        study = optuna.create_study()
        for x in (0.25, 0.3) + 10 * (1.0,):  # 0.3 is 3 steps, up to a rounding error
            step = 0.1 if x == 1 else None
            ranges = {"x": FloatDistribution(0, 1, step=step)}
            study.add_trial(create_trial(params={"x": x}, distributions=ranges, value=0.0))
        data, _ = told(study)
        assert len(data.X) == 11

    def test_a_parent_whose_values_were_all_between_the_steps_decides_nothing(self):
        study = optuna.create_study(sampler=GPBOSampler(suggester=gpbo.RandomSuggester()))
        for _ in range(3):
            ranges = {"n": IntDistribution(0, 10), "c": FloatDistribution(0, 1)}
            study.add_trial(create_trial(params={"n": 3, "c": 0.25}, distributions=ranges, value=0.0))
        study.optimize(lambda trial: trial.suggest_int("n", 0, 10, step=5), 12)
        assert {trial.params["n"] for trial in study.trials[3:]} == {0, 5, 10}
        data, cube = told(study)
        assert len(data.X) == 12
        assert cube.conditions == ()

    def test_choices_that_were_removed_leave_their_trials_out(self):
        study = optuna.create_study()
        for choice, choices in [("a", "abc"), ("c", "abc"), ("b", "ba")]:
            ranges = {"o": CategoricalDistribution(list(choices))}
            study.add_trial(create_trial(params={"o": choice}, distributions=ranges, value=0.0))
        data, _ = told(study)
        assert data.X.flatten().tolist() == [0.75, 0.25]


class TestObservations:
    def test_failed_trials_and_infinite_values_are_infeasible(self):
        study = optuna.create_study(sampler=GPBOSampler())
        for value in (1.0, math.inf, None, -math.inf):
            state = TrialState.FAIL if value is None else TrialState.COMPLETE
            study.tell(study.ask(PLANE), value, state)
        data, _ = told(study)
        assert data.Y.flatten().nan_to_num(9.0).tolist() == [-1.0, 9.0, 9.0, 9.0]
        assert data.budget.isnan().all()

    def test_pruned_trials_are_observations_at_a_lower_budget(self):
        study = optuna.create_study(sampler=GPBOSampler(), direction="maximize")
        for last, state in [(9, TrialState.COMPLETE), (3, TrialState.PRUNED), (None, TrialState.PRUNED)]:
            trial = study.ask(PLANE)
            for step in range(last or 0):
                trial.report(step / 10, step + 1)
            study.tell(trial, 0.95 if state is TrialState.COMPLETE else None, state)
        data, _ = told(study)
        rows = zip(data.budget.tolist(), data.Y.flatten().tolist(), strict=True)
        # the step at which one was pruned, for all; the end of the complete one; a failure without a report
        assert [row for row in rows if not math.isnan(row[1])] == [(3.0, 0.2), (10.0, 0.95), (3.0, 0.2)]
        assert data.Y.isnan().sum() == 1

    def test_steps_that_are_counted_from_zero_are_budgets_from_one(self):
        study = optuna.create_study(sampler=GPBOSampler())
        for state in (TrialState.PRUNED, TrialState.RUNNING):
            trial = study.ask(PLANE)
            for step in range(1 if state is TrialState.PRUNED else 4):
                trial.report(10.0 - step, step)
            if state is TrialState.PRUNED:
                study.tell(trial, state=state)
        data, _ = told(study)
        assert data.budget.tolist() == [1.0, 1.0]
        assert data.Y.flatten().tolist() == [-10.0, -10.0]
        assert len(data.pending) == 1

    def test_trials_that_are_pruned_anywhere_are_compared_at_eight_steps(self):
        study = optuna.create_study(sampler=GPBOSampler())
        for last in range(5, 45, 2):
            trial = study.ask(PLANE)
            for step in range(1, last + 1):
                trial.report(step, step)
            study.tell(trial, state=TrialState.PRUNED)
        data, _ = told(study)
        assert data.budget.unique().tolist() == [5.0, 9.0, 15.0, 19.0, 25.0, 29.0, 35.0, 39.0]
        assert (data.Y.flatten() == -data.budget).all()
        assert len(data.X.unique(dim=0)) == 20

    def test_the_default_over_budgets_is_that_of_a_study_of_gpbo(self):
        study = optuna.create_study(sampler=GPBOSampler(seed=1), pruner=GPBOPruner(1, 9))

        def objective(trial):
            for step in (1, 3, 9):
                trial.report(bowl(trial) + 1 / step, step)
                if trial.should_prune():
                    raise optuna.TrialPruned
            return bowl(trial)

        study.optimize(objective, 18)
        sources = {t.system_attrs.get("gpbo", {}).get("info", {}).get("source") for t in study.trials}
        assert sources == {None, "initial", "gp", "bohb", "random"}
        assert study.best_value < 0.01

    def test_the_default_over_budgets_and_under_constraints_is_that_of_a_study_of_gpbo(self):
        study = optuna.create_study(sampler=GPBOSampler())
        for number in range(8):
            trial = study.ask(PLANE)
            trial.report(1.0, 1)
            trial.set_constraint("memory", 1.0 - number)
            study.tell(trial, state=TrialState.PRUNED)
        study.ask(PLANE)
        assert study.trials[-1].system_attrs["gpbo"]["info"]["source"] in {"gp", "bohb", "random"}

    def test_a_nan_report_is_a_failure(self):
        study = optuna.create_study(sampler=GPBOSampler())
        trial = study.ask(PLANE)
        trial.report(math.nan, 1)
        study.tell(trial, state=TrialState.PRUNED)
        assert told(study)[0].Y.isnan().all()

    def test_the_density_model_learns_from_pruned_trials(self):
        study = optuna.create_study(
            sampler=GPBOSampler(suggester=gpbo.BOHBSuggester()), pruner=GPBOPruner(1, 9)
        )

        def objective(trial):
            value = bowl(trial)
            for step in range(1, 10):
                trial.report(value + 1 / step, step)
                if trial.should_prune():
                    raise optuna.TrialPruned
            return value

        study.optimize(objective, 25)
        sources = [t.system_attrs.get("gpbo", {}).get("info", {}) for t in study.trials]
        assert any(info.get("budget") == 1.0 for info in sources)
        assert sum(trial.state is TrialState.PRUNED for trial in study.trials) > 10

    def test_constraints(self):
        study = optuna.create_study(sampler=GPBOSampler())
        for excess in (-2.0, 1.0, None):
            trial = study.ask(PLANE)
            if excess is not None:
                trial.set_constraint("memory", excess)
            study.tell(trial, 5.0)
        data, _ = told(study)
        assert data.outcomes.tolist() == [[-5.0, 2.0], [-5.0, -1.0], [-5.0, 0.0]]
        assert data.Y.flatten().isnan().tolist() == [False, True, False]

    def test_the_best_feasible_point_is_found(self):
        def objective(trial):
            x = trial.suggest_float("x", 0, 1)
            trial.set_constraint("c", 0.4 - x)
            return x + trial.suggest_float("y", 0, 1)

        study = optuna.create_study(sampler=GPBOSampler())
        study.optimize(objective, 16)
        assert study.trials[-1].system_attrs["gpbo"]["info"]["source"] == "multi_objective"
        assert 0.4 <= study.best_value < 0.42

    def test_under_hyperband_all_brackets_are_seen(self):
        study = optuna.create_study(pruner=optuna.pruners.HyperbandPruner(1, 9), sampler=GPBOSampler())
        recorder = Recorder()
        study.sampler = GPBOSampler(suggester=recorder)
        study.optimize(bowl, 6)
        assert [len(data.X) for data, _ in recorder.told] == [1, 2, 3, 4, 5]

    def test_enqueued_trials_are_as_queued(self):
        study = optuna.create_study(sampler=GPBOSampler())
        study.enqueue_trial({"x": 0.25})
        study.enqueue_trial({"x": 0.5, "y": 0.5})
        study.optimize(bowl, 4)
        assert points(study)[:2] == [(0.25, 0.0), (0.5, 0.5)]
        assert len(set(points(study))) == 4

    def test_the_rest_of_an_enqueued_trial_is_chosen_to_go_with_it(self):
        recorder = Recorder()
        study = optuna.create_study(sampler=GPBOSampler(suggester=recorder))
        study.optimize(bowl, 2)
        study.enqueue_trial({"y": 0.1})
        study.optimize(bowl, 1)
        _, cube = recorder.told[-1]
        assert cube.held == [1]
        assert cube.fixed[1].item() == pytest.approx(0.55)
        assert study.trials[-1].params["y"] == study.trials[-1].system_attrs["gpbo"]["config"]["y"] == 0.1

    @pytest.mark.parametrize(
        ("values", "config"),
        [({"m": 0.25}, {"kind", "m"}), ({"kind": "b", "m": 0.25}, {"kind"}), ({"m": 7.0}, {"kind"})],
    )
    def test_what_a_queue_fixes_goes_along_with_its_branch(self, values, config):
        def objective(trial):
            kind = trial.suggest_categorical("kind", ["a", "b"])
            return trial.suggest_float("m", 0, 1) if kind == "a" else 2.0

        study = optuna.create_study(sampler=GPBOSampler(suggester=gpbo.RandomSuggester()))
        study.optimize(objective, 4)
        study.enqueue_trial(values)
        trial = study.ask()
        trial.suggest_float("other", 0, 1)
        proposed = study.trials[4].system_attrs["gpbo"]["config"]
        if config == {"kind", "m"}:
            assert proposed == {"kind": 0, "m": 0.25}
        assert set(proposed) >= config


class TestHosts:
    """What Ray's `OptunaSearch` does with a study."""

    def test_a_dictionary_as_the_space(self):
        study = optuna.create_study(sampler=GPBOSampler(), pruner=optuna.pruners.NopPruner())
        space = {"net/lr": FloatDistribution(1e-5, 1, log=True), "net/depth": IntDistribution(1, 4)}
        asked = {key: study.ask(fixed_distributions=space) for key in "abc"}
        for key, trial in asked.items():
            assert list(trial.params) == list(space)
            trial.report(1.0, 1)
            study.tell(trial, None if key == "c" else 0.5, TrialState.PRUNED if key == "c" else None)
        study.add_trial(create_trial(params={"net/lr": 0.1, "net/depth": 2}, distributions=space, value=0.1))
        assert len({tuple(study.ask(space).params.values()) for _ in range(6)}) == 6

    def test_a_function_as_the_space(self):
        study = optuna.create_study(sampler=GPBOSampler(), direction="maximize")
        for _ in range(8):
            trial = study.ask()
            trial.suggest_float("lr", 1e-4, 1e-1, log=True)
            if trial.suggest_categorical("opt", ["sgd", "adam"]) == "sgd":
                trial.suggest_float("momentum", 0, 1)
            study.tell(trial, trial.params["lr"])
        assert told(study)[1].conditional == [1]  # lr, momentum, opt


def three_better_ones(study):
    """Trials that are judged at the lowest rung, with values of 1 to 3."""
    for value in (1.0, 2.0, 3.0):
        trial = study.ask()
        trial.report(value, 1)
        trial.should_prune()


class TestPruner:
    @pytest.mark.parametrize("direction", ["minimize", "maximize"])
    def test_its_decisions_are_those_of_asha(self, direction):
        draws = torch.Generator().manual_seed(0)
        study = optuna.create_study(
            pruner=GPBOPruner(1, 9), sampler=optuna.samplers.RandomSampler(), direction=direction
        )
        expected = gpbo.Study(
            {"x": gpbo.Float(0, 1)},
            scheduler=gpbo.ASHA(1, 9, stopping=True),
            suggester=gpbo.RandomSuggester(),
            direction=direction,
        )
        pruned = 0
        for _ in range(40):
            curve = torch.rand(9, generator=draws).tolist()
            trial, theirs = study.ask(), expected.ask()
            for step, value in enumerate(curve, start=1):
                trial.report(value, step)
                if step in (1, 3, 9):
                    theirs = expected.tell(theirs, value, budget=step)
                assert trial.should_prune() == (theirs.state is gpbo.State.STOPPED)
                if trial.should_prune():
                    pruned += 1
                    study.tell(trial, state=TrialState.PRUNED)
                    break
            else:
                study.tell(trial, value)
        assert 20 < pruned < 40

    def test_reports_between_rungs_count_at_the_rung_before(self):
        study = optuna.create_study(pruner=GPBOPruner(budgets=[2, 7]))
        for value, verdict in [(1.0, False), (2.0, False), (0.5, False), (3.0, True)]:
            trial = study.ask()
            assert not trial.should_prune()
            trial.report(value, 0)
            assert not trial.should_prune()
            trial.report(value, 5)
            assert trial.should_prune() is verdict

    @pytest.mark.parametrize("every", [2, 5])
    def test_who_asks_seldom_is_judged_at_the_highest_rung_that_was_passed(self, every):
        def value_at(number, step):
            return number % 7 + 1 / step

        study = optuna.create_study(pruner=GPBOPruner())
        for number in range(30):
            trial = study.ask()
            for step in range(1, 28):
                trial.report(value_at(number, step), step)
                if step % every == 0 and trial.should_prune():
                    study.tell(trial, state=TrialState.PRUNED)
                    break
            else:
                study.tell(trial, value_at(number, step))
        ends = {trial.last_step for trial in study.trials if trial.state is TrialState.PRUNED}
        assert ends <= {rung + -rung % every for rung in (1, 3, 9)}
        assert sum(trial.state is TrialState.PRUNED for trial in study.trials) > 15

    def test_who_may_go_on_is_asked_about_again_only_at_the_next_rung(self):
        study = optuna.create_study(pruner=GPBOPruner())
        first = study.ask()
        first.report(9.0, 1)
        assert not first.should_prune()
        three_better_ones(study)
        assert not first.should_prune()
        for step, verdict in [(2, False), (3, True), (4, True)]:
            first.report(9.0, step)
            assert first.should_prune() is verdict

    @pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
    def test_a_trial_that_is_run_again_is_judged_again(self):
        study = optuna.create_study(pruner=GPBOPruner())
        lost = study.ask()
        lost.report(9.0, 3)
        assert not lost.should_prune()
        three_better_ones(study)
        study.tell(lost, state=TrialState.FAIL)
        optuna.storages.RetryHeartbeatStaleTrialCallback()(study, study.trials[lost.number])
        again = study.ask()
        assert study.trials[again.number].system_attrs["retry_history"] == [lost.number]
        again.report(9.0, 1)
        assert again.should_prune()

    def test_nan_between_two_questions_is_pruned(self):
        study = optuna.create_study(pruner=GPBOPruner())
        trial = study.ask()
        for step, value in enumerate([math.nan, 1.0], start=1):
            trial.report(value, step)
        assert trial.should_prune()

    def test_nan_is_pruned_at_once_and_ranks_last(self):
        study = optuna.create_study(pruner=GPBOPruner(2, 6))
        for _ in range(3):
            trial = study.ask()
            trial.report(math.nan, 1)
            assert trial.should_prune()
            study.tell(trial, state=TrialState.PRUNED)
        for value, verdict in [(9.0, False), (10.0, True)]:
            trial = study.ask()
            trial.report(value, 2)
            assert trial.should_prune() is verdict

    def test_the_last_rung_prunes_nothing(self):
        study = optuna.create_study(pruner=GPBOPruner(budgets=[4]))
        for value in (1.0, 2.0, 3.0, 4.0):
            trial = study.ask()
            trial.report(value, 4)
            assert not trial.should_prune()

    @pytest.mark.parametrize(
        ("pruner", "steps", "what"),
        [
            (GPBOPruner(), [100, 200], "trial 0 first reports at step 100, and from 27 on none is"),
            (GPBOPruner(10, 90), range(5), "trial 0 ended with step 4, before the lowest rung, 10"),
            (GPBOPruner(budgets=[3]), range(1, 4), "its only rung is 3"),
        ],
    )
    def test_steps_at_which_nothing_can_be_pruned_are_said_once(self, pruner, steps, what, caplog):
        study = optuna.create_study(pruner=pruner)
        for _ in range(4):
            trial = study.ask()
            for step in steps:
                trial.report(0.0, step)
                assert not trial.should_prune()
            study.tell(trial, 0.0)
        [warning] = [r.getMessage() for r in caplog.records if "can prune nothing" in r.getMessage()]
        assert what in warning
        assert repr(pruner) in warning

    @pytest.mark.parametrize("steps", [range(28), range(0, 28, 5), [1, 100, 200], range(1, 4)])
    def test_other_steps_are_not_warned_of(self, steps, caplog):
        study = optuna.create_study(pruner=GPBOPruner())
        for _ in range(4):
            trial = study.ask()
            for step in steps:
                trial.report(0.0, step)
                trial.should_prune()
            study.tell(trial, 0.0)
        assert "can prune nothing" not in caplog.text

    def test_bad_settings(self):
        with pytest.raises(SettingError, match="`reduction_factor` must be"):
            GPBOPruner(1, 9, 1)


class TestTheHubsPackage:
    FOLDER = Path(__file__).parents[2] / "examples" / "optunahub" / "package" / "samplers" / "gpbo"

    def test_it_has_what_the_registry_wants(self):
        _, front, text = (self.FOLDER / "README.md").read_text().split("---\n", 2)
        facts = yaml.safe_load(front)
        assert list(facts) == ["author", "title", "description", "tags", "optuna_versions", "license"]
        assert "sampler" in facts["tags"]
        sections = [line for line in text.splitlines() if line.startswith("## ")]
        assert sections == ["## Abstract", "## APIs", "## Installation", "## Example"]
        assert {path.name for path in self.FOLDER.iterdir()} >= {"LICENSE", "example.py", "requirements.txt"}

    def test_it_gives_the_sampler_and_the_pruner(self):
        module = runpy.run_path(str(self.FOLDER / "__init__.py"))
        assert module["GPBOSampler"] is GPBOSampler
        assert module["GPBOPruner"] is GPBOPruner

    def test_its_example_runs(self, capsys):
        runpy.run_path(str(self.FOLDER / "example.py"), run_name="__main__")
        *_, best = capsys.readouterr().out.split()
        assert float(best) < 1.0


class TestTheHost:
    @staticmethod
    def imported():
        """The module as it would be imported for the first time."""
        spec = importlib.util.spec_from_file_location("again", integration.__file__)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def test_without_optuna(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "optuna", None)
        with pytest.raises(MissingExtraError, match=r"optuna is not installed; pip install 'gpbo\[optuna\]'"):
            self.imported()

    @pytest.mark.parametrize("version", ["4.9.0", "6.0.0rc1"])
    def test_a_version_that_is_not_tested(self, monkeypatch, version):
        monkeypatch.setattr(optuna, "__version__", version)
        with pytest.warns(UserWarning, match=f"gpbo is tested with Optuna 5; this is Optuna {version}"):
            assert self.imported().GPBOSampler

    def test_a_version_that_is_tested(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert self.imported().GPBOSampler
