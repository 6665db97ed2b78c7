"""The search estimator: scikit-learn's own checks, and what it adds to them."""

import ctypes
import importlib.util
import itertools
import math
import os
import pickle
import subprocess
import sys
import threading
import time
import warnings
import zlib
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pytest
import scipy.stats
import sklearn
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_iris, make_regression
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import make_scorer
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    ShuffleSplit,
    StratifiedKFold,
    check_cv,
    cross_val_score,
)
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import check_estimator

import gpbo
import gpbo.integrations.sklearn
from gpbo.errors import MissingExtraError, SettingError, SpaceError, StoreError, StudyMismatchError
from gpbo.integrations.fingerprint import fingerprint
from gpbo.integrations.sklearn import GPBOSearchCV, _Folds, _Ledger, space_from_sklearn

IRIS_X, IRIS_Y = load_iris(return_X_y=True)
LOG = gpbo.Float(1e-3, 1e3, log=True)


def search_of(estimator=None, space=None, **options):
    estimator = LogisticRegression(max_iter=500) if estimator is None else estimator
    options = {"n_iter": 4, "cv": 3, "random_state": 0, "suggester": gpbo.RandomSuggester()} | options
    return GPBOSearchCV(estimator, {"C": LOG} if space is None else space, **options)


class Fussy(ClassifierMixin, BaseEstimator):
    """Has no fit for a large `a`; for a small one the score is `a`."""

    def __init__(self, a=0.0, b=None, size=0):
        self.a = a
        self.b = b
        self.size = size

    def fit(self, X, y):
        if self.a > 0.5:
            raise ValueError("too large")
        self.classes_, self.n_seen_ = np.unique(y), len(y)
        return self

    def score(self, X, y):
        return self.a


@pytest.mark.parametrize(("estimator", "name"), [(LogisticRegression(), "C"), (Ridge(), "alpha")])
def test_it_passes_the_checks_that_grid_search_passes(estimator, name):
    def statuses(search):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return {found["check_name"]: found["status"] for found in check_estimator(search, on_fail=None)}

    grid = statuses(GridSearchCV(estimator, {name: [0.1, 1.0]}, cv=2))
    ours = statuses(search_of(estimator, {name: LOG}, n_iter=2, cv=2))
    assert ours == grid
    assert sum(status == "passed" for status in ours.values()) > 40


def test_a_search_with_the_default_suggester_finds_what_cross_validation_calls_best():
    search = search_of(
        DecisionTreeClassifier(random_state=0), {"max_depth": [1, 2, 3]}, n_iter=9, suggester=None
    )
    search.fit(IRIS_X, IRIS_Y)
    assert sorted(params["max_depth"] for params in search.cv_results_["params"]) == [1, 2, 3]
    means = {
        depth: cross_val_score(
            DecisionTreeClassifier(random_state=0, max_depth=depth), IRIS_X, IRIS_Y, cv=3
        ).mean()
        for depth in (1, 2, 3)
    }
    for params, mean in zip(search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True):
        assert mean == pytest.approx(means[params["max_depth"]])
    assert means[search.best_params_["max_depth"]] == search.best_score_ == max(means.values())
    assert search.best_estimator_.get_depth() <= search.best_params_["max_depth"]
    assert search.score(IRIS_X, IRIS_Y) == search.best_estimator_.score(IRIS_X, IRIS_Y)


def test_what_it_is_given_comes_back_and_may_be_cloned_and_pickled():
    space = {"C": scipy.stats.loguniform(1e-3, 1e3)}
    search = search_of(space=space, scheduler=gpbo.ASHA(50, 150), suggester=gpbo.GPSuggester(nu=1.5))
    params = search.get_params(deep=False)
    assert params["param_distributions"] is space
    again = clone(search)
    assert again.get_params(deep=False).keys() == params.keys()
    assert (again.scheduler, again.suggester) == (search.scheduler, search.suggester)
    fitted = pickle.loads(pickle.dumps(again.fit(IRIS_X, IRIS_Y)))
    assert fitted.best_params_ == again.best_params_
    assert (fitted.predict(IRIS_X) == again.predict(IRIS_X)).all()


@pytest.mark.parametrize("suggester", [None, gpbo.RandomSuggester()])
def test_the_same_random_state_gives_the_same_search(suggester):
    def found(**options):
        search = search_of(n_iter=8, suggester=suggester, **options).fit(IRIS_X, IRIS_Y)
        return search.cv_results_["params"]

    one = found(random_state=3)
    assert found(random_state=3) == one
    assert found(random_state=np.random.RandomState(3)) == one
    assert found(random_state=4) != one


@pytest.mark.parametrize("cv", [ShuffleSplit(3), StratifiedKFold(3, shuffle=True)])
def test_all_candidates_are_compared_on_the_same_folds(cv):
    search = search_of(DummyClassifier(strategy="stratified", random_state=0), {"random_state": [0]}, cv=cv)
    search.set_params(param_distributions={"constant": [0, 1, 2, 3]}, batch_size=1).fit(IRIS_X, IRIS_Y)
    for k in range(3):  # `constant` changes nothing here, so that only other folds could
        assert len(set(search.cv_results_[f"split{k}_test_score"])) == 1


def test_a_pipeline_with_conditions_and_choices_that_are_objects():
    pipeline = Pipeline([("scale", StandardScaler()), ("clf", LogisticRegression(max_iter=500))])
    space = {
        "scale": [StandardScaler(), MinMaxScaler(feature_range=(0, 2)), "passthrough"],
        "clf__C": LOG,
        "clf__solver": ["lbfgs", "saga"],
        "clf__l1_ratio": gpbo.Float(0, 1, when={"clf__solver": "saga"}),
        "clf__max_iter": [2000],
        "clf__tol": [1e-2],
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search = search_of(pipeline, space, n_iter=8).fit(IRIS_X, IRIS_Y)
    for params in search.cv_results_["params"]:
        assert params["scale"] in space["scale"]
        assert ("clf__l1_ratio" in params) == (params["clf__solver"] == "saga")
    assert np.ma.getmaskarray(search.cv_results_["param_clf__l1_ratio"]).any()
    assert search.best_estimator_.get_params()["clf__C"] == search.best_params_["clf__C"]


def test_choices_of_any_kind():
    space = {"b": [(1, 2), None, math.nan, "x", len], "a": [0.1]}
    search = search_of(Fussy(), space, n_iter=9).fit(IRIS_X, IRIS_Y)
    assert {str(params["b"]) for params in search.cv_results_["params"]} == set(map(str, space["b"]))


@pytest.mark.parametrize("error_score", [math.nan, -7.0])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_candidates_that_fail_are_in_the_results(error_score, batch_size):
    search = search_of(
        Fussy(), {"a": gpbo.Float(0, 1)}, n_iter=12, error_score=error_score, batch_size=batch_size
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        search.fit(IRIS_X, IRIS_Y)
    assert {one.category for one in caught} - {UserWarning} == {FitFailedWarning}
    assert sum("`mean_test_score` are not finite" in str(one.message) for one in caught) == math.isnan(
        error_score
    )
    results = search.cv_results_
    assert len(results["params"]) == 12
    for params, score, first in zip(
        results["params"], results["mean_test_score"], results["split0_test_score"], strict=True
    ):
        expected = params["a"] if params["a"] <= 0.5 else error_score
        assert score == pytest.approx(expected, nan_ok=True)
        assert first == pytest.approx(expected, nan_ok=True)
    assert search.best_params_["a"] == max(p["a"] for p in results["params"] if p["a"] <= 0.5)
    failed = results["rank_test_score"][[p["a"] > 0.5 for p in results["params"]]]
    assert failed.min() > results["rank_test_score"][[p["a"] <= 0.5 for p in results["params"]]].max()


def test_the_last_candidates_may_fail_too():
    space = {"a": [0.1, 0.2, 0.9]}
    for seed in range(6):
        with pytest.warns(FitFailedWarning, match="too large"), pytest.warns(UserWarning, match="not finite"):
            search = search_of(Fussy(), space, random_state=seed, batch_size=1, n_iter=3).fit(IRIS_X, IRIS_Y)
        assert sorted(p["a"] for p in search.cv_results_["params"]) == [0.1, 0.2, 0.9]
        assert search.best_params_ == {"a": 0.2}


@pytest.mark.filterwarnings("ignore")
def test_errors_that_are_not_survived():
    with pytest.raises(ValueError, match=r"(?s)All the 3 fits failed.*too large"):
        search_of(Fussy(), {"a": [0.7, 0.8]}, batch_size=1).fit(IRIS_X, IRIS_Y)
    with pytest.raises(ValueError, match=r"^too large"):
        search_of(Fussy(), {"a": [0.7, 0.8]}, error_score="raise").fit(IRIS_X, IRIS_Y)
    search = search_of(Fussy(), {"a": [0.7, 0.8]}, batch_size=1)
    with pytest.raises(ValueError, match="All the"):
        search.fit(IRIS_X, IRIS_Y)
    assert search.set_params(param_distributions={"a": [0.125]}).fit(IRIS_X, IRIS_Y).best_score_ == 0.125


def test_a_failure_is_a_failed_trial_that_the_search_keeps_away_from():
    search = search_of(Fussy(), {"a": gpbo.Float(0, 1)}, n_iter=20, suggester=None)
    with pytest.warns(FitFailedWarning, match="too large"), pytest.warns(UserWarning, match="not finite"):
        search.fit(IRIS_X, IRIS_Y)
    assert sum(params["a"] > 0.5 for params in search.cv_results_["params"]) <= 9
    assert search.best_score_ > 0.45


def test_batches_are_as_large_as_asked_for():
    sizes = []

    class Recorder(gpbo.RandomSuggester):
        def suggest(self, data, cube, n, seed):
            sizes.append(n)
            return super().suggest(data, cube, n, seed)

        def __deepcopy__(self, memo):
            return self

    for options, expected in [
        ({}, [1] * 5),
        ({"n_jobs": 2}, [1] * 5),  # two folds keep two workers busy
        ({"n_jobs": 3}, [2, 2, 1]),
        ({"batch_size": 3}, [3, 2]),
    ]:
        with joblib.parallel_config(backend="threading"):
            search_of(n_iter=5, cv=2, suggester=Recorder(), **options).fit(IRIS_X, IRIS_Y)
        assert sizes == expected
        sizes.clear()


def test_workers_are_not_sent_what_is_known_of_other_candidates():
    search = search_of(suggester=None)
    search._ledger = _Ledger(rows=(["a candidate"],), unscored=[None])
    assert pickle.loads(pickle.dumps(search))._ledger == _Ledger()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # joblib's, when workers start slowly
        search = search_of(suggester=None, n_jobs=2, n_iter=2, cv=2).fit(IRIS_X, IRIS_Y)
    assert len(search.cv_results_["params"]) == 2


def test_several_metrics():
    scoring = {"acc": "accuracy", "loss": "neg_log_loss"}
    search = search_of(scoring=scoring, refit="loss", n_iter=5, return_train_score=True).fit(IRIS_X, IRIS_Y)
    results = search.cv_results_
    assert search.best_index_ == results["mean_test_loss"].argmax()
    assert {"mean_test_acc", "mean_train_loss", "rank_test_acc"} <= results.keys()
    both = search_of(scoring=scoring, refit=False, n_iter=5).fit(IRIS_X, IRIS_Y)
    assert not hasattr(both, "best_index_")
    chosen = search_of(scoring=scoring, refit=lambda results: 2, n_iter=5).fit(IRIS_X, IRIS_Y)
    assert chosen.best_params_ == chosen.cv_results_["params"][2]


def test_scoring_by_a_function():
    def scores(estimator, X, y):
        return {"one": estimator.C, "two": -estimator.C}

    search = search_of(scoring=scores, refit="two", suggester=None, n_iter=9).fit(IRIS_X, IRIS_Y)
    assert search.best_params_["C"] == min(p["C"] for p in search.cv_results_["params"]) < 0.01
    single = search_of(scoring=lambda estimator, X, y: estimator.C).fit(IRIS_X, IRIS_Y)
    assert single.best_params_["C"] == max(p["C"] for p in single.cv_results_["params"])
    with pytest.raises(SettingError, match="`refit` must name the metric to be maximised"):
        search_of(scoring=scores, refit=False).fit(IRIS_X, IRIS_Y)


def test_without_refit_and_with_groups():
    groups = np.arange(150) % 5
    search = search_of(Ridge(), {"alpha": LOG}, refit=False, cv=GroupKFold(5))
    X, y = make_regression(150, 3, random_state=0)
    search.fit(X, y, groups=groups)
    assert search.n_splits_ == 5
    assert not hasattr(search, "best_estimator_")
    assert search.best_params_ in search.cv_results_["params"]
    with pytest.raises(ValueError, match="'groups' parameter should not be None"):
        search.fit(X, y)


@pytest.mark.parametrize(
    "scheduler", [gpbo.ASHA(15, 135), gpbo.ASHA(15, 135, stopping=True), gpbo.Hyperband(15, 135)]
)
def test_rungs_over_samples(scheduler):
    seen = []

    class Spy(LogisticRegression):
        def fit(self, X, y):
            seen.append((len(y), *np.bincount(y, minlength=3)))
            return super().fit(X, y)

    estimator = Spy(max_iter=500)
    search = search_of(estimator, n_iter=9, scheduler=scheduler, refit=False).fit(IRIS_X, IRIS_Y)
    results = search.cv_results_
    amounts = results["n_resources"]
    assert set(amounts) == {15, 45, 135}
    assert set(results["trial"]) == set(range(9))
    assert len(amounts) < 27
    assert [n for n, *_ in seen[::3]] == [10 * amount // 15 for amount in amounts]  # two of three folds
    assert all(max(counts) - min(counts) <= 1 for _, *counts in seen)
    full = amounts == 135
    assert search.best_score_ == results["mean_test_score"][full].max()
    assert full[search.best_index_]
    for trial in range(9):
        assert len({str(results["params"][k]) for k in np.flatnonzero(results["trial"] == trial)}) == 1


def test_the_median_rule_compares_at_its_stops():
    search = search_of(n_iter=12, scheduler=gpbo.MedianStopping(135, 15, min_trials=3)).fit(IRIS_X, IRIS_Y)
    results = search.cv_results_
    rows = list(zip(results["trial"], results["n_resources"], results["mean_test_score"], strict=True))
    assert [amount for trial, amount, _ in rows if trial == 0] == [15, 45, 135]
    n_stopped = 0
    for k, (trial, amount, score) in enumerate(rows):
        others = [value for _, at, value in rows[:k] if at == amount]
        is_stopped = amount < 135 and len(others) >= 3 and score < np.median(others)
        n_stopped += is_stopped
        assert (trial in [row[0] for row in rows[k + 1 :]]) == (amount < 135 and not is_stopped)
    assert n_stopped > 1


@pytest.mark.parametrize("scheduler", [gpbo.ASHA(10, 270), gpbo.Hyperband(10, 270), gpbo.MedianStopping(270)])
def test_a_budget_beyond_the_samples_is_refused_before_any_fit(scheduler):
    seen = []

    class Spy(LogisticRegression):
        def fit(self, X, y):
            seen.append(len(y))
            return super().fit(X, y)

    search = search_of(Spy(max_iter=500), scheduler=scheduler, n_iter=30)
    with pytest.raises(SettingError, match="must be at most the 90 samples, got 270"):
        search.fit(IRIS_X[30:120], IRIS_Y[30:120])
    assert seen == []


@pytest.mark.parametrize(
    ("n_iter", "batch_size", "space"),
    [(1, 1, None), (4, 2, None), (10, 4, None), (11, 1, None), (19, 4, None), (50, 2, {"C": [0.01, 1, 9]})],
)
def test_a_bracket_that_is_not_full_is_halved_as_if_the_rest_had_failed(n_iter, batch_size, space):
    scheduler = gpbo.Hyperband(15, 135)
    search = search_of(
        space=space, n_iter=n_iter, scheduler=scheduler, batch_size=batch_size, refit=False
    ).fit(IRIS_X, IRIS_Y)
    results = search.cv_results_
    scores = {
        (trial, amount): score
        for trial, amount, score in zip(
            results["trial"], results["n_resources"], results["mean_test_score"], strict=True
        )
    }
    n_trials = n_iter if space is None else 3
    expected, first = set(), 0
    for bracket in itertools.cycle(scheduler.brackets):
        there = list(range(first, min(first + bracket[0][0], n_trials)))
        if not there:
            break
        for size, amount in bracket:
            there = there[:size]
            expected |= {(trial, amount) for trial in there}
            there.sort(key=lambda trial: (-scores[trial, amount], trial))
        first += bracket[0][0]
    assert set(scores) == expected
    assert results["n_resources"][search.best_index_] == 135


def test_rungs_over_a_parameter_of_the_estimator():
    search = search_of(
        RandomForestClassifier(random_state=0),
        {"max_depth": gpbo.Int(1, 4)},
        scheduler=gpbo.ASHA(1, 9),
        resource="n_estimators",
        n_iter=4,
    ).fit(IRIS_X, IRIS_Y)
    assert [p["n_estimators"] for p in search.cv_results_["params"]] == list(
        search.cv_results_["n_resources"]
    )
    assert search.best_params_["n_estimators"] == max(search.cv_results_["n_resources"])
    assert len(search.best_estimator_.estimators_) == search.best_params_["n_estimators"]


@pytest.mark.filterwarnings("ignore")
def test_failures_at_a_rung_are_in_the_results():
    search = search_of(
        Fussy(), {"a": gpbo.Float(0, 1)}, scheduler=gpbo.ASHA(1, 9), resource="size", n_iter=9, batch_size=1
    ).fit(IRIS_X, IRIS_Y)
    results = search.cv_results_
    assert len(results["n_resources"]) == len(results["trial"]) == len(results["params"])
    assert [p["size"] for p in results["params"]] == list(results["n_resources"])
    assert search.best_params_["a"] <= 0.5


def test_the_study_stays_with_the_search():
    search = search_of(n_iter=6).fit(IRIS_X, IRIS_Y)
    assert isinstance(search.study_, gpbo.Study)
    assert search.study_.best.value == search.best_score_
    assert dict(search.study_.best.config) == search.best_params_
    assert [trial.value for trial in search.study_.trials] == list(search.cv_results_["mean_test_score"])
    assert "C" in str(search.study_.importance())
    again = pickle.loads(pickle.dumps(search))
    assert again.study_.trials == search.study_.trials
    assert again.study_.ask().number == 6
    assert not hasattr(clone(search), "study_")
    with pytest.raises(ValueError, match="too large"):  # of a fit that failed there is none
        search.set_params(estimator=Fussy(), param_distributions={"a": [1.0]}, error_score="raise").fit(
            IRIS_X, IRIS_Y
        )
    assert not hasattr(search, "study_")


def rows_of(search):
    """What does not depend on the clock, a row each."""
    names = sorted(name for name in search.cv_results_ if "time" not in name and not name.startswith("rank"))
    return list(zip(*(map(str, search.cv_results_[name]) for name in names), strict=True))


class Killer(Fussy):
    """Interrupts its `kill`-th fit of all."""

    left = math.inf

    def fit(self, X, y):
        Killer.left -= 1
        if Killer.left < 0:
            raise KeyboardInterrupt
        return super().fit(X, y)

    def predict(self, X):
        return (np.arange(len(X)) < self.a * len(X)).astype(int)

    def score(self, X, y):
        return self.a + len(X) / 1000 + 1e-4 * self.n_seen_


class Heedful(gpbo.RandomSuggester):
    """Proposes by all that it is given."""

    def suggest(self, data, cube, n, seed):
        given = repr([part.tolist() for part in (data.X, data.Y, data.budget, data.pending)])
        return super().suggest(data, cube, n, seed + zlib.crc32(given.encode()))


@pytest.mark.parametrize("fits", [1, 7, 10, 16, 22])
@pytest.mark.parametrize(
    ("scheduler", "batch_size", "suggester"),
    [
        (None, 1, Heedful()),
        (gpbo.ASHA(17, 150), 1, Heedful()),
        (gpbo.ASHA(17, 150), 2, Heedful()),
        (gpbo.ASHA(17, 150, stopping=True), 2, Heedful()),
        (gpbo.Hyperband(17, 150), 2, Heedful()),
        (gpbo.MedianStopping(150, 17), 3, Heedful()),
        (None, 2, None),
        (gpbo.ASHA(17, 150), 2, None),
    ],
)
def test_a_search_that_was_killed_goes_on(tmp_path, scheduler, batch_size, suggester, fits):
    options = {"n_iter": 9, "scheduler": scheduler, "space": {"a": gpbo.Float(0, 0.7)}}
    options |= {"batch_size": batch_size, "suggester": suggester}
    options["scoring"] = ["accuracy", "balanced_accuracy"] if fits == 7 else None
    options["refit"] = "accuracy" if fits == 7 else True
    Killer.left = math.inf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of candidates that fail
        whole = search_of(Killer(), **options).fit(IRIS_X, IRIS_Y)
        store = tmp_path / "search.db"
        Killer.left = fits
        with pytest.raises(KeyboardInterrupt):
            search_of(Killer(), **options, store=store).fit(IRIS_X, IRIS_Y)
        begun = gpbo.Study.load(store)  # of a batch that was begun all folds are fitted again
        kept = 3 * sum(len(trial.info.get("fits", ())) for trial in begun.trials)
        begun.close()
        assert fits - 3 * batch_size < kept <= fits
        Killer.left = 10_000
        search = search_of(Killer(), **options, store=store).fit(IRIS_X, IRIS_Y)
        assert 10_000 - Killer.left == 3 * len(whole.cv_results_["params"]) + 1 - kept
        assert rows_of(search) == rows_of(whole)
        assert search.best_index_ == whole.best_index_
        assert [trial.config for trial in search.study_.trials] == [t.config for t in whole.study_.trials]
        assert search.best_params_ == whole.best_params_
        Killer.left = 10_000
        again = search_of(Killer(), **options, store=str(store)).fit(IRIS_X, IRIS_Y)
    assert 10_000 - Killer.left == 4  # one candidate's folds, and the refit
    assert rows_of(again) == rows_of(whole)


def test_a_misspelt_parameter_leaves_the_store_to_the_corrected_search(tmp_path):
    options = {"store": tmp_path / "search.db"}
    for wrong in ("CC", "estimator__C"):
        with pytest.raises(SettingError, match=f"the estimator has no parameter '{wrong}' to be searched"):
            search_of(space={wrong: LOG}, **options).fit(IRIS_X, IRIS_Y)
    assert len(search_of(**options).fit(IRIS_X, IRIS_Y).study_.trials) == 4


def test_a_store_keeps_one_search_apart_from_another(tmp_path):
    options = {"store": tmp_path / "search.db", "cv": StratifiedKFold(3, shuffle=True, random_state=0)}
    search_of(**options).fit(IRIS_X, IRIS_Y)
    for changed, what in (
        ({"estimator": SVC(), "param_distributions": {"C": LOG}}, "estimator"),
        ({"scoring": "accuracy"}, "scoring"),
        ({"cv": StratifiedKFold(3, shuffle=True, random_state=1), "n_iter": 5}, "folds"),
    ):
        with pytest.raises(SettingError, match=f"was begun with other {what}; give this one another"):
            search_of(**options).set_params(**changed).fit(IRIS_X, IRIS_Y)
    with pytest.raises(SettingError, match="'default' in the store was begun with other samples"):
        search_of(**options).fit(IRIS_X + 1, IRIS_Y)
    with pytest.raises(StudyMismatchError, match="another definition"):
        search_of(space={"C": [1.0, 2.0]}, **options).fit(IRIS_X, IRIS_Y)
    other = search_of(study_name="other", **options).fit(IRIS_X + 1, IRIS_Y)
    assert len(other.study_.trials) == 4
    assert gpbo.Study.load(tmp_path / "search.db", "other").trials == other.study_.trials


class Waiting(Fussy):
    """Says that it is being fitted, and waits until it may be."""

    def __init__(self, a=0.0, folder=None):
        self.a = a
        self.folder = folder

    def fit(self, X, y):
        (self.folder / "begun").touch()
        deadline = time.monotonic() + 60
        while not (self.folder / "go").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        self.classes_ = np.unique(y)
        return self


def test_a_search_is_fitted_by_one_process_at_a_time(tmp_path):
    program = """
import sys
from pathlib import Path
folder = Path(sys.argv[1])
sys.path.insert(0, sys.argv[2])
from tests.integrations.test_sklearn import IRIS_X, IRIS_Y, Waiting, search_of
search_of(Waiting(folder=folder), {"a": [0.1, 0.2, 0.3, 0.4]}, store=folder / "s.db").fit(IRIS_X, IRIS_Y)
"""
    search = search_of(Waiting(folder=tmp_path), {"a": [0.1, 0.2, 0.3, 0.4]}, store=tmp_path / "s.db")
    other = subprocess.Popen([sys.executable, "-c", program, tmp_path, Path(__file__).parents[2]])
    try:
        while not (tmp_path / "begun").exists():
            assert other.poll() is None
            time.sleep(0.01)
        with pytest.raises(
            StoreError, match=r"another process or thread is at work on study 'default' in .*s\.db"
        ):
            search.fit(IRIS_X, IRIS_Y)
        assert len(gpbo.Study.load(tmp_path / "s.db").trials) == 1
    finally:
        other.kill()
        other.wait()
    (tmp_path / "go").touch()
    assert len(search.fit(IRIS_X, IRIS_Y).cv_results_["params"]) == 4


def named(estimator, X, y):
    return 0.0


def enclosing(value):
    return lambda estimator, X, y: value


@pytest.mark.parametrize(
    "setting",
    [
        lambda: make_scorer(lambda y, p: float(np.mean([k == q for k, q in zip(y, p, strict=True)]))),
        lambda: make_scorer(named, greater_is_better=False, needs=1),
        lambda: enclosing([1.0, enclosing(2.0)]),
        lambda: partial(enclosing(1.0), y=None),
        lambda: StandardScaler(),
        lambda: Fussy().fit,
        lambda: threading.Lock(),  # of which nothing can be told but that it is one
        lambda: type("Local", (), {}),
        lambda: recursive(),
        lambda: unfinished(),
        lambda: enclosing(ctypes.pointer(ctypes.c_int(1))),
        lambda: Lost(),
    ],
)
def test_a_setting_is_known_again(setting):
    assert fingerprint(setting()) == fingerprint(setting())


def unfinished():
    if math.inf < 0:
        later = 1
    return lambda estimator, X, y: later


class Lost:
    """Says that it is a global, which is not there."""

    def __reduce_ex__(self, protocol):
        return "lost"


def test_settings_of_one_make_are_told_apart():
    known = [unfinished(), *map(enclosing, [[], set(), frozenset(), {"a"}, frozenset({"a"}), {"b"}])]
    assert len({fingerprint(one) for one in known}) == len(known)
    one, two = (type("Same", (BaseEstimator,), {"__module__": module}) for module in ("a", "b"))
    assert fingerprint(one()) != fingerprint(two())


def test_a_setting_is_known_in_another_process():
    program = """
import sys
from functools import partial
sys.path.insert(0, sys.argv[1])
from test_sklearn import Fussy, enclosing, named
from sklearn.metrics import make_scorer
from gpbo.integrations.fingerprint import fingerprint
names = frozenset("abcdefgh")
settings = [
    lambda e, X, y: float(str(y) in {"a", "b", "c", "d", "e"}),
    enclosing({names, frozenset("ijkl"), 1}),
    enclosing({enclosing(name) for name in names}),
    Fussy({names: 1, frozenset("ijkl"): 2}),
    make_scorer(named, labels=names),
    partial(named, labels={(names, 1), (frozenset("ijkl"), 2)}),
]
print(*map(fingerprint, settings))
"""
    folder = Path(__file__).parent
    found = {
        subprocess.run(
            [sys.executable, "-c", program, folder],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert [len(set(line.split())) for line in found] == [6]


def recursive():
    def fact(n):
        return n * fact(n - 1)

    return fact


def steps(value):
    """A pipeline whose repr is too long to be shown in full."""
    scalers = [(f"scale{k}", MinMaxScaler(feature_range=(0, 1 + k))) for k in range(30)]
    scalers[15] = ("scale15", MinMaxScaler(feature_range=(0, value)))
    return Pipeline([*scalers, ("clf", LogisticRegression(max_iter=500))])


@pytest.mark.parametrize(
    ("begun", "changed", "what"),
    [
        ({}, {"return_train_score": True}, "return_train_score"),
        ({}, {"error_score": -1.0}, "error_score"),
        ({}, {"scheduler": gpbo.ASHA(50, 150)}, "scheduler"),
        ({"scheduler": gpbo.ASHA(50, 150)}, {"scheduler": None}, "scheduler"),
        ({"scheduler": gpbo.ASHA(50, 150)}, {"scheduler": gpbo.Hyperband(50, 150)}, "scheduler"),
        ({"scheduler": gpbo.ASHA(50, 150)}, {"resource": "max_iter"}, "resource"),
        (
            {"scoring": ["accuracy", "neg_log_loss"], "refit": "accuracy"},
            {"refit": "neg_log_loss"},
            "refit",
        ),
        (
            {"scoring": lambda e, X, y: {"a": 1.0, "b": 2.0}, "refit": "a"},
            {"refit": "b"},
            "refit",
        ),
        ({"scoring": lambda e, X, y: 1.0}, {"scoring": lambda e, X, y: 2.0}, "scoring"),
        ({"scoring": named}, {"scoring": lambda e, X, y: 0.0}, "scoring"),
        (
            {"scoring": make_scorer(lambda y, p: 1.0)},
            {"scoring": make_scorer(lambda y, p: 2.0)},
            "scoring",
        ),
        (
            {"scoring": make_scorer(lambda y, p: 1.0)},
            {"scoring": make_scorer(lambda y, p: 1.0, greater_is_better=False)},
            "scoring",
        ),
        ({"scoring": enclosing(1.0)}, {"scoring": enclosing(2.0)}, "scoring"),
        ({"scoring": lambda e, X, y, by=1: by}, {"scoring": lambda e, X, y, by=2: by}, "scoring"),
        (
            {"scoring": lambda e, X, y: max(k for k in [1])},
            {"scoring": lambda e, X, y: max(-k for k in [1])},
            "scoring",
        ),
        (
            {"scoring": partial(lambda e, X, y, by: by, by=1)},
            {"scoring": partial(lambda e, X, y, by: by, by=2)},
            "scoring",
        ),
        (
            {"space": {"class_weight": [{0: 1}, {0: 2}]}},
            {"param_distributions": {"class_weight": [{0: 1}, {0: 3}]}},
            "choices",
        ),
        (
            {"estimator": steps(2), "space": {"clf__C": LOG}},
            {"estimator": steps(3)},
            "estimator",
        ),
    ],
)
def test_a_search_does_not_go_on_with_other_settings(tmp_path, begun, changed, what):
    options = {"store": tmp_path / "search.db", "n_iter": 2} | begun
    search_of(**options).fit(IRIS_X, IRIS_Y)
    trials = gpbo.Study.load(options["store"]).trials
    with pytest.raises(
        SettingError, match=f"was begun with other {what}; give this one another `study_name`"
    ):
        search_of(**options).set_params(n_iter=3, **changed).fit(IRIS_X, IRIS_Y)
    assert gpbo.Study.load(options["store"]).trials == trials
    again = search_of(**options).fit(IRIS_X, IRIS_Y)  # and the one that was begun is as it was
    assert again.study_.trials == trials


def test_a_study_of_other_origin_is_not_taken_for_a_search(tmp_path):
    study = gpbo.Study({"C": LOG}, store=tmp_path / "study.db", direction="maximize")
    study.tell(study.ask(), 1.0)
    with pytest.raises(
        SettingError, match="'default' in the store has trials that no GPBOSearchCV has asked"
    ):
        search_of(store=tmp_path / "study.db", n_iter=2, random_state=study.seed).fit(IRIS_X, IRIS_Y)
    assert len(study.trials) == 1


def test_a_search_does_not_go_on_with_other_weights(tmp_path):
    options = {"store": tmp_path / "search.db", "n_iter": 2}
    weights = np.ones(150)
    for _ in range(2):
        search_of(**options).fit(IRIS_X, IRIS_Y, sample_weight=weights)
    with pytest.raises(SettingError, match="was begun with other samples"):
        search_of(**options).fit(IRIS_X, IRIS_Y, sample_weight=weights + IRIS_Y)
    with pytest.raises(SettingError, match="was begun with other samples"):
        search_of(**options).fit(IRIS_X, IRIS_Y)


def test_what_is_refused_before_a_fit_leaves_no_trial(tmp_path):
    options = {"store": tmp_path / "search.db", "n_iter": 4}
    with pytest.raises(SettingError, match="begin with at least 5"):
        search_of(scheduler=gpbo.Hyperband(3, 81), **options).fit(IRIS_X, IRIS_Y)
    assert gpbo.Study.load(options["store"]).trials == []
    search = search_of(scheduler=gpbo.Hyperband(9, 81), **options).fit(IRIS_X, IRIS_Y)
    assert sorted(set(search.cv_results_["trial"])) == [0, 1, 2, 3]


def test_a_complete_search_fits_a_candidate_again_that_can_be_fitted(tmp_path):
    options = {"space": {"a": [0.0, 0.25, 3.0, 0.5]}, "batch_size": 4, "store": tmp_path / "search.db"}
    options["suggester"] = gpbo.GridSuggester()
    with pytest.warns(FitFailedWarning), pytest.warns(UserWarning, match="not finite"):
        whole = search_of(Fussy(), **options).fit(IRIS_X, IRIS_Y)
    assert whole.study_.trials[-1].config == {"a": 3.0}
    with pytest.warns(UserWarning, match="not finite"):
        again = search_of(Fussy(), **options).fit(IRIS_X, IRIS_Y)
    assert rows_of(again) == rows_of(whole)
    assert again.best_params_ == {"a": 0.5}


def test_a_search_without_any_score_is_kept_too(tmp_path):
    options = {"estimator": Fussy(), "space": {"a": gpbo.Float(0.6, 0.7)}, "store": tmp_path / "search.db"}
    with pytest.warns(FitFailedWarning), pytest.raises(ValueError, match="All the 3 fits failed"):
        search_of(**options).fit(IRIS_X, IRIS_Y)
    with pytest.raises(ValueError, match="All the 3 fits failed"):  # without a fit, of which it would warn
        search_of(**options).fit(IRIS_X, IRIS_Y)


def test_folds_may_be_lists_that_can_be_read_once():
    folds = ((list(range(k, 150, 3)), list(range((k + 1) % 3, 150, 3))) for k in range(3))
    search = search_of(cv=folds, scheduler=gpbo.ASHA(30, 150, 5), batch_size=2).fit(IRIS_X, IRIS_Y)
    assert search.n_splits_ == 3
    assert len(set(search.cv_results_["trial"])) == 4


def test_parts_of_a_training_set_are_nested_and_keep_the_shares_of_classes():
    y = np.repeat([0, 1], [80, 20])
    folds = _Folds(StratifiedKFold(2), 0, stratified=True)
    parts = [next(folds.of(amount).split(y, y)) for amount in (10, 30, 100)]
    trains = [set(train) for train, _ in parts]
    assert [len(train) for train in trains] == [5, 15, 50]
    assert trains[0] < trains[1] < trains[2]
    assert [sum(y[list(train)]) for train in trains] == [1, 3, 10]
    assert all(np.array_equal(test, parts[0][1]) for _, test in parts)
    assert not np.array_equal(next(_Folds(StratifiedKFold(2), 1, True).of(30).split(y, y))[0], parts[1][0])


def test_the_least_budget_that_is_advised_is_enough():
    y = np.tile([0, 1, 2], 63)[:188]
    for n in range(12, 189):
        folds = [(np.arange(n // 2), np.arange(n // 2, n))]
        with pytest.raises(SettingError, match="begin with at least") as caught:
            list(_Folds(check_cv(folds), 0, True, amounts=(1, n)).split(y[:n], y[:n]))
        least = int(str(caught.value).split()[-1].rstrip("."))
        advised = _Folds(check_cv(folds), 0, True, amounts=(least, n)).of(least)
        [(part, _)] = advised.split(y[:n], y[:n])
        assert set(y[part]) == {0, 1, 2}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (scipy.stats.uniform(-1, 3), gpbo.Float(-1, 2)),
        (scipy.stats.loguniform(1e-4, 1e2), gpbo.Float(1e-4, 1e2, log=True)),
        (scipy.stats.loguniform(a=1, b=100, scale=0.1), gpbo.Float(0.1, 10, log=True)),
        (scipy.stats.randint(1, 11), gpbo.Int(1, 10)),
        (scipy.stats.randint(3, 4), gpbo.Categorical([3])),
        (scipy.stats.uniform(2, 0), None),
        (["a", "b"], gpbo.Categorical(["a", "b"])),
        ([1, 10, 100], gpbo.Categorical([1, 10, 100], ordered=True)),
        (np.array([0.5, 0.25, 0.125]), gpbo.Categorical([0.5, 0.25, 0.125], ordered=True)),
        ((1, 3, 2), gpbo.Categorical([1, 3, 2])),
        ([True, False, None], gpbo.Categorical([True, False, None])),
        (range(5), gpbo.Categorical(range(5), ordered=True)),
        (gpbo.Int(1, 5, log=True), gpbo.Int(1, 5, log=True)),
    ],
)
def test_what_a_space_becomes(given, expected):
    if expected is None:
        with pytest.raises(SpaceError, match="`x`"):
            space_from_sklearn({"x": given})
        return
    assert repr(space_from_sklearn({"x": given}).parameters["x"]) == repr(expected)


def test_a_space_is_itself():
    space = gpbo.SearchSpace(C=LOG, constraints="C < 100")
    assert space_from_sklearn(space) is space
    assert max(p["C"] for p in search_of(space=space).fit(IRIS_X, IRIS_Y).cv_results_["params"]) < 100


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": scipy.stats.norm(0, 1)}, "`x`: the distribution norm has no counterpart; use uniform"),
        ({"x": scipy.stats.loguniform(1, 10, loc=5)}, "`x`: the distribution shifted loguniform"),
        ({"x": scipy.stats.poisson(3)}, "`x`: the distribution poisson"),
        ({"x": "rbf"}, "`x` must be a list of choices, a distribution of scipy.stats .*, got 'rbf'"),
        ({"x": 3}, "`x` must be a list of choices"),
        ({"x": []}, "`x`: `choices` must have at least one entry"),
        ({"x": [1, 1]}, "`x`: `choices` must differ"),
        ({"x": [(1, 2)]}, r"`x`: a choice must be a string.*got \(1, 2\)"),
        ({}, "at least one parameter"),
        ([{"x": [1]}], "must be one dictionary"),
    ],
)
def test_what_cannot_be_searched(given, message):
    with pytest.raises(SpaceError, match=message):
        space_from_sklearn(given)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_iter": 0}, SettingError, "`n_iter` must be a whole number >= 1, got 0"),
        ({"batch_size": 0}, SettingError, "`batch_size` must be a whole number >= 1"),
        ({"resource": "C"}, SettingError, "`resource` 'C' needs a `scheduler`"),
        ({"scheduler": "asha"}, SettingError, "`scheduler` must be an object such as gpbo.ASHA"),
        ({"scheduler": gpbo.ASHA}, SettingError, "`scheduler` must be an object such as gpbo.ASHA"),
        ({"resource": "C", "scheduler": gpbo.ASHA(1, 9)}, SettingError, "`resource` must not be searched"),
        (
            {"resource": "max_itr", "scheduler": gpbo.ASHA(1, 9)},
            SettingError,
            "`resource` must be 'n_samples' or a parameter .*, got 'max_itr'. Did you mean 'max_iter'",
        ),
        (
            {"resource": "solver", "scheduler": gpbo.ASHA(1, 9)},
            SettingError,
            "'n_samples' or a number among the estimator's parameters, got 'solver', which is 'lbfgs'",
        ),
        (
            {"resource": "warm_start", "scheduler": gpbo.ASHA(1, 9)},
            SettingError,
            "got 'warm_start', which is False",
        ),
        (
            {"scheduler": gpbo.ASHA(3, 81)},
            SettingError,
            "for each of the 3 classes, but of 3 samples 2 are to learn from; begin with at least 5",
        ),
        ({"scheduler": gpbo.ASHA(50, 151)}, SettingError, "must be at most the 150 samples, got 151"),
        ({"suggester": "gp"}, SettingError, "`suggester` must be an object such as"),
        ({"space": {"C": "rbf"}}, SpaceError, "`C` must be a list of choices"),
        ({"space": {"Q": [1, 2]}}, SettingError, "the estimator has no parameter 'Q' to be searched"),
        (
            {"scheduler": gpbo.ASHA(50, 150), "scoring": ["accuracy", "f1_macro"], "refit": False},
            SettingError,
            "`scheduler` compares trials by one objective",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_arguments_that_break_their_rule(options, error, message):
    with pytest.raises(error, match=message):
        search_of(**options).fit(IRIS_X, IRIS_Y)


@pytest.mark.parametrize("version", ["1.8.2", "1.10.0"])
def test_a_version_that_is_not_tested(monkeypatch, version):
    monkeypatch.setattr(sklearn, "__version__", version)
    spec = importlib.util.spec_from_file_location("again", gpbo.integrations.sklearn.__file__)
    again = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "again", again)
    with pytest.warns(
        UserWarning, match=f"gpbo is tested with scikit-learn 1.9; this is scikit-learn {version}"
    ):
        spec.loader.exec_module(again)
    search = again.GPBOSearchCV(DummyClassifier(), {"constant": [0, 1]}, n_iter=1)
    if version == "1.8.2":
        with pytest.raises(
            MissingExtraError, match=r"needs scikit-learn 1.9, this is 1.8.2; pip install 'sci"
        ):
            search.fit(IRIS_X, IRIS_Y)
    else:
        assert search.fit(IRIS_X, IRIS_Y).best_score_ == pytest.approx(1 / 3)
