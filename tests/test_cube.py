import math
from dataclasses import replace

import pytest
import torch

from gpbo.cube import Cube, among, is_new
from gpbo.errors import SpaceError
from gpbo.seeding import generator
from gpbo.space import Categorical, Float, Int, SearchSpace

SPACE = SearchSpace(
    x=Float(0, 1),
    k=Int(1, 100, log=True),
    c=Categorical(["a", "b", "c"]),
    m=Int(0, 40, when={"c": ["a", "b"]}),
    f=Float(0, 1, when={"m": [0, 1, 2]}),
)


def test_a_continuous_cube_has_no_levels():
    cube = Cube.continuous(3)
    U = torch.rand(4, 3, generator=generator(0, "u"), dtype=torch.float64)
    assert (cube.d, cube.size, cube.discrete, cube.conditional) == (3, math.inf, [], [])
    assert torch.equal(cube.snap(U), U)
    assert torch.equal(cube.feasible(U), torch.ones(4, dtype=torch.bool))
    assert cube.enumerate() is None
    assert cube.neighbours(U[0]).shape == (0, 3)


def test_what_a_space_becomes():
    cube = SPACE.cube
    assert cube.n_levels.tolist() == [0, 100, 3, 41, 0]
    assert cube.is_categorical.tolist() == [False, False, True, False, False]
    assert cube.discrete == [1, 2, 3]
    assert cube.conditional == [3, 4]
    assert cube.size == math.inf


def test_points_outside_are_moved_inside():
    X = torch.tensor([[-0.5, 2.0, 1.0, -1.0, 7.0]], dtype=torch.float64)
    snapped = SPACE.cube.snap(X)
    assert SPACE.decode(snapped) == [{"x": 0.0, "k": 100, "c": "c"}]
    assert snapped[0, 3:].tolist() == [0.5, 0.5]
    assert X[0, 0] == -0.5


def test_levels_and_coordinates_are_inverse():
    cube = SPACE.cube
    for column in cube.discrete:
        levels = torch.arange(int(cube.n_levels[column]))
        X = torch.full((len(levels), cube.d), 0.5, dtype=torch.float64)
        X[:, column] = cube.at_level(column, levels)
        assert torch.equal(cube.level(X, column), levels)


def test_snapping_keeps_shape_and_gradient():
    X = torch.rand(2, 3, 5, dtype=torch.float64, generator=generator(0, "u")).requires_grad_()
    snapped = SPACE.cube.snap(X)
    assert snapped.shape == X.shape
    snapped[..., 0].sum().backward()
    assert X.grad[..., 0].eq(1).all()


def test_points_of_single_precision_stand_at_the_same_levels():
    cube = SPACE.cube  # a condition on a condition
    X = cube.sobol(64, seed=0)
    assert torch.equal(cube.levels(X.float()), cube.levels(X))
    assert torch.equal(cube.active(X.float()), cube.active(X))
    assert torch.equal(cube.snap(X.float()), X.float())


def test_every_method_stays_on_the_device_of_its_points(device):
    cube = SPACE.cube
    X = cube.sobol(16, seed=0)
    there = X.to(device)
    for column in cube.discrete:
        assert torch.equal(cube.level(there, column).cpu(), cube.level(X, column))
        assert cube.level(there, column).device == there.device
        assert cube.at_level(column, cube.level(there, column)).device == there.device
    for method in (cube.active, cube.snap, cube.feasible):
        assert method(there).device == there.device
        assert torch.equal(method(there).cpu(), method(X))
    assert cube.neighbours(there[0]).device == there.device
    assert torch.equal(cube.neighbours(there[0]).cpu(), cube.neighbours(X[0]))
    assert is_new(there, there[:3]).device == there.device
    constrained = SearchSpace(SPACE.parameters, constraints="x < 0.5").cube
    assert constrained.feasible(there).tolist() == (X[:, 0] < 0.5).tolist()
    assert constrained.feasible(there).device == there.device


def test_sobol_goes_on_where_it_stopped():
    cube = SPACE.cube
    whole = cube.sobol(8, seed=3)
    assert torch.equal(torch.cat([cube.sobol(5, seed=3), cube.sobol(3, seed=3, skip=5)]), whole)
    assert not torch.equal(whole, cube.sobol(8, seed=4))
    assert torch.equal(cube.snap(whole), whole)


def test_sobol_leaves_the_global_state_alone():
    before = torch.get_rng_state()
    SPACE.cube.sobol(8, seed=3)
    assert torch.equal(before, torch.get_rng_state())


def test_sobol_of_no_columns():
    assert Cube.continuous(0).sobol(3, seed=0, skip=4).shape == (3, 0)


def test_draws_are_feasible_and_uniform_over_levels():
    cube = SearchSpace(c=Categorical(["a", "b", "c"]), x=Float(0, 1), constraints="x >= 0.5").cube
    X = cube.draw(3000, generator(0, "draw"))
    assert X.shape == (3000, 2)
    assert X[:, 1].min() >= 0.5
    counts = torch.bincount(cube.level(X, 0), minlength=3)
    assert (counts - 1000).abs().max() < 5 * math.sqrt(3000 * 2 / 9)  # 5 sigma of a binomial


def test_drawing_nothing():
    assert SPACE.cube.draw(0, generator(0, "draw")).shape == (0, 5)


def test_a_nearly_empty_space_gives_what_it_has_again():
    cube = SearchSpace(k=Int(0, 2**18 - 1), constraints="k < 40").cube
    X = cube.draw(100, generator(0, "draw"))
    assert X.shape == (100, 1)
    assert cube.feasible(X).all()


def test_an_empty_space_is_reported():
    cube = SearchSpace(x=Float(0, 1), constraints="x > 2").cube
    with pytest.raises(SpaceError, match=r"no config that meets the constraints was found among 65\d\d\d"):
        cube.draw(1, generator(0, "draw"))


def test_enumerating_lists_every_config_once():
    space = SearchSpace(
        c=Categorical(["a", "b"]),
        m=Int(1, 3, when={"c": "a"}),
        d=Categorical([True, False]),
        constraints="m < 3 or d",
    )
    configs = space.decode(space.cube.enumerate())
    assert len(configs) == 7
    assert len({repr(config) for config in configs}) == 7
    assert all(space.validate(config) == config for config in configs)


def test_large_spaces_are_not_listed():
    assert SearchSpace(a=Int(0, 100), b=Int(0, 100)).cube.enumerate() is None


def test_neighbours_of_a_worked_example():
    x = SPACE.encode([{"x": 0.25, "k": 100, "c": "b", "m": 20}])[0]
    there = SPACE.decode(SPACE.cube.neighbours(x))
    assert there == [
        {"x": 0.25, "k": 98, "c": "b", "m": 20},
        {"x": 0.25, "k": 99, "c": "b", "m": 20},
        {"x": 0.25, "k": 100, "c": "a", "m": 20},
        {"x": 0.25, "k": 100, "c": "c"},
        {"x": 0.25, "k": 100, "c": "b", "m": 18},
        {"x": 0.25, "k": 100, "c": "b", "m": 19},
        {"x": 0.25, "k": 100, "c": "b", "m": 21},
        {"x": 0.25, "k": 100, "c": "b", "m": 22},
    ]


def test_new_points_differ_from_seen_ones_and_from_each_other():
    X = torch.tensor([[0.1, 0.2], [0.1, 0.2], [0.3, 0.4], [0.5, 0.6], [0.3, 0.4 + 1e-12]])
    seen = torch.tensor([[0.5, 0.6]])
    assert is_new(X.double(), seen.double()).tolist() == [True, False, True, False, False]


def test_new_points_of_no_columns():
    assert is_new(torch.empty(3, 0), torch.empty(0, 0)).tolist() == [True, False, False]
    assert is_new(torch.empty(3, 0), torch.empty(1, 0)).tolist() == [False, False, False]


def test_the_list_is_made_once():
    cube = SearchSpace(a=Int(0, 9), b=Categorical(["x", "y"])).cube
    assert cube.enumerate() is cube.enumerate()
    assert len(cube.enumerate()) == 20


@pytest.mark.parametrize("d", [0, 2])
def test_among(d):
    X = torch.tensor([[0.1, 0.2], [0.3, 0.4], [0.1, 0.2]], dtype=torch.float64)[:, :d]
    assert among(X, X[:0]).tolist() == [False] * 3
    assert among(X, X[:1]).tolist() == ([True, False, True] if d else [True] * 3)


def test_fixed_columns_are_where_they_are_held():
    cube = replace(SPACE.cube, fixed=SPACE.encode([{"x": 0.25, "k": 9, "c": "a", "m": 1, "f": 0.5}])[0])
    cube.fixed[[3, 4]] = math.nan
    assert cube.held == [0, 1, 2]
    assert SPACE.part({"k": 3}).held == [1]
    assert SPACE.cube.held == []
    for X in (
        cube.sobol(64, seed=0),
        cube.draw(64, generator(0, "draw")),
        cube.neighbours(cube.sobol(1, 0)[0]),
    ):
        assert torch.equal(X[:, :3], cube.fixed[:3].expand(len(X), 3))
        assert len(X[:, 3].unique()) > 3
    assert cube.size == math.inf
    listed = replace(cube, n_levels=torch.tensor([0, 100, 3, 41, 2])).enumerate()
    assert len(listed) == 38 + 3 * 2  # `f` exists with the first three levels of `m`
