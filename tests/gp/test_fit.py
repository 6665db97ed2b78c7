import math
from statistics import median

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch.utils._python_dispatch import TorchDispatchMode

from gpbo.errors import NumericsError
from gpbo.gp.fit import default_starts, fit
from gpbo.gp.likelihood import derivatives, evaluate, make_problem

CPU = torch.device("cpu")


def draws(*shape, seed):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def normal(n, seed):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def standardised(y):
    y = y - y.mean()
    return y / y.std() if y.std() > 0 else y


def branin(X):
    u, v = 15 * X[:, 0] - 5, 15 * X[:, 1]
    bowl = v - 5.1 / (4 * math.pi**2) * u**2 + 5 / math.pi * u - 6
    return -(bowl**2 + 10 * (1 - 1 / (8 * math.pi)) * torch.cos(u) + 10)


def bowl(X):
    return -(X - 0.4).square().sum(-1)


def waves(X):
    return torch.sin(5 * X).sum(-1)


def sparse(X):
    return torch.sin(6 * X[:, 0]) + X[:, 1] ** 2


# name: (d, n, function, standard deviation of the noise, nu)
PROBLEMS = {
    "branin, few": (2, 20, branin, 0.0, 2.5),
    "branin": (2, 60, branin, 0.0, 1.5),
    "bowl": (6, 40, bowl, 0.0, 2.5),
    "bowl in 20": (20, 50, bowl, 0.05, 2.5),
    "linear": (12, 80, lambda X: X @ torch.linspace(0, 1, 12).double(), 0.01, 2.5),
    "sparse": (20, 110, sparse, 0.1, 2.5),
    "waves": (4, 60, waves, 0.3, 2.5),
    "waves, rough kernel": (3, 50, waves, 0.1, 0.5),
    "noise alone": (8, 60, lambda X: 0 * X[:, 0], 1.0, 2.5),
    "heavy tails": (3, 50, lambda X: waves(X).exp() ** 3, 0.0, 2.5),
    "outlier": (6, 60, lambda X: waves(X) + 1e4 * (torch.arange(60) == 3), 0.0, 2.5),
    "duplicates": (3, 30, lambda X: waves(X), 0.2, 2.5),
    "constant": (4, 30, lambda X: 0 * X[:, 0], 0.0, 2.5),
    "noisy waves": (4, 100, waves, 1.0, 2.5),
}


def data(name):
    d, n, function, noise, nu = PROBLEMS[name]
    seed = 10 * list(PROBLEMS).index(name)
    X = draws(n // 2, d, seed=seed).repeat(2, 1) if name == "duplicates" else draws(n, d, seed=seed)
    return X, standardised(function(X) + noise * normal(n, seed + 1)), nu


def fit_columns(X, y, nu=2.5, **options):
    return fit(X, torch.arange(X.shape[1]), y, X.shape[1], nu=nu, **options)


def by_scipy(X, y, nu, starts):
    """The best value that scipy's L-BFGS-B finds on the same objective."""
    problem = make_problem(X, torch.arange(X.shape[1]), y, X.shape[1], nu)

    def objective(theta):
        at = evaluate(problem, torch.as_tensor(theta).unsqueeze(0))
        if not torch.isfinite(at.value).item():
            return 1e10, torch.zeros(len(theta)).numpy()
        return at.value.item(), derivatives(problem, at)[0][0].numpy()

    options = {"maxiter": 100, "ftol": 1e-10, "gtol": 1e-4}
    runs = [minimize(objective, s.numpy(), jac=True, method="L-BFGS-B", options=options) for s in starts]
    return min(run.fun for run in runs)


@pytest.mark.parametrize("name", PROBLEMS)
def test_no_worse_an_optimum_than_scipy(name):
    X, y, nu = data(name)
    d = X.shape[1]
    found = fit_columns(X, y, nu)
    starts = [found.hypers[0].theta]
    if name != "outlier":  # has optima 2 nats apart, and from one start every method reaches its own
        starts += [*default_starts(d, CPU)]
    assert found.values[0] <= by_scipy(X, y, nu, starts) + 0.01


def test_the_reported_value_is_the_objective_at_the_reported_hypers():
    X, y, nu = data("waves")
    found = fit_columns(X, y, nu)
    problem = make_problem(X, torch.arange(4), y, 4, nu)
    thetas = torch.stack([hypers.theta for hypers in found.hypers])
    assert evaluate(problem, thetas).value.tolist() == pytest.approx(list(found.values), rel=1e-9)
    assert list(found.values) == sorted(found.values)


def test_factorisations_are_few():
    cold, warm = [], []
    for name in PROBLEMS:
        X, y, nu = data(name)
        starts = default_starts(X.shape[1], CPU)
        cold.append(fit_columns(X, y, nu).factorizations / len(starts))
        before = fit_columns(X[:-1], standardised(y[:-1]), nu).hypers[0]
        warm.append(fit_columns(X, y, nu, warm=before).factorizations)
    assert median(cold) <= 11
    assert max(cold) <= 25
    assert median(warm) <= 5
    assert max(warm) <= 20


@pytest.mark.parametrize("name", ["branin", "waves", "heavy tails", "noise alone", "sparse", "bowl"])
def test_a_refit_is_skipped_only_where_little_was_to_be_gained(name):
    X, y, nu = data(name)
    skipped = 0
    for k in (1, 2, 5):
        before = fit_columns(X[:-k], standardised(y[:-k]), nu).hypers[0]
        again = fit_columns(X, y, nu, warm=before)
        best = by_scipy(X, y, nu, [before.theta])
        assert again.values[0] <= best + 0.02
        if again.skipped:
            skipped += 1
            assert again.factorizations == 1
            assert torch.allclose(again.hypers[0].theta, before.theta, rtol=1e-9, atol=1e-9)
    if name == "branin":
        assert skipped > 0  # or this test has not looked at anything


def test_a_warm_start_at_the_optimum_is_kept():
    X, y, nu = data("waves")
    found = fit_columns(X, y, nu)
    again = fit_columns(X, y, nu, warm=found.hypers[0])
    assert again.skipped
    assert again.factorizations == 1


def test_a_warm_start_far_from_the_optimum_is_not_kept():
    X, y, nu = data("waves")
    other = fit_columns(X, standardised(draws(60, seed=1)), nu).hypers[0]
    again = fit_columns(X, y, nu, warm=other)
    assert not again.skipped
    assert again.factorizations > 1


def test_a_cold_fit_is_never_called_skipped():
    X, y, nu = data("constant")
    assert not fit_columns(X, y, nu).skipped


def test_starts_in_one_batch_reach_what_they_reach_alone():
    X, y, nu = data("waves")
    starts = default_starts(4, CPU)
    together = fit_columns(X, y, nu, starts=starts)
    alone = [fit_columns(X, y, nu, starts=start.unsqueeze(0)).values[0] for start in starts]
    assert together.values[0] == pytest.approx(min(alone), abs=2e-3)


def test_the_likeliest_of_several_variants_of_the_values_is_chosen():
    X, y, nu = data("waves")
    Y = torch.stack([standardised(draws(60, seed=1)), y, standardised(y.exp())])
    alone = [fit_columns(X, z, nu).values[0] for z in Y]
    together = fit_columns(X, Y, nu)
    best = min(range(3), key=lambda k: alone[k])
    assert together.variants[0] == best
    assert together.values[0] == pytest.approx(alone[best], abs=4e-3)
    offset = torch.zeros(3, dtype=torch.float64)
    offset[0] = alone[best] - alone[0] - 5.0
    other = fit_columns(X, Y, nu, offset=offset)
    assert other.variants[0] == 0
    assert other.values[0] == pytest.approx(alone[best] - 5.0, abs=4e-3)


def test_starts_that_fall_behind_give_up_and_are_no_optima():
    X, y, nu = data("waves")
    noise = standardised(draws(60, seed=1))
    alone = [fit_columns(X, z, nu).factorizations for z in (y, noise)]
    offset = torch.tensor([0.0, 1e3], dtype=torch.float64)  # nats: hopeless from the beginning
    together = fit_columns(X, torch.stack([y, noise]), nu, offset=offset)
    assert set(together.variants) == {0}
    assert together.factorizations < sum(alone)
    fair = fit_columns(X, torch.stack([y, y]), nu)
    assert set(fair.variants) == {0, 1}


def test_a_warm_start_and_given_ones_are_tried_together():
    X, y, nu = data("waves")
    warm = fit_columns(X, standardised(draws(60, seed=1)), nu).hypers[0]
    found = fit_columns(X, y, nu, warm=warm, starts=default_starts(4, CPU))
    assert found.values[0] <= fit_columns(X, y, nu).values[0] + 4e-3
    assert found.factorizations >= 3
    assert not found.skipped


def test_the_inverse_factor_is_that_of_the_best():
    X, y, nu = data("waves")
    for found in (fit_columns(X, y, nu), fit_columns(X, y, nu, warm=fit_columns(X, y, nu).hypers[0])):
        at = evaluate(make_problem(X, torch.arange(4), y, 4, nu), found.hypers[0].theta.unsqueeze(0))
        assert torch.allclose(found.R, at.R[0], rtol=1e-9, atol=1e-9)


def test_the_same_data_give_the_same_bits():
    X, y, nu = data("sparse")
    first, second = fit_columns(X, y, nu), fit_columns(X, y, nu)
    assert first.values == second.values
    assert torch.equal(first.hypers[0].theta, second.hypers[0].theta)


def test_more_lengthscales_than_observations():
    d = 120
    X = draws(50, d, seed=0)
    y = standardised(sparse(X) + X[:, 2:8].sum(-1))
    found = fit_columns(X, y)
    start = default_starts(d, CPU)[0]
    problem = make_problem(X, torch.arange(d), y, d, 2.5)
    assert found.values[0] < evaluate(problem, start.unsqueeze(0)).value.item()
    assert found.values[0] <= by_scipy(X, y, 2.5, [start]) + 0.01


class LargestTensor(TorchDispatchMode):
    """Counts the elements of the largest tensor that any operation returns."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(value, torch.Tensor):
                self.numel = max(self.numel, value.untyped_storage().nbytes() // value.element_size())
        return out


def test_no_tensor_of_all_pairs_and_all_columns_is_made():
    n, d = 400, 40
    X = draws(n, d, seed=0)
    y = standardised(sparse(X))
    with LargestTensor() as largest:
        fit_columns(X, y, starts=default_starts(d, CPU)[:1])
    assert n * n <= largest.numel < n * n * d / 4


@settings(max_examples=25)
@given(
    n=st.integers(1, 12),
    d=st.integers(1, 4),
    nu=st.sampled_from([0.5, 1.5, 2.5]),
    seed=st.integers(0, 1000),
    kind=st.sampled_from(["random", "equal points", "equal values", "corners"]),
)
def test_any_small_data_set_is_fitted(n, d, nu, seed, kind):
    X, y = draws(n, d, seed=seed), normal(n, seed)
    if kind == "equal points":
        X = X[:1].expand(n, d)
    if kind == "equal values":
        y = torch.zeros_like(y)
    if kind == "corners":
        X = X.round()
    found = fit_columns(X, standardised(y) if n > 1 else y, nu)
    assert math.isfinite(found.values[0])
    for value in (found.hypers[0].theta,):
        assert torch.isfinite(value).all()


def test_no_factor_at_any_start_is_an_error():
    X = torch.full((5, 1), 0.5, dtype=torch.float64)
    X[0] = 0.1
    starts = torch.tensor([[0.0, -700.0, 60.0]], dtype=torch.float64)
    with pytest.raises(NumericsError, match="covariance of 5 points is not positive definite at any start"):
        fit_columns(X, torch.arange(5.0).double(), starts=starts)


def test_a_start_without_a_factor_does_not_spoil_the_others():
    X, y, nu = data("branin, few")
    good = default_starts(2, CPU)
    bad = torch.tensor([[40.0, 40.0, -700.0, 60.0]], dtype=torch.float64)
    alone = fit_columns(X, y, nu, starts=good)
    both = fit_columns(X, y, nu, starts=torch.cat([bad, good]))
    assert both.values[0] == pytest.approx(alone.values[0], abs=1e-6)
