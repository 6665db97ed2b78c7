import math

import pytest
import torch

import gpbo
from gpbo.analysis import fit_surrogate
from gpbo.errors import NoResultError, SettingError


def study_of(f, n=20, **options):
    study = gpbo.Study({"a": gpbo.Float(0, 1), "b": gpbo.Float(0, 1)}, **options)
    for config in study.space.decode(study.space.cube.sobol(n, 1)):
        study.add(config, f(config))
    return study


def skewed(config):
    return math.exp(12.0 * config["a"]) + config["b"]


@pytest.mark.parametrize(("direction", "sign"), [("minimize", 1.0), ("maximize", -1.0)])
def test_quantiles_are_the_user_s_values(direction, sign):
    study = study_of(lambda c: sign * skewed(c), direction=direction)
    surrogate = fit_surrogate(study)
    assert surrogate.strength > 0.0  # or the test says nothing of warps
    low, median, high = surrogate.quantiles(surrogate.X, [0.05, 0.5, 0.95])
    assert bool((low <= median).all() and (median <= high).all())
    gap = median / surrogate.values
    assert float(gap.median()) == pytest.approx(1.0, abs=0.05)
    assert surrogate.values.tolist() == [trial.value for trial in study.trials]


def test_quantiles_are_those_of_the_drawn_functions():
    surrogate = fit_surrogate(study_of(lambda c: c["a"] + math.sin(6 * c["b"]), 40), warps=[0.0])
    X = torch.tensor([[0.3, 0.3], [0.55, 0.9], [1.0, 0.0]], dtype=torch.float64)
    drawn = surrogate.draws(4096, 0)(X)
    low, median, high = surrogate.quantiles(X, [0.05, 0.5, 0.95])
    assert drawn.median(0).values.tolist() == pytest.approx(median.tolist(), abs=0.02)
    spread = drawn.quantile(0.95, dim=0) - drawn.quantile(0.05, dim=0)
    assert bool((spread > 0.7 * (high - low)).all())  # hyper-parameters vary too, so it is rather wider


def test_what_is_observed_has_the_noise_on_top():
    surrogate = fit_surrogate(study_of(lambda c: 7.0 * c["a"]), warps=[0.0])
    X = torch.full((4000, 2), 0.5, dtype=torch.float64)
    functions = surrogate.draws(16, 0)
    noise = functions.observed(X, torch.Generator().manual_seed(1)) - functions(X)
    sigma = [math.sqrt(paths.gp.hypers.noise_var) for paths, _ in functions.parts]
    scale = float(surrogate.y.std(correction=0))
    assert noise.std(-1).tolist() == pytest.approx([scale * one for one in sigma], rel=0.05)


def test_a_warped_value_is_not_believed_to_lie_far_beyond_what_was_seen():
    surrogate = fit_surrogate(study_of(skewed))
    values = surrogate.draws(64, 0)(surrogate.space.cube.sobol(256, 0))
    best, worst = float(surrogate.values.min()), float(surrogate.values.max())
    assert float(values.max()) <= best + 2.0 * (worst - best) + 1e-6 * worst


def test_of_very_many_trials_a_part_is_modelled(monkeypatch):
    monkeypatch.setattr("gpbo.analysis.surrogate.EXACT_ON_CPU", 10)
    surrogate = fit_surrogate(study_of(lambda c: c["a"], 16))
    assert (len(surrogate.trials), surrogate.gp.n) == (10, 10)


def test_a_repeated_value_at_a_budget_counts_once():
    study = gpbo.Study({"a": gpbo.Float(0, 1)})
    for k in range(3):
        study.add({"a": k / 3}, float(k), budget=1)
    study.tell(study.ask(), 5.0, budget=2)
    assert [t.number for t in fit_surrogate(study, budget=1).trials] == [0, 1, 2]
    with pytest.raises(NoResultError, match=r"this needs 2 trials with a value at budget 2; .* has 1"):
        fit_surrogate(study)
    with pytest.raises(
        SettingError, match="`objective` must be 0, because the study has one objective, got -1"
    ):
        fit_surrogate(study, -1)
