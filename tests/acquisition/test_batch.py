import math

import gpytorch
import numpy as np
import pytest
import torch
from botorch.acquisition.analytic import (
    ExpectedImprovement,
    LogExpectedImprovement,
    LogProbabilityOfImprovement,
    UpperConfidenceBound,
)
from botorch.acquisition.logei import qLogExpectedImprovement
from botorch.models import SingleTaskGP
from botorch.sampling.normal import SobolQMCNormalSampler
from hypothesis import given
from hypothesis import strategies as st

from gpbo import Categorical, Float, Int, SearchSpace
from gpbo.acquisition import (
    PENDING,
    ei,
    explore,
    log_ei,
    log_pi,
    over_fantasies,
    ucb,
    ucb_pe_batch,
    with_pending,
)
from gpbo.cube import Cube, is_new
from gpbo.errors import SettingError
from gpbo.gp import Hypers, make_gp
from gpbo.gp.hypers import MEAN_VAR

D = 2


def draws(*shape, seed):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def gp(device):
    X = draws(12, D, seed=0).to(device)
    plain = {"lengthscale": [0.4, 0.6], "noise_var": 1e-4, "outputscale": 1.0}
    y = torch.sin(5 * X).sum(-1)
    return make_gp(Cube.continuous(D), X, (y - y.mean()) / y.std(), Hypers.from_dict(plain, X.device))


@pytest.fixture
def rough(gp):
    """A process that leaves much open."""
    plain = {"lengthscale": [0.2, 0.3], "noise_var": 1e-3, "outputscale": 1.0}
    X = points(gp)
    return make_gp(gp.embedding.cube, X, gp.y, Hypers.from_dict(plain, X.device))


@pytest.fixture
def P(gp):
    return draws(3, D, seed=1).to(gp.y)


def test_nothing_pending_changes_nothing(gp):
    for belief in PENDING:
        assert with_pending(gp, gp.y.new_empty(0, D), belief) is gp


@pytest.mark.parametrize("belief", PENDING)
def test_every_belief_sharpens_the_variance_alike(gp, P, belief):
    T = draws(20, D, seed=2).to(gp.y)
    assert torch.allclose(
        with_pending(gp, P, belief).marginal(T)[1], gp.condition(P).marginal(T)[1], rtol=1e-10
    )


@pytest.mark.parametrize("belief", ["variance", "believer"])
def test_the_mean_stays_with_the_believer_and_without_a_value(gp, P, belief):
    T = draws(20, D, seed=2).to(gp.y)
    # An imagined value at the mean draws the mean nowhere.
    assert torch.allclose(with_pending(gp, P, belief).marginal(T)[0], gp.marginal(T)[0], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(("belief", "lie"), [("liar_min", "min"), ("liar_mean", "mean"), ("liar_max", "max")])
def test_liars_tell_the_worst_mean_or_best_observed_value(gp, P, belief, lie):
    lying = with_pending(gp, P, belief)
    expected = getattr(gp.y, lie)()
    assert torch.equal(lying.y, torch.cat([gp.y, expected.expand(3)]))
    assert torch.allclose(lying.marginal(P)[0], expected.expand(3), atol=0.02)


def test_a_second_pending_point_is_added_to_the_first(gp, P):
    T = draws(20, D, seed=2).to(gp.y)
    one_by_one = with_pending(with_pending(gp, P[:1]), P[1:])
    together = with_pending(gp, P)
    for a, b in zip(one_by_one.marginal(T), together.marginal(T), strict=True):
        assert torch.allclose(a, b, rtol=1e-9)


@pytest.mark.parametrize("belief", PENDING)
def test_a_pending_point_is_less_worth_asking_for_again(gp, belief):
    best = float(gp.y.max())
    T = draws(500, D, seed=3).to(gp.y)
    x = T[log_ei(gp, best).values(T).argmax()].unsqueeze(0)
    later = with_pending(gp, x, belief)
    assert log_ei(later, float(later.y.nan_to_num(-9.0).max().clamp(min=best))).values(x) < log_ei(
        gp, best
    ).values(x)


def test_an_unknown_belief_is_refused(gp, P):
    with pytest.raises(
        SettingError, match=r"`pending` must be one of .*, got 'liar_men'. Did you mean 'liar_me?[an]"
    ):
        with_pending(gp, P, "liar_men")


@pytest.mark.parametrize("belief", ["liar_min", "liar_mean", "liar_max", "believer"])
def test_a_lie_is_what_a_process_made_with_it_believes(gp, P, belief):
    T = draws(20, D, seed=2).to(gp.y)
    lies = {"liar_min": gp.y.min(), "liar_mean": gp.y.mean(), "liar_max": gp.y.max()}
    lie = lies[belief].expand(3) if belief in lies else gp.marginal(P)[0]
    cube, X = gp.embedding.cube, points(gp)
    made = make_gp(cube, torch.cat([X, P]), torch.cat([gp.y, lie]), gp.hypers)
    for a, b in zip(with_pending(gp, P, belief).marginal(T), made.marginal(T), strict=True):
        assert torch.allclose(a, b, rtol=1e-7, atol=1e-9)


def points(gp):
    return (gp.Z + gp.centre) * gp.hypers.lengthscale


def botorch_model(X, y, hypers):
    matern = gpytorch.kernels.MaternKernel(nu=2.5, ard_num_dims=D)
    covariance, constant = gpytorch.kernels.ScaleKernel(matern), gpytorch.kernels.ConstantKernel()
    kernel = covariance + constant
    model = SingleTaskGP(X, y.unsqueeze(-1), covar_module=kernel, outcome_transform=None).to(X)
    constant.constant = torch.tensor(MEAN_VAR, dtype=torch.float64)
    matern.lengthscale, covariance.outputscale = hypers.lengthscale, hypers.outputscale
    model.likelihood.noise = hypers.noise_var
    model.mean_module.constant.data.fill_(0.0)
    return model.eval()


BEST = 1.1
MAKERS = {
    "log_ei": (log_ei, True, LogExpectedImprovement),
    "log_pi": (log_pi, True, LogProbabilityOfImprovement),
    "ei": (ei, False, ExpectedImprovement),
    "ucb": (lambda gp, best_f: ucb(gp, 2.0), False, lambda m, best_f: UpperConfidenceBound(m, beta=2.0)),
}


@pytest.mark.filterwarnings("ignore:ExpectedImprovement has known numerical issues")  # BoTorch's own
@pytest.mark.parametrize("name", MAKERS)
def test_fantasies_equal_botorch_s_average_over_models_with_the_imagined_values(gp, P, name):
    make, in_logs, theirs = MAKERS[name]
    T = draws(15, D, seed=2).to(gp.y)
    grown = with_pending(gp, P, "fantasies")
    fantasies = over_fantasies(make, grown, BEST, seed=0, n_fantasies=6, in_logs=in_logs)
    value, gradient = fantasies.value_and_gradient(T)
    assert torch.allclose(fantasies.values(T), value, rtol=1e-10)

    X, at = torch.cat([points(gp), P]), T.clone().unsqueeze(1).requires_grad_(True)
    K = gp.covariance(grown.Z, grown.Z) + gp.hypers.noise_var * torch.eye(len(X)).to(gp.y)
    imagined = (K @ fantasies.alphas).mT
    assert torch.allclose(imagined[:, :12], gp.y.expand(6, -1), atol=1e-8)
    parts = []
    for y in imagined:
        model = botorch_model(X, y, gp.hypers)
        best_f = model.posterior(P).mean.max().clamp(min=BEST)
        parts.append(theirs(model, best_f.detach())(at))
    parts = torch.stack(parts)
    expected = parts.logsumexp(0) - math.log(6) if in_logs else parts.mean(0)
    (by_autograd,) = torch.autograd.grad(expected.sum(), at)
    assert torch.allclose(value, expected, rtol=1e-5, atol=1e-7)
    assert torch.allclose(gradient, by_autograd.squeeze(1), rtol=1e-4, atol=1e-5)


def test_fantasies_are_draws_of_the_joint_posterior_of_what_will_be_observed(gp, P):
    grown = with_pending(gp, P, "fantasies")
    fantasies = over_fantasies(log_ei, grown, BEST, seed=0, n_fantasies=4096)
    K = gp.covariance(grown.Z, grown.Z)
    y = (K @ fantasies.alphas + gp.hypers.noise_var * fantasies.alphas)[12:]
    mean, cov = gp.posterior(P)
    cov = cov + gp.hypers.noise_var * torch.eye(3).to(cov)
    sigma = cov.diagonal().sqrt()
    assert ((y.mean(1) - mean).abs() < 0.02 * sigma).all()  # Sobol points: better than 1 / sqrt(4096)
    assert ((y.cov() - cov).abs() < 0.05 * sigma * sigma.unsqueeze(-1)).all()


def test_a_point_s_fantasies_are_what_it_adds_to_the_joint_expected_improvement(rough, P):
    # E (max(f(x), f(P)) - best)^+ = E (f(P) - best)^+ + E (f(x) - max(best, f(P)))^+
    best_f = 0.3
    T = draws(30, D, seed=2).to(rough.y)
    fantasies = over_fantasies(log_ei, with_pending(rough, P, "fantasies"), best_f, seed=0, n_fantasies=2048)
    model = botorch_model(points(rough), rough.y, rough.hypers)
    sampler = SobolQMCNormalSampler(torch.Size([8192]), seed=0)
    options = {"best_f": rough.y.new_tensor(best_f), "sampler": sampler, "fat": False}
    joint = qLogExpectedImprovement(model, X_pending=P, **options)(T.unsqueeze(1)).exp()
    alone = qLogExpectedImprovement(model, **options)(P).exp()
    gain = fantasies.values(T).exp()
    assert gain.max() > 0.1
    assert torch.allclose(gain, joint - alone, rtol=0.05, atol=2e-3)


def test_fantasies_without_pending_points_are_the_acquisition_itself(gp):
    T = draws(20, D, seed=2).to(gp.y)
    for a, b in zip(
        over_fantasies(log_ei, gp, BEST, seed=0).value_and_gradient(T),
        log_ei(gp, BEST).value_and_gradient(T),
        strict=True,
    ):
        assert torch.allclose(a, b, rtol=1e-8)


def test_fantasies_depend_on_the_seed_alone(gp, P):
    T, grown = draws(5, D, seed=2).to(gp.y), with_pending(gp, P, "fantasies")
    values = over_fantasies(log_ei, grown, BEST, seed=3).values(T)
    assert torch.equal(over_fantasies(log_ei, grown, BEST, seed=3).values(T), values)
    assert not torch.allclose(over_fantasies(log_ei, grown, BEST, seed=4).values(T), values)


@given(best_f=st.floats(-1e4, 1e4), seed=st.integers(0, 50))
def test_fantasies_and_exploration_are_finite_even_at_the_data(best_f, seed):
    X = draws(12, D, seed=seed)
    plain = {"lengthscale": [0.5] * D, "noise_var": 1e-6, "outputscale": 1.0}
    gp = make_gp(Cube.continuous(D), X, draws(12, seed=seed + 1), Hypers.from_dict(plain, X.device))
    gp = gp.condition(torch.cat([X[:1], draws(2, D, seed=seed + 2)]))
    at = torch.cat([draws(5, D, seed=seed + 3), X[:3]])
    for acquisition in (over_fantasies(log_ei, gp, best_f, seed=0), explore(gp)):
        value, gradient = acquisition.value_and_gradient(at)
        assert torch.isfinite(value).all()
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(
    "make", [lambda gp: over_fantasies(log_ei, gp, BEST, seed=0), lambda gp: explore(gp)]
)
def test_gradients_over_mixed_and_conditional_columns_equal_finite_differences(make):
    space = SearchSpace(
        kind=Categorical(["p", "q"]), x=Float(0, 1), z=Float(1e-4, 1, log=True, when={"kind": "q"})
    )
    X = space.cube.draw(14, torch.Generator().manual_seed(0))
    plain = {"lengthscale": [0.6, 0.4, 0.8], "noise_var": 1e-3, "outputscale": 1.0}
    gp = make_gp(space.cube, X[:9], torch.sin(5 * X[:9]).sum(-1), Hypers.from_dict(plain, X.device))
    acquisition, T = make(with_pending(gp, X[9:11], "fantasies")), X[11:]
    gradient = acquisition.value_and_gradient(T)[1]
    assert (gradient[:, 0] == 0.0).all()
    for j in (1, 2):
        e = torch.zeros(3, dtype=torch.float64)
        e[j] = 1e-6
        slope = (acquisition.values(T + e) - acquisition.values(T - e)) / 2e-6
        assert torch.allclose(gradient[:, j], slope, rtol=1e-4, atol=1e-6)


def test_no_fantasies_are_refused(gp):
    with pytest.raises(SettingError, match="`n_fantasies` must be a whole number >= 1, got 0"):
        over_fantasies(log_ei, gp, BEST, seed=0, n_fantasies=0)


class Literal:
    """UCB-PE as its definition reads, with explicit inverses; numbers from bo.md's account of Vizier."""

    def __init__(self, hypers, X, y, pending):
        self.hypers, self.X, self.y, self.pending = hypers, X, y, pending

    def k(self, A, B):
        r = np.sqrt((((A[:, None] - B[None]) / self.hypers.lengthscale.numpy()) ** 2).sum(-1))
        a = math.sqrt(5) * r
        return float(self.hypers.outputscale) * (1 + a + a * a / 3) * np.exp(-a) + MEAN_VAR

    def moments(self, T, rows, y=None):
        inverse = np.linalg.inv(self.k(rows, rows) + float(self.hypers.noise_var) * np.eye(len(rows)))
        k = self.k(T, rows)
        var = float(self.hypers.outputscale) + MEAN_VAR - np.einsum("bi,ij,bj->b", k, inverse, k)
        return (None if y is None else k @ inverse @ y), np.sqrt(var)

    def ucb(self, T):
        mean, _ = self.moments(T, self.X, self.y)
        return mean + 1.8 * self.moments(T, np.concatenate([self.X, self.pending]))[1]

    def threshold(self):
        rows = np.concatenate([self.X, self.pending])
        mean, sigma = self.moments(rows, self.X, self.y)
        return mean[(mean + 1.8 * sigma).argmax()]

    def exploration(self, T):
        mean, sigma = self.moments(T, self.X, self.y)
        _, sigma_all = self.moments(T, np.concatenate([self.X, self.pending]))
        return sigma_all + 10.0 * np.minimum(mean + 0.5 * sigma - self.threshold(), 0.0)


def test_exploration_equals_its_definition_and_its_gradient_finite_differences(rough, P):
    T = torch.cat([draws(30, D, seed=2), points(rough).cpu()]).to(rough.y)
    exploration = explore(rough.condition(P))
    literal = Literal(rough.hypers, points(rough).cpu().numpy(), rough.y.cpu().numpy(), P.cpu().numpy())
    expected = torch.from_numpy(literal.exploration(T.cpu().numpy())).to(T)
    value, gradient = exploration.value_and_gradient(T)
    assert exploration.threshold == pytest.approx(literal.threshold(), abs=1e-6)
    assert torch.allclose(value, expected, rtol=1e-5, atol=1e-6)
    assert torch.allclose(exploration.values(T), value)
    plausible = value > 0
    assert plausible[:30].any()  # else only one side of the kink was seen
    assert not plausible[:30].all()
    for j in range(D):
        e = torch.zeros(D).to(T)
        e[j] = 1e-6
        slope = (exploration.values(T + e) - exploration.values(T - e)) / 2e-6
        assert torch.allclose(gradient[:30, j], slope[:30], rtol=1e-4, atol=1e-5)


def test_the_threshold_may_come_from_a_pending_point(rough):
    X = points(rough)
    T = draws(200, D, seed=3).to(X)
    P = T[ucb(rough, 1.8**2).values(T).argmax()].unsqueeze(0)
    literal = Literal(rough.hypers, X.cpu().numpy(), rough.y.cpu().numpy(), P.cpu().numpy())
    without = Literal(rough.hypers, X.cpu().numpy(), rough.y.cpu().numpy(), P[:0].cpu().numpy())
    assert literal.threshold() != pytest.approx(without.threshold(), abs=1e-3)
    assert explore(rough.condition(P)).threshold == pytest.approx(literal.threshold(), abs=1e-6)
    assert explore(rough).threshold == pytest.approx(without.threshold(), abs=1e-6)


def test_the_threshold_counts_what_noise_leaves_open_at_the_observed_points():
    # Ten points close together know their mean; three apart have a lower one, and the larger bounds.
    X = torch.cat([draws(10, 1, seed=0) * 0.1, 0.4 + 0.6 * draws(3, 1, seed=1)])
    y = torch.tensor([0.3] * 10 + [0.0] * 3, dtype=torch.float64)
    plain = {"lengthscale": [0.1], "noise_var": 0.5, "outputscale": 1.0}
    gp = make_gp(Cube.continuous(1), X, y, Hypers.from_dict(plain, X.device))
    threshold = Literal(gp.hypers, X.numpy(), y.numpy(), X[:0].numpy()).threshold()
    assert threshold < gp.marginal(X)[0].max() - 0.01
    assert explore(gp).threshold == pytest.approx(threshold, abs=1e-9)


def test_a_batch_by_ucb_pe_equals_its_definition_on_every_point_of_a_grid():
    space = SearchSpace(i=Int(0, 14), j=Int(0, 14))
    listed = space.cube.enumerate()
    order = torch.randperm(len(listed), generator=torch.Generator().manual_seed(0))
    X, P = listed[order[:10]], listed[order[10:12]]
    plain = {"lengthscale": [0.3, 0.4], "noise_var": 1e-3, "outputscale": 1.0}
    gp = make_gp(space.cube, X, torch.sin(5 * X).sum(-1), Hypers.from_dict(plain, X.device))
    seen = torch.cat([X, P])
    found = ucb_pe_batch(gp.condition(P), space.cube, 5, incumbents=X[:3], seen=seen, seed=0)

    literal = Literal(gp.hypers, X.numpy(), gp.y.numpy(), P.numpy())
    T = listed[is_new(listed, seen)].numpy()
    for i, x in enumerate(found.numpy()):
        values = literal.exploration(T) if i else literal.ucb(T)
        assert np.allclose(T[values.argmax()], x, atol=1e-12)
        literal.pending = np.concatenate([literal.pending, x[None]])
        T = np.delete(T, values.argmax(), axis=0)


def test_ucb_pe_gives_what_is_left_of_a_space_and_then_nothing():
    cube = SearchSpace(c=Categorical(list("ab")), i=Int(0, 2)).cube
    listed = cube.enumerate()
    plain = {"lengthscale": [0.5, 0.5], "noise_var": 1e-3, "outputscale": 1.0}
    gp = make_gp(cube, listed[:4], draws(4, seed=0), Hypers.from_dict(plain, listed.device))
    options = {"incumbents": listed[:2], "seed": 0}
    assert torch.equal(
        ucb_pe_batch(gp, cube, 5, seen=listed[:4], **options).unique(dim=0), listed[4:].unique(dim=0)
    )
    assert ucb_pe_batch(gp, cube, 5, seen=listed, **options).shape == (0, 2)
