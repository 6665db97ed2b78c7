"""Numerically safe pieces: Cholesky factors that grow, and the logarithm of expected improvement.

Notation: phi and Phi are the standard normal density and distribution, h(z) = phi(z) + z Phi(z), so that
EI = sigma h((mean - best) / sigma). A factor L is lower triangular, K = L L^T, and R = inv(L) is what the
posterior uses: of an ill-conditioned K it keeps the digits of the variances that inv(K) loses.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from gpbo.errors import NumericsError

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
_SQRT_HALF_PI = math.sqrt(0.5 * math.pi)
_TAIL = -60.0  # below it the asymptotic series of 1 - t R(t) is exact to 1e-13
_JITTERS = (0.0, 1e-10, 1e-8, 1e-6, 1e-4)  # times the mean of the diagonal
_ROWS_ON_CPU = 96  # of the blocks by which a triangular matrix is inverted, or multiplied by itself
_ROWS_ON_CUDA = 512
_BLOCK_ON_CPU = 256  # rows of a triangular matrix at a time: of a thousand columns they fit in a core's cache
_BLOCK_ON_CUDA = 2048
_SMALL = 400  # rows; below it more threads gain little, and the trials need them


@contextmanager
def few_threads(n: int) -> Iterator[None]:
    """One thread for work on matrices of `n` rows when these are small; restored on leaving."""
    before = torch.get_num_threads()
    if n >= _SMALL or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cholesky(K: Tensor) -> tuple[Tensor, float]:  # (n, n) -> (n, n)
    """The lower factor of a positive definite matrix, and the jitter it took, relative to the diagonal.

    Raises:
        NumericsError: if the matrix is not positive definite even with a jitter of 1e-4.
    """
    for jitter in _JITTERS:
        C = K
        if jitter > 0.0:
            C = K + jitter * K.diagonal().mean() * torch.eye(len(K), dtype=K.dtype, device=K.device)
        L, info = torch.linalg.cholesky_ex(C)
        if int(info) == 0 and bool(torch.isfinite(L.diagonal()).all()):
            return L, jitter
    raise NumericsError(
        f"the {len(K)} x {len(K)} covariance is not positive definite even with a jitter of {_JITTERS[-1]}."
    )


def cholesky_in_place(K: Tensor) -> None:  # (n, n)
    """Write the lower factor of K over it, reading its lower triangle only; no jitter, K is gone by then.

    Left-looking: one product, in place, takes off what the columns before a block of columns explain; the
    memory beside K is that of one such block. Of the strict upper triangle only the blocks on the diagonal
    are written, with zeros; `solve_lower` and `solve_upper` never look there.

    Raises:
        NumericsError: if the matrix is not positive definite; what it holds then is of no use.
    """
    for i, j, rows in row_blocks(K):
        before = rows[:, :i]
        K[i:, i:j].addmm_(K[i:, :i], before.mT, alpha=-1.0)
        L, info = torch.linalg.cholesky_ex(K[i:j, i:j])
        if int(info) != 0 or not bool(torch.isfinite(L.diagonal()).all()):
            raise NumericsError(f"the {len(K)} x {len(K)} covariance is not positive definite.")
        K[i:j, i:j] = L
        K[j:, i:j] = torch.linalg.solve_triangular(L.mT, K[j:, i:j], upper=True, left=False)


def solve_lower(L: Tensor, B: Tensor) -> Tensor:  # (n, n), (n, p) -> (n, p)
    """inv(L) B, block by block: for factors too large to have their inverse beside them."""
    A = B.clone()
    for i, j, rows in row_blocks(L):
        A[i:j].addmm_(rows[:, :i], A[:i], alpha=-1.0)
        A[i:j] = torch.linalg.solve_triangular(rows[:, i:], A[i:j], upper=False)
    return A


def solve_upper(L: Tensor, B: Tensor) -> Tensor:  # (n, n), (n, p) -> (n, p)
    """inv(L^T) B, block by block."""
    A = B.clone()
    for i, j, rows in reversed(list(row_blocks(L))):
        A[i:j] = torch.linalg.solve_triangular(rows[:, i:].mT, A[i:j], upper=True)
        A[:i].addmm_(rows[:, :i].mT, A[i:j], alpha=-1.0)
    return A


def inverse_factor(L: Tensor, *, consume: bool = False) -> Tensor:  # (..., n, n) -> (..., n, n)
    """R = inv(L) for a lower triangular L; with `consume` it may take the memory of L.

    Row by row of blocks, R_ij = -R_ii sum_k L_ik R_kj, which are products of what is not zero.
    """
    n, size = L.shape[-1], _ROWS_ON_CUDA if L.is_cuda else _ROWS_ON_CPU
    eye = torch.eye(min(n, size), dtype=L.dtype, device=L.device)
    if n <= size:
        return torch.linalg.solve_triangular(L, eye, upper=False)
    R = L if consume else L.clone()
    for i in range(0, n, size):
        j = min(i + size, n)
        diagonal = torch.linalg.solve_triangular(L[..., i:j, i:j], eye[: j - i, : j - i], upper=False)
        left = (diagonal @ L[..., i:j, :i]).neg_()
        for k in range(0, i, size):
            R[..., i:j, k : k + size] = left[..., k:] @ R[..., k:i, k : k + size]
        R[..., i:j, i:j] = diagonal
    return R


def gram(R: Tensor) -> Tensor:  # (..., n, n) -> (..., n, n)
    """R^T R for a lower triangular R, by products of what is not zero: a third of a whole product's work."""
    n, size = R.shape[-1], _ROWS_ON_CUDA if R.is_cuda else _ROWS_ON_CPU
    P = torch.empty_like(R, memory_format=torch.contiguous_format)
    for i in range(0, n, size):
        j = min(i + size, n)
        P[..., i:j, :j] = R[..., i:, i:j].mT @ R[..., i:, :j]
        P[..., :i, i:j] = P[..., i:j, :i].mT
    return P


def row_blocks(R: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """Rows i to j of a lower triangular R (n, n), up to the diagonal, as (i, j, (j - i, j)).

    A product block by block does half the work of a whole one, and two products with the same block read it
    from memory once.
    """
    size = _BLOCK_ON_CUDA if R.is_cuda else _BLOCK_ON_CPU
    for i in range(0, len(R), size):
        j = min(i + size, len(R))
        yield i, j, R[i:j, :j]


def whiten_and_solve(R: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:  # (n, n), (p, n) -> (p, n), (p, n)
    """A = B R^T and B inv(K) = A R, for the inverse factor R of K; few rows cost half of what columns do."""
    A, solution = torch.empty_like(B), torch.zeros_like(B)
    for i, j, block in row_blocks(R):
        A[:, i:j] = part = B[:, :j] @ block.mT
        solution[:, :j].addmm_(part, block)
    return A, solution


def next_rows(R: Tensor, K21: Tensor, K22: Tensor) -> Tensor:  # -> (p, n + p)
    """The rows that follow R in inv of the factor of [[K, K21^T], [K21, K22]], in O(n^2 p).

    Args:
        R: (n, n) the inverse factor of K.
        K21: (p, n) covariance of the new points with the old ones.
        K22: (p, p) covariance of the new points, noise included.

    Raises:
        NumericsError: if the Schur complement is not positive definite.
    """
    A, solution = whiten_and_solve(R, K21)
    S, _ = cholesky(K22 - A @ A.mT)
    # not by `inverse_factor`, which autograd cannot follow into its blocks
    S_inv = torch.linalg.solve_triangular(S, torch.eye(len(S), dtype=S.dtype, device=S.device), upper=False)
    return torch.cat([-S_inv @ solution, S_inv], dim=-1)


def log_h(z: Tensor) -> tuple[Tensor, Tensor]:
    """log h(z) and its derivative Phi(z) / h(z), for every finite z (Ament et al. 2023, eq. 9).

    With t = -z and Mills' ratio R(t) = Phi(-t) / phi(t), h(z) = phi(z) (1 - t R(t)); far in the tail
    1 - t R(t) = t^-2 - 3 t^-4 + 15 t^-6 - 105 t^-8 + ...
    """
    right = z.clamp(min=-1.0)
    phi = torch.exp(-0.5 * right.square() - _LOG_SQRT_2PI)
    Phi = torch.special.ndtr(right)
    h = torch.addcmul(phi, right, Phi)
    t = -z.clamp(min=_TAIL, max=-1.0)
    rest = 1.0 - t * _SQRT_HALF_PI * torch.special.erfcx(t * math.sqrt(0.5))
    far = z.clamp(max=_TAIL).reciprocal()
    u = far.square()
    rest = torch.where(z < _TAIL, u * (1.0 - u * (3.0 - u * (15.0 - 105.0 * u))), rest)
    mills = (rest - 1.0) / z.clamp(max=-1.0)
    log_left = rest.log() - 0.5 * z.square() - _LOG_SQRT_2PI
    near = z > -1.0
    return torch.where(near, h.log(), log_left), torch.where(near, Phi / h, mills / rest)


def log_ndtr_slope(z: Tensor) -> Tensor:
    """The derivative phi(z) / Phi(z) of log Phi(z), for every finite z."""
    left = _SQRT_HALF_PI * torch.special.erfcx(-z.clamp(max=0.0) / math.sqrt(2.0))
    right = z.clamp(min=0.0)
    density = torch.exp(-0.5 * right * right - _LOG_SQRT_2PI)
    return torch.where(z > 0.0, density / torch.special.ndtr(right), left.reciprocal())
