import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpbo.gp.factor import InverseFactor

N = 5


def rows(p, width, seed=0):
    """p rows of a lower triangular matrix whose last has `width` elements."""
    draws = torch.randn(
        p, width, generator=torch.Generator().manual_seed(1000 * width + seed), dtype=torch.float64
    )
    return draws.tril(width - p)


def first(n=N):
    return InverseFactor.of(rows(n, n))


def shares_memory(one, other):
    return one.R.untyped_storage().data_ptr() == other.R.untyped_storage().data_ptr()


def test_a_continuation_is_written_below_in_the_same_memory(device):
    begun = InverseFactor.of(rows(N, N).to(device))
    below = rows(2, N + 2).to(device)
    grown = begun.append(below)
    assert shares_memory(begun, grown)
    assert torch.equal(grown.R[N:], below)
    assert torch.equal(grown.R[:N, :N], begun.R)
    assert (grown.R.triu(1) == 0).all()


def test_a_second_continuation_copies_only_while_the_first_lives():
    begun = first()
    one = begun.append(rows(1, N + 1, seed=1))
    two = begun.append(rows(1, N + 1, seed=2))
    assert shares_memory(begun, one)
    assert not shares_memory(begun, two)
    assert torch.equal(one.R[N:], rows(1, N + 1, seed=1))
    assert torch.equal(two.R[N:], rows(1, N + 1, seed=2))
    kept = one.R  # whoever has the matrix has it for good
    del one
    assert not shares_memory(begun, begun.append(rows(1, N + 1, seed=3)))
    assert torch.equal(kept[N:], rows(1, N + 1, seed=1))
    del kept
    assert shares_memory(begun, begun.append(rows(1, N + 1, seed=4)))


def test_a_continuation_of_a_continuation_holds_the_rows_of_both():
    begun = first()
    last = begun.append(rows(1, N + 1)).append(rows(1, N + 2))  # nobody else has the one between
    assert not shares_memory(begun, begun.append(rows(1, N + 1, seed=1)))
    assert torch.equal(last.R[N], torch.cat([rows(1, N + 1)[0], torch.zeros(1, dtype=torch.float64)]))


def test_more_rows_than_there_is_room_for_move_to_more_room():
    factor = first()
    moved = 0
    for width in range(N + 1, N + 201):
        grown = factor.append(rows(1, width))
        moved += not shares_memory(factor, grown)
        factor = grown
    assert moved <= 3
    expected = torch.zeros(N + 200, N + 200, dtype=torch.float64)
    expected[:N, :N] = first().R
    for width in range(N + 1, N + 201):
        expected[width - 1, :width] = rows(1, width)
    assert torch.equal(factor.R, expected)


def test_a_head_is_the_factor_that_was_and_grows_where_it_can():
    begun = first()
    grown = begun.append(rows(1, N + 1)).append(rows(3, N + 4))
    assert grown.head(N) is begun
    assert grown.head(N + 4) is grown
    back = grown.head(N + 1)
    assert torch.equal(back.R, grown.R[: N + 1, : N + 1])
    del grown  # popped, and another row put in its place
    again = back.append(rows(1, N + 2, seed=1))
    assert shares_memory(back, again)
    assert torch.equal(again.R[N + 1 :], rows(1, N + 2, seed=1))


def test_a_head_between_two_appends_never_writes_over_the_rest():
    grown = first().append(rows(3, N + 3))
    expected = grown.R.clone()
    for n in (N - 1, N + 1):  # one of them older than the memory
        head = grown.head(n)
        assert shares_memory(head, grown)
        other = head.append(rows(1, n + 1, seed=1))
        assert not shares_memory(other, grown)
        assert torch.equal(other.R[n:], rows(1, n + 1, seed=1))
        assert torch.equal(grown.R, expected)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 100), st.integers(1, 3)), max_size=25))
def test_no_history_of_appends_heads_and_deaths_changes_a_living_factor(history):
    alive = [(first(), first().R.clone())]
    for seed, (action, which, p) in enumerate(history):
        factor, expected = alive[which % len(alive)]
        if action <= 1:
            below = rows(p, len(expected) + p, seed)
            wider = torch.nn.functional.pad(expected, (0, p))
            alive.append((factor.append(below), torch.cat([wider, below])))
        elif action == 2:
            n = max(1, len(expected) - p)
            alive.append((factor.head(n), expected[:n, :n]))
        elif len(alive) > 1:
            del alive[which % len(alive)]
        del factor
        for living, value in alive:
            assert torch.equal(living.R, value)


def test_rows_with_a_gradient_are_copied_and_keep_it():
    begun = first()
    below = rows(1, N + 1).requires_grad_(True)
    grown = begun.append(below)
    assert not shares_memory(begun, grown)
    further = grown.append(rows(1, N + 2))
    (gradient,) = torch.autograd.grad(grown.R.square().sum(), below, retain_graph=True)
    assert torch.allclose(gradient, 2 * below)
    (gradient,) = torch.autograd.grad(further.R.square().sum(), below)
    assert torch.allclose(gradient, 2 * below)
    assert not begun.append(rows(1, N + 1)).R.requires_grad


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda factor: pickle.loads(pickle.dumps(factor))])
def test_a_copy_shares_nothing(duplicate):
    begun = first()
    other = duplicate(begun)
    one, two = begun.append(rows(1, N + 1, seed=1)), other.append(rows(1, N + 1, seed=2))
    assert torch.equal(begun.R, other.R)
    assert torch.equal(one.R[N:], rows(1, N + 1, seed=1))
    assert torch.equal(two.R[N:], rows(1, N + 1, seed=2))
