import math

import torch
from hypothesis import given
from hypothesis import strategies as st

import gpbo
from gpbo.gp.large import choose_rows, choose_rows_of_budgets
from gpbo.suggesters import bayes


def test_up_to_the_limit_every_row_is_kept(device):
    y = torch.tensor([0.3, math.nan, 0.1], dtype=torch.float64, device=device)
    assert choose_rows(y, 3).tolist() == [0, 1, 2]


def test_the_better_half_is_the_best_and_the_rest_is_even_over_the_ranks(device):
    y = -torch.arange(100, dtype=torch.float64, device=device)  # row k has rank k
    assert choose_rows(y, 10).tolist() == [0, 1, 2, 3, 4, 5, 29, 52, 75, 99]  # 5 + 94 k / 4, rounded


def test_failed_rows_rank_last():
    y = torch.arange(20, dtype=torch.float64)
    y[::2] = math.nan
    kept = choose_rows(y, 4)
    assert {17, 19} <= set(kept.tolist())
    assert int(y[kept].isnan().sum()) >= 1


def test_of_budgets_the_highest_are_kept_whole_and_the_next_in_part():
    y = torch.arange(30, dtype=torch.float64)
    budget = torch.tensor([1.0] * 15 + [3.0] * 10 + [9.0] * 5, dtype=torch.float64)
    kept = choose_rows_of_budgets(y, budget, 16).tolist()
    assert kept[-5:] == [25, 26, 27, 28, 29]
    assert [sum(low <= i < high for i in kept) for low, high in [(0, 15), (15, 25)]] == [6, 5]
    assert {23, 24, 13, 14} <= set(kept)
    assert choose_rows_of_budgets(y, budget, 30).tolist() == list(range(30))


def test_a_budget_with_more_rows_than_there_is_room_leaves_half_of_it_to_those_below():
    y = torch.arange(60, dtype=torch.float64)
    budget = torch.tensor([1.0] * 20 + [9.0] * 40, dtype=torch.float64)
    kept = choose_rows_of_budgets(y, budget, 30).tolist()
    assert [sum(i < 20 for i in kept), sum(i >= 20 for i in kept)] == [15, 15]
    budget = torch.tensor([1.0] * 3 + [9.0] * 57, dtype=torch.float64)
    kept = choose_rows_of_budgets(y, budget, 30).tolist()
    assert [sum(i < 3 for i in kept), sum(i >= 3 for i in kept)] == [3, 27]


@given(st.integers(1, 60), st.integers(2, 20), st.integers(0, 5))
def test_rows_are_distinct_in_order_and_hold_the_best(n, limit, seed):
    y = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    kept = choose_rows(y, limit)
    assert len(kept) == min(n, limit)
    assert (kept.diff() > 0).all()
    assert int(y.argmax()) in kept


def test_a_study_beyond_the_limit_says_that_it_used_a_subset(monkeypatch):
    monkeypatch.setattr(bayes, "EXACT_ON_CPU", 12)
    study = gpbo.Study(gpbo.SearchSpace(x=gpbo.Float(0.0, 1.0)), suggester=gpbo.GPSuggester(n_initial=3))
    for k in range(20):
        study.add({"x": k / 20}, (k / 20 - 0.33) ** 2)
    trial = study.ask()
    assert trial.info["subset"] == 12
    assert abs(trial.config["x"] - 0.33) < 0.1
