"""Real trainings with scikit-learn on the data sets it brings along: small, cross-validated, seeds fixed.

Values are cross-validated losses: the error rate, the log loss, or the mean squared error as a share of the
target's variance, each capped where it stops telling bad from worse. One evaluation takes 20 to 500 ms.
Each kind of model is once in development and once in the test, on different data.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import numpy as np

from benchmarks.problems.base import Problem, Split
from gpbo import Categorical, Float, Int, SearchSpace

Config = Mapping[str, Any]
_FOLDS = 3
_MAX_ROWS = 450  # keeps an evaluation quick
_CAP = {"error": 1.0, "log_loss": 3.0, "squared": 2.0}


def problems() -> list[Problem]:
    """The training problems, development ones first."""
    split_of: list[tuple[str, str, str, Split]] = [
        ("svc", "digits", "error", "dev"),
        ("boosting", "breast_cancer", "log_loss", "dev"),
        ("mlp", "wine", "log_loss", "dev"),
        ("forest", "diabetes", "squared", "dev"),
        ("linear", "digits", "error", "dev"),
        ("svc", "breast_cancer", "error", "test"),
        ("boosting", "diabetes", "squared", "test"),
        ("mlp", "digits", "log_loss", "test"),
        ("forest", "wine", "log_loss", "test"),
        ("linear", "breast_cancer", "error", "test"),
    ]
    return [
        Problem(f"training/{model}-{data}", _SPACES[model](), partial(_loss, model, data, metric), split)
        for model, data, metric, split in split_of
    ]


def _loss(model: str, data: str, metric: str, config: Config) -> float:
    """The mean over the folds; a training that diverges has the cap as its loss."""
    from sklearn.model_selection import KFold, StratifiedKFold

    X, y = data_of(data)
    kind = KFold if metric == "squared" else StratifiedKFold
    losses = []
    for train, test in kind(_FOLDS, shuffle=True, random_state=0).split(X, y):
        scale = X[train].std(0) + 1e-9
        Z = (X - X[train].mean(0)) / scale
        estimator = _MODELS[model](config, regression=metric == "squared")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # not converged within the few iterations it is given
            try:
                estimator.fit(Z[train], y[train])
                losses.append(_score(metric, estimator, Z[test], y[test], y))
            except ValueError:  # what scikit-learn raises when weights overflow
                losses.append(_CAP[metric])
    return float(np.mean(np.minimum(losses, _CAP[metric])))


def _score(metric: str, estimator: Any, X: Any, y: Any, all_y: Any) -> float:
    from sklearn.metrics import log_loss

    if metric == "error":
        return float(np.mean(estimator.predict(X) != y))
    if metric == "log_loss":
        return float(log_loss(y, estimator.predict_proba(X), labels=np.unique(all_y)))
    return float(np.mean((estimator.predict(X) - y) ** 2) / np.var(all_y))


@cache
def data_of(name: str) -> tuple[Any, Any]:
    """Samples and targets of one of scikit-learn's data sets, at most `_MAX_ROWS` of them."""
    from sklearn import datasets

    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    keep = np.random.default_rng(0).permutation(len(y))[:_MAX_ROWS]
    return X[keep].astype(np.float64), y[keep]


def _svc_space() -> SearchSpace:
    return SearchSpace(
        C=Float(1e-3, 1e3, log=True),
        kernel=Categorical(["rbf", "poly", "sigmoid"]),
        gamma=Float(1e-5, 10, log=True),
        degree=Int(2, 5, when={"kernel": "poly"}),
        coef0=Float(-1, 1, when={"kernel": ["poly", "sigmoid"]}),
        shrinking=Categorical([True, False]),
    )


def _svc(config: Config, *, regression: bool) -> Any:
    from sklearn.svm import SVC, SVR

    return (SVR if regression else SVC)(max_iter=5000, **config)


def _boosting_space() -> SearchSpace:
    return SearchSpace(
        learning_rate=Float(1e-3, 1.0, log=True),
        max_iter=Int(5, 80, log=True),
        max_leaf_nodes=Int(2, 64, log=True),
        min_samples_leaf=Int(1, 60, log=True),
        l2_regularization=Float(1e-6, 100, log=True),
        max_features=Float(0.1, 1.0, step=0.1),
    )


def _boosting(config: Config, *, regression: bool) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingRegressor if regression else HistGradientBoostingClassifier
    return kind(early_stopping=False, random_state=0, **config)


def _mlp_space() -> SearchSpace:
    return SearchSpace(
        solver=Categorical(["adam", "sgd"]),
        learning_rate_init=Float(1e-5, 1.0, log=True),
        momentum=Float(0, 0.99, when={"solver": "sgd"}),
        alpha=Float(1e-7, 10, log=True),
        batch_size=Categorical([16, 32, 64, 128], ordered=True),
        activation=Categorical(["relu", "tanh", "logistic"]),
        layers=Int(1, 2),
        width=Int(4, 128, log=True),
        width_2=Int(4, 128, log=True, when={"layers": 2}),
    )


def _mlp(config: Config, *, regression: bool) -> Any:
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    given = dict(config)
    layers = [given.pop("width")] + ([given.pop("width_2")] if given.pop("layers") == 2 else [])
    kind = MLPRegressor if regression else MLPClassifier
    return kind(hidden_layer_sizes=layers, max_iter=15, random_state=0, **given)


def _forest_space() -> SearchSpace:
    return SearchSpace(
        max_features=Float(0.05, 1.0),
        max_depth=Int(1, 20),
        min_samples_split=Int(2, 60, log=True),
        min_samples_leaf=Int(1, 40, log=True),
        bootstrap=Categorical([True, False]),
        max_samples=Float(0.1, 1.0, when={"bootstrap": True}),
    )


def _forest(config: Config, *, regression: bool) -> Any:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    kind = RandomForestRegressor if regression else RandomForestClassifier
    return kind(n_estimators=25, random_state=0, **config)


def _linear_space() -> SearchSpace:
    return SearchSpace(
        loss=Categorical(["hinge", "log_loss", "modified_huber"]),
        penalty=Categorical(["l2", "l1", "elasticnet"]),
        alpha=Float(1e-7, 1, log=True),
        l1_ratio=Float(0, 1, when={"penalty": "elasticnet"}),
        learning_rate=Categorical(["optimal", "constant", "invscaling"]),
        eta0=Float(1e-5, 10, log=True, when={"learning_rate": ["constant", "invscaling"]}),
        power_t=Float(0.05, 1, when={"learning_rate": "invscaling"}),
    )


def _linear(config: Config, *, regression: bool) -> Any:
    from sklearn.linear_model import SGDClassifier

    return SGDClassifier(max_iter=20, tol=None, random_state=0, **config)


_SPACES: dict[str, Callable[[], SearchSpace]] = {
    "svc": _svc_space,
    "boosting": _boosting_space,
    "mlp": _mlp_space,
    "forest": _forest_space,
    "linear": _linear_space,
}
_MODELS: dict[str, Callable[..., Any]] = {
    "svc": _svc,
    "boosting": _boosting,
    "mlp": _mlp,
    "forest": _forest,
    "linear": _linear,
}
