"""The Gaussian process as a value: what is believed, given observations and hyper-parameters.

Notation: n rows of which the last p may be pending, F features, z = phi / lengthscale, R = inv(L) with
L L^T = K + noise_var I, alpha = R^T R y. For a point x with covariances k to the n rows

    mean(x) = k . alpha            var(x) = k(x, x) - |R k|^2            k(x, x) = outputscale + MEAN_VAR

The variance does not depend on y, so a pending row, whose y is unknown, sharpens the variance with an
alpha of 0 and leaves the mean as it is; a value that arrives, or is imagined for it, changes alpha only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from gpbo.cube import Cube
from gpbo.errors import SettingError
from gpbo.gp.factor import InverseFactor
from gpbo.gp.fit import Fit, default_starts, fit
from gpbo.gp.hypers import MEAN_VAR, Hypers
from gpbo.kernels import NUS, AtBudget, Embedding, matern, matern_and_slope, squared_distances
from gpbo.markup import table
from gpbo.numerics import cholesky, inverse_factor, next_rows, row_blocks, whiten_and_solve

MIN_VAR = 1e-12  # times the outputscale
_COARSE = 128  # rows of a first, coarse fit


@dataclass(frozen=True, eq=False)
class GP:
    """A posterior over functions on a cube. Values are those it was given, standardised or not.

    Attributes:
        embedding: From points to features.
        hypers: The hyper-parameters.
        nu: The Matern smoothness.
        Z: (n, F) scaled features of the rows, centred.
        centre: (F,) what is subtracted from scaled features.
        factor: The inverse of the lower factor, R (n, n), in memory shared with processes that continue it.
        y: (n,) values; nan for pending rows.
        alpha: (n,) weights of the mean; 0 for pending rows.
    """

    embedding: Embedding | AtBudget
    hypers: Hypers
    nu: float
    Z: Tensor
    centre: Tensor
    factor: InverseFactor
    y: Tensor
    alpha: Tensor

    def _repr_html_(self) -> str:
        known = int(self.y.isfinite().sum())
        hypers = self.hypers
        rows = [(f"lengthscale {j}", length) for j, length in enumerate(hypers.lengthscale.tolist())]
        rows += [("noise sigma", hypers.noise_var.sqrt().item()), ("sigma", hypers.outputscale.sqrt().item())]
        caption = f"Gaussian process, Matern {self.nu:g}: {known} values and {self.n - known} pending"
        return table(["of the unit cube and of warped values", ""], rows, caption=caption)

    @property
    def n(self) -> int:
        """The number of rows, pending ones included."""
        return len(self.y)

    @property
    def R(self) -> Tensor:  # (n, n)
        """The inverse of the lower factor, which stays as it is for as long as the process lives."""
        return self.factor.R

    @property
    def _own_R(self) -> Tensor:
        """R for autograd to keep, which minds that rows are written below R, and may outlive the process."""
        return self.R.clone()

    @property
    def lengthscale(self) -> Tensor:  # (d,)
        """The lengthscale of each column of its points."""
        return self.hypers.lengthscale[: self.embedding.cube.d]

    def at_budget(self, cube: Cube, budget: float) -> GP:
        """The process over configs alone at one budget, of one whose last column is the budget.

        Args:
            cube: The domain without the budget.
            budget: Where the budget stands in its column, from 0 to 1.

        Raises:
            SettingError: if it is at a budget already, or `cube` has not one column less.
        """
        if not isinstance(self.embedding, Embedding) or cube.d + 1 != self.embedding.cube.d:
            raise SettingError(
                f"a process over {self.embedding.cube.d} columns has no budget beside {cube.d}."
            )
        return replace(self, embedding=AtBudget(self.embedding, cube, budget))

    @cached_property
    def scale(self) -> Tensor:  # (F,)
        """One over the lengthscale of each feature."""
        return feature_scale(self.embedding, self.hypers)

    def features(self, X: Tensor) -> Tensor:  # (..., d) -> (..., F)
        """Scaled, centred features of points."""
        return self.embedding(X) * self.scale - self.centre

    def covariance(self, A: Tensor, B: Tensor) -> Tensor:  # (..., a, F), (..., b, F) -> (..., a, b)
        """The prior covariance between scaled features; differentiable once."""
        if A.requires_grad or B.requires_grad:
            k: Tensor = _Matern.apply(_distances(A, B), self.nu)  # type: ignore[no-untyped-call]
            return self.hypers.outputscale * k + MEAN_VAR
        return matern(squared_distances(A, B), self.nu).mul_(self.hypers.outputscale).add_(MEAN_VAR)

    def marginal(self, X: Tensor) -> tuple[Tensor, Tensor]:  # (..., d) -> (...), (...)
        """The posterior mean and variance of the function at each point, noise left out."""
        if X.ndim == 1:
            mean, var = self.marginal(X.unsqueeze(0))
            return mean[0], var[0]
        z = self.features(X)
        k = self.covariance(z, self.Z)
        if k.requires_grad:
            A = k @ self._own_R.mT
            explained = torch.linalg.vecdot(A, A)
        else:
            explained = torch.zeros_like(k[..., 0])
            for _, j, block in row_blocks(self.R):
                A = k[..., :j] @ block.mT
                explained += torch.linalg.vecdot(A, A)
        var = self.hypers.outputscale + MEAN_VAR - explained
        return k @ self.alpha, var.clamp(min=MIN_VAR * self.hypers.outputscale)

    def marginal_and_gradient(self, X: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """mean (b,), var (b,) and their gradients (b, d) at points X (b, d), without autograd."""
        mean, var, gradient = self.marginal_and_slope(X)
        one, zero = torch.ones_like(mean), torch.zeros_like(mean)
        return mean, var, gradient(one, zero), gradient(zero, one)

    def marginal_and_slope(self, X: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor, Tensor], Tensor]]:
        """mean (b,), var (b,) at points X (b, d), and the gradient (b, d) of any function of the two.

        The last is called with the function's derivatives (b,) by mean and by var. With V = R^T R k,
        dmean/dx = sum_n alpha_n dk_n/dx and dvar/dx = -2 sum_n V_n dk_n/dx.
        """
        k, G = self.covariance_and_slope(X)
        A, V = whiten_and_solve(self.R, k)
        floor = MIN_VAR * self.hypers.outputscale
        var = self.hypers.outputscale + MEAN_VAR - torch.linalg.vecdot(A, A)

        def gradient(by_mean: Tensor, by_var: Tensor) -> Tensor:
            by_var = torch.where(var > floor, -2.0 * by_var, 0.0)
            weights = torch.addcmul(V * by_var.unsqueeze(-1), self.alpha, by_mean.unsqueeze(-1))
            return self.pullback(X, weights.mul_(G))

        return k @ self.alpha, var.clamp(min=floor), gradient

    def covariance_and_slope(self, X: Tensor) -> tuple[Tensor, Tensor]:  # (b, d) -> (b, n), (b, n)
        """The prior covariances k with the rows, and G, where dk/dz = -G (z - Z)."""
        k, G = matern_and_slope(squared_distances(self.features(X), self.Z), self.nu)
        return k.mul_(self.hypers.outputscale).add_(MEAN_VAR), G.mul_(self.hypers.outputscale)

    def pullback(self, X: Tensor, weights: Tensor) -> Tensor:  # (b, d), (b, n) -> (b, d)
        """sum_n w_n dk(x, x_n)/dx at every point, for weights w_n G_n."""
        slope = weights @ self.Z - weights.sum(-1, keepdim=True) * self.features(X)
        return self.embedding.pullback(X, slope * self.scale)

    def posterior(self, X: Tensor) -> tuple[Tensor, Tensor]:  # (..., q, d) -> (..., q), (..., q, q)
        """The joint posterior mean and covariance of the function at q points; differentiable once."""
        z = self.features(X)
        k = self.covariance(z, self.Z)
        A = k @ (self._own_R if k.requires_grad else self.R).mT
        cov = self.covariance(z, z) - A @ A.mT
        return k @ self.alpha, cov

    def condition(self, X: Tensor, y: Tensor | None = None) -> GP:  # (p, d), (p,)
        """The process with p more rows, in O(n^2 p); without `y` they are pending.

        Raises:
            NumericsError: if the covariance stops being positive definite.
        """
        z = self.features(X)
        Z = torch.cat([self.Z, z])
        C = self.covariance(z, Z)
        K22 = C[:, self.n :]
        K22.diagonal().add_(self.hypers.noise_var)
        rows = next_rows(self._own_R if C.requires_grad else self.R, C[:, : self.n], K22)
        nothing = self.y.new_zeros(len(z))
        grown = replace(
            self,
            Z=Z,
            factor=self.factor.append(rows),
            y=torch.cat([self.y, nothing * torch.nan if y is None else y.to(self.y)]),
            alpha=torch.cat([self.alpha, nothing]),
        )
        if y is None:
            return grown
        if bool(grown.y.isfinite().all()):  # the new rows' part of R^T R y
            return replace(grown, alpha=grown.alpha + rows.mT @ (rows @ grown.y))
        return grown.with_values(grown.y)

    def pop(self, p: int) -> GP:
        """The process without its last p rows, in O(n p); it shares the memory of the others.

        Raises:
            SettingError: if `p` is negative, or no row would be left.
        """
        n = self.n - p
        if p < 0 or n < 1:
            raise SettingError(f"`p` must be from 0 to {self.n - 1}, got {p}.")
        known = int(self.y.isfinite().sum())
        rows = self.R[n:known]  # pending ones have no weight in alpha
        alpha = self.alpha[:n] - rows[:, :n].mT @ (rows[:, :known] @ self.y[:known])
        return replace(self, Z=self.Z[:n], factor=self.factor.head(n), y=self.y[:n], alpha=alpha)

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
        alpha[:known] = whiten_and_solve(R, y[:known].unsqueeze(0))[1].squeeze(0)
        return replace(self, y=y, alpha=alpha)

    def with_hypers(self, hypers: Hypers) -> GP:
        """The process of the same rows at other hyper-parameters, in O(n^3).

        Raises:
            NumericsError: if the covariance is not positive definite even with jitter.
        """
        ratio = feature_scale(self.embedding, hypers) / self.scale
        return _factored(self.embedding, hypers, self.nu, self.Z * ratio, self.centre * ratio, self.y)


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
    check_observations(cube, X, y, nu)
    embedding = Embedding(cube)
    Z, centre = scaled_features(embedding, X, hypers)
    return _factored(embedding, hypers, nu, Z, centre, y)


def fit_gp(
    cube: Cube,
    X: Tensor,  # (n, d)
    y: Tensor,  # (n,) or (k, n)
    *,
    nu: float = 2.5,
    warm: Hypers | None = None,
    restart: bool = False,
    offset: Tensor | None = None,  # (k,)
) -> tuple[GP, Fit]:
    """The process at fitted hyper-parameters, and how the fit went.

    Args:
        cube: The domain.
        X: Snapped points.
        y: Finite values, or variants of them, of which the likeliest is taken.
        nu: The Matern smoothness.
        warm: Hyper-parameters to start from.
        restart: Whether to start from the defaults as well.
        offset: What is added to the negative log posterior of each variant before they are compared, in nats.

    Raises:
        SettingError: if `nu` is not 1/2, 3/2 or 5/2, or the shapes do not fit.
        NumericsError: if the covariance is not positive definite at any start.
    """
    Y = torch.atleast_2d(y)
    check_observations(cube, X, Y[0], nu)
    embedding = Embedding(cube)
    phi, groups, chosen = embedding(X), embedding.groups, 0
    starts = default_starts(cube.d, X.device) if restart or warm is None else None
    if warm is None and len(X) > _COARSE:  # a fit of a few rows saves most of the steps on all of them
        rows = torch.linspace(0, len(X) - 1, _COARSE, device=X.device).round().long()
        shrunk = None if offset is None else offset * (_COARSE / len(X))
        coarse = fit(phi[rows], groups, Y[:, rows], cube.d, nu=nu, starts=starts, offset=shrunk)
        chosen, starts = coarse.variants[0], coarse.hypers[0].theta.unsqueeze(0)
        Y, offset = Y[chosen : chosen + 1], None if offset is None else offset[chosen : chosen + 1]
    found = fit(phi, groups, Y, cube.d, nu=nu, warm=warm, starts=starts, offset=offset)
    found = replace(found, variants=tuple(chosen + k for k in found.variants))
    Z, centre = scaled_features(embedding, X, found.hypers[0])
    values = Y[found.variants[0] - chosen]
    factor = InverseFactor.of(found.R)
    gp = GP(embedding, found.hypers[0], nu, Z, centre, factor, values, torch.zeros_like(values))
    return gp.with_values(values), found


def scaled_features(embedding: Embedding | AtBudget, X: Tensor, hypers: Hypers) -> tuple[Tensor, Tensor]:
    """Scaled, centred features of the rows, (n, F), and the centre (F,) that was subtracted."""
    phi = embedding(X) * feature_scale(embedding, hypers)
    centre = phi.mean(0)
    return phi - centre, centre


def feature_scale(embedding: Embedding | AtBudget, hypers: Hypers) -> Tensor:  # (F,)
    """One over the lengthscale of each feature."""
    return hypers.lengthscale.reciprocal()[embedding.groups.to(hypers.lengthscale.device)]


def check_observations(cube: Cube, X: Tensor, y: Tensor, nu: float) -> None:
    """Raise a SettingError unless a process can be made of these."""
    if nu not in NUS:
        raise SettingError(f"`nu` must be one of {list(NUS)}, got {nu!r}.")
    if X.ndim != 2 or X.shape[1] != cube.d or y.shape != X.shape[:1]:
        raise SettingError(
            f"`X` must have shape (n, {cube.d}) and `y` (n,), got {tuple(X.shape)} and {tuple(y.shape)}."
        )


def _factored(
    embedding: Embedding | AtBudget, hypers: Hypers, nu: float, Z: Tensor, centre: Tensor, y: Tensor
) -> GP:
    """The process of rows whose scaled features are known."""
    r2 = squared_distances(Z, Z)
    r2.diagonal().zero_()
    C = hypers.outputscale * matern(r2, nu) + MEAN_VAR
    C.diagonal().add_(hypers.noise_var)
    L, _ = cholesky(C)
    factor = InverseFactor.of(inverse_factor(L, consume=True))
    return GP(embedding, hypers, nu, Z, centre, factor, y, torch.zeros_like(y)).with_values(y)


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
