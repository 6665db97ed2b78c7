"""A botorch model on gpbo's posterior.

Notation: m outputs; T (..., p, d) the points of a tail of p imagined rows, y (..., p) their values. With
S = cov(T, T) + noise and W = inv(S) cov(T, X)

    mean(X | y) = mean(X) + W^T (y - mean(T))        cov(X | y) = cov(X) - W^T cov(T, X)

so that fantasies, of which every one has its own tail, share the factor of what was observed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, final

import torch
from botorch.acquisition.objective import PosteriorTransform
from botorch.models.gpytorch import GPyTorchModel
from botorch.models.model import FantasizeMixin
from botorch.posteriors.gpytorch import GPyTorchPosterior
from botorch.posteriors.posterior import Posterior
from gpytorch.constraints import GreaterThan
from gpytorch.distributions import MultitaskMultivariateNormal, MultivariateNormal
from gpytorch.likelihoods import GaussianLikelihood
from linear_operator.operators import BlockDiagLinearOperator, to_linear_operator
from torch import Tensor

from gpbo.errors import SettingError
from gpbo.gp import GP


class _Tail(NamedTuple):
    """Imagined rows: points (..., p, d), values (..., p, m) and noise variances (..., p, m)."""

    X: Tensor
    Y: Tensor
    noise: Tensor


@final
class GPModel(GPyTorchModel, FantasizeMixin):
    """A botorch model of independent processes, one for each output, in the units of their values.

    It derives from `GPyTorchModel` because botorch caches factors for no other; nothing in it is computed
    by gpytorch. Gradients are those of `GP.posterior`: analytic, and once differentiable.

    Args:
        gps: The process of each output.
        X: (n, d) the points of their rows.
        tail: Imagined rows.
    """

    def __init__(self, gps: Sequence[GP], X: Tensor, tail: _Tail | None = None) -> None:
        super().__init__()
        self.gps = tuple(gps)
        self.train_inputs = (X,)
        y = torch.stack([gp.y for gp in self.gps])
        self.train_targets = y[0] if len(y) == 1 else y
        self._noise = torch.stack([gp.hypers.noise_var for gp in self.gps])  # (m,)
        self._tail = tail
        batch = torch.Size([] if len(y) == 1 else [len(y)])
        self.likelihood = GaussianLikelihood(noise_constraint=GreaterThan(1e-9), batch_shape=batch).to(X)
        self.likelihood.noise = self._noise.reshape(*batch, 1)
        self.requires_grad_(False).eval()

    @property
    def num_outputs(self) -> int:
        """How many outputs there are."""
        return len(self.gps)

    @property
    def batch_shape(self) -> torch.Size:
        """The shape of the batch of tails; empty without one."""
        return torch.Size([]) if self._tail is None else self._tail.Y.shape[:-2]

    def posterior(  # type: ignore[override]  # botorch's own bases disagree on it
        self,
        X: Tensor,  # (..., q, d)
        output_indices: list[int] | None = None,
        observation_noise: bool | Tensor = False,
        posterior_transform: PosteriorTransform | None = None,
    ) -> Posterior:
        """The joint posterior of q points; a tensor of noise variances has shape (..., q, m)."""
        chosen = list(range(self.num_outputs)) if output_indices is None else output_indices
        means, covs = zip(*(self._joint(k, X) for k in chosen), strict=True)
        mean, cov = torch.stack(means, dim=-2), torch.stack(covs, dim=-3)  # (..., m, q), (..., m, q, q)
        if observation_noise is not False:
            noise = self._noise.expand(X.shape[-2], -1) if observation_noise is True else observation_noise
            cov = cov + torch.diag_embed(noise[..., chosen].mT)
        if len(chosen) == 1:
            joint = MultivariateNormal(mean.squeeze(-2), to_linear_operator(cov.squeeze(-3)))
        else:
            blocks = BlockDiagLinearOperator(to_linear_operator(cov))
            joint = MultitaskMultivariateNormal(mean.mT, blocks, interleaved=False)
        posterior = GPyTorchPosterior(joint)
        return posterior if posterior_transform is None else posterior_transform(posterior=posterior, X=X)

    def condition_on_observations(  # type: ignore[override]  # the same
        self,
        X: Tensor,  # (..., p, d)
        Y: Tensor,  # (..., p, m)
        noise: Tensor | None = None,  # (..., p, m)
    ) -> GPModel:
        """The model with p more rows; rows that differ between elements of a batch make a batched model."""
        plain = X.ndim == Y.ndim == 2 and noise is None and self._tail is None
        if plain and not (X.requires_grad or Y.requires_grad) and len(X):
            grown = [gp.condition(X, y) for gp, y in zip(self.gps, Y.mT, strict=True)]
            return GPModel(grown, torch.cat([self.train_inputs[0], X]))
        noise = self._noise.expand(Y.shape[-2:]) if noise is None else noise
        shape = torch.broadcast_shapes(X.shape[:-2], Y.shape[:-2], noise.shape[:-2], self.batch_shape)
        parts = [part.expand(*shape, *part.shape[-2:]) for part in (X, Y, noise)]
        if self._tail is not None:
            before = [part.expand(*shape, *part.shape[-2:]) for part in self._tail]
            parts = [torch.cat(pair, dim=-2) for pair in zip(before, parts, strict=True)]
        return GPModel(self.gps, self.train_inputs[0], _Tail(*parts))

    def subset_output(self, idcs: list[int]) -> GPModel:
        """The model of some outputs."""
        tail = self._tail
        if tail is not None:
            tail = _Tail(tail.X, tail.Y[..., idcs], tail.noise[..., idcs])
        return GPModel([self.gps[k] for k in idcs], self.train_inputs[0], tail)

    def _joint(self, k: int, X: Tensor) -> tuple[Tensor, Tensor]:  # (..., q), (..., q, q)
        if self._tail is None:
            return self.gps[k].posterior(X)
        T, Y, noise = self._tail
        p = T.shape[-2]
        shape = torch.broadcast_shapes(X.shape[:-2], self.batch_shape)
        both = torch.cat([part.expand(*shape, *part.shape[-2:]) for part in (T, X)], dim=-2)
        mean, cov = self.gps[k].posterior(both)
        cross = cov[..., :p, p:]
        L = torch.linalg.cholesky(cov[..., :p, :p] + torch.diag_embed(noise[..., k]))
        W = torch.cholesky_solve(cross, L)
        surprise = (Y[..., k] - mean[..., :p]).unsqueeze(-1)
        return mean[..., p:] + (W.mT @ surprise).squeeze(-1), cov[..., p:, p:] - W.mT @ cross


def to_botorch(gps: GP | Sequence[GP], X: Tensor) -> GPModel:  # (n, d)
    """A botorch model of one process, or of one for each output, in the unit cube and in their values' units.

    Args:
        gps: The processes; rows of theirs that are pending count as such.
        X: The points of their rows.

    Raises:
        SettingError: if there is no process, or one has another number of rows than `X`.
    """
    several = [gps] if isinstance(gps, GP) else list(gps)
    if not several or any(gp.n != len(X) for gp in several):
        raise SettingError(
            f"`gps` must be processes with a row for each of the {len(X)} points, "
            f"got {[gp.n for gp in several]} rows; give the points they were made of."
        )
    return GPModel(several, X)
