import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpbo import Categorical, Float, Int, SearchSpace
from gpbo.cube import Cube
from gpbo.kernels import NUS, Embedding, matern, squared_distances


@st.composite
def spaces(draw):
    """Random mixed spaces in which up to every parameter may depend on an earlier category."""
    parameters, parents = {}, []
    for i in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["float", "int", "log", "category"]))
        when = None
        if parents and draw(st.booleans()):
            parent = draw(st.sampled_from(parents))
            choices = parameters[parent].choices
            when = {parent: draw(st.lists(st.sampled_from(choices), min_size=1, unique=True))}
        if kind == "float":
            parameters[f"p{i}"] = Float(-1.0, 2.0, when=when)
        elif kind == "int":
            parameters[f"p{i}"] = Int(0, draw(st.integers(1, 9)), when=when)
        elif kind == "log":
            parameters[f"p{i}"] = Float(1e-4, 1.0, log=True, when=when)
        else:
            choices = list("abcde"[: draw(st.integers(2, 5))])
            parameters[f"p{i}"] = Categorical(choices, when=when)
            parents.append(f"p{i}")
    return SearchSpace(parameters)


def draws(cube, n, seed):
    return cube.draw(n, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("nu", NUS)
@settings(max_examples=30)
@given(space=spaces(), seed=st.integers(0, 1000), log_l=st.floats(-2, 2))
def test_gram_matrices_of_mixed_conditional_spaces_are_positive_semidefinite(nu, space, seed, log_l):
    X = draws(space.cube, 40, seed)
    embedding = Embedding(space.cube)
    lengthscale = torch.exp(log_l * torch.rand(space.cube.d, generator=torch.Generator().manual_seed(seed)))
    Z = embedding(X) / lengthscale[embedding.groups]
    Z = Z - Z.mean(0)
    r2 = squared_distances(Z, Z)
    r2.diagonal().zero_()
    rounding = (
        1e-6 if nu == 0.5 else 1e-10
    )  # of a distance of 0 between equal points, through its square root
    assert torch.linalg.eigvalsh(matern(r2, nu)).min().item() > -rounding


@given(space=spaces(), seed=st.integers(0, 1000))
def test_every_feature_belongs_to_a_column(space, seed):
    X = draws(space.cube, 5, seed)
    embedding = Embedding(space.cube)
    assert embedding(X).shape == (5, len(embedding.groups))
    assert set(embedding.groups.tolist()) == set(range(space.cube.d))
    stacked = embedding(X.reshape(5, 1, -1))
    assert torch.equal(stacked.squeeze(1), embedding(X))


@settings(max_examples=30)
@given(space=spaces(), seed=st.integers(0, 1000))
def test_two_points_are_at_distance_zero_exactly_when_their_configs_are_the_same(space, seed):
    X = draws(space.cube, 15, seed)
    phi = Embedding(space.cube)(X)
    apart = torch.cdist(phi, phi) > 1e-6
    configs = space.decode(X)
    for i, j in itertools.combinations(range(15), 2):
        near = torch.allclose(X[i], X[j], atol=1e-5)
        if configs[i] == configs[j]:
            assert not apart[i, j]
        elif not near:
            assert apart[i, j]


def test_any_two_levels_of_a_category_are_one_apart():
    space = SearchSpace(c=Categorical(list("abcdefg")))
    X = space.encode([{"c": level} for level in "abcdefg"])
    distances = squared_distances(*[Embedding(space.cube)(X)] * 2)
    assert torch.allclose(distances, 1.0 - torch.eye(7, dtype=torch.float64), atol=1e-15)


def test_several_categories_count_the_ones_that_differ():
    space = SearchSpace(a=Categorical(list("xyz")), b=Categorical(list("uv")), c=Categorical(list("rst")))
    X = space.cube.enumerate()
    r2 = squared_distances(*[Embedding(space.cube)(X)] * 2)
    hamming = (X.unsqueeze(0) != X.unsqueeze(1)).sum(-1).to(r2)
    assert torch.allclose(r2, hamming, atol=1e-14)


@pytest.fixture
def conditional():
    return SearchSpace(
        on=Categorical([False, True]),
        x=Float(0, 1, when={"on": True}),
        c=Categorical(list("abc"), when={"on": True}),
    )


def squared_distance_of(space, name, first, second):
    """The squared distance that one parameter contributes between two configs."""
    embedding = Embedding(space.cube)
    difference = embedding(space.encode([first])) - embedding(space.encode([second]))
    return difference[0, embedding.groups == space.columns.index(name)].square().sum().item()


@given(st.floats(0, 1), st.floats(0, 1))
def test_two_active_numbers_are_an_arc_apart(u, v):
    # Swersky et al. 2014, eq. 2: d^2 = 2 omega^2 (1 - cos(rho pi (u - v))) with both active, here
    # omega = 2 / pi and rho = 1/2, so that d is |u - v| to first order.
    space = SearchSpace(on=Categorical([False, True]), x=Float(0, 1, when={"on": True}))
    found = squared_distance_of(space, "x", {"on": True, "x": u}, {"on": True, "x": v})
    expected = 2 * (2 / math.pi) ** 2 * (1 - math.cos(0.5 * math.pi * (u - v)))
    assert found == pytest.approx(expected, abs=1e-14)


@given(st.floats(0, 1))
def test_an_inactive_number_is_equally_far_from_all_active_ones(u):
    space = SearchSpace(on=Categorical([False, True]), x=Float(0, 1, when={"on": True}))
    assert squared_distance_of(space, "x", {"on": False}, {"on": True, "x": u}) == pytest.approx(
        (2 / math.pi) ** 2, rel=1e-12
    )


def test_what_is_inactive_in_both_points_adds_nothing(conditional):
    off = {"on": False}
    assert squared_distance_of(conditional, "x", off, off) == 0.0
    assert squared_distance_of(conditional, "c", off, off) == 0.0


def test_a_conditional_category_is_half_as_far_when_inactive_in_one(conditional):
    a, b = {"on": True, "x": 0.5, "c": "a"}, {"on": True, "x": 0.5, "c": "b"}
    assert squared_distance_of(conditional, "c", a, b) == pytest.approx(1.0)
    assert squared_distance_of(conditional, "c", a, {"on": False}) == pytest.approx(0.5)


def test_points_of_a_plain_cube_are_their_own_features(device):
    X = torch.rand(4, 3, dtype=torch.float64, device=device)
    embedding = Embedding(Cube.continuous(3))
    assert torch.equal(embedding(X), X)
    assert embedding.groups.tolist() == [0, 1, 2]
    assert torch.equal(embedding.pullback(X, 2 * X), 2 * X)


@given(space=spaces(), seed=st.integers(0, 1000))
def test_the_pullback_is_the_gradient_of_the_features(space, seed):
    cube = space.cube
    X = draws(cube, 6, seed).requires_grad_(True)
    embedding = Embedding(cube)
    phi = embedding(X)
    slope = torch.randn(phi.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = embedding.pullback(X.detach(), slope)
    if phi.requires_grad:
        (expected,) = torch.autograd.grad((phi * slope).sum(), X)
    else:  # nothing but categories
        expected = torch.zeros_like(X)
    assert torch.allclose(found, expected, atol=1e-13)
    assert (found[:, cube.is_categorical] == 0).all()
