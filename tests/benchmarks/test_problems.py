import itertools
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.problems import PANEL, Problem, all_problems, choose, mixed, synthetic, trainings, yahpo
from gpbo import Categorical, Float, SearchSpace
from gpbo.errors import SettingError

FUNCTIONS = synthetic.functions()
WITHOUT_DATA = [*synthetic.problems(), *mixed.problems(), *trainings.problems()]


def drawn(problem, n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return problem.space.decode(problem.space.cube.draw(n, generator))


def by_name(name):
    return next(problem for problem in WITHOUT_DATA if problem.name == name)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_published_optimum_is_attained_where_it_is_said_to_be(name):
    function, problem = FUNCTIONS[name], by_name(f"{FUNCTIONS[name].group}/{name}")
    place = np.asarray(function.argmin) + synthetic.shift(name, function)
    config = dict(zip(problem.space.parameters, place.tolist(), strict=True))
    assert problem.objective(problem.space.validate(config)) == pytest.approx(function.optimum, abs=2e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_nothing_around_the_optimum_or_anywhere_is_better(name):
    function = FUNCTIONS[name]
    low, high = function.box
    rng = np.random.default_rng(0)
    argmin = np.asarray(function.argmin)
    moved = synthetic.shift(name, function)
    anywhere = rng.uniform(low - moved, high - moved, (20_000, function.d))
    near = argmin + rng.normal(0, 1e-3, (5_000, function.d)) * (high - low)
    near = np.clip(near, low, high) if not function.move else near
    # the published optima are rounded in the ninth digit
    assert function.f(np.vstack([anywhere, near])).min() >= function.optimum - 2e-6


@pytest.mark.parametrize("name", [n for n, f in FUNCTIONS.items() if f.move])
def test_a_moved_optimum_is_inside_and_off_the_centre_and_the_diagonal(name):
    function = FUNCTIONS[name]
    low, high = function.box
    unit = (np.asarray(function.argmin) + synthetic.shift(name, function) - low) / (high - low)
    assert np.all((unit > 0.1) & (unit < 0.9))
    assert np.abs(unit - 0.5).max() > 0.05
    assert np.ptp(unit) > 0.02


def test_values_from_the_literature():
    assert synthetic.rosenbrock(np.zeros((1, 4)))[0] == 3.0
    assert synthetic.rastrigin(np.ones((1, 6)))[0] == pytest.approx(6.0)
    assert synthetic.ackley(np.ones((1, 2)))[0] == pytest.approx(3.6253849384403627)
    assert synthetic.goldstein_price(np.array([[1.0, 1.0]]))[0] == pytest.approx(1876.0)
    assert synthetic.branin(np.array([[0.0, 0.0]]))[0] == pytest.approx(55.602112642270262)
    assert synthetic.powell(np.array([[3.0, -1.0, 0.0, 1.0]]))[0] == pytest.approx(215.0)
    wave = 0.0625 * (1 + 10 * np.sin(0.75 * np.pi + 1) ** 2)  # w = 3/4 in both coordinates
    assert synthetic.levy(np.zeros((1, 2)))[0] == pytest.approx(0.5 + wave + 0.0625 * 2)


def test_half_of_each_group_is_for_the_test_and_families_are_not_torn():
    counts = Counter((problem.group, problem.split) for problem in WITHOUT_DATA)
    for group in ("synthetic", "high-dimensional", "mixed", "training"):
        assert counts[group, "dev"] == counts[group, "test"]
    families = {}
    for name, function in FUNCTIONS.items():
        family = name.rsplit("-", 1)[0]
        if family != "hartmann":  # two different functions of one name
            assert families.setdefault(family, function.split) == function.split


def test_dimensions_go_from_2_to_100():
    dimensions = {
        group: {f.d for f in FUNCTIONS.values() if f.group == group}
        for group in ("synthetic", "high-dimensional")
    }
    assert dimensions["synthetic"] >= {2, 3, 4, 5, 6, 8, 10, 20}
    assert dimensions["high-dimensional"] == {50, 100}


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if n.startswith("six_") and n.endswith("-50")])
def test_only_six_coordinates_of_the_sixes_matter(name):
    function = FUNCTIONS[name]
    low, high = function.box
    x = np.random.default_rng(0).uniform(low, high)
    values = [function.f(np.where(np.arange(50) == j, high, x)[None])[0] for j in range(50)]
    assert [value != function.f(x[None])[0] for value in values] == [True] * 6 + [False] * 44


@pytest.mark.parametrize("problem", mixed.problems(), ids=lambda p: p.name)
def test_mixed_problems_are_deterministic_and_never_better_than_their_optimum(problem):
    configs = drawn(problem, 500)
    values = [problem.objective(problem.space.validate(config)) for config in configs]
    assert values == [problem.objective(config) for config in configs]
    assert min(values) >= problem.optimum
    assert len(set(values)) > 100


DOWNHILL = [p for p in mixed.problems() if p.name not in ("mixed/pairs-8", "mixed/pressure_vessel-4")]


@pytest.mark.parametrize("problem", DOWNHILL, ids=lambda p: p.name)
def test_the_optimum_of_a_mixed_problem_is_found_by_moving_downhill(problem):
    cube, draws = problem.space.cube, torch.Generator().manual_seed(1)

    def best(X, n):
        values = torch.tensor([problem.objective(c) for c in problem.space.decode(X)])
        return X[values.argsort()[:n]]

    X = best(cube.draw(2000, draws), 5)
    for j in [*range(cube.d)] * 2:  # along one column at a time
        along = X.repeat_interleave(101, 0)
        along[:, j] = torch.linspace(0, 1, 101).repeat(len(X))
        along = cube.snap(along)
        X = best(torch.cat([X, along[cube.feasible(along)]]), 5)
    for radius in 0.1 * 0.5 ** torch.arange(14):
        steps = radius * torch.randn(60, len(X), cube.d, generator=draws, dtype=X.dtype)
        steps *= torch.rand(steps.shape, generator=draws) < 0.4
        near = cube.snap((X + steps).reshape(-1, cube.d))
        X = best(torch.cat([X, near[cube.feasible(near)]]), 10)
    found = problem.objective(problem.space.decode(X[:1])[0])
    assert found == pytest.approx(problem.optimum, rel=2e-2, abs=5e-3)


def test_the_optimum_of_the_pairs_by_trying_everything():
    problem = by_name("mixed/pairs-8")
    every = itertools.product(*(p.choices for p in problem.space.parameters.values()))
    least = min(problem.objective(dict(zip(problem.space.parameters, c, strict=True))) for c in every)
    assert least == pytest.approx(problem.optimum)


def test_the_published_optimum_of_the_pressure_vessel():
    problem = by_name("mixed/pressure_vessel-4")
    config = {"shell": 0.8125, "head": 0.4375, "radius": 42.0984455, "length": 176.63662}  # rounded outwards
    assert problem.objective(problem.space.validate(config)) == pytest.approx(problem.optimum, rel=1e-6)


@pytest.mark.parametrize("problem", trainings.problems(), ids=lambda p: p.name)
def test_trainings_repeat_and_are_capped(problem):
    configs = drawn(problem, 2)
    values = [problem.objective(config) for config in configs]
    assert values[0] == problem.objective(configs[0])
    assert all(0 <= value <= 3 for value in values)


def test_a_training_that_fails_has_the_cap_as_its_loss(monkeypatch):
    class Overflows:
        def fit(self, X, y):
            raise ValueError("Solver produced non-finite parameter weights.")

    problem = by_name("training/mlp-digits")
    monkeypatch.setitem(trainings._MODELS, "mlp", lambda config, *, regression: Overflows())
    assert problem.objective(drawn(problem, 1)[0]) == 3.0


def test_choose_takes_patterns_and_the_split():
    chosen = choose(WITHOUT_DATA, ["synthetic/ackley-*", "mixed/*"], "dev")
    assert [p.name for p in chosen if p.group == "synthetic"] == [
        f"synthetic/ackley-{d}" for d in (5, 10, 20)
    ]
    assert all(p.split == "dev" for p in chosen)
    assert len(choose(WITHOUT_DATA, ["*"])) == len(WITHOUT_DATA)
    assert choose(WITHOUT_DATA, ["synthetic/ackley-5"], "test") == []


WITHOUT_SURROGATES = {
    "synthetic/beale-2", "synthetic/dixon_price-10", "synthetic/michalewicz-5", "synthetic/rastrigin-6",
    "synthetic/levy-5", "synthetic/levy-20", "mixed/levy-9", "mixed/branches-9", "mixed/pressure_vessel-4",
    "mixed/network-8", "training/mlp-digits",
}  # fmt: skip


def test_the_panel_is_these_test_problems():
    chosen = choose(WITHOUT_DATA, ["panel"])
    assert {problem.name for problem in chosen} == WITHOUT_SURROGATES
    assert choose(WITHOUT_DATA, ["panel"], "test") == chosen
    assert choose(WITHOUT_DATA, ["panel"], "dev") == []


def test_a_pattern_that_matches_nothing_is_an_error():
    with pytest.raises(
        SettingError, match=r"'synthetic/brani-2' matches none.*Did you mean 'synthetic/branin-2'"
    ):
        choose(WITHOUT_DATA, ["synthetic/brani-2"])


def test_a_problem_says_what_is_wrong_with_it():
    with pytest.raises(SettingError, match="`name` must be 'group/short name', got 'x'"):
        Problem("x", SearchSpace(x=Float(0, 1)), lambda c: 0.0, "dev")
    with pytest.raises(SettingError, match=r"no constants, got \['c'\]"):
        Problem("a/x", SearchSpace(x=Float(0, 1), c=Categorical([1])), lambda c: 0.0, "dev")


def test_loss_turns_maximisation_round():
    problem = Problem("a/x", SearchSpace(x=Float(0, 1)), lambda c: 0.0, "dev", "maximize")
    assert problem.loss(3.0) == -3.0
    assert by_name("synthetic/branin-2").loss(3.0) == 3.0


def test_a_folder_without_surrogates_is_an_error(tmp_path):
    with pytest.raises(SettingError, match=r"must be a folder with lcbench/model\.onnx in it"):
        all_problems(tmp_path)


@pytest.fixture(scope="module")
def surrogates():
    folder = os.environ.get("GPBO_BENCH_DATA")
    if not folder:
        pytest.skip("GPBO_BENCH_DATA does not name the folder of the YAHPO surrogates")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    return {problem.name: problem for problem in yahpo.problems(Path(folder))}


def test_surrogates_are_split_by_the_order_of_their_numbers(surrogates):
    counts = Counter((problem.group, problem.split) for problem in surrogates.values())
    assert counts == {("lcbench", "dev"): 17, ("lcbench", "test"): 17, ("rbv2_rpart", "dev"): 59,
                      ("rbv2_rpart", "test"): 58}  # fmt: skip
    assert surrogates["lcbench/3945"].split == "dev"
    assert surrogates["lcbench/7593"].split == "test"
    assert surrogates["rbv2_rpart/3"].split == "dev"
    assert surrogates["rbv2_rpart/6"].split == "test"


def test_the_panel_has_surrogates_too(surrogates):
    chosen = {problem.name for problem in choose([*WITHOUT_DATA, *surrogates.values()], ["panel"], "test")}
    assert len(chosen) == sum(PANEL.values()) == 16
    assert chosen - WITHOUT_SURROGATES == {
        "lcbench/126029", "lcbench/167201", "lcbench/189873", "rbv2_rpart/312", "rbv2_rpart/40923"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["lcbench/3945", "rbv2_rpart/14"])
def test_a_surrogate_lies_between_its_worst_and_its_best_known_value(surrogates, name):
    problem = surrogates[name]
    values = [problem.objective(problem.space.validate(config)) for config in drawn(problem, 200)]
    assert problem.worst <= min(values) < max(values) <= problem.optimum
    fidelity, config = problem.fidelity, drawn(problem, 1)[0]
    assert fidelity.objective(config, fidelity.high) == problem.objective(config)
    assert fidelity.objective(config, fidelity.low) != problem.objective(config)
    assert fidelity.cost(config, fidelity.high) > 0
