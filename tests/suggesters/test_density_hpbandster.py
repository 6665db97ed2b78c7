"""The reference mode against HpBandSter itself, where it is installed (it is not in CI: it needs a compiler).

Integers are left out: HpBandSter takes their places in the unit cube from ConfigSpace, which since version
1.0 puts k of K at k / (K - 1), and put it at the middle of its cell, as we do, when HpBandSter was written.
"""

import logging
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.peers import configspace
from gpbo.data import Dataset
from gpbo.space import Categorical, Float, SearchSpace
from gpbo.suggesters.density import BOHBSuggester
from gpbo.suggesters.kernel_density import ReferenceDensity

pytest.importorskip("hpbandster", reason="HpBandSter is not installed; it is the oracle")

# in ConfigSpace's order: by name, and children behind their parents
PLAIN = SearchSpace(c=Categorical(["p", "q", "r", "s", "t"]), lr=Float(1e-5, 1e-1, log=True), x=Float(0, 1))
CONDITIONAL = SearchSpace(
    a=Categorical(["p", "q"]),
    x=Float(0, 1),
    b=Categorical([1, 2, 3], when={"a": "p"}),
    y=Float(-1, 3, when={"a": "q"}),
)


def observed(space, n, seed=5):
    X = space.cube.draw(n, torch.Generator().manual_seed(seed))
    loss = (X - 0.7).square().sum(-1) + 0.3 * (X[:, 0] > 0.6)
    loss[[i for i in (0, 1, 10) if i < n]] = (
        torch.nan
    )  # one failed at each budget; theirs sorts many unstably
    budgets = torch.tensor([1.0, 3.0, 9.0], dtype=torch.float64)[torch.arange(n) * 7 % 12 // 5]
    return Dataset(X, -loss[:, None], budgets, X[:0])


def hpbandster(space, data, **options):
    """HpBandSter's generator after all of the data, told in the order of the trials."""
    from hpbandster.optimizers.config_generators.bohb import BOHB

    with warnings.catch_warnings(action="ignore"):
        theirs = configspace.to_configspace(space, 0)
        assert list(theirs) == list(space.columns)
        generator = BOHB(theirs, logger=logging.getLogger("hpbandster.test"), **options)
        configs = space.decode(data.X)
        last = {budget: i for i, budget in enumerate(data.budget.tolist())}
        for i, (config, y, budget) in enumerate(
            zip(configs, data.Y[:, 0].tolist(), data.budget.tolist(), strict=True)
        ):
            job = SimpleNamespace(
                result=None if y != y else {"loss": -y},
                kwargs={"budget": budget, "config": configspace.to_values(space, config)},
                exception=None,
            )
            generator.new_result(job, update_model=last[budget] == i)
    return generator


def test_the_constants_are_hpbandsters():
    ours, theirs = BOHBSuggester(reference=True), hpbandster(PLAIN, observed(PLAIN, 1))
    assert theirs.top_n_percent == 100 * ours.top_fraction
    assert theirs.num_samples == ours.n_candidates
    assert theirs.random_fraction == ours.random_fraction
    assert theirs.bw_factor == ours.bandwidth_factor
    assert theirs.min_bandwidth == ours.min_bandwidth


@pytest.mark.parametrize("n", [20, 30, 60, 200])
def test_the_densities_are_hpbandsters_point_by_point(n):
    data = observed(PLAIN, n)
    theirs = hpbandster(PLAIN, data)
    split = next(iter(BOHBSuggester(reference=True)._splits(data, PLAIN.cube)), None)
    assert split.budget == theirs.largest_budget_with_model()
    at = PLAIN.cube.draw(50, torch.Generator().manual_seed(8))
    codes = at.numpy().copy()
    codes[:, 0] = np.floor(codes[:, 0] * 5)
    for name in ("good", "bad"):
        kde = theirs.kde_models[split.budget][name]
        ours = ReferenceDensity.fit(getattr(split, name), PLAIN.cube, 1e-3, torch.Generator())
        assert ours.Z.numpy() == pytest.approx(kde.data, abs=1e-9)
        assert ours.bandwidth.tolist() == pytest.approx(kde.bw.tolist(), rel=1e-7)
        with warnings.catch_warnings(action="ignore"):  # it divides by 0 where one choice alone is left
            expected = np.log(np.maximum(kde.pdf(codes), 1e-32))
        assert ours.log_prob(at).numpy() == pytest.approx(expected, rel=1e-6, abs=1e-6, nan_ok=True)


def test_the_model_starts_when_hpbandsters_does():
    for n in range(1, 40):
        data = observed(PLAIN, n)
        split = next(iter(BOHBSuggester(reference=True)._splits(data, PLAIN.cube)), None)
        budget = hpbandster(PLAIN, data).largest_budget_with_model()
        assert (None if split is None else split.budget) == (None if budget == -np.inf else budget)


def rows(space, configs):
    """Configs as points of which distances mean something: choices apart, what is absent in the middle."""
    columns = []
    for name in space.columns:
        parameter = space.parameters[name]
        if isinstance(parameter, Categorical):
            columns += [[float(c.get(name) == choice) for c in configs] for choice in parameter.choices]
        else:
            alone = SearchSpace({name: Float(parameter.low, parameter.high, log=parameter.log)})
            columns.append([float(alone.encode([{name: c[name]}])) if name in c else 0.5 for c in configs])
    return np.array(columns).T


def energy_p(one, two, n_permutations=2000):
    """The p-value of the energy test (Szekely and Rizzo 2004) that two samples have one distribution."""
    pooled = np.concatenate([one, two])
    D = np.linalg.norm(pooled[:, None] - pooled, axis=-1)
    signs = np.concatenate([np.full(len(one), 1 / len(one)), np.full(len(two), -1 / len(two))])
    draws = np.random.default_rng(0)
    S = np.stack([signs, *(draws.permutation(signs) for _ in range(n_permutations))])
    energy = -((S @ D) * S).sum(-1)
    return (1 + (energy[1:] >= energy[0] - 1e-15).sum()) / (1 + n_permutations)


@pytest.mark.parametrize("space", [PLAIN, CONDITIONAL], ids=["plain", "conditional"])
def test_the_proposals_have_hpbandsters_distribution(space):
    data = observed(space, 60)
    before = np.random.get_state()
    np.random.seed(3)
    theirs = []
    with warnings.catch_warnings(action="ignore"):
        for _ in range(20):  # the donors of inactive columns are drawn anew
            generator = hpbandster(space, data, random_fraction=0)
            found = [generator.get_config(9.0) for _ in range(7)]
            assert all(info["model_based_pick"] for _, info in found)
            theirs += [configspace.from_values(space, values) for values, _ in found]
    np.random.set_state(before)
    theirs = rows(space, [space.validate(config) for config in theirs])

    def proposed(**options):
        suggester = BOHBSuggester(random_fraction=0.0, **options)
        numbered = [Dataset(data.X, data.Y, data.budget, data.pending, number=k) for k in range(420)]
        X = torch.cat([suggester.suggest(one, space.cube, 1, 0).X for one in numbered])
        return rows(space, space.decode(X))

    assert energy_p(theirs, proposed(reference=True)) > 0.01
    assert energy_p(theirs, proposed()) < 0.002  # the test can tell: the repaired model proposes otherwise
