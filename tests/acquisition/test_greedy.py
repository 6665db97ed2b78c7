import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from gpbo import Categorical, Float, Int, SearchSpace
from gpbo.acquisition import (
    PENDING,
    Effort,
    Turns,
    base_samples,
    constant_lie,
    ei,
    greedy_batch,
    log_ei,
    log_pi,
    maximize,
    q_log_ei,
    ucb,
    with_pending,
)
from gpbo.acquisition import greedy as module
from gpbo.acquisition.greedy import in_turn
from gpbo.cube import Cube, is_new
from gpbo.gp import Hypers, make_gp

SMALL = Effort(raw=128, perturbed=64)
SPACES = {
    "mixed": SearchSpace(c=Categorical(list("abc")), i=Int(0, 40), x=Float(0, 1), y=Float(0, 1)),
    "conditional": SearchSpace(
        kind=Categorical(["p", "q"]), x=Float(0, 1), z=Float(1e-4, 1, log=True, when={"kind": "q"})
    ),
    "constrained": SearchSpace(i=Int(1, 40), x=Float(0, 1), constraints=["x * i <= 10"]),
    "finite": SearchSpace(a=Categorical(list("abcd")), i=Int(0, 9), b=Categorical(list("xyz"))),
    "categorical": SearchSpace(
        a=Categorical(list("abcd")), b=Categorical(list("vwxyz")), c=Categorical(list("pqr"))
    ),
}
CUBES = {"continuous": Cube.continuous(5), **{name: space.cube for name, space in SPACES.items()}}
EVERY_CUBE = pytest.mark.parametrize("name", CUBES)
BELIEFS = pytest.mark.parametrize("belief", [belief for belief in PENDING if belief != "fantasies"])


def process(cube, n, *, seed=0, noise_var=1e-3, device="cpu"):
    X = cube.draw(n, torch.Generator().manual_seed(seed)).to(device)
    X = X[is_new(X, X[:0])]
    plain = {"lengthscale": [0.6] * cube.d, "noise_var": noise_var, "outputscale": 1.3}
    y = torch.sin(7 * X).sum(-1) + X[:, 0]
    return make_gp(cube, X, (y - y.mean()) / y.std(), Hypers.from_dict(plain, torch.device(device))), X


def best_value(gp):
    return float(gp.y[gp.y.isfinite()].max())


def by_log_ei(gp, **options):
    return Turns(lambda best: log_ei(gp, best).rule, **options)


def batch(gp, X, q, turns=None, *, seed=0, seen=None, effort=None):
    top = X[gp.y[: len(X)].topk(min(5, len(X))).indices]
    return greedy_batch(
        gp, gp.embedding.cube, q, turns or by_log_ei(gp), best_f=best_value(gp), incumbents=top,
        seen=X if seen is None else seen, seed=seed, effort=effort,
    )  # fmt: skip


@BELIEFS
@pytest.mark.parametrize("make", [log_ei, ei, log_pi, lambda gp, best: ucb(gp, 2.0)])
def test_the_choice_is_that_of_conditioning_on_one_pick_after_another(belief, make):
    gp, _ = process(CUBES["continuous"], 20)
    gp = with_pending(gp, draws(2, seed=4), belief)
    best, left = best_value(gp), draws(12, seed=5)
    found = in_turn(gp, left, Turns(lambda best: make(gp, best).rule, constant_lie(gp, belief)), best)
    for x in found:
        values = make(gp, best)(left.unsqueeze(1))
        here = (left == x).all(-1)
        assert values[here].item() == pytest.approx(values.max().item(), rel=1e-9, abs=1e-12)
        left = left[~here]
        gp = with_pending(gp, x.unsqueeze(0), belief)
        best = max(best, gp.marginal(x.unsqueeze(0))[0].item())
    assert len(left) == 0


def draws(n, *, d=5, seed):
    return torch.rand(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("lie", [None, -0.7])
def test_each_climbs_the_acquisition_of_the_process_with_the_picks_before_it(lie):
    gp, _ = process(CUBES["continuous"], 20)
    pool = module._make_pool(gp, draws(30, seed=5))
    turns = by_log_ei(gp, lie=lie, other=ucb(gp, 4.0).rule, goes_by_other=lambda place, value: place % 3 == 1)
    picks = module._choose(gp, pool, 6, turns, best_value(gp))
    assert picks.others.tolist() == [False, True, False, False, True, False]
    m = picks.starts.shape[1]
    assert m > 1
    X = draws(6 * m, seed=6)
    values, gradients = module._InTurn.of(gp, pool, picks, turns).value_and_gradient(X)
    best, grown = best_value(gp), gp
    for i, row in enumerate(picks.rows):
        mine = slice(i * m, (i + 1) * m)
        acquisition = ucb(grown, 4.0) if picks.others[i] else log_ei(grown, best)
        value, gradient = acquisition.value_and_gradient(X[mine])
        assert picks.best_f[i].item() == pytest.approx(best, rel=1e-9)
        assert torch.allclose(values[mine], value, rtol=1e-9, atol=1e-10)
        assert torch.allclose(gradients[mine], gradient, rtol=1e-7, atol=1e-9)
        x = pool.X[row].unsqueeze(0)
        grown = grown.condition(x, None if lie is None else gp.y.new_tensor([lie]))
        best = max(best, grown.marginal(x)[0].item())


@EVERY_CUBE
@settings(max_examples=3)
@given(seed=st.integers(0, 1000), q=st.integers(1, 12))
def test_a_batch_is_of_different_new_feasible_points_and_the_same_again(name, seed, q):
    cube = CUBES[name]
    gp, X = process(cube, 12, seed=seed)
    found, others = batch(gp, X, q, seed=seed, effort=SMALL)
    assert found.shape == (q, cube.d)
    assert others == 0
    assert torch.equal(cube.snap(found.clone()), found)
    assert cube.feasible(found).all()
    assert is_new(found, X).all()
    assert torch.equal(batch(gp, X, q, seed=seed, effort=SMALL)[0], found)


def test_a_batch_on_any_device(device):
    gp, X = process(CUBES["mixed"], 12, device=device)
    found, _ = batch(gp, X, 6, effort=SMALL)
    assert found.device == X.device
    assert is_new(found, X).all()


@pytest.mark.parametrize(
    ("name", "n", "q", "nats"),
    [("continuous", 40, 8, 0.01), ("continuous", 40, 24, 0.025), ("mixed", 30, 8, 0.01)],
)
def test_a_batch_is_jointly_as_good_as_one_that_is_searched_point_by_point(name, n, q, nats):
    cube, gaps = CUBES[name], []
    for seed in range(4):
        gp, X = process(cube, n, seed=seed)
        top, best = X[gp.y.topk(5).indices], best_value(gp)
        grown, taken, improve = gp, X, best
        for k in range(q):
            look = partial(maximize, cube=cube, incumbents=top, seen=taken, scale=gp.hypers.lengthscale)
            x = look(log_ei(grown, improve), seed=1000 * seed + k).unsqueeze(0)
            grown, taken = grown.condition(x), torch.cat([taken, x])
            improve = max(improve, grown.marginal(x)[0].item())
        value = q_log_ei(gp, best, base_samples(q, 1024, 0, X.device))
        found, _ = batch(gp, X, q, seed=seed)
        gaps.append(float(value(taken[len(X) :]) - value(found)))
    # In some one draw a search that starts anew for each point finds a better basin than the pool holds.
    assert sum(gaps) / len(gaps) < nats
    assert max(gaps) < 5.0 * nats


class Factors(TorchDispatchMode):
    """The sizes of the matrices that are factorised or solved with, but for the optimiser's small batches."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        factors = ("linalg_cholesky_ex", "linalg_solve_triangular", "linalg_inv_ex", "linalg_lu")
        if func._opname in factors and args[0].ndim == 2:
            self.sizes.append(args[0].shape[-1])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("q", [4, 32])
def test_a_batch_factorises_nothing_but_blocks_of_its_own_size(q):
    gp, X = process(CUBES["continuous"], 60)
    with Factors() as factors:
        make_gp(gp.embedding.cube, X, gp.y, gp.hypers)
    assert 60 in factors.sizes  # what the test would see
    with Factors() as factors:
        batch(gp, X, q, effort=SMALL)
    assert factors.sizes == [q, q] * module._SWEEPS  # a factor and its inverse, for each climb


def test_some_points_go_by_the_other_rule():
    gp, X = process(CUBES["continuous"], 20)
    asked = []

    def goes(place, value):
        asked.append((place, value))
        return place % 2 == 1

    turns = by_log_ei(gp, other=ucb(gp, 9.0).rule, goes_by_other=goes)
    found, others = batch(gp, X, 7, turns, effort=SMALL)
    assert others == 3
    assert {place for place, _ in asked} == set(range(7))
    assert all(math.isfinite(value) for _, value in asked)
    plain, _ = batch(gp, X, 7, effort=SMALL)
    grown = gp.condition(plain[:1])
    bound = ucb(grown, 9.0)
    assert bound(found[1:2].unsqueeze(1)) > bound(plain[1:2].unsqueeze(1))


def test_the_last_points_of_a_finite_space_come_once_and_then_none():
    cube = CUBES["finite"]
    gp, X = process(cube, 20)
    listed = cube.enumerate()
    last, _ = batch(gp, X, 10, seen=listed[:-3])
    assert torch.equal(last.unique(dim=0), listed[-3:])
    nothing, others = batch(gp, X, 10, seen=listed)
    assert nothing.shape == (0, 3)
    assert others == 0


def test_a_constraint_that_forbids_every_candidate_has_nothing_to_offer():
    plain = Cube.continuous(2)
    gp, X = process(plain, 8)
    cube = Cube(
        plain.n_levels,
        plain.is_categorical,
        plain.log_edges,
        constraint=lambda X: torch.zeros(len(X), dtype=torch.bool),
    )
    found, _ = greedy_batch(gp, cube, 3, by_log_ei(gp), best_f=0.0, incumbents=X[:1], seen=X, seed=0)
    assert found.shape == (0, 2)


def test_a_maximum_on_the_edge_of_the_constraint_is_nearly_reached():
    # The function grows towards (1, 1), of which x + y <= 1.2 leaves an edge.
    space = SearchSpace(x=Float(0, 1), y=Float(0, 1), constraints=["x + y <= 1.2"])
    X = space.cube.draw(20, torch.Generator().manual_seed(3))
    plain = {"lengthscale": [2.0, 2.0], "noise_var": 1e-6, "outputscale": 1.0}
    gp = make_gp(space.cube, X, X.sum(-1), Hypers.from_dict(plain, X.device))
    found, _ = batch(gp, X, 4)
    assert (found.sum(-1) <= 1.2 + 1e-12).all()
    assert (found[:2].sum(-1) >= 1.15).all()


def test_values_that_are_not_numbers_come_last():
    gp, _ = process(CUBES["continuous"], 20)
    pool = draws(6, seed=5)

    def rule(mean, sigma):
        value = torch.arange(6.0, dtype=torch.float64)
        return torch.where(value == 5.0, torch.nan, value), mean, sigma

    found = in_turn(gp, pool, Turns(lambda best: rule), 0.0)
    assert torch.equal(found, pool[[4, 3, 2, 1, 0, 5]])


def test_a_discrete_space_offers_new_points_however_many_good_ones_were_seen(monkeypatch):
    monkeypatch.setattr(module, "_SWEEPS", 0)  # neighbours of the picks would mend a poor pool
    monkeypatch.setattr(module, "_KEPT", 8)
    cube = CUBES["finite"]
    gp, X = process(cube, 20)
    everything = cube.enumerate()
    values = log_ei(gp, best_value(gp)).rule(*_mean_and_sigma(gp, everything))[0]
    order = values.argsort(descending=True)
    found, _ = batch(gp, X, 1, seen=everything[order[:100]])
    assert torch.equal(found[0], everything[order[100]])


def _mean_and_sigma(gp, X):
    mean, var = gp.marginal(X)
    return mean, var.sqrt()
