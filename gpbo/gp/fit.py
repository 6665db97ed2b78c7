"""Fitting the hyper-parameters: a trust-region Newton method on their logarithms, all starts in one batch.

A step costs one factorisation; derivatives are formed only where a step was accepted. The model of each
step uses the Hessian of `likelihood`, whose trace term is estimated for more than a few observations; the
gradient is exact, so the optimum does not depend on the estimate. Above `MANY_FEATURES` features, where
the Hessian would cost more than it saves, the steps come from limited-memory BFGS instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gpbo.errors import NumericsError
from gpbo.gp.hypers import Hypers, from_theta, prior
from gpbo.gp.likelihood import Point, Problem, evaluate, gradient, gradient_and_hessian, make_problem

MANY_FEATURES = 100
TOLERANCE = 1e-3  # nats that a full Newton step still promises
SKIP = 1e-2  # nats; promises below it leave a warm start as it is
_MAX_STEPS = 40
_FIRST_RADIUS, _MAX_RADIUS, _MIN_RADIUS = 2.0, 8.0, 1e-7


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """The fitted hyper-parameters, best first where there are several.

    Attributes:
        hypers: One setting for each distinct optimum found.
        values: The negative log posterior of each, in nats.
        factorizations: How many n x n factorisations it took, over all starts.
        skipped: Whether the warm start was kept because no gain was promised.
        L: (n, n) the lower factor of the covariance at the best.
    """

    hypers: tuple[Hypers, ...]
    values: tuple[float, ...]
    factorizations: int
    skipped: bool
    L: Tensor


def default_starts(d: int, device: torch.device) -> Tensor:  # (2, d + 2)
    """Where a cold fit starts: the prior's mode, and the same with lengthscales e times longer."""
    centre, _ = prior(d, device)
    longer = centre.clone()
    longer[:d] += 1.0
    return torch.stack([centre, longer])


def fit(
    phi: Tensor,  # (n, F)
    groups: Tensor,  # (F,)
    y: Tensor,  # (n,)
    d: int,
    *,
    nu: float = 2.5,
    warm: Hypers | None = None,
    starts: Tensor | None = None,  # (b, d + 2)
) -> Fit:
    """The hyper-parameters that maximise the posterior, from a warm start or from the given ones.

    Args:
        phi: Features of the observed points.
        groups: The lengthscale that each feature belongs to.
        y: Standardised values.
        d: The number of lengthscales.
        nu: The Matern smoothness.
        warm: An earlier optimum; with it no other start is tried unless given.
        starts: Logarithmic hyper-parameters to start from; by default `default_starts` or the warm one.

    Raises:
        NumericsError: if the covariance is not positive definite at any start.
    """
    problem = make_problem(phi, groups.to(phi.device), y, d, nu)
    if starts is None:
        starts = default_starts(d, phi.device) if warm is None else warm.theta.unsqueeze(0)
    at = evaluate(problem, starts)
    usable = at.value.isfinite()
    if not bool(usable.any()):
        raise NumericsError(f"the covariance of {problem.n} points is not positive definite at any start.")
    at = at.take(usable.nonzero().squeeze(-1))
    method = _newton if phi.shape[-1] <= MANY_FEATURES else _lbfgs
    at, steps = method(problem, at, TOLERANCE if warm is None else SKIP)
    return _ranked(at, len(starts) + steps, skipped=warm is not None and steps == 0)


def _ranked(at: Point, factorizations: int, *, skipped: bool) -> Fit:
    order = at.value.argsort()
    hypers: list[Hypers] = []
    values: list[float] = []
    kept: list[Tensor] = []
    for row in order.tolist():
        theta = at.theta[row]
        if all(float((theta - other).abs().max()) > 0.1 for other in kept):
            kept.append(theta)
            hypers.append(from_theta(theta))
            values.append(float(at.value[row]))
    return Fit(tuple(hypers), tuple(values), factorizations, skipped, at.L[order[0]])


def _newton(problem: Problem, at: Point, first_tolerance: float) -> tuple[Point, int]:
    """Trust-region Newton from every row of `at`; the optima and the number of trial steps."""
    rows = torch.arange(len(at.theta), device=at.theta.device)  # those still moving
    radius = at.theta.new_full((len(rows),), _FIRST_RADIUS)
    rough = first_tolerance > TOLERANCE
    g, H = gradient_and_hessian(problem, at, rough=rough)
    lam, Q = torch.linalg.eigh(H)
    moving = torch.ones_like(rows, dtype=torch.bool)
    steps, tolerance = 0, first_tolerance
    for _ in range(_MAX_STEPS):
        going = (_promise(g, lam, Q) > tolerance) & (radius > _MIN_RADIUS) & moving
        if not bool(going.any()):
            break
        tolerance = TOLERANCE
        rows, radius, g, lam, Q = rows[going], radius[going], g[going], lam[going], Q[going]
        moving = torch.ones_like(rows, dtype=torch.bool)
        step = _trust_region_step(g, lam, Q, radius)
        here = at.value[rows]
        trial = evaluate(problem, at.theta[rows] + step)
        steps += len(rows)
        along = torch.einsum("bij,bi->bj", Q, step)
        predicted = -(g * step).sum(-1) - 0.5 * (lam * along.square()).sum(-1)
        ratio = (here - trial.value) / predicted.clamp(min=1e-300)
        length = step.norm(dim=-1)
        radius = torch.where(ratio < 0.25, 0.25 * length, radius)
        grow = (ratio > 0.75) & (length > 0.9 * radius)
        radius = torch.where(grow, (2.0 * radius).clamp(max=_MAX_RADIUS), radius)
        moving[(trial.value < here) & (here - trial.value < 0.1 * TOLERANCE)] = False
        accepted = (trial.value < here).nonzero().squeeze(-1)
        if len(accepted):
            better = trial.take(accepted)
            at = at.put(rows[accepted], better)
            new_g, new_H = gradient_and_hessian(problem, better)
            new_lam, new_Q = torch.linalg.eigh(new_H)
            g, lam, Q = g.clone(), lam.clone(), Q.clone()
            g[accepted], lam[accepted], Q[accepted] = new_g, new_lam, new_Q
    return at, steps


def _promise(g: Tensor, lam: Tensor, Q: Tensor) -> Tensor:  # (b,)
    """What a full Newton step promises, in nats; infinite where the Hessian is not positive definite."""
    along = torch.einsum("bij,bi->bj", Q, g)
    gain = 0.5 * (along.square() / lam.clamp(min=1e-10)).sum(-1)
    return torch.where(lam[:, 0] > 0.0, gain, math.inf)


def _trust_region_step(g: Tensor, lam: Tensor, Q: Tensor, radius: Tensor) -> Tensor:  # (b, p)
    """The minimiser of the quadratic model in a ball (Moré and Sorensen 1983), by bisection on the shift."""
    along = torch.einsum("bij,bi->bj", Q, g)

    def length(shift: Tensor) -> Tensor:
        return (along / (lam + shift.unsqueeze(-1))).norm(dim=-1)

    low = (-lam[:, 0]).clamp(min=0.0) + 1e-8 * lam.abs().amax(-1).clamp(min=1e-8)
    high = low + along.norm(dim=-1) / radius + lam.abs().amax(-1)
    inside = (lam[:, 0] > 0.0) & (length(torch.zeros_like(low)) <= radius)
    for _ in range(60):
        middle = 0.5 * (low + high)
        long = length(middle) > radius
        low, high = torch.where(long, middle, low), torch.where(long, high, middle)
    shift = torch.where(inside, 0.0, high)
    step = -torch.einsum("bij,bj->bi", Q, along / (lam + shift.unsqueeze(-1)))
    too_long = step.norm(dim=-1) / radius
    return step / too_long.clamp(min=1.0).unsqueeze(-1)


def _lbfgs(problem: Problem, at: Point, first_tolerance: float) -> tuple[Point, int]:
    """Limited-memory BFGS from the best row of `at`, for spaces with very many features."""
    theta = at.theta[at.value.argmin()].clone()
    calls = 0

    def closure() -> float:
        nonlocal calls
        calls += 1
        point = evaluate(problem, theta.unsqueeze(0))
        slope = gradient(problem, point)[0] if bool(point.value.isfinite()) else torch.zeros_like(theta)
        theta.grad = slope
        return float(point.value)

    optimizer = torch.optim.LBFGS(
        [theta],
        max_iter=_MAX_STEPS,
        max_eval=2 * _MAX_STEPS,
        tolerance_grad=first_tolerance,
        tolerance_change=1e-6,
        line_search_fn="strong_wolfe",
    )
    optimizer.step(closure)
    found = evaluate(problem, theta.detach().unsqueeze(0))
    best = at.take(at.value.argmin().unsqueeze(0))
    return (found if float(found.value) < float(best.value) else best), calls + 1
