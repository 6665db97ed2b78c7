import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

import gpbo
from gpbo import ASHA, Float, Hyperband, MultiFidelitySuggester, SearchSpace, simulate
from gpbo.cube import Cube
from gpbo.data import Dataset
from gpbo.errors import SettingError

SPACE = SearchSpace(x=Float(0, 1), y=Float(0, 1), z=Float(0, 1))


def curve(config, budget):
    """A loss that falls with the budget, and a little differently for each config; a second a unit."""
    at = math.dist((config["x"], config["y"], config["z"]), (0.3, 0.7, 0.4))
    return at + 0.3 * math.cos(9 * config["x"]) / budget + 1 / budget, budget


def simulated(scheduler, n_trials=60, **options):
    return simulate(SPACE, curve, scheduler=scheduler, n_trials=n_trials, device="cpu", **options)


def test_a_study_with_budgets_takes_it_by_default():
    trials = simulated(ASHA(1, 9)).study.trials
    assert {t.info["source"] for t in trials} == {"initial", "gp", "bohb", "random"}


def test_each_origin_has_its_part():
    by = Counter(t.info["source"] for t in simulated(Hyperband(1, 9), 100).study.trials[20:])
    assert by["gp"] > by["bohb"] > by["random"] >= 1


def test_trials_of_other_origins_hand_on_what_the_process_starts_from():
    trials = simulated(ASHA(1, 9)).study.trials
    first = next(t.number for t in trials if t.info["source"] == "gp")
    assert all("hypers" in t.info for t in trials[first:])


def test_it_is_better_than_random_for_the_same_budget():
    ahead = 0
    for seed in range(3):
        ours, theirs = (
            simulated(ASHA(1, 9), 1000, spend=150, suggester=suggester, seed=seed).incumbents()[-1].value
            for suggester in (None, gpbo.RandomSuggester())
        )
        ahead += ours < theirs
    assert ahead == 3


@pytest.mark.parametrize(("share", "origin"), [(0.0, "gp"), (1.0, "bohb")])
def test_the_share_may_be_nothing_or_all(share, origin):
    suggester = MultiFidelitySuggester(density_share=share, random_fraction=0.0)
    assert suggester.suggest(at_one_budget(6), Cube.continuous(2), 1, 0).info["source"] == origin


def at_one_budget(n, number=40):
    """`n` values at the highest budget and 20 at a lower one."""
    X = Cube.continuous(2).draw(n + 20, torch.Generator().manual_seed(0))
    budget = torch.tensor([3.0] * n + [1.0] * 20, dtype=torch.float64)
    hypers = {"lengthscale": [0.5, 0.5, 1.0], "noise_var": 1e-3, "outputscale": 1.0}
    return Dataset(X, X[:, :1], budget, X[:0], number, {"hypers": hypers, "warp": 0})


@pytest.mark.parametrize(("n", "share"), [(6, 1.0), (12, 0.5), (60, 0.1)])
def test_the_process_takes_over_as_values_come_in_at_the_highest_budget(n, share):
    """The origin is drawn from the trial's number: of two shares the larger has all trials of the other."""
    for name, origin in (("density_share", "bohb"), ("random_fraction", "random")):
        options = {"density_share": 0.0, "random_fraction": 0.0}
        faded = MultiFidelitySuggester(**options | {name: 0.8})
        plain = MultiFidelitySuggester(**options | {name: 0.8 * share})
        for number in range(30, 36):
            many, few = at_one_budget(n, number), at_one_budget(6, number)
            sources = (
                one.suggest(data, Cube.continuous(2), 1, 0).info["source"] == origin
                for one, data in ((faded, many), (plain, few))
            )
            assert len(set(sources)) == 1


@pytest.mark.parametrize(("n_running", "share"), [(8, 0.1), (16, 0.2), (80, 1.0)])
def test_it_takes_over_later_where_many_run(n_running, share):
    running = Cube.continuous(2).draw(n_running, torch.Generator().manual_seed(1))
    for name, origin in (("density_share", "bohb"), ("random_fraction", "random")):
        options = {"density_share": 0.0, "random_fraction": 0.0}
        faded = MultiFidelitySuggester(**options | {name: 0.8})
        plain = MultiFidelitySuggester(**options | {name: 0.8 * share})
        for number in range(30, 42):
            many, few = replace(at_one_budget(60, number), pending=running), at_one_budget(6, number)
            sources = (
                one.suggest(data, Cube.continuous(2), 1, 0).info["source"] == origin
                for one, data in ((faded, many), (plain, few))
            )
            assert len(set(sources)) == 1


def test_values_at_the_lowest_budget_alone_leave_the_shares_as_they_are():
    suggester = MultiFidelitySuggester(density_share=1.0, random_fraction=0.0)
    for number in range(30, 36):
        data = at_one_budget(60, number)
        lowest = replace(data, budget=torch.ones(80, dtype=torch.float64))
        assert suggester.suggest(lowest, Cube.continuous(2), 1, 0).info["source"] == "bohb"


@pytest.mark.parametrize(("n_running", "is_mixed"), [(15, False), (16, True)])
def test_where_many_run_every_other_proposal_of_the_process_is_from_a_draw(n_running, is_mixed):
    cube, process = Cube.continuous(2), MultiFidelitySuggester(density_share=0.0, random_fraction=0.0)
    running = cube.draw(n_running, torch.Generator().manual_seed(1))
    expects = []  # which of them were chosen for the improvement that is expected of them
    for number in range(40, 44):
        data = replace(at_one_budget(12, number), pending=running)
        expects.append("log_ei" in process.suggest(data, cube, 1, 0).info)
    assert expects == ([True, False] * 2 if is_mixed else [True] * 4)


@pytest.mark.parametrize("option", ["density_share", "random_fraction"])
@pytest.mark.parametrize("value", [-0.1, 1.5, math.nan, "half"])
def test_shares_are_checked(option, value):
    with pytest.raises(SettingError, match=f"`{option}` must be"):
        MultiFidelitySuggester(**{option: value})
