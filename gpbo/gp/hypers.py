"""The Gaussian process's hyper-parameters and their priors.

All are fitted in logarithms, theta = (log lengthscale_1..d, log noise_var, log outputscale), where each
prior is a normal one. Its centre is the mode of the named distribution's density over the hyper-parameter
itself, which is what a MAP estimate over the raw value pulls towards: LogNormal(m, s) becomes
N(m - s^2, s).

    lengthscale   LogNormal(sqrt 2 + log(d) / 2, sqrt 3)    Hvarfner et al. 2024 (arXiv 2402.02229)
    noise_var     LogNormal(-4, 1) above the floor 1e-6
    outputscale   LogNormal(0, 1/2)

The constant mean has a N(0, 1) prior and is integrated out: it adds `MEAN_VAR` to every covariance, so that
what is not known of the mean shows in the variance far from the data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

NOISE_FLOOR = 1e-6  # keeps the condition number of n = 1000 points below 1e9
MEAN_VAR = 1.0  # of the constant mean, for standardised values
_LENGTHSCALE = (math.sqrt(2.0), math.sqrt(3.0))
_NOISE = (-4.0, 1.0)
_OUTPUTSCALE = (0.0, 0.5)


@dataclass(frozen=True, slots=True, eq=False)
class Hypers:
    """One setting of the hyper-parameters, for standardised values.

    Attributes:
        lengthscale: (d,) in units of the cube's side.
        noise_var: () the variance of an observation's noise, the floor included.
        outputscale: () the variance of the function about its mean.
    """

    lengthscale: Tensor
    noise_var: Tensor
    outputscale: Tensor

    @property
    def theta(self) -> Tensor:  # (d + 2,)
        """The logarithms that are fitted."""
        noise = (self.noise_var - NOISE_FLOOR).clamp(min=1e-12)
        return torch.cat([self.lengthscale, noise.reshape(1), self.outputscale.reshape(1)]).log()

    def halfway_to_prior(self) -> Hypers:
        """The same with every lengthscale halfway, in logarithms, to the centre of its prior."""
        d = len(self.lengthscale)
        centre = prior(d, self.lengthscale.device)[0][:d].exp()
        return replace(self, lengthscale=(self.lengthscale * centre).sqrt())

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for a trial's info."""
        return {
            "lengthscale": self.lengthscale.tolist(),
            "noise_var": self.noise_var.item(),
            "outputscale": self.outputscale.item(),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any], device: torch.device) -> Hypers:
        """The hyper-parameters that `to_dict` wrote."""
        return cls(
            *(
                torch.tensor(plain[name], dtype=torch.float64, device=device)
                for name in ("lengthscale", "noise_var", "outputscale")
            )
        )


def from_theta(theta: Tensor) -> Hypers:  # (d + 2,)
    """The hyper-parameters at a point of the fit."""
    values = theta.exp()
    return Hypers(values[:-2], values[-2] + NOISE_FLOOR, values[-1])


def prior(d: int, device: torch.device) -> tuple[Tensor, Tensor]:  # (d + 2,), (d + 2,)
    """The centre and the standard deviation of each element of theta."""
    m, s = _LENGTHSCALE
    centre = [m + 0.5 * math.log(max(d, 1)) - s * s] * d
    centre += [_NOISE[0] - _NOISE[1] ** 2, _OUTPUTSCALE[0] - _OUTPUTSCALE[1] ** 2]
    spread = [s] * d + [_NOISE[1], _OUTPUTSCALE[1]]
    return (
        torch.tensor(centre, dtype=torch.float64, device=device),
        torch.tensor(spread, dtype=torch.float64, device=device),
    )
