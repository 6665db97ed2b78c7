"""Matern kernels as functions of the scaled squared distance, with the derivatives that a fit needs.

With r^2 = sum_l D_l, D_l = (x_l - x'_l)^2 / lengthscale_l^2, and a = sqrt(2 nu) r:

    nu = 5/2:  k = (1 + a + a^2/3) e^-a   G = 5/3 (1 + a) e^-a
    nu = 3/2:  k = (1 + a) e^-a           G = 3 e^-a
    nu = 1/2:  k = e^-r                   G = e^-r / r

    dk / dlog l_i = G D_i
    dk / dx_l = -G (x_l - x'_l) / lengthscale_l^2

(Rasmussen and Williams 2006, section 4.2.1.) Where G has a pole at r = 0 its product with the distances tends
to 0, and 0 stands there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

NUS = (0.5, 1.5, 2.5)
_BLOCK = 2**16  # doubles that are worked on at once: the steps between stay in a processor's cache


def matern(r2: Tensor, nu: float) -> Tensor:
    """k for squared distances r2 >= 0, with k = 1 at 0."""
    (k,) = _in_blocks(lambda block: (_value(block, nu),), r2, 1)
    return k


def matern_and_slope(r2: Tensor, nu: float, *, consume: bool = False) -> tuple[Tensor, Tensor]:
    """k and G for squared distances r2 >= 0; with `consume` k may take the memory of r2."""
    k, G = _in_blocks(lambda block: _value_and_slope(block, nu), r2, 2, consume)
    return k, G


def _in_blocks(
    function: Callable[[Tensor], Sequence[Tensor]], r2: Tensor, n_results: int, consume: bool = False
) -> Sequence[Tensor]:
    """What the function makes of every element; block by block on a processor, where memory is the limit."""
    if r2.is_cuda or r2.numel() <= _BLOCK:
        return function(r2)
    r2 = r2.contiguous()
    results = [torch.empty_like(r2) for _ in range(n_results - consume)]
    results = [r2, *results] if consume else results
    blocks = [whole.view(-1).split(_BLOCK) for whole in (r2, *results)]
    for block, *parts in zip(*blocks, strict=True):
        for part, value in zip(parts, function(block), strict=True):
            part.copy_(value)
    return results


def _value(r2: Tensor, nu: float) -> Tensor:
    a = torch.sqrt(2.0 * nu * r2)
    decay = torch.exp(-a)
    if nu == 2.5:
        return torch.addcmul(a, a, a, value=1.0 / 3.0).add_(1.0).mul_(decay)
    if nu == 1.5:
        return a.add_(1.0).mul_(decay)
    return decay


def _value_and_slope(r2: Tensor, nu: float) -> tuple[Tensor, Tensor]:
    a = torch.sqrt(2.0 * nu * r2)
    decay = torch.exp(-a)
    if nu == 2.5:
        G = a.add(1.0).mul_(decay).mul_(5.0 / 3.0)
        return a.square_().mul_(decay).div_(3.0).add_(G, alpha=0.6), G
    if nu == 1.5:
        return a.add_(1.0).mul_(decay), decay * 3.0
    return decay, torch.where(a > 0.0, decay / a.clamp_min(math.ulp(0.0)), 0.0)
