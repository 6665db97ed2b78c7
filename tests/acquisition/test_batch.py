import pytest
import torch

from gpbo.acquisition import PENDING, log_ei, with_pending
from gpbo.cube import Cube
from gpbo.errors import SettingError
from gpbo.gp import Hypers, make_gp

D = 2


def draws(*shape, seed):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def gp(device):
    X = draws(12, D, seed=0).to(device)
    plain = {"lengthscale": [0.4, 0.6], "noise_var": 1e-4, "outputscale": 1.0, "mean": 0.0}
    y = torch.sin(5 * X).sum(-1)
    return make_gp(Cube.continuous(D), X, (y - y.mean()) / y.std(), Hypers.from_dict(plain, X.device))


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
