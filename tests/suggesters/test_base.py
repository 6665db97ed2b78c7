import math
from dataclasses import replace

import torch

from gpbo import ASHA, Float, SearchSpace, Study, simulate
from gpbo.cube import Cube
from gpbo.data import Dataset, to_dataset
from gpbo.errors import SpaceError
from gpbo.suggesters.base import few_budgets


def curves(ends, *, failed=()):
    """One config for each number in `ends`, seen at every budget up to it."""
    X = Cube.continuous(2).draw(len(ends), torch.Generator().manual_seed(0))
    rows = [(i, float(b)) for i, end in enumerate(ends) for b in range(1, end + 1)]
    which = torch.tensor([i for i, _ in rows])
    budget = torch.tensor([b for _, b in rows], dtype=torch.float64)
    Y = torch.rand(len(rows), 1, dtype=torch.float64)
    Y[torch.isin(which, torch.tensor(failed))] = math.nan
    return Dataset(X[which], Y, budget, X[:0])


def test_a_few_budgets_are_all_kept():
    data = curves([8, 3, 1])
    assert few_budgets(data) is data


def test_a_space_of_constants_is_left_alone():
    data = curves([20, 9])
    nothing = replace(data, X=data.X[:, :0])
    assert few_budgets(nothing) is nothing


def test_of_every_epoch_the_rungs_are_kept():
    data = few_budgets(curves([27] + [9] * 3 + [3] * 9 + [1] * 27))
    assert data.budget.unique().tolist() == [1, 3, 9, 27]
    assert len(data.X) == 40 + 13 + 4 + 1


def test_a_config_that_was_seen_at_no_rung_keeps_its_last_value_and_a_failed_one_all():
    data = few_budgets(curves([20, 18, 17, 16, 15, 14, 13, 12, 2] + [19] * 2, failed=[9]))
    assert len(data.X.unique(dim=0)) == 11
    alone = data.budget[(data.X[data.budget == 2.0][0] == data.X).all(-1)]
    assert alone.tolist() == [2.0]
    assert int(data.Y.isnan().sum()) == 19


def test_a_study_that_reports_every_epoch_is_modelled_at_its_rungs():
    space = SearchSpace(x=Float(0, 1))
    found = simulate(
        space, lambda config, budget: (config["x"] + 1 / budget, budget), scheduler=ASHA(1, 27), n_trials=40,
        report_budgets=range(1, 28), device="cpu",
    )  # fmt: skip
    data = to_dataset(found.study.trials, space, [False], number=40, device="cpu")
    assert len(data.budget.unique()) > 8
    assert set(few_budgets(data).budget.unique().tolist()) == {1, 3, 9, 27}


def test_an_equality_that_leaves_nothing_new_is_refused_by_name():
    study = Study(SearchSpace(x=Float(0.0, 1.0), y=Float(0.0, 1.0), constraints=["x + y == 1"]))
    for x in (0.0, 0.5, 1.0):  # no step away from these, but for the exact ones, keeps the sum
        study.add({"x": x, "y": 1.0 - x}, x)
    refused = ""
    while not refused and len(study.trials) < 12:  # the corners of the square meet it, too
        try:
            study.tell(study.ask(), 0.0)
        except SpaceError as error:
            refused = str(error)
    assert refused.startswith("the constraints 'x + y == 1': no config")
