import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gpbo.gp.fidelity import on_one_scale, places, target_budget

nan = math.nan


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_places_are_even_in_the_logarithm(device):
    assert places(tensor(1, 3, 9, 27).to(device)).tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert places(tensor(0, 1, 4).to(device)).tolist() == pytest.approx([0, 0.25, 1])
    assert places(tensor(5, 5).to(device)).tolist() == [1, 1]


def test_the_target_is_the_largest_budget_with_three_values():
    budget = tensor(1, 1, 1, 1, 3, 3, 3, 9, 9, 9)
    y = tensor(*range(9), nan)
    assert target_budget(y, budget) == 3.0
    assert target_budget(y[:6], budget[:6]) == 1.0  # two at 3
    assert target_budget(y[2:5], budget[2:5]) == 1.0  # two at 1, one at 3: the most


def test_a_linear_relation_between_budgets_is_undone(device):
    low = draw(200)
    config, half = torch.arange(200), torch.arange(100)
    y = torch.cat([low, 5.0 + 2.0 * low[half], -1.0 + 0.5 * (5.0 + 2.0 * low[:30])]).to(device)
    budget = tensor(*[1] * 200, *[3] * 100, *[9] * 30).to(device)
    configs = torch.cat([config, half, config[:30]]).to(device)
    scaled = on_one_scale(y, budget, configs)
    at_9 = (-1.0 + 0.5 * (5.0 + 2.0 * low)).to(device)  # what each would have there
    error = (scaled[:200] - at_9).abs() / at_9.std()
    assert error.median() < 0.15  # the slopes are drawn towards 1 by 5 of 30 pairs
    assert torch.equal(scaled[300:], y[300:])


def test_choosing_the_best_at_the_low_budget_does_not_bias_the_line():
    low = draw(3000)
    high = 1.0 + low + 0.7 * draw(3000, seed=1)
    best = low.topk(300).indices
    y = torch.cat([low, high[best]])
    budget = tensor(*[1] * 3000, *[3] * 300)
    scaled = on_one_scale(y, budget, torch.cat([torch.arange(3000), best]))
    line = stats.linregress(low.numpy(), scaled[:3000].numpy())
    assert line.slope == pytest.approx(1.0, abs=0.2)
    assert scaled[best].mean() == pytest.approx(float(high[best].mean()), abs=0.2)
    # by the means and the spreads at each budget the best would have looked like the average
    assert scaled[:3000].mean() < scaled[3000:].mean() - 1.0


def test_the_slope_is_theil_and_sens():
    a, b = draw(40), draw(40, seed=1)
    y, budget = torch.cat([a, b]), tensor(*[1] * 40, *[2] * 40)
    scaled = on_one_scale(y, budget, torch.arange(40).repeat(2))
    theirs = max(stats.theilslopes(b.numpy(), a.numpy()).slope, -1.0)
    slope = max((40 * theirs + 5) / 45, 0.1)
    assert torch.allclose(scaled[:40], slope * a + (b - slope * a).median(), atol=0.05)


def test_an_outlier_moves_nothing_else():
    a = draw(50)
    b = a + 1.0
    y, budget, config = torch.cat([a, b]), tensor(*[1] * 50, *[2] * 50), torch.arange(50).repeat(2)
    spoiled = y.clone()
    spoiled[60] = -1e9
    plain, other = (on_one_scale(values, budget, config)[:50] for values in (y, spoiled))
    assert torch.allclose(plain, other, atol=0.1)


def test_without_pairs_values_stay_as_they_are():
    y = tensor(1, 2, 3, 11, 12, 13)  # the first three may have been stopped for being bad
    assert torch.equal(on_one_scale(y, tensor(1, 1, 1, 3, 3, 3), torch.arange(6)), y)


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.sampled_from([1, 3, 9]), st.integers(0, 5)), min_size=1))
def test_values_stay_finite_and_in_their_order_within_a_budget(rows):
    y, budget, config = (torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True))
    y[::4] = nan
    scaled = on_one_scale(y, budget, config)
    assert torch.equal(scaled.isnan(), y.isnan())
    for level in budget[y.isfinite()].unique():
        here = (budget == level) & y.isfinite()
        falls = -scaled[here][y[here].argsort(stable=True)].diff()
        assert (falls <= 1e-6 * (1 + scaled[here].abs().max())).all()
