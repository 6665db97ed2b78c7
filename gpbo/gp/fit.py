"""Fitting the hyper-parameters: a trust-region Newton method on their logarithms, all starts in one batch.

A step costs one factorisation; derivatives are formed only where a step was accepted. The model of each
step is the average information of `likelihood` with one secant correction (damped BFGS, Powell 1978) from
the step before. The gradient is exact, so the optimum does not depend on the model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gpbo.errors import NumericsError
from gpbo.gp.hypers import Hypers, from_theta, prior
from gpbo.gp.likelihood import Point, Problem, derivatives, evaluate, make_problem

TOLERANCE = 4e-3  # nats that a full Newton step still promises
SKIP = 1e-2  # nats; promises below it leave a warm start as it is
_MAX_STEPS = 40
_FIRST_RADIUS, _MAX_RADIUS, _MIN_RADIUS = 2.0, 8.0, 1e-7
_SHIFTS = 128  # of the model's curvature that are tried for a step's length; neighbours differ by a fifth
_FORETOLD = 0.02  # nats; a full step of no more, whose gain is foretold to half the tolerance, is the last
_BEHIND = 0.1  # nats, and _HOPE times what a full step promises: from _AT_LEAST steps on starts further
_HOPE = 3.0  # behind the best one give up
_AT_LEAST = 3
_DAMPED = 0.2  # least curvature along a step, as a share of the model's, that a correction may bring


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """The fitted hyper-parameters, best first where there are several.

    Attributes:
        hypers: One setting for each distinct optimum found.
        values: The negative log posterior of each, in nats, with the offset of its variant.
        variants: Which of the given values each belongs to.
        factorizations: How many n x n factorisations it took, over all starts.
        skipped: Whether the warm start was kept because no gain was promised.
        R: (n, n) the inverse of the lower factor of the covariance at the best.
    """

    hypers: tuple[Hypers, ...]
    values: tuple[float, ...]
    variants: tuple[int, ...]
    factorizations: int
    skipped: bool
    R: Tensor


def default_starts(d: int, device: torch.device) -> Tensor:  # (2, d + 2)
    """Where a cold fit starts: the prior's mode, and the same with lengthscales e times longer."""
    centre, _ = prior(d, device)
    longer = centre.clone()
    longer[:d] += 1.0
    return torch.stack([centre, longer])


def fit(
    phi: Tensor,  # (n, F)
    groups: Tensor,  # (F,)
    y: Tensor,  # (n,) or (k, n)
    d: int,
    *,
    nu: float = 2.5,
    warm: Hypers | None = None,
    starts: Tensor | None = None,  # (b, d + 2)
    offset: Tensor | None = None,  # (k,)
) -> Fit:
    """The hyper-parameters that maximise the posterior, from a warm start or from the given ones.

    Args:
        phi: Features of the observed points.
        groups: The lengthscale that each feature belongs to.
        y: Standardised values; or variants of them, each of which is fitted from every start.
        d: The number of lengthscales.
        nu: The Matern smoothness.
        warm: An earlier optimum; with it no other start is tried unless given.
        starts: Logarithmic hyper-parameters to start from; by default `default_starts`, if nothing is warm.
        offset: What is added to the values of each variant before they are compared, in nats.

    Raises:
        NumericsError: if the covariance is not positive definite at any start.
    """
    tried = [warm.theta.unsqueeze(0)] if warm is not None else []
    tried += [default_starts(d, phi.device)] if not tried and starts is None else []
    theta = torch.cat(tried + ([starts] if starts is not None else []))
    Y = torch.atleast_2d(y)
    k, b = len(Y), len(theta)
    variant = torch.arange(k, device=phi.device).repeat_interleave(b)
    problem = make_problem(phi, groups.to(phi.device), y if y.ndim == 1 else Y[variant], d, nu)
    at = evaluate(problem, theta.repeat(k, 1))
    usable = at.value.isfinite().nonzero().squeeze(-1)
    if len(usable) == 0:
        raise NumericsError(f"the covariance of {problem.n} points is not positive definite at any start.")
    if len(usable) < len(variant):
        at, problem, variant = at.take(usable), problem.take(usable), variant[usable]
    offsets = torch.zeros_like(at.value) if offset is None else offset[variant]
    first_tolerance = SKIP if warm is not None and starts is None else TOLERANCE
    at, steps, gave_up = _newton(problem, at, offsets, first_tolerance)
    values = at.value + offsets
    kept = _distinct(at.theta, values, variant, gave_up)
    return Fit(
        tuple(from_theta(at.theta[row]) for row in kept),
        tuple(values[kept].tolist()),
        tuple(variant[kept].tolist()),
        k * b + steps,
        warm is not None and steps == 0,
        at.R[kept[0]],
    )


def _distinct(theta: Tensor, values: Tensor, variant: Tensor, gave_up: Tensor) -> list[int]:
    """The rows that are optima of their own, best first."""
    kept: list[int] = []
    for row in values.masked_fill(gave_up, math.inf).argsort()[: int((~gave_up).sum())].tolist():
        near = [float((theta[row] - theta[other]).abs().max()) <= 0.1 for other in kept]
        same = [int(variant[row]) == int(variant[other]) for other in kept]
        if not any(a and b for a, b in zip(near, same, strict=True)):
            kept.append(row)
    return kept


def _newton(
    problem: Problem, at: Point, offsets: Tensor, first_tolerance: float
) -> tuple[Point, int, Tensor]:
    """Trust-region Newton from every row of `at`: where they end, how many trial steps, and which gave up.

    Rows are compared by their values with these offsets.
    """
    rows = torch.arange(len(at.theta), device=at.theta.device)  # those still moving
    radius = at.theta.new_full((len(rows),), _FIRST_RADIUS)
    g, A = derivatives(problem, at)
    lam, Q = torch.linalg.eigh(A)
    moving = torch.ones_like(rows, dtype=torch.bool)
    gave_up = torch.zeros_like(moving)
    steps, tolerance = 0, first_tolerance
    for taken in range(_MAX_STEPS):
        promise = _promise(g, lam, Q)
        going = (promise > tolerance) & (radius > _MIN_RADIUS) & moving
        if taken >= _AT_LEAST and len(at.theta) > 1:
            behind = at.value[rows] + offsets[rows] - (at.value + offsets).min()
            hopeless = going & (behind > (_HOPE * promise).clamp(min=_BEHIND))
            gave_up[rows[hopeless]] = True
            going &= ~hopeless
        if not bool(going.any()):
            break
        tolerance = TOLERANCE
        if not bool(going.all()):
            rows, radius, g, lam, Q = rows[going], radius[going], g[going], lam[going], Q[going]
        step = _trust_region_step(g, lam, Q, radius)
        here = at.value[rows]
        part = problem.take(rows)
        trial = evaluate(part, at.theta[rows] + step)
        steps += len(rows)
        along = _times(Q.mT, step)
        predicted = -(g * step).sum(-1) - 0.5 * (lam * along.square()).sum(-1)
        gain = here - trial.value
        ratio = gain / predicted.clamp(min=1e-300)
        length = step.norm(dim=-1)
        whole = (lam[:, 0] > 0.0) & (length < 0.99 * radius)
        radius = torch.where(ratio < 0.25, 0.25 * length, radius)
        grow = (ratio > 0.75) & (length > 0.9 * radius)
        radius = torch.where(grow, (2.0 * radius).clamp(max=_MAX_RADIUS), radius)
        accepted = gain > 0.0
        foretold = whole & (predicted < _FORETOLD) & ((gain - predicted).abs() < 0.5 * TOLERANCE)
        moving = ~accepted | ((gain >= TOLERANCE) & ~foretold)
        at = at.put(rows[accepted], trial.take(accepted))
        onward = accepted & moving
        if bool(onward.any()):
            new_g, A = derivatives(part.take(onward), trial.take(onward))
            new_lam, new_Q = torch.linalg.eigh(_corrected(A, step[onward], new_g - g[onward]))
            g, lam, Q = g.clone(), lam.clone(), Q.clone()
            g[onward], lam[onward], Q[onward] = new_g, new_lam, new_Q
    return at, steps, gave_up


def _promise(g: Tensor, lam: Tensor, Q: Tensor) -> Tensor:  # (b,)
    """What a full Newton step promises, in nats; infinite where the model is not positive definite."""
    along = _times(Q.mT, g)
    gain = 0.5 * (along.square() / lam.clamp(min=1e-10)).sum(-1)
    return torch.where(lam[:, 0] > 0.0, gain, math.inf)


def _corrected(A: Tensor, step: Tensor, change: Tensor) -> Tensor:  # (b, p, p)
    """The model A, made to explain how the gradient changed along the last step; positive if A is."""
    along = _times(A, step)
    model, seen = (step * along).sum(-1, keepdim=True), (step * change).sum(-1, keepdim=True)
    damp = torch.where(seen < _DAMPED * model, (1.0 - _DAMPED) * model / (model - seen), 1.0)
    change = damp * change + (1.0 - damp) * along
    seen = (step * change).sum(-1, keepdim=True)
    usable = ((model > 0.0) & (seen > 0.0)).unsqueeze(-1)
    old = along.unsqueeze(-1) * (along / model.clamp(min=1e-300)).unsqueeze(-2)
    new = change.unsqueeze(-1) * (change / seen.clamp(min=1e-300)).unsqueeze(-2)
    return torch.where(usable, A - old + new, A)


def _trust_region_step(g: Tensor, lam: Tensor, Q: Tensor, radius: Tensor) -> Tensor:  # (b, p)
    """The minimiser of the quadratic model in a ball (Moré and Sorensen 1983), by trying shifts."""
    along = _times(Q.mT, g)
    size = lam.abs().amax(-1)
    low = (-lam[:, 0]).clamp(min=0.0) + 1e-8 * size.clamp(min=1e-8)
    high = along.norm(dim=-1) / radius + size
    parts = torch.logspace(-10.0, 0.0, _SHIFTS, dtype=g.dtype, device=g.device)
    shifts = low.unsqueeze(-1) + high.unsqueeze(-1) * parts
    shifts = torch.where((lam[:, :1] > 0.0) & (parts == parts[0]), 0.0, shifts)  # a full Newton step first
    lengths = (along.unsqueeze(-2) / (lam.unsqueeze(-2) + shifts.unsqueeze(-1))).norm(dim=-1)
    short = lengths <= radius.unsqueeze(-1)
    short[:, -1] = True  # at the largest shift it is, up to rounding
    shift = shifts.gather(-1, short.to(torch.uint8).argmax(-1, keepdim=True))
    step = -_times(Q, along / (lam + shift))
    return step / (step.norm(dim=-1) / radius).clamp(min=1.0).unsqueeze(-1)


def _times(A: Tensor, x: Tensor) -> Tensor:  # (b, p, p), (b, p) -> (b, p)
    return (A @ x.unsqueeze(-1)).squeeze(-1)
