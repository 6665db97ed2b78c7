import pytest
import torch

from gpbo.data import to_dataset
from gpbo.errors import SettingError
from gpbo.space import Categorical, Float, Int, SearchSpace
from gpbo.study import Study
from gpbo.suggesters.grid import GridSuggester

NOTHING = {"maximize": [False], "number": 0, "device": "cpu"}


def grid_of(space, k, seed=0):
    data = to_dataset([], space, **NOTHING)
    return space.decode(GridSuggester(points_per_axis=k).suggest(data, space.cube, 10**6, seed).X)


def test_continuous_axes_include_both_ends():
    configs = grid_of(SearchSpace(x=Float(-2, 2), lr=Float(1e-4, 1, log=True)), 3)
    expected = {(x, lr) for x in (-2.0, 0.0, 2.0) for lr in (1e-4, 1e-2, 1.0)}
    assert len(configs) == 9
    assert {(c["x"], c["lr"]) for c in configs} == expected


def test_levels_are_all_tried_where_they_are_few():
    assert sorted(c["n"] for c in grid_of(SearchSpace(n=Int(1, 4)), 5)) == [1, 2, 3, 4]


def test_many_ordered_levels_are_thinned_to_both_ends_and_some_between():
    assert sorted(c["n"] for c in grid_of(SearchSpace(n=Int(0, 100)), 5)) == [0, 25, 50, 75, 100]
    ordered = Categorical(list("abcdefghi"), ordered=True)
    assert sorted(c["n"] for c in grid_of(SearchSpace(n=ordered), 3)) == ["a", "e", "i"]


def test_categories_are_all_tried():
    assert len(grid_of(SearchSpace(c=Categorical(list(range(50)))), 2)) == 50


def test_inactive_parameters_do_not_multiply():
    space = SearchSpace(
        m=Float(0, 1, when={"opt": "sgd"}),  # before its parent, on purpose
        opt=Categorical(["sgd", "adam"]),
        b=Int(1, 3, when={"m_on": True}),
        m_on=Categorical([True, False], when={"opt": "adam"}),
    )
    configs = grid_of(space, 3)
    assert len(configs) == 3 + (3 + 1)
    assert len({repr(c) for c in configs}) == len(configs)


def test_many_branches_stay_small():
    leaves = {
        f"x{i}{j}": Float(0, 1, when={"branch": i}) for i in range(8) for j in range(4)
    }  # the plain product would be 8 * 4**32
    assert len(grid_of(SearchSpace({"branch": Categorical(list(range(8))), **leaves}), 4)) == 8 * 4**4


def test_forbidden_points_are_left_out():
    configs = grid_of(SearchSpace(a=Int(1, 4), b=Int(1, 4), constraints="a * b <= 4"), 5)
    assert sorted((c["a"], c["b"]) for c in configs) == [
        (a, b) for a in range(1, 5) for b in range(1, 5) if a * b <= 4
    ]


def test_the_order_is_shuffled_by_the_seed():
    space = SearchSpace(a=Int(0, 9), b=Int(0, 9))
    one, two = grid_of(space, 10, seed=1), grid_of(space, 10, seed=2)
    assert one != two
    assert one == grid_of(space, 10, seed=1)
    first = one[:20]
    assert len({c["a"] for c in first}) > 5
    assert len({c["b"] for c in first}) > 5


# Of the first space, decoded values are rounded by more than one bit in a narrow range; they must be known.
@pytest.mark.parametrize(
    "space",
    [
        SearchSpace(x=Float(999_999, 1_000_000), y=Float(1, 1.0003, log=True)),
        SearchSpace(x=Float(1e-9, 1, log=True), c=Categorical(["a", "b"]), z=Float(0, 3, when={"c": "a"})),
        SearchSpace(x=Float(0, 1), n=Int(1, 10**6, log=True), constraints="n > 1"),
    ],
)
def test_a_study_asks_for_each_point_once_and_ends(space):
    study = Study(space, suggester=GridSuggester(points_per_axis=3))
    asked = []
    while (trial := study.ask()) is not None:
        asked.append(repr(trial.config))
        if trial.number % 3:
            study.tell(trial, 1.0)
    assert len(set(asked)) == len(asked)
    assert sorted(asked) == sorted(map(repr, grid_of(space, 3)))


def test_an_enormous_grid_is_refused_before_it_is_made():
    space = SearchSpace({f"x{i}": Float(0, 1) for i in range(50)})
    with pytest.raises(SettingError, match=r"at most 262144 points, got 390625 from 8 of 50 parameters"):
        grid_of(space, 5)


@pytest.mark.parametrize("k", [1, 0, True, 2.5, "3"])
def test_points_per_axis_is_a_whole_number_of_at_least_two(k):
    with pytest.raises(SettingError, match=r"`points_per_axis` must be a whole number >= 2, got"):
        GridSuggester(points_per_axis=k)


def test_a_grid_of_constants_is_one_point():
    assert grid_of(SearchSpace(a=1), 3) == [{"a": 1}]


def test_the_global_state_is_left_alone():
    before = torch.get_rng_state()
    grid_of(SearchSpace(a=Int(0, 9)), 3)
    assert torch.equal(before, torch.get_rng_state())
