"""The Gaussian process as a value: what is believed, given observations and hyper-parameters.

Notation: n rows of which the last p may be pending, F features, z = phi / lengthscale, R = inv(L) with
L L^T = K + noise_var I, alpha = R^T R y. For a point x with covariances k to the n rows

    mean(x) = k . alpha            var(x) = k(x, x) - |R k|^2            k(x, x) = outputscale + MEAN_VAR

The variance does not depend on y, so a pending row, whose y is unknown, sharpens the variance with an
alpha of 0 and leaves the mean as it is; a value that arrives, or is imagined for it, changes alpha only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gpbo.cube import Cube
from gpbo.errors import SettingError
from gpbo.gp.fit import Fit, fit
from gpbo.gp.hypers import MEAN_VAR, Hypers
from gpbo.kernels import NUS, Embedding, matern, matern_and_slope, squared_distances
from gpbo.numerics import append_inverse_factor, cholesky, inverse_factor

_MIN_VAR = 1e-12  # times the outputscale
_COARSE = 256  # rows of a first, coarse fit


@dataclass(frozen=True, eq=False)
class GP:
    """A posterior over functions on a cube. Values are those it was given, standardised or not.

    Attributes:
        embedding: From points to features.
        hypers: The hyper-parameters.
        nu: The Matern smoothness.
        Z: (n, F) scaled features of the rows, centred.
        centre: (F,) what is subtracted from scaled features.
        R: (n, n) the inverse of the lower factor.
        y: (n,) values; nan for pending rows.
        alpha: (n,) weights of the mean; 0 for pending rows.
    """

    embedding: Embedding
    hypers: Hypers
    nu: float
    Z: Tensor
    centre: Tensor
    R: Tensor
    y: Tensor
    alpha: Tensor

    @property
    def n(self) -> int:
        """The number of rows, pending ones included."""
        return len(self.y)

    def features(self, X: Tensor) -> Tensor:  # (..., d) -> (..., F)
        """Scaled, centred features of points."""
        scale = self.hypers.lengthscale.reciprocal()[self.embedding.groups.to(X.device)]
        return self.embedding(X) * scale - self.centre

    def covariance(self, A: Tensor, B: Tensor) -> Tensor:  # (..., a, F), (..., b, F) -> (..., a, b)
        """The prior covariance between scaled features; differentiable once."""
        k: Tensor = _Matern.apply(_distances(A, B), self.nu)  # type: ignore[no-untyped-call]
        return self.hypers.outputscale * k + MEAN_VAR

    def marginal(self, X: Tensor) -> tuple[Tensor, Tensor]:  # (..., d) -> (...), (...)
        """The posterior mean and variance of the function at each point, noise left out."""
        z = self.features(X)
        if z.requires_grad:
            k = self.covariance(z, self.Z)
        else:  # the same in place, for the many points of a screening
            k = matern(squared_distances(z, self.Z), self.nu)
            k.mul_(self.hypers.outputscale).add_(MEAN_VAR)
        mean = k @ self.alpha
        A = k @ self.R.mT
        var = self.hypers.outputscale + MEAN_VAR - torch.linalg.vecdot(A, A)
        return mean, var.clamp(min=_MIN_VAR * float(self.hypers.outputscale))

    def marginal_and_gradient(self, X: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """mean (b,), var (b,) and their gradients (b, d) at points X (b, d), without autograd.

        dmean/dx = -(G o alpha) (z - Z) / l, dvar/dx = 2 (G o V) (z - Z) / l with V = R^T R k.
        """
        z = self.features(X)
        k, G = matern_and_slope(squared_distances(z, self.Z), self.nu)
        outputscale = self.hypers.outputscale
        k.mul_(outputscale).add_(MEAN_VAR)
        G *= outputscale
        A = k @ self.R.mT
        V = A @ self.R
        mean = k @ self.alpha
        floor = _MIN_VAR * float(outputscale)
        var = outputscale + MEAN_VAR - torch.linalg.vecdot(A, A)
        scale = self.hypers.lengthscale.reciprocal()[self.embedding.groups.to(X.device)]

        def pulled(weights: Tensor) -> Tensor:  # sum_n weights_n (Z_n - z) / l
            slope = (weights @ self.Z - weights.sum(-1, keepdim=True) * z) * scale
            return self.embedding.pullback(X, slope)

        d_mean = pulled(G * self.alpha)
        d_var = pulled(G * V).mul_(-2.0)
        return mean, var.clamp(min=floor), d_mean, torch.where((var > floor).unsqueeze(-1), d_var, 0.0)

    def posterior(self, X: Tensor) -> tuple[Tensor, Tensor]:  # (..., q, d) -> (..., q), (..., q, q)
        """The joint posterior mean and covariance of the function at q points; differentiable once."""
        z = self.features(X)
        k = self.covariance(z, self.Z)
        A = k @ self.R.mT
        cov = self.covariance(z, z) - A @ A.mT
        return k @ self.alpha, cov

    def condition(self, X: Tensor, y: Tensor | None = None) -> GP:  # (p, d), (p,)
        """The process with p more rows, in O(n^2 p); without `y` they are pending.

        Raises:
            NumericsError: if the covariance stops being positive definite.
        """
        z = self.features(X)
        noise = self.hypers.noise_var * torch.eye(len(z), dtype=z.dtype, device=z.device)
        R = append_inverse_factor(self.R, self.covariance(self.Z, z), self.covariance(z, z) + noise)
        grown = replace(self, Z=torch.cat([self.Z, z]), R=R)
        if y is None:
            nothing = self.y.new_full((len(z),), torch.nan)
            return replace(
                grown,
                y=torch.cat([self.y, nothing]),
                alpha=torch.cat([self.alpha, torch.zeros_like(nothing)]),
            )
        return grown.with_values(torch.cat([self.y, y.to(self.y)]))

    def with_values(self, y: Tensor) -> GP:  # (n,)
        """The process with other values at its rows, in O(n^2); rows of nan must come last.

        Raises:
            SettingError: if a row of nan stands before a value.
        """
        finite = y.isfinite()
        known = int(finite.sum())
        if not bool(finite[:known].all()):
            raise SettingError(f"`y`: rows without a value must come last, got one among the first {known}.")
        R = self.R[:known, :known]
        alpha = torch.zeros_like(y)
        alpha[:known] = R.mT @ (R @ y[:known])
        return replace(self, y=y, alpha=alpha)


def make_gp(cube: Cube, X: Tensor, y: Tensor, hypers: Hypers, *, nu: float = 2.5) -> GP:
    """The process at given hyper-parameters.

    Args:
        cube: The domain.
        X: (n, d) snapped points.
        y: (n,) finite values.
        hypers: The hyper-parameters.
        nu: The Matern smoothness.

    Raises:
        SettingError: if `nu` is not 1/2, 3/2 or 5/2, or the shapes do not fit.
        NumericsError: if the covariance is not positive definite even with jitter.
    """
    _check(cube, X, y, nu)
    embedding = Embedding(cube)
    Z, centre = _scaled_features(embedding, X, hypers)
    r2 = squared_distances(Z, Z)
    r2.diagonal().zero_()
    C = hypers.outputscale * matern(r2, nu) + MEAN_VAR
    C.diagonal().add_(hypers.noise_var)
    L, _ = cholesky(C)
    gp = GP(embedding, hypers, nu, Z, centre, inverse_factor(L), y, torch.zeros_like(y))
    return gp.with_values(y)


def fit_gp(
    cube: Cube, X: Tensor, y: Tensor, *, nu: float = 2.5, warm: Hypers | None = None
) -> tuple[GP, Fit]:
    """The process at fitted hyper-parameters, and how the fit went; arguments as in `make_gp`."""
    _check(cube, X, y, nu)
    embedding = Embedding(cube)
    phi, groups = embedding(X), embedding.groups
    starts = None
    if warm is None and len(X) > _COARSE:  # a fit of a few rows saves most of the steps on all of them
        rows = torch.linspace(0, len(X) - 1, _COARSE, device=X.device).round().long()
        starts = fit(phi[rows], groups, y[rows], cube.d, nu=nu).hypers[0].theta.unsqueeze(0)
    found = fit(phi, groups, y, cube.d, nu=nu, warm=warm, starts=starts)
    Z, centre = _scaled_features(embedding, X, found.hypers[0])
    R = inverse_factor(found.L)
    gp = GP(embedding, found.hypers[0], nu, Z, centre, R, y, torch.zeros_like(y))
    return gp.with_values(y), found


def _scaled_features(embedding: Embedding, X: Tensor, hypers: Hypers) -> tuple[Tensor, Tensor]:
    phi = embedding(X) * hypers.lengthscale.reciprocal()[embedding.groups.to(X.device)]
    centre = phi.mean(0)
    return phi - centre, centre


def _check(cube: Cube, X: Tensor, y: Tensor, nu: float) -> None:
    if nu not in NUS:
        raise SettingError(f"`nu` must be one of {list(NUS)}, got {nu!r}.")
    if X.ndim != 2 or X.shape[1] != cube.d or y.shape != X.shape[:1]:
        raise SettingError(
            f"`X` must have shape (n, {cube.d}) and `y` (n,), got {tuple(X.shape)} and {tuple(y.shape)}."
        )


def _distances(A: Tensor, B: Tensor) -> Tensor:
    r2 = A.square().sum(-1).unsqueeze(-1) + B.square().sum(-1).unsqueeze(-2) - 2.0 * A @ B.mT
    return r2.clamp(min=0.0)


class _Matern(torch.autograd.Function):
    """The kernel of r2 with dk/dr2 = -G / 2, finite at r2 = 0."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, r2: Tensor, nu: float) -> Tensor:
        k, G = matern_and_slope(r2, nu)
        ctx.save_for_backward(G)
        return k

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        (G,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return -0.5 * grad * G, None
