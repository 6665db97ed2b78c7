import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gpbo.cube import Cube, is_new
from gpbo.data import Dataset
from gpbo.errors import SettingError
from gpbo.seeding import generator
from gpbo.space import Categorical, Float, Int, SearchSpace
from gpbo.suggesters.density import BOHBSuggester, _best_first, _score
from gpbo.suggesters.kernel_density import Density, Mixture, ReferenceDensity, _log_mass
from gpbo.suggesters.quasirandom import RandomSuggester

nan, inf = math.nan, math.inf
statsmodels_warns = pytest.mark.filterwarnings("ignore:After 0.17 or January 2028:FutureWarning")
MIXED = SearchSpace(x=Float(0, 1), n=Int(1, 20), c=Categorical(["a", "b", "c", "d"]))
CONDITIONAL = SearchSpace(
    momentum=Float(0, 0.99, when={"opt": "sgd"}),  # column 0 is inactive in half the rows
    opt=Categorical(["sgd", "adam"]),
    nesterov=Categorical([True, False], when={"opt": "sgd"}),
    warm=Int(1, 4, when={"nesterov": True}),
    depth=Int(1, 50, log=True),
)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def data_of(X, Y, budget=None, pending=None, number=0):
    Y = torch.as_tensor(Y, dtype=torch.float64)
    Y = Y[:, None] if Y.ndim == 1 else Y
    budget = torch.full((len(X),), nan) if budget is None else torch.as_tensor(budget)
    return Dataset(X, Y, budget.double(), X[:0] if pending is None else pending, number)


def observed(cube, n, seed=0, target=0.3, **more):
    X = cube.draw(n, rng(seed))
    return data_of(X, -(X - target).square().sum(-1), **more)


def log_prob(space, configs, at, min_bandwidth=1e-3):
    return Density.fit(space.encode(configs), space.cube, min_bandwidth).log_prob(space.encode(at))


# ---------------------------------------------------------------- each kernel is a distribution


@pytest.mark.parametrize("k", range(2, 51))
@pytest.mark.parametrize("n", [1, 7])
@pytest.mark.parametrize("kind", ["categorical", "whole", "log"])
def test_kernels_over_levels_sum_to_one(k, n, kind):
    parameter = {"categorical": Categorical(range(k)), "whole": Int(1, k), "log": Int(1, k, log=True)}[kind]
    cube = SearchSpace(a=parameter).cube
    everything = cube.enumerate()
    assert len(everything) == k
    for X in (everything[:1].repeat(n, 1), cube.draw(n, rng(k))):  # data of a single level, and others
        found = Density.fit(X, cube, 1e-3).log_prob(everything)
        assert found.isfinite().all()
        assert float(found.exp().sum()) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("values", [[0.0], [1.0], [0.5], [0.0, 1.0], [0.2, 0.3, 0.9]])
def test_the_gaussian_kernel_integrates_to_one(values):
    cube = Cube.continuous(1)
    for least in (1e-3, 0.05, 2.0):
        density = Density.fit(torch.tensor(values).double()[:, None], cube, least)
        grid = torch.linspace(0, 1, 400_001, dtype=torch.float64)[:, None]
        assert float(torch.trapezoid(density.log_prob(grid).exp(), grid[:, 0])) == pytest.approx(1, abs=1e-5)


def test_a_mixed_density_sums_to_one():
    space = SearchSpace(n=Int(1, 9, log=True), s=Float(0, 1, step=0.25), c=Categorical(["p", "q", "r"]))
    X = space.cube.draw(6, rng())
    assert float(Density.fit(X, space.cube, 0.01).log_prob(space.cube.enumerate()).exp().sum()) == (
        pytest.approx(1.0, abs=1e-12)
    )


@pytest.mark.parametrize("n", [1, 5])
def test_a_conditional_density_sums_to_one(n):
    space = SearchSpace(
        a=Int(1, 4, when={"c": ["p", "q"]}),
        c=Categorical(["p", "q", "r"]),
        b=Categorical([1, 2], when={"a": 3}),
    )
    density = Density.fit(space.cube.draw(n, rng(n)), space.cube, 0.01)
    assert float(density.log_prob(space.cube.enumerate()).exp().sum()) == pytest.approx(1.0, abs=1e-12)


# ---------------------------------------------------------------- against formulas and scipy


def test_the_gaussian_kernel_is_scipys_truncnorm():
    X = torch.tensor([[0.1], [0.4], [0.95]], dtype=torch.float64)
    C = torch.tensor([[0.0], [0.3], [0.9], [1.0]], dtype=torch.float64)
    h = 1.06 * float(X.std(correction=0)) * 3 ** (-1 / 5)
    found = Density.fit(X, Cube.continuous(1), 1e-3).log_prob(C).exp()
    expected = [
        np.mean([stats.truncnorm.pdf(c, -x / h, (1 - x) / h, x, h) for x in X[:, 0].tolist()])
        for c in C[:, 0].tolist()
    ]
    assert found.tolist() == pytest.approx(expected, rel=1e-12)


def test_the_whole_number_kernel_is_the_gaussians_mass_in_the_cell():
    found = log_prob(SearchSpace(n=Int(1, 4)), [{"n": 1}], [{"n": k} for k in range(1, 5)], 0.2)
    kernel = stats.truncnorm(-0.125 / 0.2, 0.875 / 0.2, 0.125, 0.2)
    assert found.exp().tolist() == pytest.approx(np.diff(kernel.cdf([0, 0.25, 0.5, 0.75, 1])), rel=1e-12)


def test_the_categorical_kernel_smooths_frequencies():
    space = SearchSpace(c=Categorical(["a", "b", "c", "d"]))
    configs = [{"c": c} for c in "aab"]
    found = log_prob(space, configs, [{"c": c} for c in "abcd"]).exp()
    assert found.tolist() == pytest.approx([2.25 / 4, 1.25 / 4, 0.25 / 4, 0.25 / 4])


def test_the_order_of_choices_does_not_matter():
    one, two = (SearchSpace(c=Categorical(list(order)), x=Float(0, 1)) for order in ("abcdefgh", "hcafbged"))
    configs = [{"c": c, "x": x} for c, x in zip("abbbh", (0.1, 0.2, 0.2, 0.5, 0.9), strict=True)]
    at = [{"c": c, "x": 0.3} for c in "abch"]
    torch.testing.assert_close(log_prob(one, configs, at), log_prob(two, configs, at))


def test_an_inactive_column_has_no_factor():
    space = SearchSpace(c=Categorical(["a", "b"]), x=Float(0, 1, when={"c": "a"}))
    configs = [{"c": "a", "x": 0.2}, {"c": "b"}, {"c": "b"}]
    found = log_prob(space, configs, [{"c": "b"}, {"c": "a", "x": 0.9}])
    assert float(found[0].exp()) == pytest.approx(2.5 / 4)  # as if there were no x
    # one datum knows about x, and is far away; of the other two, the share of "a" times the uniform 1
    assert float(found[1].exp()) == pytest.approx(2 / 3 * (1 / 4 / 2), rel=1e-6)


@given(st.floats(-40, 40), st.floats(1e-9, 20))
def test_log_mass(a, width):
    found = float(
        _log_mass(torch.tensor(a, dtype=torch.float64), torch.tensor(a + width, dtype=torch.float64))
    )
    low, high = (-a - width, -a) if a > 0 else (a, a + width)
    tail = stats.norm.logcdf(high) + np.log1p(-np.exp(stats.norm.logcdf(low) - stats.norm.logcdf(high)))
    if high - low > 1e-4:
        assert found == pytest.approx(tail, rel=1e-9, abs=1e-9)
    else:
        assert found == pytest.approx(stats.norm.logpdf((low + high) / 2) + np.log(high - low), rel=1e-4)


def test_densities_are_finite_far_from_the_data():
    space = SearchSpace(x=Float(0, 1), n=Int(1, 2**40), m=Int(1, 10**9, log=True))
    X = space.cube.snap(torch.zeros(3, 3, dtype=torch.float64))
    found = Density.fit(X, space.cube, 1e-3).log_prob(space.cube.snap(torch.ones(2, 3, dtype=torch.float64)))
    assert found.isfinite().all()


def test_candidates_follow_the_widened_density():
    cube = SearchSpace(x=Float(0, 1), c=Categorical(["a", "b", "c"])).cube
    X = torch.tensor([[0.1, 1 / 6], [0.7, 0.5]], dtype=torch.float64)
    density = Density.fit(X, cube, 1e-3)
    drawn = density.sample(4000, 0.5, rng())
    h = 0.5 * float(density.bandwidth[0])
    mixture = [stats.truncnorm(-x / h, (1 - x) / h, x, h) for x in (0.1, 0.7)]
    cdf = stats.ks_1samp(drawn[:, 0], lambda v: (mixture[0].cdf(v) + mixture[1].cdf(v)) / 2)
    assert cdf.pvalue > 1e-3
    other = 0.5 / 3  # half the weight (1 / 3) of the uniform distribution, on each of three levels
    shares = np.array([other / 3 + (1 - other) / 2] * 2 + [other / 3])
    counts = torch.bincount(cube.level(drawn, 1), minlength=3).numpy()
    assert stats.chisquare(counts, 4000 * shares).pvalue > 1e-3


def test_candidates_reach_the_end_points():
    cube = SearchSpace(n=Int(0, 9)).cube
    X = cube.at_level(0, torch.tensor([1, 4, 8]))[:, None]
    drawn = cube.snap(Density.fit(X, cube, 1e-3).sample(500, 3.0, rng()))
    assert set(cube.level(drawn, 0).tolist()) == set(range(10))


# ---------------------------------------------------------------- the published density


def codes(space, X):
    Z = X.clone().numpy()
    for j, name in enumerate(space.columns):
        if isinstance(space.parameters[name], Categorical):
            Z[:, j] = np.floor(Z[:, j] * space.parameters[name].n_levels)
    return Z


@statsmodels_warns
def test_the_reference_density_is_statsmodels():
    sm = pytest.importorskip("statsmodels.nonparametric.api", reason="statsmodels is the oracle")
    X = MIXED.cube.draw(15, rng(3))
    found = ReferenceDensity.fit(X, MIXED.cube, 1e-3, rng())
    oracle = sm.KDEMultivariate(codes(MIXED, X), var_type="ccu", bw="normal_reference")
    assert found.bandwidth.tolist() == pytest.approx(oracle.bw.tolist(), rel=1e-12)
    C = MIXED.cube.draw(40, rng(4))
    pdf = np.maximum(oracle.pdf(codes(MIXED, C)), 1e-32)
    assert found.log_prob(C).exp().tolist() == pytest.approx(pdf.tolist(), rel=1e-9)


def test_the_reference_keeps_the_faults_of_the_published_code():
    space = SearchSpace(c=Categorical(range(8)))
    spread = ReferenceDensity.fit(space.cube.enumerate(), space.cube, 1e-3, rng())
    assert float(spread.bandwidth) > 1  # so that a match counts less than nothing
    single = ReferenceDensity.fit(space.cube.enumerate()[:1].repeat(9, 1), space.cube, 1e-3, rng())
    found = single.log_prob(space.cube.enumerate()[:2])
    assert float(found[0]) == pytest.approx(math.log(1 - 1e-3))
    assert float(found[1]) == inf


def test_the_score_orders_what_is_not_finite_as_published():
    l_ = torch.tensor([0.0, inf, inf, nan, 1.0, 0.0]).double()
    g = torch.tensor([0.0, 0.0, inf, 0.0, inf, nan]).double()
    score = _score(l_, g).tolist()
    assert score[0] == 0
    assert score[1] == torch.finfo(torch.float64).max
    assert score[2] == score[3] == -inf
    assert score[4] == inf
    assert score[5] == pytest.approx(-math.log(1e-32))


def test_the_reference_imputes_from_donors():
    X = CONDITIONAL.cube.draw(40, rng(1))
    active = CONDITIONAL.cube.active(X)
    Z = ReferenceDensity.fit(X, CONDITIONAL.cube, 1e-3, rng()).Z
    known = torch.tensor(codes(CONDITIONAL, X))
    assert torch.equal(Z[active], known[active])
    for j in CONDITIONAL.cube.conditional:
        assert set(Z[:, j].tolist()) <= set(known[active[:, j], j].tolist())
    alone = X[~active[:, 0]]
    drawn = ReferenceDensity.fit(alone, CONDITIONAL.cube, 1e-3, rng()).Z
    assert drawn[:, 0].unique().numel() == len(alone)  # nobody to copy: uniform
    assert set(drawn[:, 2].tolist()) == {0.0, 1.0}
    assert drawn.isfinite().all()


def published_proposal(oracle, Z, y, n_levels, draws, *, n_samples=64):
    """The published rule, written down once more with scipy and statsmodels; numbers, codes for choices."""
    n, d = Z.shape
    n_good, n_bad = max(d + 1, (15 * n) // 100), max(d + 1, (85 * n) // 100)
    best_first = np.argsort(y, kind="stable")
    kinds = "".join("u" if k else "c" for k in n_levels)
    kdes = []
    for rows in (best_first[:n_good], best_first[n_good : n_good + n_bad]):
        kde = oracle.KDEMultivariate(Z[rows], var_type=kinds, bw="normal_reference")
        kde.bw = np.clip(kde.bw, 1e-3, None)
        kdes.append(kde)
    good, bad = kdes
    best, best_value = None, np.inf
    for _ in range(n_samples):
        centre = good.data[draws.integers(len(good.data))]
        vector = np.empty(d)
        for j, (m, h) in enumerate(zip(centre, good.bw, strict=True)):
            if n_levels[j]:
                vector[j] = m if draws.random() < 1 - h else draws.integers(n_levels[j])
            else:
                s = 3 * h
                vector[j] = stats.truncnorm.rvs(-m / s, (1 - m) / s, m, s, random_state=draws)
        value = max(1e-32, bad.pdf(vector[None])) / max(1e-32, good.pdf(vector[None]))
        if value < best_value:
            best, best_value = vector, value
    return best


@statsmodels_warns
def test_the_reference_proposes_in_the_published_distribution():
    sm = pytest.importorskip("statsmodels.nonparametric.api", reason="statsmodels is the oracle")
    space = SearchSpace(x=Float(0, 1), y=Float(0, 1), c=Categorical(["a", "b", "c", "d", "e"]))
    X = space.cube.draw(40, rng(7))
    loss = (X[:, 0] - 0.9).square() + (X[:, 1] - 0.4).square() + 0.3 * (X[:, 2] > 0.4)
    Z, draws = codes(space, X), np.random.default_rng(0)
    theirs = np.array([published_proposal(sm, Z, loss.numpy(), [0, 0, 5], draws) for _ in range(100)])
    suggester = BOHBSuggester(reference=True, random_fraction=0.0)
    ours = torch.cat([suggester.suggest(data_of(X, -loss, number=k), space.cube, 1, 0).X for k in range(600)])
    for j in (0, 1):
        assert stats.ks_2samp(theirs[:, j], ours[:, j].numpy()).pvalue > 1e-3
    level = space.cube.level(ours, 2).numpy()
    table = np.array([np.bincount(theirs[:, 2].astype(int), minlength=5), np.bincount(level, minlength=5)])
    assert stats.chi2_contingency(table[:, table.sum(0) > 0]).pvalue > 1e-3
    # and the test can tell: the repaired model proposes something else
    repaired = BOHBSuggester(random_fraction=0.0)
    other = torch.cat([repaired.suggest(data_of(X, -loss, number=k), space.cube, 1, 0).X for k in range(300)])
    pvalues = [stats.ks_2samp(theirs[:, j], other[:, j].numpy()).pvalue for j in (0, 1)]
    assert min(pvalues) < 1e-3


# ---------------------------------------------------------------- the split


def info_of(data, cube, **options):
    return BOHBSuggester(random_fraction=0.0, **options).suggest(data, cube, 1, 0).info


def test_the_reference_split():
    cube = Cube.continuous(2)
    found = {n: info_of(observed(cube, n), cube, reference=True) for n in (5, 6, 7, 20, 100)}
    assert found[5] == {"source": "random"}
    assert found[6] == {"source": "bohb", "budget": None, "n_good": 3, "n_bad": 3}
    assert (found[7]["n_good"], found[7]["n_bad"]) == (3, 4)
    assert (found[20]["n_good"], found[20]["n_bad"]) == (3, 17)
    assert (found[100]["n_good"], found[100]["n_bad"]) == (15, 85)


def test_the_repaired_split():
    cube = Cube.continuous(2)
    found = {n: info_of(observed(cube, n), cube) for n in (5, 6, 60)}
    assert found[5] == {"source": "random"}
    assert (found[6]["n_good"], found[6]["n_bad"]) == (3, 3)
    assert (found[60]["n_good"], found[60]["n_bad"]) == (9, 51)
    wide = Cube.continuous(30)
    assert info_of(observed(wide, 16), wide)["n_good"] == 8
    assert info_of(observed(wide, 16), wide, reference=True) == {"source": "random"}
    assert info_of(observed(cube, 8), cube, min_points=4)["n_good"] == 4


def split_of(data, cube, **options):
    return next(iter(BOHBSuggester(**options)._splits(data, cube)), None)


def test_the_failed_and_the_running_are_bad():
    cube = Cube.continuous(1)
    X = torch.linspace(0, 0.9, 10, dtype=torch.float64)[:, None]
    Y = torch.arange(10.0).double()
    Y[9] = nan
    running = torch.tensor([[0.95], [0.8]], dtype=torch.float64)  # the second was observed here, and goes on
    split = split_of(data_of(X, Y, pending=running), cube)
    assert split.good.tolist() == X[[8, 7]].tolist()
    assert split.bad.tolist() == torch.cat([X[[6, 5, 4, 3, 2, 1, 0, 9]], running[:1]]).tolist()
    published = split_of(data_of(X, Y, pending=running), cube, reference=True)
    assert published.bad.tolist() == X[[6, 5, 4, 3, 2, 1, 0, 9]].tolist()


def test_one_that_failed_later_is_bad():
    cube = Cube.continuous(1)
    X = torch.linspace(0, 0.9, 10, dtype=torch.float64)[:, None]
    X, Y = torch.cat([X, X[9:]]), torch.cat([torch.arange(10.0), torch.tensor([nan])]).double()
    split = split_of(data_of(X, Y, [1.0] * 10 + [nan]), cube)
    assert split.good.tolist() == X[[8, 7]].tolist()
    assert split.bad[-1].tolist() == X[9].tolist()


def test_the_largest_budget_with_enough_is_modelled():
    cube = Cube.continuous(1)
    X = cube.draw(20, rng())
    budgets = [1.0] * 12 + [3.0] * 5 + [9.0] * 3
    for reference in (False, True):
        split = split_of(data_of(X, X[:, 0], budgets), cube, reference=reference)
        assert (split.budget, split.n) == (3.0, 5)
    split = split_of(data_of(X, X[:, 0], budgets[:17] + [nan] * 3), cube)
    assert split.n == 8  # of unknown budget is of full budget
    assert split_of(data_of(X, X[:, 0], [1.0] * 3 + [float(k) for k in range(2, 19)]), cube) is None


# ---------------------------------------------------------------- budgets


def two_rungs(foretells, n=60, n_high=24, seed=0):
    """Values at budget 1 that foretell those at 9, or say the opposite; and the cube."""
    cube = Cube.continuous(2)
    X = cube.draw(n, rng(seed))
    at_9 = -(X - 0.7).square().sum(-1)
    at_1 = at_9 if foretells else -at_9
    Y = torch.cat([at_1, at_9[:n_high]])
    return data_of(torch.cat([X, X[:n_high]]), Y, [1.0] * n + [9.0] * n_high), cube


def test_a_budget_that_foretells_the_highest_has_a_part_and_one_that_misleads_has_none():
    thetas = {}
    for foretells in (True, False):
        data, cube = two_rungs(foretells, n_high=12)
        suggester = BOHBSuggester(random_fraction=0.0)
        thetas[foretells] = suggester.suggest(data, cube, 1, 0).info["theta"]
    assert thetas[True]["1"] > 0.3
    assert thetas[False] == {"9": 1.0, "1": 0.0}
    assert all(sum(theta.values()) == pytest.approx(1.0) for theta in thetas.values())


def test_the_highest_budget_weighs_more_the_more_was_seen_there():
    weights = []
    for n_high in (12, 60, 200):
        data, cube = two_rungs(True, n=400, n_high=n_high)
        weights.append(BOHBSuggester(random_fraction=0.0).suggest(data, cube, 1, 0).info["theta"]["9"])
        assert weights[-1] >= 1 / (1 + 2 * math.exp(-(n_high - 10) / 40)) - 1e-9
    assert weights[2] > 0.98


def test_until_six_are_seen_at_a_higher_budget_the_lowest_is_modelled_alone():
    data, cube = two_rungs(True, n_high=5)
    info = BOHBSuggester(random_fraction=0.0).suggest(data, cube, 1, 0).info
    assert info["budget"] == 1.0
    assert "theta" not in info


def test_a_mixture_is_the_weighted_sum_of_its_densities():
    X = MIXED.cube.draw(30, rng())
    one, other = (Density.fit(part, MIXED.cube, 1e-3) for part in X.split([10, 20]))
    mixture = Mixture([one, other], torch.tensor([0.25, 0.75], dtype=torch.float64))
    at = MIXED.cube.draw(50, rng(1))
    expected = 0.25 * one.log_prob(at).exp() + 0.75 * other.log_prob(at).exp()
    assert torch.allclose(mixture.log_prob(at).exp(), expected)
    drawn = mixture.sample(4000, 1.0, rng(2))
    alone = [part.sample(4000, 1.0, rng(3))[:, 0] for part in (one, other)]
    expected_mean = 0.25 * alone[0].mean() + 0.75 * alone[1].mean()
    assert drawn[:, 0].mean() == pytest.approx(float(expected_mean), abs=0.03)


def test_the_density_of_others_is_that_without_the_datum():
    X = MIXED.cube.draw(12, rng())
    density = Density.fit(X, MIXED.cube, 1e-3)
    without = Density(X[1:], density.active[1:], density.bandwidth, MIXED.cube)
    assert density.log_prob(X[:1], of_others=True).item() == pytest.approx(without.log_prob(X[:1]).item())
    at = MIXED.cube.draw(5, rng(9))
    assert torch.allclose(density.log_prob(at, of_others=True), density.log_prob(at))


def test_several_objectives_are_ranked_by_domination():
    Y = torch.tensor([[3.0, 0.0], [2.0, 2.0], [1.0, 1.0], [0.0, 3.0], [1.5, 1.5]])
    assert _best_first(Y).tolist() == [0, 1, 3, 4, 2]
    assert _best_first(Y[:0]).tolist() == []
    assert _best_first(torch.tensor([[1.0], [2.0], [1.0]])).tolist() == [1, 0, 2]


def test_random_points_become_rarer():
    cube = Cube.continuous(1)

    def share(n, **options):
        data = [observed(cube, n, number=k) for k in range(300)]
        infos = [BOHBSuggester(**options).suggest(one, cube, 1, 0).info for one in data]
        return sum(info["source"] == "random" for info in infos) / 300

    assert share(4) == pytest.approx(1 / 3, abs=0.09)
    assert share(40) == pytest.approx(0.1, abs=0.07)
    assert share(40, reference=True) == pytest.approx(1 / 3, abs=0.09)


# ---------------------------------------------------------------- proposals


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("space", [MIXED, CONDITIONAL], ids=["mixed", "conditional"])
def test_proposals_are_new_points_of_the_space(space, reference, device):
    suggester = BOHBSuggester(reference=reference, random_fraction=0.0)
    for seed in range(5):
        data = observed(space.cube, 30, seed)
        data = data_of(data.X.to(device), data.Y.to(device), data.budget.to(device))
        found = suggester.suggest(data, space.cube, 3, seed)
        assert found.info["source"] == "bohb"
        X = found.X.cpu()
        assert X.shape == (3, space.cube.d)
        assert torch.equal(space.cube.snap(X), X)
        assert is_new(X, data.seen.cpu()).all()
        for config in space.decode(X):
            assert space.validate(config) == config


@pytest.mark.parametrize("reference", [False, True])
def test_seeds_address_proposals(reference):
    suggester = BOHBSuggester(reference=reference)
    data = observed(MIXED.cube, 30)
    one = suggester.suggest(data, MIXED.cube, 2, 0).X
    assert torch.equal(one, suggester.suggest(data, MIXED.cube, 2, 0).X)
    assert not torch.equal(one, suggester.suggest(data, MIXED.cube, 2, 1).X)
    later = data_of(data.X, data.Y, number=1)
    assert not torch.equal(one, suggester.suggest(later, MIXED.cube, 2, 0).X)


@pytest.mark.parametrize("reference", [False, True])
def test_a_finite_space_is_asked_for_to_the_end(reference):
    space = SearchSpace(a=Int(0, 4), c=Categorical(["p", "q", "r"]), b=Categorical([1, 2], when={"c": "p"}))
    suggester = BOHBSuggester(reference=reference)
    X = space.cube.draw(0, rng())
    for number in range(20):
        x = suggester.suggest(data_of(X, -(X - 0.3).abs().sum(-1), number=number), space.cube, 1, 0).X
        assert len(x) == 1
        X = torch.cat([X, x])
    assert is_new(space.cube.enumerate(), X).sum() == 0
    assert len(suggester.suggest(data_of(X, X.sum(-1)), space.cube, 2, 0).X) == 0


def test_constraints_hold():
    space = SearchSpace(a=Int(1, 30), b=Int(1, 30), constraints="a + b <= 25")
    data = observed(space.cube, 25, target=0.45)
    X = BOHBSuggester(random_fraction=0.0).suggest(data, space.cube, 5, 0).X
    assert len(X) == 5
    assert space.cube.feasible(X).all()


def test_parallel_workers_get_distinct_points():
    cube = Cube.continuous(2)
    data = observed(cube, 30)
    X = BOHBSuggester().suggest(data, cube, 64, 0).X
    assert len(X) == 64
    assert torch.pdist(X).min() > 1e-4


def run(suggester, cube, loss, n, seed):
    X, Y = cube.draw(0, rng()), torch.empty(0, dtype=torch.float64)
    for number in range(n):
        X = torch.cat([X, suggester.suggest(data_of(X, Y, number=number), cube, 1, seed).X])
        Y = -loss(X)
    return float(-Y.max())


@pytest.mark.parametrize("reference", [False, True])
def test_better_points_than_random_search(reference):
    """Twelve seeds, sixty trials, three numbers and a choice; a sign test at 11 of 12 has p = 0.003."""
    space = SearchSpace(x=Float(0, 1), y=Float(0, 1), z=Float(0, 1), c=Categorical(["a", "b"]))

    def loss(X):
        return (X[:, :3] - 0.8).square().sum(-1) + 0.2 * (X[:, 3] > 0.5)

    wins = sum(
        run(BOHBSuggester(reference=reference), space.cube, loss, 60, seed)
        < run(RandomSuggester(), space.cube, loss, 60, seed)
        for seed in range(12)
    )
    assert wins >= 10


def test_many_unordered_choices_are_learned():
    """Eight choices of which one is good: the published bandwidth would push it away."""
    space = SearchSpace(x=Float(0, 1), c=Categorical(["a", "b", "c", "d", "e", "f", "g", "h"]))
    X = space.cube.draw(60, rng(2))
    loss = (X[:, 0] - 0.5).square() + (space.cube.level(X, 1) != 5)
    suggester = BOHBSuggester(random_fraction=0.0)
    found = torch.cat([suggester.suggest(data_of(X, -loss, number=k), space.cube, 1, 0).X for k in range(20)])
    assert (space.cube.level(found, 1) == 5).double().mean() > 0.8


def test_the_generator_is_the_suggesters_own():
    before = torch.get_rng_state()
    BOHBSuggester().suggest(observed(MIXED.cube, 30), MIXED.cube, 1, 0)
    assert torch.equal(before, torch.get_rng_state())
    assert generator(0, 0, "density", 0).initial_seed() != generator(0, 0, "density", 1).initial_seed()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_fraction": 0}, "`top_fraction` must be a finite number > 0 and < 1, got 0"),
        ({"top_fraction": "x"}, "`top_fraction` must be a finite number > 0 and < 1, got 'x'"),
        ({"random_fraction": 1.5}, r"`random_fraction` must be a finite number >= 0 and <= 1, got 1.5"),
        ({"n_candidates": 0}, "`n_candidates` must be a whole number >= 1, got 0"),
        ({"n_candidates": 2.5}, "`n_candidates` must be a whole number >= 1, got 2.5"),
        ({"bandwidth_factor": 0}, "`bandwidth_factor` must be a finite number > 0, got 0"),
        ({"min_bandwidth": inf}, "`min_bandwidth` must be a finite number > 0, got inf"),
        ({"min_points": True}, "`min_points` must be a whole number >= 1, got True"),
    ],
)
def test_settings_are_checked(options, message):
    with pytest.raises(SettingError, match=message):
        BOHBSuggester(**options)
