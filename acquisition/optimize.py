"""Finding the point of a cube where an acquisition function is largest.

screen    many Sobol points and perturbations of the incumbents, by value alone
climb     batched projected L-BFGS from the best and from a Boltzmann choice of the rest;
          numbers move freely, categories stay
settle    snap to levels, then move to the best one-flip neighbour while that helps, all of them in
          one call, and climb once more
choose    the best point that is feasible and was not asked for before
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gpbo.acquisition.lbfgs import maximize_rows
from gpbo.cube import Cube, is_new

_CHUNK = 2**22  # doubles in one screening block
_SIFTING = 4  # rounds that all starts climb; then only those ahead go on, by their measured curvature
_AHEAD = 4  # at least so many of them, or a quarter
_TOLERANCE = 1e-2  # of the climb, which may then be 1e-4 below the maximum
_SETTLED = 4  # how many climbed points are settled
_FLIPS = 24  # rounds of one-flip moves
_PERTURBED_COLUMNS = 20  # at most so many columns of an incumbent move at once
_WAY = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)  # to a maximum that may be infeasible


class PointAcquisition(Protocol):
    """An acquisition function of single points."""

    def values(self, X: Tensor) -> Tensor:
        """(b, d) -> (b,)."""
        ...

    def value_and_gradient(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """(b, d) -> (b,), (b, d)."""
        ...


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard to look.

    Attributes:
        raw: Sobol points that are screened.
        perturbed: Perturbations of the incumbents that are screened.
        starts: Points that L-BFGS climbs from.
        rounds: Evaluations of all starts at most.
    """

    raw: int = 1024
    perturbed: int = 512
    starts: int = 12
    rounds: int = 50


CPU_EFFORT = Effort(raw=512, perturbed=256, starts=10)  # for continuous spaces; others have more basins
GPU_EFFORT = Effort(raw=16384, perturbed=4096, starts=256, rounds=60)


def maximize(
    acquisition: PointAcquisition,
    cube: Cube,
    *,
    incumbents: Tensor,  # (k, d)
    seen: Tensor,  # (m, d)
    scale: Tensor,  # (d,)
    seed: int,
    effort: Effort | None = None,
) -> Tensor | None:  # (d,)
    """The best feasible point found that is not among `seen`; None when there was none among the candidates.

    Args:
        acquisition: What is maximised.
        cube: The domain.
        incumbents: The best observed points; the search also starts near them.
        seen: Points that must not come again.
        scale: Typical lengths along each column, for instance the lengthscales.
        seed: Addresses the random draws.
        effort: How hard to look.
    """
    effort = effort or Effort()
    device = seen.device
    raw = cube.sobol(effort.raw, seed).to(device)
    generator = torch.Generator().manual_seed(seed % 2**63)
    X = torch.cat([raw, perturb(incumbents, cube, effort.perturbed, generator)])
    X = X[cube.feasible(X)]
    if len(X) == 0:
        return None
    values = _in_chunks(acquisition, X, len(seen))
    starts = X[_choose_starts(values, effort.starts, generator)]
    climbed = _climb(acquisition, cube, starts, scale, effort.rounds)
    found, found_values = [X, climbed], [values, acquisition.values(climbed)]
    if cube.discrete:
        best = climbed[found_values[-1].topk(min(_SETTLED, len(climbed))).indices]
        settled = _climb(acquisition, cube, _settle(acquisition, cube, best), scale, effort.rounds)
        last = [part for part in (settled, _neighbourhood(cube, settled)) if len(part)]
        found += last
        found_values += [acquisition.values(part) for part in last]
    X, values = torch.cat(found), torch.cat(found_values)
    order = values.nan_to_num(nan=-torch.inf).argsort(descending=True)
    for rows in order.split(16):  # almost always the first row will do
        new = is_new(X[rows], seen) if len(seen) else torch.ones(len(rows), dtype=torch.bool)
        if bool(new.any()):
            return X[rows][new.nonzero()[0, 0]]
    return None


def perturb(X: Tensor, cube: Cube, n: int, generator: torch.Generator) -> Tensor:  # (k, d) -> (n, d)
    """Snapped points near the rows of X: some columns moved a little, or to any level."""
    k, d = X.shape
    if k == 0 or d == 0:
        return X.new_empty(0, d)
    rows = X[torch.arange(n) % k].cpu()
    sigma = 10.0 ** -(1.0 + 2.0 * torch.rand(n, 1, dtype=X.dtype, generator=generator))  # 0.1 .. 0.001
    moved = rows + sigma * torch.randn(n, d, dtype=X.dtype, generator=generator)
    resampled = torch.rand(n, d, dtype=X.dtype, generator=generator)
    levels = cube.n_levels.cpu()
    jump = (levels > 0) & (torch.rand(n, d, generator=generator) < 0.5)
    moved = torch.where(jump, resampled, moved)
    chance = min(1.0, max(2.0, 0.25 * d) / d, _PERTURBED_COLUMNS / d)
    keep = torch.rand(n, d, generator=generator) >= chance
    return cube.snap(torch.where(keep, rows, moved)).to(X.device)


def as_far_as_feasible(cube: Cube, X: Tensor, tops: Tensor) -> Tensor:  # (b, d), (b, d) -> (b, d)
    """The last snapped points that are feasible on the straight ways from feasible rows of X to `tops`."""
    if cube.constraint is None:
        return cube.snap(tops)
    found = X
    for t in _WAY:
        shorter = cube.snap(X + t * (tops - X))
        found = torch.where(cube.feasible(shorter).unsqueeze(-1), shorter, found)
    return found


def _choose_starts(values: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """The best half of the starts outright, the rest by a Boltzmann draw over standardised values."""
    n = min(n, len(values))
    values = values.nan_to_num(nan=-torch.inf, neginf=-1e300).cpu()
    best = values.topk((n + 1) // 2).indices
    spread = values.std() if len(values) > 1 else torch.tensor(1.0)
    weights = torch.exp(((values - values.max()) / spread.clamp(min=1e-12)).clamp(min=-30.0))
    weights[best] = 0.0
    if n > len(best) and float(weights.sum()) > 0.0:
        rest = torch.multinomial(weights, min(n - len(best), int((weights > 0).sum())), generator=generator)
        best = torch.cat([best, rest])
    return best


def _climb(
    acquisition: PointAcquisition, cube: Cube, X: Tensor, scale: Tensor, rounds: int
) -> Tensor:  # (b, d)
    """Local maxima near the best rows of X, snapped; towards an infeasible one, as far as is feasible."""
    if bool(cube.is_categorical.all()):
        return X
    ahead = max(_AHEAD, len(X) // 4)
    climbed = maximize_rows(
        acquisition.value_and_gradient,
        X,
        scale=scale,
        max_rounds=rounds,
        tolerance=_TOLERANCE,
        sift=(_SIFTING, ahead),
        held=cube.held,
    )
    return as_far_as_feasible(cube, X[climbed.start], climbed.x)


def _settle(acquisition: PointAcquisition, cube: Cube, X: Tensor) -> Tensor:  # (b, d)
    """Rows moved to their best one-flip neighbour for as long as that helps."""
    rows = list(X)
    values = acquisition.values(X).tolist()
    moving = set(range(len(rows)))
    for _ in range(_FLIPS):
        offers = {i: cube.neighbours(rows[i]) for i in moving}
        offers = {i: offer for i, offer in offers.items() if len(offer)}
        if not offers:
            break
        scores = acquisition.values(torch.cat(list(offers.values())))
        parts = scores.split([len(offer) for offer in offers.values()])
        moving = set()
        for (i, offer), part in zip(offers.items(), parts, strict=True):
            top = int(part.argmax())
            if float(part[top]) > values[i] + 1e-9:
                rows[i], values[i] = offer[top], float(part[top])
                moving.add(i)
    return torch.stack(rows)


def _neighbourhood(cube: Cube, X: Tensor) -> Tensor:  # (b, d) -> (k, d)
    return torch.cat([cube.neighbours(row) for row in X])


def _in_chunks(acquisition: PointAcquisition, X: Tensor, n: int) -> Tensor:
    rows = max(1, _CHUNK // max(n, 1))
    return torch.cat([acquisition.values(part) for part in X.split(rows)])
