"""What the engine's speed rests on, counted rather than timed: operations, host syncs, tensors and bytes.

Not seen are what a kernel of torch's allocates within and frees before it returns, and on the CPU a copy to
the CPU; on CUDA its own debug mode sees every sync.
"""

import weakref
from collections import Counter
from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gpbo.acquisition import ei, log_ei, log_pi, ucb
from gpbo.acquisition.lbfgs import maximize_rows
from gpbo.cube import Cube
from gpbo.gp import Hypers, exact_posterior, fit_gp

MAKERS = {"log_ei": log_ei, "ei": ei, "log_pi": log_pi, "ucb": lambda gp, _: ucb(gp, 2.0)}
ROUNDS = 13
FULL = 9  # rounds; from then on the optimiser's memory is full
BLOCK = 256  # rows of the factor in one block of its products on the CPU
SYNCS = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2", "unique_dim", "bool index")


class Recorder(TorchDispatchMode):
    """Counts the operations inside, and the bytes and elements of the tensors that they make."""

    def __init__(self):
        super().__init__()
        self.ops = Counter()
        self.largest = 0  # elements
        self.peak = 0  # bytes
        self._live = 0
        self._known = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        self.ops[name] += 1
        if name in ("index", "index_put", "index_put_") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in args[1]
        ):
            self.ops["bool index"] += 1  # how many are true, decides the size
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._made(tensor)
        return result

    def syncs(self):
        return {name: self.ops[name] for name in SYNCS if self.ops[name]}

    def _made(self, tensor):
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self._live += size
        self.peak = max(self.peak, self._live)
        self.largest = max(self.largest, size // tensor.element_size())
        weakref.finalize(storage, self._freed, size)

    def _freed(self, size):
        self._live -= size


def data(n, d, device="cpu"):
    X = Cube.continuous(d).sobol(n, 0).to(device)
    y = torch.sin(5.0 * X).sum(-1)
    return X, (y - y.mean()) / y.std()


def process(n, d=6, device="cpu"):
    return fit_gp(Cube.continuous(d), *data(n, d, device))[0]


def climb(n, b, name="log_ei"):
    """What each evaluation did, and what the optimiser did from one to the next."""
    gp = process(n)
    acquisition = MAKERS[name](gp, 1.0)
    starts = Cube.continuous(6).sobol(b, 1)
    inside, between = [], []
    recorder = Recorder()

    def function(x):
        between.append(recorder.ops.copy())
        recorder.ops.clear()
        found = acquisition.value_and_gradient(x)
        inside.append(recorder.ops.copy())
        recorder.ops.clear()
        return found

    with recorder:
        maximize_rows(function, starts, scale=gp.hypers.lengthscale, max_rounds=ROUNDS, tolerance=0.0)
    assert len(inside) == ROUNDS
    return inside, between[1:]


def test_the_recorder_sees_what_it_should():
    with Recorder() as recorder:
        a = torch.ones(8, 10, dtype=torch.float64)
        b = a.mT @ a  # 100 doubles
        del b
        c = a[:4].add_(1.0)  # a view, written in place
        first = float(c.sum())
    assert first == 80.0
    assert recorder.largest == 100
    assert 1440 <= recorder.peak < 1440 + 100
    assert recorder.syncs() == {"_local_scalar_dense": 1}
    for sync in (lambda: a[a > 0.0], a.nonzero, lambda: bool(a.any()), lambda: torch.equal(a, -a), a.unique):
        with Recorder() as recorder:
            sync()
        assert recorder.syncs()


@pytest.mark.parametrize("n", [300, 600])
def test_no_tensor_of_a_fit_is_as_large_as_all_differences(n):
    d = 20
    X, y = data(n, d)
    with Recorder() as recorder:
        fit_gp(Cube.continuous(d), X, y)
    assert recorder.largest < n * n * d


@pytest.mark.parametrize(("n", "matrices"), [(300, 12), (600, 10)])
def test_a_fit_holds_a_bounded_number_of_matrices(n, matrices):
    # Measured: 9.7 and 8.2. A fit from two starts on 128 rows comes first.
    X, y = data(n, 20)
    with Recorder() as recorder:
        fit_gp(Cube.continuous(20), X, y)
    assert recorder.peak < matrices * n * n * 8


@pytest.mark.parametrize("n", [1000, 2000])
def test_an_exact_posterior_holds_one_matrix_and_some_blocks_of_rows(n):
    # Measured: 2.9 and 2.3 blocks beside the matrix.
    X, y = data(n, 6)
    one = X.new_ones(())
    with Recorder() as recorder:
        posterior = exact_posterior(Cube.continuous(6), X, y, Hypers(X.new_ones(6), 0.01 * one, one))
        posterior.marginal(X[:8])
    assert recorder.largest == n * n
    assert recorder.peak < (n + 4 * BLOCK) * n * 8


@pytest.mark.parametrize("name", MAKERS)
def test_an_evaluation_never_waits_for_the_device(name):
    inside, _ = climb(40, 5, name)
    assert not any(ops[sync] for ops in inside for sync in SYNCS)


def test_the_optimiser_looks_once_a_round_whether_all_are_done():
    _, between = climb(40, 5)
    for ops in between:
        assert {name: ops[name] for name in SYNCS if ops[name]} == {"_local_scalar_dense": 1}


def test_a_round_costs_the_same_operations_for_any_number_of_starts():
    few, many = climb(40, 3), climb(40, 200)
    assert few == many


def test_a_round_costs_the_same_operations_for_any_number_of_rows_within_a_block():
    few, many = climb(20, 4), climb(BLOCK, 4)
    assert few == many
    more = climb(3 * BLOCK, 4)
    assert few[1] == more[1]
    extra = [a.total() - b.total() for a, b in zip(more[0], few[0], strict=True)]
    assert set(extra) == {extra[0]}
    assert extra[0] <= 2 * 10  # for two blocks more


def test_rounds_cost_the_same_once_the_memory_is_full():
    inside, between = climb(40, 4)
    assert len({ops.total() for ops in inside[1:]}) == 1
    assert len({ops.total() for ops in between[FULL - 1 :]}) == 1
    assert between[FULL - 1].total() < 300


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", MAKERS)
def test_cuda_agrees_that_an_evaluation_never_waits(name):
    acquisition = MAKERS[name](process(40, device="cuda"), 1.0)
    starts = Cube.continuous(6).sobol(5, 1).cuda()
    evaluate = partial(acquisition.value_and_gradient, starts)
    evaluate()  # loads kernels
    torch.cuda.set_sync_debug_mode("error")
    try:
        evaluate()
    finally:
        torch.cuda.set_sync_debug_mode("default")
