import dataclasses
from dataclasses import replace

import gpytorch
import pytest
import torch
from botorch.models import SingleTaskGP
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from gpbo import Categorical, Float, SearchSpace
from gpbo.cube import Cube
from gpbo.errors import NumericsError, SettingError
from gpbo.gp import Hypers, fit_gp, make_gp
from gpbo.gp.fit import fit
from gpbo.gp.hypers import MEAN_VAR
from gpbo.kernels import NUS

SMOOTHNESS = pytest.mark.parametrize("nu", NUS)
D = 3
# At nu = 1/2 the kernel falls linearly from distance 0, and rounding in the distance shows in it.
DIGITS = {0.5: 1e-6, 1.5: 1e-8, 2.5: 1e-8}


def draws(*shape, seed):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def hypers(d=D, *, noise_var=1e-3, device="cpu"):
    plain = {
        "lengthscale": torch.linspace(0.3, 1.2, d).tolist(),
        "noise_var": noise_var,
        "outputscale": 1.7,
    }
    return Hypers.from_dict(plain, torch.device(device))


def values(X):
    y = torch.sin(5 * X).sum(-1)
    return (y - y.mean()) / y.std()


def example(n=30, *, nu=2.5, device="cpu", noise_var=1e-3):
    X = draws(n, D, seed=1).to(device)
    return make_gp(Cube.continuous(D), X, values(X), hypers(noise_var=noise_var, device=device), nu=nu), X


def oracle(gp, X):
    """BoTorch's model with the same hyper-parameters."""
    matern = gpytorch.kernels.MaternKernel(nu=gp.nu, ard_num_dims=X.shape[-1])
    covariance = gpytorch.kernels.ScaleKernel(matern)
    constant = gpytorch.kernels.ConstantKernel()
    model = SingleTaskGP(
        X, gp.y.unsqueeze(-1), covar_module=covariance + constant, outcome_transform=None
    ).to(X)
    constant.constant = torch.tensor(MEAN_VAR, dtype=torch.float64)
    matern.lengthscale = gp.hypers.lengthscale
    covariance.outputscale = gp.hypers.outputscale
    model.likelihood.noise = gp.hypers.noise_var
    model.mean_module.constant.data.fill_(0.0)
    return model.eval()


@SMOOTHNESS
def test_mean_variance_and_covariance_equal_botorch(device, nu):
    gp, X = example(nu=nu, device=device)
    model = oracle(gp, X)
    T = torch.cat([draws(20, D, seed=2).to(device), X[:3] + 1e-4])
    with torch.no_grad():
        expected = model.posterior(T)
    mean, var = gp.marginal(T)
    assert torch.allclose(mean, expected.mean.squeeze(-1), rtol=DIGITS[nu], atol=DIGITS[nu])
    assert torch.allclose(var, expected.variance.squeeze(-1), rtol=1e-6, atol=1e-3 * DIGITS[nu])
    joint_mean, cov = gp.posterior(T)
    assert torch.allclose(joint_mean, mean, rtol=1e-12)
    assert torch.allclose(cov, expected.mvn.covariance_matrix, rtol=1e-6, atol=DIGITS[nu])
    assert mean.dtype == var.dtype == cov.dtype == torch.float64
    assert mean.device.type == device


def test_a_worked_example():
    # One observation y = 2, noise v = 0.3, prior variance p = 1.7 + 1: at x the mean is p / (p + v) y;
    # far away only the constant mean, of variance 1, is shared.
    x, y = torch.full((1, D), 0.3, dtype=torch.float64), torch.tensor([2.0], dtype=torch.float64)
    gp = make_gp(Cube.continuous(D), x, y, hypers(noise_var=0.3))
    mean, var = gp.marginal(x)
    assert mean.item() == pytest.approx(2.7 / 3.0 * 2.0, rel=1e-12)
    assert var.item() == pytest.approx(2.7 - 2.7**2 / 3.0, rel=1e-12)
    far = gp.marginal(torch.full((1, D), 1e6, dtype=torch.float64))
    assert far[0].item() == pytest.approx(2.0 / 3.0)
    assert far[1].item() == pytest.approx(2.7 - 1.0 / 3.0)


@SMOOTHNESS
def test_marginal_gradients_equal_autograd_and_finite_differences(device, nu):
    gp, _ = example(nu=nu, device=device)
    T = draws(8, D, seed=3).to(device).requires_grad_(True)
    mean, var = gp.marginal(T)
    (by_mean,) = torch.autograd.grad(mean.sum(), T, retain_graph=True)
    (by_var,) = torch.autograd.grad(var.sum(), T)
    T = T.detach()
    m, v, d_mean, d_var = gp.marginal_and_gradient(T)
    assert torch.allclose(m, mean, rtol=1e-12)
    assert torch.allclose(v, var, rtol=1e-10)
    assert torch.allclose(d_mean, by_mean, rtol=1e-8, atol=1e-9)
    assert torch.allclose(d_var, by_var, rtol=1e-7, atol=1e-8)
    for j in range(D):
        e = torch.zeros(D, dtype=T.dtype, device=device)
        e[j] = 1e-6
        up, down = gp.marginal(T + e), gp.marginal(T - e)
        assert torch.allclose(d_mean[:, j], (up[0] - down[0]) / 2e-6, rtol=1e-5, atol=1e-6)
        assert torch.allclose(d_var[:, j], (up[1] - down[1]) / 2e-6, rtol=1e-5, atol=1e-6)


@SMOOTHNESS
def test_joint_gradients_equal_botorch(nu):
    gp, X = example(nu=nu)
    model = oracle(gp, X)
    T = draws(4, 2, D, seed=4)
    weights = draws(4, 2, 2, seed=5)
    gradients = []
    for posterior in (gp.posterior, lambda T: joint(model, T)):
        at = T.clone().requires_grad_(True)
        mean, cov = posterior(at)
        gradients.append(torch.autograd.grad(mean.sum() + (weights * cov).sum(), at)[0])
    assert torch.allclose(*gradients, rtol=1e-6, atol=10 * DIGITS[nu])


def joint(model, T):
    posterior = model.posterior(T)
    return posterior.mean.squeeze(-1), posterior.mvn.covariance_matrix


@SMOOTHNESS
def test_gradients_at_an_observed_point_are_finite(nu):
    gp, X = example(nu=nu)
    for tensor in gp.marginal_and_gradient(X[:5]):
        assert torch.isfinite(tensor).all()
    at = X[:4].reshape(2, 2, D).clone().requires_grad_(True)
    mean, cov = gp.posterior(at)
    (gradient,) = torch.autograd.grad(mean.sum() + cov.sum(), at)
    assert torch.isfinite(gradient).all()


def test_leading_dimensions_are_those_of_the_argument():
    gp, _ = example()
    T = draws(2, 3, 4, D, seed=6)
    mean, var = gp.marginal(T)
    joint_mean, cov = gp.posterior(T)
    assert mean.shape == var.shape == joint_mean.shape == (2, 3, 4)
    assert cov.shape == (2, 3, 4, 4)
    assert torch.allclose(cov.diagonal(dim1=-2, dim2=-1), var, rtol=1e-8)
    assert torch.allclose(mean[1, 2], gp.marginal(T[1, 2])[0])


@SMOOTHNESS
@settings(max_examples=20)
@given(n=st.integers(1, 20), p=st.integers(1, 8), seed=st.integers(0, 100))
def test_conditioning_equals_making_it_anew(nu, n, p, seed):
    X = draws(n + p, D, seed=seed)
    y, T = values(X), draws(10, D, seed=seed + 1)
    whole = make_gp(Cube.continuous(D), X, y, hypers(), nu=nu)
    grown = make_gp(Cube.continuous(D), X[:n], y[:n], hypers(), nu=nu).condition(X[n:], y[n:])
    assert grown.n == n + p
    for found, expected in zip(grown.marginal(T), whole.marginal(T), strict=True):
        assert torch.allclose(found, expected, rtol=DIGITS[nu], atol=DIGITS[nu])


def test_a_point_observed_again_is_the_same_by_either_way():
    gp, X = example(12, nu=0.5, noise_var=1e-6)
    y = torch.cat([gp.y, gp.y[:2] + 0.1])
    whole = make_gp(Cube.continuous(D), torch.cat([X, X[:2]]), y, gp.hypers, nu=0.5)
    grown = gp.condition(X[:2], y[12:])
    T = draws(10, D, seed=8)
    for found, expected in zip(grown.marginal(T), whole.marginal(T), strict=True):
        assert torch.allclose(found, expected, rtol=1e-3)


def test_pending_points_leave_the_mean_and_sharpen_the_variance(device):
    gp, _ = example(device=device)
    P, T = draws(4, D, seed=7).to(device), draws(50, D, seed=8).to(device)
    pending = gp.condition(P)
    before, after = gp.marginal(T), pending.marginal(T)
    assert torch.allclose(after[0], before[0], rtol=1e-12, atol=1e-13)
    assert (after[1] <= before[1] * (1 + 1e-12)).all()
    assert (pending.marginal(P)[1] < gp.hypers.noise_var).all()
    assert pending.y[-4:].isnan().all()
    assert pending.n == gp.n + 4


def test_values_that_arrive_for_pending_points_give_what_conditioning_gives(device):
    gp, _ = example(device=device)
    P, T = draws(4, D, seed=7).to(device), draws(10, D, seed=8).to(device)
    y = torch.tensor([0.1, -2.0, 0.4, 1.0], dtype=torch.float64, device=device)
    pending = gp.condition(P[:2]).condition(P[2:])
    arrived, known = pending.with_values(torch.cat([gp.y, y])), gp.condition(P, y)
    for found, expected in zip(arrived.marginal(T), known.marginal(T), strict=True):
        assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)
    # the first two only: the mean is that without the others, the variance that with all four
    half = pending.with_values(torch.cat([gp.y, y[:2], y.new_full((2,), torch.nan)]))
    assert torch.allclose(half.marginal(T)[0], gp.condition(P[:2], y[:2]).marginal(T)[0], rtol=1e-9)
    assert torch.allclose(half.marginal(T)[1], known.marginal(T)[1], rtol=1e-9)


@SMOOTHNESS
@settings(max_examples=20)
@given(n=st.integers(2, 20), p=st.integers(0, 8), known=st.integers(0, 8), seed=st.integers(0, 100))
def test_popping_rows_equals_making_it_without_them(nu, n, p, known, seed):
    X = draws(n + p, D, seed=seed)
    y, known = values(X), n + min(known, p)
    T = draws(10, D, seed=seed + 1)
    kept = max(1, n - p // 2)  # some of the first rows go as well
    whole = make_gp(Cube.continuous(D), X[:n], y[:n], hypers(), nu=nu).condition(X[n:known], y[n:known])
    if known < n + p:
        whole = whole.condition(X[known:])
    fewer = whole.pop(n + p - kept)
    expected = make_gp(Cube.continuous(D), X[:kept], y[:kept], hypers(), nu=nu)
    assert fewer.n == kept
    assert torch.equal(fewer.y, y[:kept])
    for found, wanted in zip(fewer.marginal(T), expected.marginal(T), strict=True):
        assert torch.allclose(found, wanted, rtol=DIGITS[nu], atol=DIGITS[nu])


def test_other_hypers_equal_making_it_anew_with_pending_rows_as_well(device):
    gp, X = example(device=device)
    P, T = draws(4, D, seed=7).to(device), draws(10, D, seed=8).to(device)
    other = Hypers(gp.hypers.lengthscale.flip(0) * 0.4, gp.hypers.noise_var * 9, gp.hypers.outputscale / 2)
    expected = make_gp(gp.embedding.cube, X, gp.y, other).condition(P)
    changed = gp.condition(P).with_hypers(other)
    assert changed.hypers is other
    for found, wanted in zip(changed.marginal(T), expected.marginal(T), strict=True):
        assert torch.allclose(found, wanted, rtol=1e-8, atol=1e-8)


def test_other_hypers_at_a_budget_are_those_of_the_process_over_budgets():
    gp, _ = example()
    other = gp.hypers.halfway_to_prior()
    configs, T = Cube.continuous(D - 1), draws(10, D - 1, seed=8)
    found = gp.at_budget(configs, 0.3).with_hypers(other).marginal(T)
    for value, wanted in zip(found, gp.with_hypers(other).at_budget(configs, 0.3).marginal(T), strict=True):
        assert torch.allclose(value, wanted, rtol=1e-9, atol=1e-12)


def test_popping_pending_rows_gives_the_very_process_before_them(device):
    gp, _ = example(device=device)
    P, T = draws(4, D, seed=7).to(device), draws(10, D, seed=8).to(device)
    back = gp.condition(P[:1]).condition(P[1:]).pop(4)
    assert back.R is gp.R
    assert torch.equal(back.alpha, gp.alpha)
    for found, expected in zip(back.marginal(T), gp.marginal(T), strict=True):
        assert torch.equal(found, expected)
    with pytest.raises(SettingError, match="`p` must be from 0 to 29, got 30"):
        gp.pop(30)
    with pytest.raises(SettingError, match="`p` must be from 0 to 29, got -1"):
        gp.pop(-1)


@settings(max_examples=25)
@given(p=st.integers(1, 4), r=st.integers(1, 4), pending=st.booleans(), seed=st.integers(0, 100))
def test_two_conditions_on_one_process_do_not_know_of_each_other(p, r, pending, seed):
    gp, _ = example(12)
    one, two = draws(p, D, seed=seed), draws(r, D, seed=seed + 1)
    T = draws(10, D, seed=seed + 2)

    def conditioned(start, new):
        return start.condition(new, None if pending else values(draws(5, D, seed=3))[: len(new)])

    living = conditioned(gp, one), conditioned(gp, two)
    longer = conditioned(living[0], two)
    alone = example(12)[0]
    expected = (
        conditioned(alone, one),
        conditioned(example(12)[0], two),
        conditioned(conditioned(alone, one), two),
    )
    for found, wanted in zip((*living, longer), expected, strict=True):
        for a, b in zip(found.marginal(T), wanted.marginal(T), strict=True):
            assert torch.allclose(a, b, rtol=1e-10, atol=1e-12)


class Outputs(TorchDispatchMode):
    """How many elements the new tensors have that operations give back."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        aliases = any(result.alias_info is not None for result in func._schema.returns)
        if isinstance(out, torch.Tensor) and not aliases:
            self.sizes.append(out.numel())
        return out


def largest_output(function):
    with Outputs() as outputs:
        result = function()
    return max(outputs.sizes), result


def test_another_row_makes_nothing_of_the_size_of_the_factor(device):
    n = 200
    X = draws(n + 3, D, seed=1).to(device)
    y = values(X)
    gp = make_gp(Cube.continuous(D), X[:n], y[:n], hypers(device=device))
    of_making, _ = largest_output(lambda: make_gp(Cube.continuous(D), X[:n], y[:n], hypers(device=device)))
    assert of_making >= n * n  # what the test would see
    linear = 4 * n * (D + 1)
    size, pending = largest_output(lambda: gp.condition(X[n : n + 1]))
    assert size <= linear
    size, longer = largest_output(lambda: pending.condition(X[n + 1 :]))
    assert size <= linear
    assert largest_output(lambda: longer.with_values(y))[0] <= linear
    assert largest_output(lambda: longer.pop(2))[0] <= linear
    pending = longer = None  # nobody knows of those rows any more
    size, known = largest_output(lambda: gp.condition(X[n:], y[n:]))
    assert size <= linear
    assert largest_output(lambda: known.pop(2))[0] <= linear
    branch, _ = largest_output(lambda: gp.condition(X[:1]))
    assert branch >= n * n  # `known` has the rows


def test_the_variance_of_a_conditioned_process_has_a_gradient_by_the_new_row():
    gp, _ = example(12)
    P, T = draws(1, D, seed=7).requires_grad_(True), draws(4, D, seed=8)
    (gradient,) = torch.autograd.grad(gp.condition(P).posterior(T)[1].diagonal().sum(), P)
    step = 1e-6 * torch.eye(D, dtype=torch.float64)
    numeric = torch.stack(
        [
            sum(sign * gp.condition(P.detach() + sign * e).marginal(T)[1].sum() for sign in (1, -1)) / 2e-6
            for e in step
        ]
    )
    assert torch.allclose(gradient.squeeze(0), numeric, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("keep", [True, False])
def test_a_gradient_asked_for_later_knows_nothing_of_rows_appended_since(keep):
    # Rows are written into memory that factors share, and over those of a process that nobody has any more.
    T, P = draws(4, D, seed=8).requires_grad_(True), draws(1, D, seed=7).requires_grad_(True)

    def function(gp):
        return gp.marginal(T)[1].sum() + gp.posterior(T)[1].sum() + gp.condition(P).R.sum()

    gp, _ = example(12)
    expected = torch.autograd.grad(function(gp.condition(draws(1, D, seed=9))), (T, P))
    grown = gp.condition(draws(1, D, seed=9))
    value, memory = function(grown), grown.R.untyped_storage().data_ptr()
    if keep:
        grown = grown.condition(draws(1, D, seed=10))
    else:
        del grown
        grown = gp.condition(draws(2, D, seed=10))
    assert grown.R.untyped_storage().data_ptr() == memory
    for found, wanted in zip(torch.autograd.grad(value, (T, P)), expected, strict=True):
        assert torch.allclose(found, wanted, rtol=1e-10)


def test_values_behind_pending_rows_are_refused():
    gp, X = example()
    with pytest.raises(SettingError, match="rows without a value must come last"):
        gp.condition(X[:2] + 0.01).condition(X[2:3] + 0.01, gp.y[:1])
    with pytest.raises(SettingError, match="rows without a value must come last"):
        gp.with_values(torch.cat([gp.y[:1] * torch.nan, gp.y[1:]]))


def test_the_process_is_a_value(device):
    gp, X = example(device=device)
    before = {f.name: getattr(gp, f.name) for f in dataclasses.fields(gp)}
    copies = {name: value.clone() for name, value in before.items() if isinstance(value, torch.Tensor)}
    T = draws(5, D, seed=10).to(device)
    untouched = T.clone(), X.clone()
    gp.marginal(T), gp.marginal_and_gradient(T), gp.posterior(T)
    gp.condition(T).with_values(torch.cat([gp.y, T[:, 0]]))
    assert torch.equal(T, untouched[0])
    assert torch.equal(X, untouched[1])
    for name, copy in copies.items():
        assert getattr(gp, name) is before[name]
        assert torch.equal(getattr(gp, name), copy)
    with pytest.raises(dataclasses.FrozenInstanceError):
        gp.nu = 1.5


def test_mixed_and_conditional_points_have_right_gradients():
    space = SearchSpace(
        c=Categorical(list("abc")), x=Float(0, 1), z=Float(0, 1, when={"c": ["a", "b"]}), w=Float(0, 1)
    )
    X = space.cube.draw(25, torch.Generator().manual_seed(0))
    gp = make_gp(space.cube, X, values(X), hypers(4))
    T = space.cube.draw(10, torch.Generator().manual_seed(1))
    at = T.clone().requires_grad_(True)
    mean, var = gp.marginal(at)
    (by_mean,) = torch.autograd.grad(mean.sum(), at, retain_graph=True)
    (by_var,) = torch.autograd.grad(var.sum(), at)
    _, _, d_mean, d_var = gp.marginal_and_gradient(T)
    assert torch.allclose(d_mean, by_mean, rtol=1e-8, atol=1e-10)
    assert torch.allclose(d_var, by_var, rtol=1e-8, atol=1e-10)
    assert (d_mean[:, 0] == 0).all()
    inactive = space.cube.active(T)[:, 2].logical_not()
    assert inactive.any()
    assert (d_mean[inactive, 2] == 0).all()


def test_fitting_gives_the_process_at_the_fitted_hypers(device):
    X = draws(40, D, seed=11).to(device)
    y = values(X)
    gp, found = fit_gp(Cube.continuous(D), X, y)
    again = make_gp(Cube.continuous(D), X, y, found.hypers[0])
    assert gp.hypers is found.hypers[0]
    T = draws(10, D, seed=12).to(device)
    for one, other in zip(gp.marginal(T), again.marginal(T), strict=True):
        assert torch.allclose(one, other, rtol=1e-7, atol=1e-9)
    warm, kept = fit_gp(Cube.continuous(D), X, y, warm=found.hypers[0])
    assert kept.skipped
    assert torch.allclose(warm.marginal(T)[0], gp.marginal(T)[0], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("n", [1, 2])
def test_the_variance_never_falls_below_zero(n):
    X = torch.full((n, D), 0.5, dtype=torch.float64)
    gp = make_gp(
        Cube.continuous(D), X, values(draws(n, D, seed=0)) if n > 1 else X[:, 0], hypers(noise_var=1e-15)
    )
    assert (gp.marginal(X)[1] > 0).all()
    _, var, _, d_var = gp.marginal_and_gradient(X)
    assert (var > 0).all()
    assert torch.isfinite(d_var).all()


def test_bad_arguments_are_refused():
    X, cube = draws(5, D, seed=0), Cube.continuous(D)
    with pytest.raises(SettingError, match=r"`nu` must be one of \[0.5, 1.5, 2.5\], got 2"):
        make_gp(cube, X, values(X), hypers(), nu=2)
    with pytest.raises(
        SettingError, match=r"`X` must have shape \(n, 3\) and `y` \(n,\), got \(5, 2\) and \(5,\)"
    ):
        make_gp(cube, X[:, :2], values(X), hypers())
    with pytest.raises(SettingError, match=r"`X` must have shape .* got \(5, 3\) and \(4,\)"):
        fit_gp(cube, X, values(X)[:4])


def test_a_covariance_without_a_factor_is_an_error():
    gp, X = example(5)
    impossible = replace(gp, hypers=replace(gp.hypers, noise_var=torch.tensor(-5.0, dtype=torch.float64)))
    with pytest.raises(NumericsError, match="not positive definite"):
        impossible.condition(X[:1].expand(3, D))


def test_a_fit_of_many_rows_that_begins_with_a_few_ends_where_the_whole_fit_does():
    X = draws(300, D, seed=13)
    y = values(X) + 0.1 * draws(300, seed=14)
    found = fit_gp(Cube.continuous(D), X, y)[1]
    whole = fit(X, torch.arange(D), y, D)
    assert found.values[0] == pytest.approx(whole.values[0], abs=0.01)
