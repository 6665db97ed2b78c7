"""The negative log posterior of the hyper-parameters: value, gradient and Hessian.

Notation: n observations, F features phi in groups that share a lengthscale, p = d + 2 parameters theta,
b starts in one batch (every tensor has a leading b). With z = phi / lengthscale,

    C = K + 11^T + v I = L L^T    R = inv(L)    P = R^T R    alpha = P y    W = P - alpha alpha^T    M = W o G

    f            = 1/2 y . alpha + sum log diag L + n/2 log 2 pi + 1/2 |(theta - m) / s|^2
    df/dlog l_f  = sum_n z_nf^2 (M 1)_n - (Z^T M Z)_ff         summed over a group; no n x n x d tensor
    df/dlog v    = v/2 (tr P - alpha . alpha)
    df/dlog s2   = 1/2 (n - v tr P - 1^T P 1 - y . alpha + v alpha . alpha + (1 . alpha)^2)
    H_ij         = alpha^T K_i P K_j alpha - 1/2 tr(P K_i P K_j) + 1/2 tr(W K_ij)

K_i is the derivative of C by theta_i; 11^T is the constant mean, integrated out (Rasmussen and Williams
2006, section 2.7). The trace of a product is exact for small n and else the
mean of u_i . u_j over fixed random probes e, u_i = R K_i R^T e (Hutchinson; Geoga, Anitescu and Stein 2019,
arXiv 1808.03215). Derivations: Rasmussen and Williams 2006, section 5.4.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gpbo.gp.hypers import MEAN_VAR, NOISE_FLOOR, prior
from gpbo.kernels import matern, matern_and_slope, matern_curvature, squared_distances
from gpbo.numerics import inverse_factor

EXACT_TRACE = 64  # observations; above, the trace of the Hessian is estimated
_PROBES = 32  # fewer make the Hessian rougher and cost more iterations than they save
_ROUGH_PROBES = 8  # enough to tell whether a fit is worth while


@dataclass(frozen=True, eq=False)
class Problem:
    """What is fitted: y given features, for b starts at once.

    Attributes:
        phi: (n, F) or (b, n, F) features.
        groups: (F,) the lengthscale of each feature; every lengthscale has a feature or none.
        y: (n,) or (b, n) standardised values.
        d: The number of lengthscales.
        nu: The Matern smoothness, 1/2, 3/2 or 5/2.
        probes: (n, S) random signs for the trace.
    """

    phi: Tensor
    groups: Tensor
    y: Tensor
    d: int
    nu: float
    probes: Tensor

    @property
    def n(self) -> int:
        """The number of observations."""
        return self.phi.shape[-2]


@dataclass(frozen=True, eq=False)
class Point:
    """The objective at b settings of theta, with what its derivatives need."""

    theta: Tensor  # (b, p)
    value: Tensor  # (b,), inf where C is not positive definite
    Z: Tensor  # (b, n, F)
    L: Tensor  # (b, n, n)
    alpha: Tensor  # (b, n)

    def take(self, rows: Tensor) -> Point:
        """The settings at these rows of the batch."""
        return Point(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def put(self, rows: Tensor, other: Point) -> Point:
        """A copy in which these rows are those of `other`."""
        return Point(
            *(
                getattr(self, name).index_put((rows,), getattr(other, name))
                for name in self.__dataclass_fields__
            )
        )


def make_problem(phi: Tensor, groups: Tensor, y: Tensor, d: int, nu: float) -> Problem:
    """The problem with centred features and fixed probes; features that never vary are left out."""
    n = phi.shape[-2]
    phi = phi - phi.mean(-2, keepdim=True)
    varies = (phi.abs() > 0).flatten(0, -2).any(0)
    size = n if n <= EXACT_TRACE else _PROBES
    if n <= EXACT_TRACE:
        probes = torch.eye(n, dtype=phi.dtype)
    else:
        signs = torch.Generator().manual_seed(n)
        probes = torch.randint(0, 2, (n, size), generator=signs).to(phi.dtype) * 2 - 1
        probes = probes / math.sqrt(size)
    return Problem(phi[..., varies], groups[varies], y, d, nu, probes.to(phi.device))


def evaluate(problem: Problem, theta: Tensor) -> Point:  # (b, p)
    """The objective at each row of theta, by one factorisation each."""
    d, n = problem.d, problem.n
    inverse = torch.exp(-theta[:, :d])[:, problem.groups]
    Z = problem.phi * inverse.unsqueeze(-2)
    noise_var, outputscale = theta[:, d].exp() + NOISE_FLOOR, theta[:, d + 1].exp()
    r2 = squared_distances(Z, Z)
    r2.diagonal(dim1=-2, dim2=-1).zero_()
    C = matern(r2, problem.nu).mul_(outputscale[:, None, None])
    C += MEAN_VAR
    C.diagonal(dim1=-2, dim2=-1).add_(noise_var[:, None])
    L, info = torch.linalg.cholesky_ex(C)
    y = problem.y.expand(len(theta), n)
    alpha = torch.cholesky_solve(y.unsqueeze(-1), L).squeeze(-1)
    centre, spread = prior(d, theta.device)
    value = (
        0.5 * (y * alpha).sum(-1)
        + L.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        + 0.5 * n * math.log(2 * math.pi)
        + 0.5 * ((theta - centre) / spread).square().sum(-1)
    )
    value = torch.where((info == 0) & value.isfinite(), value, math.inf)
    return Point(theta, value, Z, L, alpha)


def gradient(problem: Problem, at: Point) -> Tensor:  # (b, p)
    """The gradient of the objective."""
    return _Derivatives(problem, at).gradient


def gradient_and_hessian(
    problem: Problem, at: Point, *, rough: bool = False
) -> tuple[Tensor, Tensor]:  # (b, p), (b, p, p)
    """The gradient, and the Hessian with its trace term exact or estimated; more cheaply when `rough`."""
    derivatives = _Derivatives(problem, at)
    return derivatives.gradient, derivatives.hessian(rough=rough)


class _Derivatives:
    """What gradient and Hessian have in common at one point."""

    def __init__(self, problem: Problem, at: Point) -> None:
        d, self.problem, self.at = problem.d, problem, at
        self.Z2 = at.Z.square()
        self.excess = at.theta[:, d].exp()  # of the noise above its floor
        self.noise_var = self.excess + NOISE_FLOOR
        outputscale = at.theta[:, d + 1].exp()
        r2 = squared_distances(at.Z, at.Z)
        r2.diagonal(dim1=-2, dim2=-1).zero_()
        _, G = matern_and_slope(r2, problem.nu)
        self.G = G.mul_(outputscale[:, None, None])
        self.r2, self.outputscale = r2, outputscale
        self.R = inverse_factor(at.L)
        self.P = self.R.mT @ self.R
        self.W = torch.baddbmm(self.P, at.alpha.unsqueeze(-1), at.alpha.unsqueeze(-2), alpha=-1.0)
        centre, spread = prior(d, at.theta.device)
        self.precision = spread**-2
        M = self.W * self.G
        by_feature = (self.Z2 * M.sum(-1, keepdim=True)).sum(-2) - (at.Z * (M @ at.Z)).sum(-2)
        trace = self.P.diagonal(dim1=-2, dim2=-1).sum(-1)
        fit = at.alpha.square().sum(-1)
        self.d_noise = 0.5 * self.excess * (trace - fit)
        constant = MEAN_VAR * (self.P.sum((-2, -1)) - at.alpha.sum(-1).square())
        data = (problem.y * at.alpha).sum(-1)
        self.d_scale = 0.5 * (problem.n - self.noise_var * (trace - fit) - constant - data)
        self.d_length = self._by_group(by_feature)
        self.likelihood = torch.cat([self.d_length, self.d_noise[:, None], self.d_scale[:, None]], -1)
        self.gradient = self.likelihood + (at.theta - centre) * self.precision

    def hessian(self, *, rough: bool) -> Tensor:  # (b, p, p)
        at, d = self.at, self.problem.d
        U = self._derivatives_times(at.alpha.unsqueeze(-1)).squeeze(-1)  # (b, p, n): K_i alpha
        PU = U @ self.P
        H = PU @ U.mT
        V = self._derivatives_times(self.R.mT @ self._probes(rough))  # (b, p, n, S)
        V = (self.R.unsqueeze(1) @ V).flatten(-2)
        H -= 0.5 * (V @ V.mT)
        H[:, :d, :d] += self._second_lengthscales()
        H[:, d, d] += self.d_noise
        H[:, d + 1, d + 1] += self.d_scale
        H[:, :d, d + 1] += self.d_length
        H[:, d + 1, :d] += self.d_length
        return H + torch.diag(self.precision)

    def _probes(self, rough: bool) -> Tensor:  # (n, S)
        probes = self.problem.probes
        if not rough or self.problem.n <= EXACT_TRACE:
            return probes
        return probes[:, :_ROUGH_PROBES] * math.sqrt(_PROBES / _ROUGH_PROBES)

    def _second_lengthscales(self) -> Tensor:  # (b, d, d)
        """1/2 tr(W K_ij) for the lengthscales, with Q = W o G2: sum_nm Q_nm D^i_nm D^j_nm expanded."""
        Z, Z2 = self.at.Z, self.Z2
        F = Z.shape[-1]
        Q = matern_curvature(self.r2, self.problem.nu).mul_(self.outputscale[:, None, None]).mul_(self.W)
        QZ, QZ2 = Q @ Z, Q @ Z2
        T = Z2.mT @ (Z2 * Q.sum(-1, keepdim=True)) + Z2.mT @ QZ2
        cross = Z2.mT @ (Z * QZ)
        T -= 2.0 * (cross + cross.mT)
        first, second = torch.triu_indices(F, F, device=Z.device)
        for rows in torch.arange(len(first), device=Z.device).split(256):
            i, j = first[rows], second[rows]
            pairs = Z[..., i] * Z[..., j]
            product = 2.0 * (pairs * (Q @ pairs)).sum(-2)
            T[:, i, j] += product
            T[:, j, i] += torch.where(i == j, 0.0, product)
        grouped = self._by_group(self._by_group(T).mT)
        return grouped - 2.0 * torch.diag_embed(self.d_length)

    def _derivatives_times(self, V: Tensor) -> Tensor:  # (b, n, S) -> (b, p, n, S)
        """K_i V for every parameter, by products with G alone: K_f V = (G o D_f) V."""
        b, n, S = V.shape
        Z, Z2 = self.at.Z.mT.unsqueeze(-1), self.Z2.mT.unsqueeze(-1)  # (b, F, n, 1)
        V_ = V.unsqueeze(1)
        GV = (self.G @ V).unsqueeze(1)
        stacked = torch.cat([Z * V_, Z2 * V_], dim=1)  # (b, 2F, n, S)
        F = Z.shape[1]
        flat = stacked.permute(0, 2, 1, 3).reshape(b, n, -1)
        flat = (self.G @ flat).reshape(b, n, 2 * F, S).permute(0, 2, 1, 3)
        by_feature = Z2 * GV + flat[:, F:] - 2.0 * Z * flat[:, :F]
        out = V.new_zeros(b, self.problem.d + 2, n, S)
        out.index_add_(1, self.problem.groups, by_feature)
        out[:, -2] = self.excess[:, None, None] * V
        constant = MEAN_VAR * V.sum(-2, keepdim=True)
        out[:, -1] = self.at.L @ (self.at.L.mT @ V) - self.noise_var[:, None, None] * V - constant
        return out

    def _by_group(self, by_feature: Tensor) -> Tensor:  # (..., F) -> (..., d)
        out = by_feature.new_zeros(*by_feature.shape[:-1], self.problem.d)
        return out.index_add_(-1, self.problem.groups, by_feature)
