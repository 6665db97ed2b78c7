"""The negative log posterior of the hyper-parameters: value, gradient and curvature.

Notation: n observations, F features phi in groups that share a lengthscale, p = d + 2 parameters theta,
b starts in one batch (every tensor has a leading b). With z = phi / lengthscale,

    C = K + 11^T + v I = L L^T    P = inv(C)    alpha = P y    W = P - alpha alpha^T    M = W o G

    f            = 1/2 y . alpha + sum log diag L + n/2 log 2 pi + 1/2 |(theta - m) / s|^2
    df/dlog l_f  = sum_n z_nf^2 (M 1)_n - (Z^T M Z)_ff         summed over a group; no n x n x d tensor
    df/dlog v    = v/2 (tr P - alpha . alpha)
    df/dlog s2   = 1/2 (n - v tr P - 1^T P 1 - y . alpha + v alpha . alpha + (1 . alpha)^2)
    A_ij         = 1/2 alpha^T K_i P K_j alpha + 1/4 tr(W K'_ij)

K_i is the derivative of C by theta_i; 11^T is the constant mean, integrated out (Rasmussen and Williams
2006, section 2.7; the derivatives: section 5.4.1). A is the average of the Hessian, which is

    H_ij         = alpha^T K_i P K_j alpha - 1/2 tr(P K_i P K_j) + 1/2 tr(W K_ij)

and of its expectation 1/2 tr(P K_i P K_j), so that the traces of products, which cost n^3 each, cancel: the
average information of Gilmour, Thompson and Cullis 1995 (Biometrics 51). K'_ij is K_ij without the part that
has products of two lengthscales' distances: for two lengthscales it is -2 delta_ij K_i. That part costs F^2
products of n x n matrices with vectors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gpbo.gp.hypers import MEAN_VAR, NOISE_FLOOR, prior
from gpbo.kernels import matern_and_slope, squared_distances
from gpbo.numerics import gram, inverse_factor


@dataclass(frozen=True, eq=False)
class Problem:
    """What is fitted: y given features, for b starts at once.

    Attributes:
        phi: (n, F) centred features.
        groups: (F,) the lengthscale of each feature; every lengthscale has a feature or none.
        y: (n,) or (b, n) standardised values.
        d: The number of lengthscales.
        nu: The Matern smoothness, 1/2, 3/2 or 5/2.
        centre: (p,) of the prior of theta.
        precision: (p,) the reciprocal of its variance.
    """

    phi: Tensor
    groups: Tensor
    y: Tensor
    d: int
    nu: float
    centre: Tensor
    precision: Tensor

    @property
    def n(self) -> int:
        """The number of observations."""
        return len(self.phi)

    def take(self, rows: Tensor) -> Problem:
        """The problem for these starts."""
        return self if self.y.ndim == 1 else replace(self, y=self.y[rows])


@dataclass(frozen=True, eq=False)
class Point:
    """The objective at b settings of theta, with what its derivatives need."""

    theta: Tensor  # (b, p)
    value: Tensor  # (b,), inf where C is not positive definite
    Z: Tensor  # (b, n, F)
    G: Tensor  # (b, n, n), without the outputscale
    R: Tensor  # (b, n, n), the inverse of L
    alpha: Tensor  # (b, n)

    def take(self, rows: Tensor) -> Point:
        """The settings at these rows of the batch, given by a mask or their ascending indices."""
        if len(rows.nonzero() if rows.dtype == torch.bool else rows) == len(self.theta):
            return self
        return Point(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def put(self, rows: Tensor, other: Point) -> Point:
        """A copy in which these rows, ascending, are those of `other`."""
        if len(other.theta) == len(self.theta):
            return other
        return Point(
            *(
                getattr(self, name).index_put((rows,), getattr(other, name))
                for name in self.__dataclass_fields__
            )
        )


def make_problem(phi: Tensor, groups: Tensor, y: Tensor, d: int, nu: float) -> Problem:
    """The problem with centred features; those that never vary are left out."""
    phi = phi - phi.mean(0)
    varies = (phi.abs() > 0).any(0)
    centre, spread = prior(d, phi.device)
    return Problem(phi[:, varies], groups[varies], y, d, nu, centre, spread**-2)


def evaluate(problem: Problem, theta: Tensor) -> Point:  # (b, p)
    """The objective at each row of theta, by one factorisation each."""
    d, n = problem.d, problem.n
    inverse = torch.exp(-theta[:, :d])[:, problem.groups]
    Z = problem.phi * inverse.unsqueeze(-2)
    noise_var, outputscale = theta[:, d].exp() + NOISE_FLOOR, theta[:, d + 1].exp()
    r2 = squared_distances(Z, Z)
    r2.diagonal(dim1=-2, dim2=-1).zero_()
    C, G = matern_and_slope(r2, problem.nu, consume=True)
    C.mul_(outputscale[:, None, None]).add_(MEAN_VAR)
    C.diagonal(dim1=-2, dim2=-1).add_(noise_var[:, None])
    L = C.mT  # the same, and by columns, so that it is factorised in its place
    info = torch.empty(len(theta), dtype=torch.int32, device=theta.device)
    torch.linalg.cholesky_ex(L, out=(L, info))
    R = inverse_factor(L, consume=True)
    white = R @ problem.y.expand(len(theta), n).unsqueeze(-1)
    alpha = (R.mT @ white).squeeze(-1)
    value = (
        0.5 * white.square().sum((-2, -1))
        - R.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        + 0.5 * n * math.log(2 * math.pi)
        + 0.5 * ((theta - problem.centre).square() * problem.precision).sum(-1)
    )
    value = torch.where((info == 0) & value.isfinite(), value, math.inf)
    return Point(theta, value, Z, G, R, alpha)


def derivatives(problem: Problem, at: Point) -> tuple[Tensor, Tensor]:  # (b, p), (b, p, p)
    """The gradient; and the average information and the prior's, which stand for the Hessian."""
    d, alpha = problem.d, at.alpha
    Z = at.Z.mT.contiguous()  # few rows times n x n are up to twice as fast as few columns
    excess = at.theta[:, d].exp()  # of the noise above its floor
    noise_var, outputscale = excess + NOISE_FLOOR, at.theta[:, d + 1].exp()
    P = gram(at.R)
    noise = P.diagonal(dim1=-2, dim2=-1).sum(-1) - alpha.square().sum(-1)  # tr W
    constant = MEAN_VAR * (P.sum((-2, -1)) - alpha.sum(-1).square())  # 1^T W 1
    by_noise = 0.5 * excess * noise
    by_scale = 0.5 * (problem.n - noise_var * noise - constant - (problem.y * alpha).sum(-1))
    U = torch.cat(
        [
            _lengthscales_times_alpha(problem, Z, at) * outputscale[:, None, None],
            (excess[:, None] * alpha).unsqueeze(-2),
            (problem.y - noise_var[:, None] * alpha - MEAN_VAR * alpha.sum(-1, keepdim=True)).unsqueeze(-2),
        ],
        dim=-2,
    )
    A = 0.5 * (U @ P @ U.mT)
    W = P.baddbmm_(alpha.unsqueeze(-1), alpha.unsqueeze(-2), alpha=-1.0)
    M = W.mul_(at.G)  # without the outputscale
    by_feature = (Z.square() @ M.sum(-1, keepdim=True)).squeeze(-1) - (Z * (Z @ M)).sum(-1)
    by_length = _by_group(problem, by_feature.unsqueeze(-1)).squeeze(-1) * outputscale[:, None]
    A[:, :d, d + 1] += 0.5 * by_length
    A[:, d + 1, :d] += 0.5 * by_length
    second = torch.cat([-by_length, 0.5 * by_noise[:, None], 0.5 * by_scale[:, None]], -1)
    A.diagonal(dim1=-2, dim2=-1).add_(second + problem.precision)
    likelihood = torch.cat([by_length, by_noise[:, None], by_scale[:, None]], -1)
    return likelihood + (at.theta - problem.centre) * problem.precision, A


def _lengthscales_times_alpha(problem: Problem, Z: Tensor, at: Point) -> Tensor:  # (b, F, n) -> (b, d, n)
    """K_i alpha for the lengthscales over the outputscale, by one product: K_f alpha = (G o D_f) alpha."""
    alpha, Z2, F = at.alpha.unsqueeze(-2), Z.square(), Z.shape[-2]
    product = torch.cat([alpha, Z * alpha, Z2 * alpha], dim=-2) @ at.G
    by_feature = Z2 * product[:, :1] - 2.0 * Z * product[:, 1 : F + 1] + product[:, F + 1 :]
    return _by_group(problem, by_feature)


def _by_group(problem: Problem, by_feature: Tensor) -> Tensor:  # (b, F, m) -> (b, d, m)
    """Sums over the features that share a lengthscale."""
    b, _, m = by_feature.shape
    return by_feature.new_zeros(b, problem.d, m).index_add_(1, problem.groups, by_feature)
