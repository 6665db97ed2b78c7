"""Acquisition functions of q points at once, by quasi-random draws from their joint posterior.

Notation: b candidates of q points X (b, q, d), s base samples xi (s, q) ~ N(0, I), joint factor C of the
posterior covariance, f = mean + C xi.

    qLogEI = log mean_s max_q (f - best_f)^+        qUCB = mean_s max_q (mean + sqrt(beta pi / 2) |C xi|)

both with the hard max and plus made smooth in logarithms (Ament et al. 2023, eq. 10 and 11; Wilson et al.
2017). Gradients come from autograd, on q x q blocks only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gpbo.errors import NumericsError, SettingError
from gpbo.gp import GP
from gpbo.seeding import derive

_TAU_PLUS = 1e-6  # temperature of the smooth plus, in units of y
_TAU_MAX = 1e-2  # temperature of the smooth max, in nats
_JITTERS = (1e-8, 1e-6, 1e-4)  # times the outputscale, on the q x q covariance


@dataclass(frozen=True, eq=False)
class MonteCarlo:
    """An acquisition function of the joint posterior of q points.

    Attributes:
        gp: The process.
        samples: (s, q) base samples, fixed, so that the function is smooth.
        utility: Joint mean (b, q) and deviations (s, b, q) to values (b,).
    """

    gp: GP
    samples: Tensor
    utility: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, X: Tensor) -> Tensor:  # (..., q, d) -> (...)
        """The value of each candidate set; differentiable once."""
        mean, cov = self.gp.posterior(X)
        C = _factor(cov, float(self.gp.hypers.outputscale))
        deviations = torch.einsum("...qr,sr->s...q", C, self.samples)
        return self.utility(mean, deviations)

    def value_and_gradient(self, X: Tensor) -> tuple[Tensor, Tensor]:  # (b, q * d) -> (b,), (b, q * d)
        """The values and gradients at candidate sets laid out as rows."""
        with torch.enable_grad():
            flat = X.detach().clone().requires_grad_(True)
            value: Tensor = self(flat.reshape(len(flat), self.samples.shape[-1], -1))
            (gradient,) = torch.autograd.grad(value.sum(), flat)
        return value.detach(), gradient


def base_samples(q: int, n: int, seed: int, device: torch.device) -> Tensor:  # (n, q)
    """Scrambled Sobol points turned into standard normal draws."""
    engine = torch.quasirandom.SobolEngine(q, scramble=True, seed=derive(seed, "base samples") % 2**31)
    u = engine.draw(n, dtype=torch.float64).clamp(1e-12, 1.0 - 1e-12)
    return torch.special.ndtri(u).to(device)


def q_log_ei(gp: GP, best_f: float, samples: Tensor) -> MonteCarlo:  # samples (s, q)
    """The logarithm of the expected improvement of the best of q points on `best_f`."""

    def utility(mean: Tensor, deviations: Tensor) -> Tensor:
        gain = (mean + deviations - best_f) / _TAU_PLUS
        log_plus = _log_softplus(gain) + math.log(_TAU_PLUS)
        log_max = _TAU_MAX * torch.logsumexp(log_plus / _TAU_MAX, dim=-1)
        return torch.logsumexp(log_max, dim=0) - math.log(len(log_max))

    return MonteCarlo(gp, samples, utility)


def q_ucb(gp: GP, beta: float, samples: Tensor) -> MonteCarlo:  # samples (s, q)
    """The expected best upper confidence bound of q points.

    Raises:
        SettingError: if `beta` is negative.
    """
    if beta < 0:
        raise SettingError(f"`beta` must be >= 0, got {beta}.")
    weight = math.sqrt(beta * math.pi / 2.0)

    def utility(mean: Tensor, deviations: Tensor) -> Tensor:
        return (mean + weight * deviations.abs()).amax(dim=-1).mean(dim=0)

    return MonteCarlo(gp, samples, utility)


def _factor(cov: Tensor, outputscale: float) -> Tensor:  # (..., q, q)
    """The lower factors of posterior covariances, which equal points make singular.

    Raises:
        NumericsError: if one is not positive definite even with jitter.
    """
    eye = torch.eye(cov.shape[-1], dtype=cov.dtype, device=cov.device)
    for jitter in _JITTERS:
        C, info = torch.linalg.cholesky_ex(cov + jitter * outputscale * eye)
        if not bool(info.any()):
            return C
    raise NumericsError(f"a joint covariance is not positive definite even with a jitter of {_JITTERS[-1]}.")


def _log_softplus(x: Tensor) -> Tensor:
    """log log(1 + e^x), exact for x -> -inf, where it tends to x."""
    small = x < -20.0
    inside = torch.nn.functional.softplus(x.clamp(min=-20.0))
    return torch.where(small, x, inside.log())
