import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpbo.errors import NumericsError
from gpbo.kernels import matern, squared_distances
from gpbo.numerics import (
    cholesky,
    cholesky_in_place,
    few_threads,
    gram,
    inverse_factor,
    log_h,
    log_ndtr_slope,
    next_rows,
    row_blocks,
    solve_lower,
    solve_upper,
    whiten_and_solve,
)

# Where the formulas of log_h change, and a little to either side of it.
BRANCHES = [z + side * 10.0**-k for z in (-1.0, -60.0) for side in (-1, 1) for k in (1, 4, 8, 15)]
FROM_30_TO_MINUS_A_MILLION = [
    *(30.0, 8.0, 3.0, 1.0, 0.5, 1e-8, 0.0, -1e-8, -0.5, -2.0, -5.0, -10.0, -25.0, -38.0, -39.0, -50.0),
    *(-100.0, -1e3, -1e4, -1e5, -1e6),
    *BRANCHES,
]


def exact_log_h(z):
    """log h(z) and its slope in 60 digits, more where phi(z) + z Phi(z) cancels."""
    with mpmath.workdps(60 + 2 * int(math.log10(abs(z) + 1.0)) + 10):
        t = -mpmath.mpf(z)
        if t < 100:
            phi, Phi = mpmath.npdf(-t), mpmath.ncdf(-t)
            h = phi - t * Phi
            return float(mpmath.log(h)), float(Phi / h)
        tail = laplace_tail(t)
        log_phi = -t * t / 2 - mpmath.log(2 * mpmath.pi) / 2
        return float(log_phi + mpmath.log(tail / (t + tail))), float(1 / tail)


def laplace_tail(t):
    """T in Mills' ratio R(t) = 1 / (t + T), by Laplace's continued fraction, so that 1 - t R = T R."""
    tail = mpmath.mpf(0)
    for k in range(200, 0, -1):
        tail = k / (t + tail)
    return tail


@pytest.mark.parametrize("z", FROM_30_TO_MINUS_A_MILLION)
def test_log_h_and_its_slope_equal_mpmath(z):
    value, slope = log_h(torch.tensor([z], dtype=torch.float64))
    expected, expected_slope = exact_log_h(z)
    # Near z = 0.3 log h crosses zero, hence the absolute part.
    assert value.item() == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert slope.item() == pytest.approx(expected_slope, rel=1e-11)  # the series leaves out 945 / 60^8


@pytest.mark.parametrize("z", FROM_30_TO_MINUS_A_MILLION)
def test_log_h_in_single_precision(z):
    z32 = torch.tensor([z], dtype=torch.float32)
    value, slope = log_h(z32)
    expected, expected_slope = exact_log_h(float(z32))
    assert value.dtype == slope.dtype == torch.float32
    assert value.item() == pytest.approx(expected, rel=2e-6, abs=2e-4)
    assert slope.item() == pytest.approx(expected_slope, rel=1e-3)  # 1 - t R(t) cancels to t^-2


@given(st.floats(-1e6, 30.0))
def test_log_h_and_its_autograd_are_finite_everywhere(z):
    z = torch.tensor([z], dtype=torch.float64, requires_grad=True)
    value, slope = log_h(z)
    (gradient,) = torch.autograd.grad(value.sum(), z)
    assert torch.isfinite(value).all()
    assert torch.isfinite(slope).all()
    assert torch.isfinite(gradient).all()  # below z = -39 optuna 5's is nan
    assert gradient.item() == pytest.approx(slope.item(), rel=1e-6)


@given(st.floats(-1e5, 20.0), st.floats(1e-3, 1.0))
def test_log_h_rises(z, step):
    low, high = log_h(torch.tensor([z, z + step], dtype=torch.float64))[0]
    assert low < high


@pytest.mark.parametrize("z", [*FROM_30_TO_MINUS_A_MILLION, 37.0])
def test_log_ndtr_slope_equals_mpmath(z):
    with mpmath.workdps(60):
        t = -mpmath.mpf(z)
        expected = mpmath.npdf(t) / mpmath.ncdf(-t) if t < 100 else t + laplace_tail(t)
    slope = log_ndtr_slope(torch.tensor([z], dtype=torch.float64)).item()
    assert slope == pytest.approx(float(expected), rel=1e-12, abs=1e-300)


def test_log_ndtr_slope_has_a_finite_autograd_gradient():
    z = torch.tensor(FROM_30_TO_MINUS_A_MILLION, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(log_ndtr_slope(z).sum(), z)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_good_matrix_is_factored_without_jitter(device, dtype):
    A = torch.randn(30, 30, generator=torch.Generator().manual_seed(0), dtype=dtype)
    K = (A @ A.mT + 30 * torch.eye(30, dtype=dtype)).to(device)
    L, jitter = cholesky(K)
    assert jitter == 0.0
    assert torch.equal(L, L.tril())
    # of the factor and of this product: Higham, Accuracy and Stability of Numerical Algorithms, theorem 10.3
    bound = 2 * 31 * torch.finfo(dtype).eps * K.diagonal().sqrt().outer(K.diagonal().sqrt())
    assert ((L @ L.mT - K).abs() <= bound).all()


def test_a_singular_matrix_is_factored_with_a_little_jitter(device):
    v = torch.randn(20, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64, device="cpu")
    K = (v @ v.mT).to(device)
    L, jitter = cholesky(K)
    assert 0.0 < jitter <= 1e-6
    assert torch.allclose(L @ L.mT, K, atol=2e-6 * K.diagonal().mean().item())


@pytest.mark.parametrize("eigenvalue", [-1.0, math.nan])
def test_an_indefinite_matrix_is_refused(device, eigenvalue):
    K = torch.diag(torch.tensor([1.0, 2.0, eigenvalue], dtype=torch.float64, device=device))
    with pytest.raises(NumericsError, match="3 x 3 covariance is not positive definite even with a jitter"):
        cholesky(K)


def matrix(n, seed=0, noise=1e-3, lengthscale=0.5):
    X = torch.rand(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) / lengthscale
    r2 = squared_distances(X, X)
    r2.diagonal().zero_()
    return matern(r2, 2.5) + noise * torch.eye(n, dtype=torch.float64)


@settings(max_examples=30)
@given(st.integers(0, 40), st.integers(1, 5), st.integers(1, 50), st.integers(0, 1000))
def test_a_factor_in_place_and_its_solves_equal_whole_ones(n, p, size, seed):
    K = matrix(n, seed)
    expected = torch.linalg.cholesky(K)
    B = torch.randn(n, p, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    L = K.tril() + torch.full_like(K, math.nan).triu(1)  # nobody may look above the diagonal
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpbo.numerics._BLOCK_ON_CPU", size)
        cholesky_in_place(L)
        lower, upper = solve_lower(L, B), solve_upper(L, B)
    assert torch.allclose(L.tril(), expected, rtol=1e-12, atol=1e-12)
    assert torch.allclose(
        lower, torch.linalg.solve_triangular(expected, B, upper=False), rtol=1e-9, atol=1e-9
    )
    assert torch.allclose(
        upper, torch.linalg.solve_triangular(expected.mT, B, upper=True), rtol=1e-9, atol=1e-9
    )


def test_a_factor_in_place_writes_zeros_in_the_blocks_on_the_diagonal_and_nothing_else_above_it(monkeypatch):
    monkeypatch.setattr("gpbo.numerics._BLOCK_ON_CPU", 3)
    K = matrix(7)
    L = K.clone()
    assert cholesky_in_place(L) is None
    within = torch.arange(7) // 3 == (torch.arange(7) // 3).unsqueeze(-1)
    assert torch.equal(L.triu(1), torch.where(within, 0.0, K).triu(1))


@pytest.mark.parametrize("row", [0, 4, 6])  # in the first block, the second, and the last, which is short
@pytest.mark.parametrize("value", [-1.0, math.nan])
def test_an_indefinite_matrix_is_refused_in_place(device, monkeypatch, row, value):
    monkeypatch.setattr("gpbo.numerics._BLOCK_ON_CPU", 3)
    K = matrix(7).to(device)
    K[row, row] = value
    with pytest.raises(NumericsError, match="the 7 x 7 covariance is not positive definite"):
        cholesky_in_place(K)


@pytest.mark.parametrize("n", [1, 40, 96, 97, 300])
@pytest.mark.parametrize("consume", [False, True])
def test_the_inverse_factor_and_its_gram_matrix_are_those_of_torch(device, n, consume, monkeypatch):
    monkeypatch.setattr("gpbo.numerics._ROWS_ON_CUDA", 96)
    K = torch.stack([matrix(n, noise=0.1), matrix(n, seed=1, noise=0.1)]).to(device)
    L = torch.linalg.cholesky(K)
    before = L.clone()
    R = inverse_factor(L, consume=consume)
    assert consume or torch.equal(L, before)
    assert torch.equal(R, R.tril())
    assert torch.allclose(R, torch.linalg.inv(before), rtol=1e-9, atol=1e-9)
    P = gram(R)
    assert torch.allclose(P, torch.linalg.inv(K), rtol=1e-9, atol=1e-9)


@settings(max_examples=30)
@given(st.integers(0, 40), st.integers(1, 5), st.integers(1, 50), st.integers(0, 1000))
def test_products_by_blocks_equal_whole_ones(n, p, size, seed):
    draws = torch.Generator().manual_seed(seed)
    R = torch.randn(n, n, generator=draws, dtype=torch.float64).tril()
    B = torch.randn(p, n, generator=draws, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpbo.numerics._BLOCK_ON_CPU", size)
        blocks = list(row_blocks(R))
        A, solution = whiten_and_solve(R, B)
    assert sum(block.numel() for *_, block in blocks) <= n * (n + size) / 2
    assert torch.allclose(A, B @ R.mT, rtol=1e-12, atol=1e-12)
    assert torch.allclose(solution, B @ R.mT @ R, rtol=1e-12, atol=1e-12)


def test_products_by_blocks_have_gradients():
    R, B = matrix(7).tril(), matrix(7)[:2].clone().requires_grad_(True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpbo.numerics._BLOCK_ON_CPU", 3)
        assert torch.autograd.gradcheck(lambda B: whiten_and_solve(R, B), B)


def grown(R, K12, K22):
    """R with the rows that follow it."""
    rows = next_rows(R, K12.mT, K22)
    return torch.cat([torch.cat([R, torch.zeros_like(K12)], dim=-1), rows])


@settings(max_examples=30)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 1000))
def test_the_next_rows_are_those_of_a_fresh_factor(n, p, seed):
    K = matrix(n + p, seed)
    R = inverse_factor(cholesky(K[:n, :n])[0])
    fresh = inverse_factor(cholesky(K)[0])
    assert torch.allclose(next_rows(R, K[n:, :n], K[n:, n:]), fresh[n:], rtol=1e-10, atol=1e-10)


def test_appending_one_by_one_does_not_drift(device):
    K = matrix(60, noise=1e-4).to(device)
    R = inverse_factor(cholesky(K[:10, :10])[0])
    for n in range(10, 60):
        R = grown(R, K[:n, n : n + 1], K[n : n + 1, n : n + 1])
    fresh = inverse_factor(cholesky(K)[0])
    assert ((R - fresh).norm() / fresh.norm()).item() < 1e-10


def test_appending_what_is_not_positive_definite_is_refused():
    R = torch.eye(2, dtype=torch.float64)
    with pytest.raises(NumericsError, match="1 x 1 covariance is not positive definite"):
        next_rows(R, torch.ones(1, 2, dtype=R.dtype), torch.ones(1, 1, dtype=R.dtype))


def exact_variances(K, k):
    """1 - k^T inv(K) k for each column of k, in 50 digits."""
    with mpmath.workdps(50):
        L = mpmath.cholesky(mpmath.matrix(K.tolist())).tolist()
        variances = []
        for column in k.mT.tolist():
            a = []
            for row, value in zip(L, column, strict=True):
                a.append((value - mpmath.fdot(zip(row, a, strict=False))) / row[len(a)])
            variances.append(float(1 - mpmath.fdot(a, a)))
    return torch.tensor(variances, dtype=torch.float64)


def test_variances_from_the_inverse_factor_survive_a_condition_number_of_a_thousand_million():
    n, lengthscale, noise = 50, 5.0, 2e-8
    generator = torch.Generator().manual_seed(3)
    X = torch.rand(n + 6, 2, generator=generator, dtype=torch.float64)
    X[n:] = X[:6] + 1e-3  # close to the data, where the variance is small
    r2 = squared_distances(X / lengthscale, X / lengthscale)
    r2.diagonal().zero_()
    full = matern(r2, 2.5)
    K, k = full[:n, :n] + noise * torch.eye(n, dtype=torch.float64), full[:n, n:]
    assert 1e9 < torch.linalg.cond(K) < 1e10

    exact = exact_variances(K, k)
    R = inverse_factor(cholesky(K)[0])
    half = n // 2
    appended = grown(inverse_factor(cholesky(K[:half, :half])[0]), K[:half, half:], K[half:, half:])

    def worst(variance):
        return ((variance - exact).abs() / exact).max().item()

    explicit = worst(1.0 - (k * (torch.linalg.inv(K) @ k)).sum(0))
    assert worst(1.0 - (R @ k).square().sum(0)) < 1e-6
    assert worst(1.0 - (appended @ k).square().sum(0)) < 1e-6
    assert explicit > 100 * worst(1.0 - (R @ k).square().sum(0))


@pytest.mark.parametrize(("n", "inside"), [(10, 1), (10_000, 2)])
def test_small_work_takes_one_thread_and_gives_the_others_back(n, inside):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with few_threads(n):
            assert torch.get_num_threads() == inside
        assert torch.get_num_threads() == 2
        with pytest.raises(ZeroDivisionError), few_threads(n):
            raise ZeroDivisionError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
