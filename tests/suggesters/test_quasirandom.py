import torch
from torch.overrides import TorchFunctionMode

from gpbo.data import Dataset, to_dataset
from gpbo.space import Float, Int, SearchSpace
from gpbo.study import Study
from gpbo.suggesters.base import new_draws
from gpbo.suggesters.quasirandom import RandomSuggester, SobolSuggester


def empty(space, number=0):
    return to_dataset([], space, [False], number=number, device="cpu")


def test_the_sobol_sequence_is_followed_trial_by_trial():
    space = SearchSpace(x=Float(0, 1), y=Float(0, 1))
    study = Study(space, suggester=SobolSuggester(), seed=4)
    asked = space.encode([study.ask().config for _ in range(16)])
    torch.testing.assert_close(asked, space.cube.sobol(16, seed=4))


def test_a_power_of_two_of_sobol_points_fills_every_half():
    # 16 points of a (0, 4, 2) net in base 2: each column has one point in each sixteenth.
    space = SearchSpace(x=Float(0, 1), y=Float(0, 1))
    X = SobolSuggester().suggest(empty(space), space.cube, 16, 0).X
    assert (X * 16).long().sort(0).values.tolist() == [[i, i] for i in range(16)]


def test_sobol_points_that_are_taken_give_way_to_random_ones():
    space = SearchSpace(x=Float(0, 1), n=Int(0, 5))
    taken = space.cube.sobol(3, seed=0)
    known = Dataset(taken[:2], torch.zeros(2, 1), torch.zeros(2), pending=taken[2:], number=0)
    suggestion = SobolSuggester().suggest(known, space.cube, 3, 0)
    assert suggestion.X.shape == (3, 2)
    assert torch.cdist(suggestion.X, taken).min() > 1e-6
    assert suggestion.info == {"source": "sobol"}


def test_random_points_do_not_depend_on_what_was_observed():
    space = SearchSpace(x=Float(0, 1))
    one = RandomSuggester().suggest(empty(space, number=3), space.cube, 2, 0)
    other = Dataset(torch.full((1, 1), 0.5), torch.ones(1, 1), torch.ones(1), torch.empty(0, 1), number=3)
    assert torch.equal(one.X, RandomSuggester().suggest(other, space.cube, 2, 0).X)
    assert one.info == {"source": "random"}


def test_random_points_are_uniform():
    space = SearchSpace(x=Float(0, 1))
    X = RandomSuggester().suggest(empty(space), space.cube, 4000, 0).X
    counts = torch.bincount((X[:, 0] * 10).long(), minlength=10)
    assert (counts - 400).abs().max() < 5 * 19  # 5 sigma of a binomial(4000, 1/10)


def test_the_last_points_of_a_space_too_large_to_list_are_found():
    space = SearchSpace(a=Int(0, 4999))
    assert space.cube.enumerate() is None
    X = space.encode([{"a": k} for k in range(4990)])
    n = len(X)
    for number in range(n, n + 5):
        data = Dataset(X, torch.zeros(n, 1), torch.zeros(n), pending=X[:0], number=number)
        [config] = space.decode(RandomSuggester().suggest(data, space.cube, 1, 0).X)
        assert config["a"] >= 4990


class Largest(TorchFunctionMode):
    """Within it, `numel` is the size of the largest tensor that a function gave."""

    numel = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor):
            self.numel = max(self.numel, found.numel())
        return found


def test_a_listed_space_is_compared_with_what_was_seen_alone():
    cube = SearchSpace(a=Int(0, 63), b=Int(0, 63)).cube
    seen = cube.enumerate()[:10]
    with Largest() as largest:
        drawn = new_draws(cube, seen, 5, torch.Generator().manual_seed(0))
    assert len(drawn) == 5
    assert largest.numel == 10 * 4096
