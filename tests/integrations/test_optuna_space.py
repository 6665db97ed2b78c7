"""Spaces and past trials from Optuna."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

import gpbo
from gpbo.errors import ResultError, SettingError, SpaceError
from gpbo.integrations.optuna_space import add_optuna_trials, space_from_optuna
from gpbo.space import Categorical, Float, Int, SearchSpace
from gpbo.trial import State


@pytest.fixture(autouse=True)
def quiet():
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


def objective(trial):
    x = trial.suggest_float("x", 1e-3, 1.0, log=True)
    n = trial.suggest_int("n", 1, 9, step=2)
    c = trial.suggest_categorical("c", ["a", "b", None])
    if n == 3:
        raise optuna.TrialPruned
    return x + n + (c == "a")


def past(n=30, **options):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), **options)
    study.optimize(objective, n_trials=n)
    return study


SPACE = {"x": Float(1e-3, 1, log=True), "n": Int(1, 9, step=2), "c": Categorical(["a", "b", None])}


def test_what_distributions_become():
    distributions = {
        "x": FloatDistribution(1e-3, 1.0, log=True),
        "s": FloatDistribution(0.0, 0.5, step=0.1),
        "n": IntDistribution(1, 9, step=2),
        "k": IntDistribution(1, 64, log=True),
        "c": CategoricalDistribution(["a", True, 1.5, None]),
        "one": FloatDistribution(0.5, 0.5),
    }
    assert space_from_optuna(distributions).parameters == {
        "x": Float(1e-3, 1.0, log=True),
        "s": Float(0.0, 0.5, step=0.1),
        "n": Int(1, 9, step=2),
        "k": Int(1, 64, log=True),
        "c": Categorical(["a", True, 1.5, None]),
        "one": Categorical([0.5]),
    }
    assert SearchSpace.from_optuna(past(1).best_trial.distributions) == SearchSpace(SPACE)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"c": CategoricalDistribution([1, float("inf")])}, "`c`: a choice must be a string"),
        ({"n": IntDistribution(0, 2**60)}, "`n`: bounds must be within"),
        ({"n": 3}, "`n`: it must be a distribution of Optuna's, got 3"),
        ([1], r"`distributions` must map names .*, got \[1\]"),
    ],
)
def test_what_has_no_counterpart(given, message):
    with pytest.raises(SpaceError, match=message):
        space_from_optuna(given)


def test_past_trials_are_taken():
    source = past()
    study = gpbo.Study({**SPACE, "constant": 4}, suggester=gpbo.RandomSuggester())
    taken = add_optuna_trials(study, source)
    complete = [t for t in source.trials if t.state is optuna.trial.TrialState.COMPLETE]
    assert 0 < len(complete) < 30
    assert [t.config for t in taken] == [t.params | {"constant": 4} for t in complete]
    assert [t.value for t in taken] == [t.value for t in complete]
    assert study.trials == taken
    assert {t.state for t in taken} == {State.COMPLETE}
    assert study.best.value == source.best_value
    assert study.ask().number == len(complete)


def test_trials_outside_of_the_space_are_left_out(caplog):
    source = past()
    study = gpbo.Study({**SPACE, "x": Float(1e-2, 1, log=True)})
    taken = add_optuna_trials(study, source)
    inside = [t for t in source.trials if t.value is not None and t.params["x"] >= 1e-2]
    assert [t.value for t in taken] == [t.value for t in inside]
    [record] = caplog.records
    assert "are outside of the space and left out; trial" in record.getMessage()
    assert "`x` must be in [0.01, 1.0]" in record.getMessage()


def test_several_objectives_and_constraints():
    source = optuna.create_study(directions=["minimize", "maximize"])
    for x in (0.25, 0.75):
        trial = source.ask({"x": FloatDistribution(0, 1)})
        trial.set_constraint("t", x - 0.5)
        source.tell(trial, (trial.params["x"], x))
    space = SearchSpace(x=Float(0, 1))
    study = gpbo.Study(space, direction=["minimize", "maximize"], outcome_constraints="t <= 0")
    assert [(t.values[1], t.outcomes["t"]) for t in add_optuna_trials(study, source)] == [
        (0.25, -0.25),
        (0.75, 0.25),
    ]
    assert len(study.pareto_front) == 1
    other = gpbo.Study(space, direction=["minimize", "maximize"], outcome_constraints="u <= 0")
    with pytest.raises(ResultError, match="result 0: `outcomes` must have a number for 'u'"):
        add_optuna_trials(other, source)
    with pytest.raises(
        SettingError, match=r"must have the directions \['maximize'\], got \['minimize', 'max"
    ):
        add_optuna_trials(gpbo.Study(space, direction="maximize"), source)
