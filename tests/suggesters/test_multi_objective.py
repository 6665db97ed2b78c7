import pytest
import torch
from botorch.test_functions.multi_objective import BraninCurrin
from botorch.utils.multi_objective.hypervolume import Hypervolume

from gpbo import Float, Study
from gpbo.data import Dataset
from gpbo.errors import SettingError
from gpbo.seeding import generator
from gpbo.space import SearchSpace
from gpbo.suggesters.bayes import GPSuggester
from gpbo.suggesters.multi_objective import MultiObjectiveSuggester
from gpbo.suggesters.quasirandom import RandomSuggester
from gpbo.trial import State

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
def test_the_best_that_keeps_a_bound(sign):
    # The least x + 2 y with x y >= 1/10 is sqrt(0.8), at x = 2 y.
    study = Study(
        SQUARE,
        direction="minimize" if sign > 0 else "maximize",
        outcome_constraints="area >= 0.1" if sign > 0 else "area <= -0.1",
        device="cpu",
    )
    study.optimize(
        lambda c: (sign * (c["x"] + 2.0 * c["y"]), {"area": sign * c["x"] * c["y"]}), 20, progress=False
    )
    assert sign * study.best.value < 1.01 * 0.8**0.5


def test_a_noisy_bound_and_failures():
    # The bound's noise has a twentieth of its range; one trial in four gives no number.
    noise = generator(0, "noise")

    def objective(config):
        if config["x"] > 0.75:
            raise ValueError("too far")
        seen = config["x"] * config["y"] + 0.05 * float(torch.randn((), generator=noise))
        return config["x"] + 2.0 * config["y"], {"area": seen}

    study = Study(SQUARE, outcome_constraints="area >= 0.1", device="cpu")
    study.optimize(objective, 25, progress=False)
    proposed = [t for t in study.trials if t.info["source"] == "multi_objective"]
    assert len(proposed) == 20
    assert sum(t.state is State.FAILED for t in proposed) < 5
    truly = [t.config["x"] * t.config["y"] for t in proposed if t.state is State.COMPLETE]
    assert sorted(truly)[len(truly) // 2] > 0.05  # it does not chase lucky measurements of infeasible points
    near = [t for t in proposed if abs(t.config["x"] * t.config["y"] - 0.1) < 0.05]
    assert len(near) >= 5


def test_other_suggesters_keep_away_from_what_is_infeasible():
    # Nothing is feasible beyond x + y = 1, where all is best: half of random points.
    study = Study(SQUARE, suggester=GPSuggester(), outcome_constraints="sum <= 1", direction="maximize")
    study.optimize(lambda c: (c["x"] + c["y"], {"sum": c["x"] + c["y"]}), 20, progress=False)
    proposed = [t.outcomes["sum"] for t in study.trials if t.info["source"] == "gp"]
    assert (
        sum(total > 1.1 for total in proposed) <= 1
    )  # of random points six; at the bound both sides are right
    assert study.best.value > 0.9


def test_a_search_for_what_is_feasible_when_nothing_was():
    # A disc of radius 0.1, 3 % of the square, and no objective to speak of.
    def objective(config):
        return 0.0, {"r": ((config["x"] - 0.81) ** 2 + (config["y"] - 0.19) ** 2) ** 0.5}

    study = Study(SQUARE, outcome_constraints="r <= 0.1", device="cpu")
    study.optimize(objective, 15, progress=False)
    assert study.best.outcomes["r"] <= 0.1


def test_two_objectives_and_a_constraint():
    # The front of x and y with x + y >= 0.8; up to (1, 1) it dominates 1 - 0.8^2 / 2.
    study = Study(SQUARE, outcome_constraints="sum >= 0.8", direction=["minimize"] * 2, device="cpu")
    study.optimize(lambda c: ((c["x"], c["y"]), {"sum": c["x"] + c["y"]}), 20, progress=False)
    kept = -torch.tensor([t.values for t in study.pareto_front], dtype=torch.float64)
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


def test_only_the_largest_budget_is_modelled():
    cube = SearchSpace(SQUARE).cube
    X = cube.draw(15, torch.Generator().manual_seed(0))
    Y = torch.stack([-((X - 0.2) ** 2).sum(-1), -((X - 0.8) ** 2).sum(-1)], dim=-1)
    Y[10:] = 100.0 * X[10:]
    budget = torch.where(torch.arange(15) < 10, 9.0, 1.0).double()
    all_rows = MultiObjectiveSuggester().suggest(Dataset(X, Y, budget, X[:0], 15), cube, 1, 0)
    without = MultiObjectiveSuggester().suggest(Dataset(X[:10], Y[:10], budget[:10], X[:0], 15), cube, 1, 0)
    assert torch.equal(all_rows.X, without.X)
    assert all_rows.info == without.info


@pytest.mark.parametrize(
    ("m", "infeasible", "sources"),
    [
        (2, 0, ["multi_objective", "multi_objective"]),
        (3, 0, ["multi_objective", "gp"]),
        (3, 9, ["multi_objective", "multi_objective"]),  # too little is known of what is feasible
        (5, 0, ["gp", "gp"]),
    ],
)
def test_of_many_objectives_a_mix_is_improved(m, infeasible, sources):
    cube = SearchSpace(SQUARE).cube
    X = cube.draw(12, torch.Generator().manual_seed(0))
    seen = torch.stack([-((X - 0.5 * k) ** 2).sum(-1) for k in range(m)], dim=-1)
    slack = torch.where(torch.arange(12) < infeasible, -1.0, X[:, 0])
    Y = seen.masked_fill((slack < 0.0).unsqueeze(-1), torch.nan)
    outcomes = torch.cat([seen, slack.unsqueeze(-1)], dim=-1)
    for number, source in zip((12, 13), sources, strict=True):
        data = Dataset(X, Y, torch.full((12,), torch.nan), pending=X[:0], number=number, outcomes=outcomes)
        assert MultiObjectiveSuggester().suggest(data, cube, 1, 0).info["source"] == source


@pytest.mark.parametrize("values", [(0.0, 1.0), (1e300, 1e-300)])
def test_objectives_that_never_change(values):
    study = Study(SQUARE, suggester=MultiObjectiveSuggester(), direction=["minimize"] * 2, device="cpu")
    study.optimize(lambda config: values, 8, progress=False)
    assert len(study.pareto_front) == 8


def test_arguments_are_checked():
    with pytest.raises(SettingError, match=r"`n_initial` must be .* got 0"):
        MultiObjectiveSuggester(n_initial=0)
    with pytest.raises(SettingError, match="`nu` must be"):
        MultiObjectiveSuggester(nu=2)
