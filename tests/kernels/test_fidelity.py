import pytest
import torch

from gpbo import Categorical, Float, Int, SearchSpace
from gpbo.cube import Cube
from gpbo.errors import SettingError
from gpbo.gp import Hypers, make_gp
from gpbo.kernels import AtBudget, Embedding, with_budget_column

SPACES = {
    "continuous": SearchSpace(x=Float(0, 1), y=Float(0, 1)),
    "conditional": SearchSpace(
        c=Categorical(["a", "b"]), n=Int(1, 20, log=True), x=Float(0, 1, when={"c": "b"}), y=Float(0, 1)
    ),
}


def points(cube, n, seed=0):
    return cube.draw(n, torch.Generator().manual_seed(seed))


def process(cube, n=15):
    whole = with_budget_column(cube)
    X = torch.cat([points(cube, n), torch.rand(n, 1, dtype=torch.float64)], dim=-1)
    plain = {"lengthscale": [0.5] * whole.d, "noise_var": 1e-3, "outputscale": 1.2}
    return make_gp(whole, X, X.sin().sum(-1), Hypers.from_dict(plain, X.device))


@pytest.mark.parametrize("name", SPACES)
def test_the_process_at_a_budget_is_the_one_over_both(name):
    cube = SPACES[name].cube
    both, X = process(cube), points(cube, 7, seed=1)
    pinned = both.at_budget(cube, 0.75)
    at = torch.cat([X, torch.full((7, 1), 0.75, dtype=torch.float64)], dim=-1)
    for one, other in zip(pinned.posterior(X), both.posterior(at), strict=True):
        assert torch.allclose(one, other)
    mean, _, by_mean, by_var = pinned.marginal_and_gradient(X)
    assert torch.allclose(mean, both.marginal(at)[0])
    for ours, theirs in zip((by_mean, by_var), both.marginal_and_gradient(at)[2:], strict=True):
        assert torch.allclose(ours, theirs[:, :-1])
    grown, whole = pinned.condition(X, mean), both.condition(at, mean)
    assert torch.allclose(grown.marginal(X)[1], whole.marginal(at)[1])
    assert len(pinned.lengthscale) == cube.d


def test_features_of_a_budget_keep_the_groups_of_all():
    cube = SPACES["conditional"].cube
    whole = Embedding(with_budget_column(cube))
    pinned = AtBudget(whole, cube, 1.0)
    assert torch.equal(pinned.groups, whole.groups)
    assert pinned(points(cube, 3)).shape == (3, len(whole.groups))
    assert int(whole.groups.max()) == cube.d  # the budget's lengthscale is the last


def test_a_process_without_a_budget_is_not_taken():
    cube = Cube.continuous(2)
    both = process(cube)
    with pytest.raises(SettingError, match="3 columns has no budget beside 3"):
        both.at_budget(Cube.continuous(3), 1.0)
    with pytest.raises(SettingError, match="2 columns has no budget beside 2"):
        both.at_budget(cube, 1.0).at_budget(cube, 1.0)
