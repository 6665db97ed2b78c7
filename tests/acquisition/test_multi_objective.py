import math

import pytest
import torch
from botorch.acquisition.multi_objective.analytic import ExpectedHypervolumeImprovement
from botorch.models import SingleTaskGP
from botorch.models.model_list_gp_regression import ModelListGP
from botorch.utils.multi_objective.box_decompositions import NondominatedPartitioning
from botorch.utils.multi_objective.pareto import is_non_dominated
from gpytorch.kernels import ConstantKernel, MaternKernel, ScaleKernel
from hypothesis import given
from hypothesis import strategies as st

from gpbo.acquisition import log_ei, maximize
from gpbo.acquisition.multi_objective import (
    constraint_values,
    front_values,
    is_dominated,
    log_ehvi,
    reference_point,
)
from gpbo.cube import Cube
from gpbo.gp import Hypers, make_gp
from gpbo.gp.hypers import MEAN_VAR

D = 3
CUBE = Cube.continuous(D)


def draws(*shape, seed):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def processes(m, device="cpu"):
    """Processes of m sines, their points and what they are believed to be there."""
    X = draws(16, D, seed=0).to(device)
    plain = {"lengthscale": [0.4, 0.6, 0.8], "noise_var": 1e-3, "outputscale": 1.2}
    hypers = Hypers.from_dict(plain, X.device)
    gps = [make_gp(CUBE, X, torch.sin((k + 2.0) * X + k).sum(-1), hypers) for k in range(m)]
    return gps, X, torch.stack([gp.marginal(X)[0] for gp in gps], dim=-1)


def none(Z):
    return Z.new_empty(0)


def oracle(gps, X):
    """BoTorch's model with the same hyper-parameters."""
    models = []
    for gp in gps:
        matern, constant = MaternKernel(nu=2.5, ard_num_dims=D), ConstantKernel()
        covariance = ScaleKernel(matern)
        model = SingleTaskGP(
            X, gp.y.unsqueeze(-1), covar_module=covariance + constant, outcome_transform=None
        )
        model.to(X)
        constant.constant = torch.tensor(MEAN_VAR, dtype=torch.float64)
        matern.lengthscale = gp.hypers.lengthscale
        covariance.outputscale = gp.hypers.outputscale
        model.likelihood.noise = gp.hypers.noise_var
        model.mean_module.constant.data.fill_(0.0)
        models.append(model.eval())
    return ModelListGP(*models)


@pytest.mark.parametrize("m", [2, 3])
def test_the_value_equals_botorchs_analytic_one(m, device):
    gps, X, Z = processes(m, device)
    boxes = NondominatedPartitioning(reference_point(Z), Z)
    expected = ExpectedHypervolumeImprovement(oracle(gps, X), reference_point(Z).tolist(), boxes)
    T = draws(30, D, seed=1).to(device)
    values = log_ehvi(gps, Z, none(Z)).values(T)
    assert torch.allclose(values.exp(), expected(T.unsqueeze(1)), rtol=1e-5, atol=1e-12)
    assert values.isfinite().all()


def test_with_one_objective_it_is_log_ei(device):
    gps, _, Z = processes(1, device)
    T = draws(30, D, seed=1).to(device)
    one, two = log_ehvi(gps, Z, none(Z)), log_ei(gps[0], float(Z.max()))
    assert torch.allclose(one.values(T), two.values(T), rtol=1e-12)
    for a, b in zip(one.value_and_gradient(T), two.value_and_gradient(T), strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("n_constraints", [0, 1])
def test_gradients_equal_finite_differences(n_constraints, device):
    gps, _, Z = processes(3, device)
    thresholds = Z.new_full((n_constraints,), 0.3)
    acquisition = log_ehvi(gps, Z, thresholds)
    T = draws(10, D, seed=2).to(device)
    value, gradient = acquisition.value_and_gradient(T)
    assert torch.allclose(value, acquisition.values(T), rtol=1e-9)
    step = 1e-6 * torch.eye(D, dtype=T.dtype, device=device)
    for j in range(D):
        slope = (acquisition.values(T + step[j]) - acquisition.values(T - step[j])) / 2e-6
        assert torch.allclose(gradient[:, j], slope, rtol=1e-4, atol=1e-5)


def test_it_stays_finite_where_improvement_is_hopeless():
    gps, _, Z = processes(2)
    T = draws(10, D, seed=2)
    value, gradient = log_ehvi(gps, torch.cat([Z, Z[:1] + 1e5]), none(Z)).value_and_gradient(T)
    assert (value < -1e6).all()
    assert value.isfinite().all()
    assert gradient.isfinite().all()


def test_a_constraint_adds_the_logarithm_of_its_probability():
    gps, _, Z = processes(3)
    T = draws(10, D, seed=2)
    loose = log_ehvi(gps[:2], Z[:, :2], none(Z))
    threshold = Z[:, 2].min() - 0.1  # which every row meets
    mean, var = gps[2].marginal(T)
    expected = loose.values(T) + torch.special.log_ndtr((mean - threshold) / var.sqrt())
    assert torch.allclose(log_ehvi(gps, Z, threshold.reshape(1)).values(T), expected)


def test_rows_that_miss_a_constraint_are_no_front():
    gps, _, Z = processes(3)
    threshold = Z[:, 2].median()
    met = Z[:, 2] >= threshold
    acquisition = log_ehvi(gps, Z, threshold.reshape(1))
    only = log_ehvi(gps, torch.cat([Z[met], Z[~met] - 1e3 * (torch.arange(3) < 2)]), threshold.reshape(1))
    assert len(acquisition.lower) == len(only.lower)
    hopeless = log_ehvi(gps, Z, Z[:, 2].max().reshape(1) + 1.0)
    assert torch.equal(hopeless.lower, reference_point(Z[:, :2]).unsqueeze(0))
    assert hopeless.upper.isinf().all()


def test_the_optimiser_takes_it():
    gps, X, Z = processes(2)
    acquisition = log_ehvi(gps, Z, none(Z))
    x = maximize(
        acquisition, CUBE, incumbents=X[~is_dominated(Z)], seen=X, scale=gps[0].hypers.lengthscale, seed=0
    )
    assert acquisition.values(x.unsqueeze(0)) >= acquisition.values(draws(2000, D, seed=3)).max()


def test_the_reference_point_by_hand():
    # The front is {(4, 0), (2, 2), (0, 4)}, its range 4 in both, and (-6, 1) widens the first to 10.
    Z = torch.tensor([[4.0, 0.0], [2.0, 2.0], [0.0, 4.0], [-6.0, 1.0]], dtype=torch.float64)
    assert is_dominated(Z).tolist() == [False, False, False, True]
    near, far = torch.tensor([-0.4, -0.4]), torch.tensor([-7.0, -0.4])
    assert torch.allclose(reference_point(Z), (0.5 * near + 0.5 * far).double())
    assert torch.allclose(reference_point(Z[:1]), Z[0] - 0.1)


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=20))
def test_dominance_equals_botorchs(rows):
    Z = torch.tensor(rows, dtype=torch.float64)
    assert torch.equal(~is_dominated(Z), is_non_dominated(Z, deduplicate=False))


def test_values_for_a_front_by_hand():
    # The better half reaches to a gap of 2, beyond it stands 1 + log(gap / 2); the failed row is half a
    # deviation below.
    Y = torch.tensor([[5.0], [4.0], [3.0], [1.0], [-5.0], [math.nan]], dtype=torch.float64)
    t = torch.tensor([0.0, -0.5, -1.0, -1.0 - math.log(2.0), -1.0 - math.log(5.0)], dtype=torch.float64)
    t = torch.cat([t, (t.min() - 0.5 * t.std(correction=0)).reshape(1)])
    assert torch.allclose(front_values(Y)[:, 0], (t - t.mean()) / t.std(correction=0))


NUMBERS = st.floats(-1e300, 1e300) | st.floats(-1e-300, 1e-300) | st.integers(-3, 3).map(float)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=12), st.integers(0, 2))
def test_values_for_a_front_are_finite_standardised_and_in_order(rows, n_failed):
    Y = torch.tensor(rows + [(math.nan, math.nan)] * n_failed, dtype=torch.float64)
    Z = front_values(Y)
    assert Z.isfinite().all()
    for y, z in zip(Y.mT, Z.mT, strict=True):
        assert abs(float(z.mean())) < 1e-9
        assert abs(float(z.std(correction=0)) - 1.0) < 1e-9 or (z == 0.0).all()
        order = y[: len(rows)].argsort()
        assert (z[order].diff() >= -1e-12).all()
        assert (z[len(rows) :] <= z[: len(rows)].min()).all()


@given(st.lists(NUMBERS, min_size=1, max_size=12), st.integers(0, 2))
def test_values_of_constraints_keep_the_side_of_zero(numbers, n_failed):
    Y = torch.tensor(numbers + [math.nan] * n_failed, dtype=torch.float64).unsqueeze(-1)
    Z, threshold = constraint_values(Y)
    assert Z.isfinite().all()
    assert threshold.isfinite().all()
    size = Y[: len(numbers)].abs()
    far = size > 1e-3 * size.median() + 1e-10 * size.max()  # what is nearer to 0 is lost in rounding
    met = Z[: len(numbers)] >= threshold - 1e-12
    assert torch.equal(met[far], (Y[: len(numbers)] >= 0.0)[far])
    assert (Z[len(numbers) :] == Z[: len(numbers)].min()).all()


def test_values_of_constraints_by_hand():
    Y = torch.tensor([[-2.0], [0.0], [2.0]], dtype=torch.float64)
    t = math.log(2.0)
    Z, threshold = constraint_values(Y)
    assert torch.allclose(
        Z[:, 0], torch.tensor([-t, 0.0, t], dtype=torch.float64) / (t * math.sqrt(2.0 / 3.0))
    )
    assert float(threshold) == 0.0
