"""The exact posterior of as many observations as one n x n buffer can hold: 100 000 are 80 GB.

`GP` keeps inv(L), which makes an ask cheap and grows by rows, but to get there holds several matrices at
once. Here the covariance is written into the buffer block row by block row, its lower triangle only, and
factored where it stands; triangular solves do for inv(L). It neither fits nor grows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gpbo.cube import Cube
from gpbo.gp.hypers import MEAN_VAR, Hypers
from gpbo.gp.model import MIN_VAR, check_observations, feature_scale, scaled_features
from gpbo.kernels import Embedding, matern, squared_distances
from gpbo.numerics import cholesky_in_place, row_blocks, solve_lower, solve_upper


@dataclass(frozen=True, eq=False)
class ExactPosterior:
    """A posterior at given hyper-parameters that holds one n x n buffer.

    Attributes:
        embedding: From points to features.
        hypers: The hyper-parameters.
        nu: The Matern smoothness.
        Z: (n, F) scaled features of the rows, centred.
        centre: (F,) what is subtracted from scaled features.
        L: (n, n) the lower factor; above its diagonal may stand anything.
        alpha: (n,) weights of the mean.
        log_likelihood: () of the values, in nats.
    """

    embedding: Embedding
    hypers: Hypers
    nu: float
    Z: Tensor
    centre: Tensor
    L: Tensor
    alpha: Tensor
    log_likelihood: Tensor

    def marginal(self, X: Tensor) -> tuple[Tensor, Tensor]:  # (b, d) -> (b,), (b,)
        """The posterior mean and variance of the function at each point, noise left out; O(n^2 b)."""
        scale = feature_scale(self.embedding, self.hypers)
        k = _covariance(self.Z, self.embedding(X) * scale - self.centre, self.hypers, self.nu)
        A = solve_lower(self.L, k)
        var = self.hypers.outputscale + MEAN_VAR - torch.linalg.vecdot(A, A, dim=0)
        return self.alpha @ k, var.clamp(min=MIN_VAR * self.hypers.outputscale)


def exact_posterior(
    cube: Cube,
    X: Tensor,  # (n, d)
    y: Tensor,  # (n,)
    hypers: Hypers,
    *,
    nu: float = 2.5,
) -> ExactPosterior:
    """The posterior at given hyper-parameters, in the memory of one n x n matrix and some of its rows.

    Args:
        cube: The domain.
        X: Snapped points.
        y: Finite values.
        hypers: The hyper-parameters.
        nu: The Matern smoothness.

    Raises:
        SettingError: if `nu` is not 1/2, 3/2 or 5/2, or the shapes do not fit.
        NumericsError: if the covariance is not positive definite; no jitter is tried.
    """
    check_observations(cube, X, y, nu)
    embedding = Embedding(cube)
    Z, centre = scaled_features(embedding, X, hypers)
    L = Z.new_empty(len(Z), len(Z))
    for i, j, rows in row_blocks(L):
        rows.copy_(_covariance(Z[i:j], Z[:j], hypers, nu))
    L.diagonal().fill_(hypers.outputscale + MEAN_VAR + hypers.noise_var)  # exact, where distances round
    cholesky_in_place(L)
    a = solve_lower(L, y.unsqueeze(-1))
    alpha = solve_upper(L, a).squeeze(-1)
    log_likelihood = -0.5 * a.square().sum() - L.diagonal().log().sum() - 0.5 * len(y) * math.log(2 * math.pi)
    return ExactPosterior(embedding, hypers, nu, Z, centre, L, alpha, log_likelihood)


def _covariance(A: Tensor, B: Tensor, hypers: Hypers, nu: float) -> Tensor:  # (a, F), (b, F) -> (a, b)
    return matern(squared_distances(A, B), nu).mul_(hypers.outputscale).add_(MEAN_VAR)
