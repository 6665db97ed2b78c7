import pytest
import torch
from botorch.test_functions.multi_objective import BraninCurrin
from botorch.utils.multi_objective.hypervolume import Hypervolume

from gpbo import Float, Study
from gpbo.data import Dataset
from gpbo.errors import SettingError
from gpbo.space import SearchSpace
from gpbo.suggesters.multi_objective import MultiObjectiveSuggester
from gpbo.suggesters.quasirandom import RandomSuggester

SQUARE = {"x": Float(0, 1), "y": Float(0, 1)}


def zdt1(config):
    # Zitzler, Deb and Thiele 2000, the first, in two dimensions; its front is f2 = 1 - sqrt(f1).
    g = 1.0 + 9.0 * config["y"]
    return config["x"], g * (1.0 - (config["x"] / g) ** 0.5)


def branin_currin(config):
    x = torch.tensor([config["x"], config["y"]], dtype=torch.float64)
    return BraninCurrin()(x.unsqueeze(0))[0].tolist()


def hypervolume(study, reference):
    reference = -torch.tensor(reference, dtype=torch.float64)
    front = -torch.tensor([t.values for t in study.pareto_front], dtype=torch.float64)
    front = front[(front > reference).all(-1)]
    return Hypervolume(reference).compute(front) if len(front) else 0.0


@pytest.mark.parametrize(
    ("objective", "reference", "largest"),
    [(zdt1, (1.1, 1.1), 0.87666667), (branin_currin, (18.0, 6.0), 59.36011874867746)],
)
def test_the_front_grows_faster_than_by_chance(objective, reference, largest):
    shares = {"random": [], "model": []}
    for seed in range(2):
        for name, suggester in [("random", RandomSuggester()), ("model", MultiObjectiveSuggester())]:
            study = Study(
                SQUARE, suggester=suggester, direction=["minimize", "minimize"], seed=seed, device="cpu"
            )
            study.optimize(objective, 20, progress=False)
            shares[name].append(hypervolume(study, reference) / largest)
        assert not any("fallback" in t.info for t in study.trials)
    assert min(shares["model"]) > 0.8
    assert min(shares["model"]) > 1.2 * max(shares["random"])


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_constraint_is_met_where_its_value_is_on_the_right_side_of_zero(sign):
    # The least x + 2 y with x y >= 1/10 is sqrt(0.8), at x = 2 y.
    study = Study(
        SQUARE,
        suggester=MultiObjectiveSuggester(n_constraints=1),
        direction=["minimize", "minimize" if sign > 0 else "maximize"],
        device="cpu",
    )
    study.optimize(lambda c: (c["x"] + 2.0 * c["y"], sign * (0.1 - c["x"] * c["y"])), 20, progress=False)
    feasible = [t.values[0] for t in study.trials if sign * t.values[1] <= 0.0]
    assert min(feasible) < 1.01 * 0.8**0.5


def test_two_objectives_and_a_constraint():
    # The front of x and y with x + y >= 0.8; up to (1, 1) it dominates 1 - 0.8^2 / 2.
    study = Study(
        SQUARE, suggester=MultiObjectiveSuggester(n_constraints=1), direction=["minimize"] * 3, device="cpu"
    )
    study.optimize(lambda c: (c["x"], c["y"], 0.8 - c["x"] - c["y"]), 20, progress=False)
    kept = -torch.tensor([t.values[:2] for t in study.trials if t.values[2] <= 0.0], dtype=torch.float64)
    assert Hypervolume(torch.tensor([-1.0, -1.0]).double()).compute(kept) > 0.85 * (1.0 - 0.5 * 0.8**2)


def test_a_batch_does_not_repeat_itself_nor_what_is_pending():
    cube = SearchSpace(SQUARE).cube
    X = cube.draw(12, torch.Generator().manual_seed(0))
    Y = torch.stack([-((X - 0.2) ** 2).sum(-1), -((X - 0.8) ** 2).sum(-1)], dim=-1)
    data = Dataset(X, Y, torch.full((12,), torch.nan), pending=X[:0], number=12)
    [x] = MultiObjectiveSuggester().suggest(data, cube, 1, 0).X
    waiting = Dataset(X, Y, data.budget, pending=x[None], number=13)
    batch = MultiObjectiveSuggester().suggest(waiting, cube, 3, 0).X
    assert torch.pdist(torch.cat([x[None], batch])).min() > 1e-2


@pytest.mark.parametrize("values", [(0.0, 1.0), (1e300, 1e-300)])
def test_objectives_that_never_change(values):
    study = Study(SQUARE, suggester=MultiObjectiveSuggester(), direction=["minimize"] * 2, device="cpu")
    study.optimize(lambda config: values, 8, progress=False)
    assert len(study.pareto_front) == 8


def test_arguments_are_checked():
    with pytest.raises(SettingError, match="`n_constraints` must be >= 0, got -1"):
        MultiObjectiveSuggester(n_constraints=-1)
    with pytest.raises(SettingError, match=r"`n_initial` must be .* got 0"):
        MultiObjectiveSuggester(n_initial=0)
    with pytest.raises(SettingError, match="`nu` must be"):
        MultiObjectiveSuggester(nu=2)
    study = Study(SQUARE, suggester=MultiObjectiveSuggester(n_constraints=2), direction=["minimize"] * 2)
    with pytest.raises(SettingError, match="`n_constraints` must leave an objective, got 2 of 2 outcomes"):
        study.ask()
