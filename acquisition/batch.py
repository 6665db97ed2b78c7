"""What to believe about points that are being evaluated.

variance    nothing about their values: the mean stays, the variance knows that they will be known
believer    the posterior mean at each (kriging believer, Ginsbourger et al. 2010)
liar_min, liar_mean, liar_max
            the worst, mean or best value observed (constant liar, the same)
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from gpbo.errors import SettingError, did_you_mean
from gpbo.gp import GP

Pending = Literal["variance", "believer", "liar_min", "liar_mean", "liar_max"]
PENDING: tuple[Pending, ...] = ("variance", "believer", "liar_min", "liar_mean", "liar_max")


def with_pending(gp: GP, X: Tensor, belief: Pending = "variance") -> GP:  # (p, d)
    """The process that accounts for pending points X.

    Raises:
        SettingError: if the belief is not one of `PENDING`.
    """
    if belief not in PENDING:
        hint = did_you_mean(str(belief), PENDING)
        raise SettingError(f"`pending` must be one of {list(PENDING)}, got {belief!r}.{hint}")
    if len(X) == 0:
        return gp
    if belief == "variance":
        return gp.condition(X)
    if belief == "believer":
        return gp.condition(X, gp.marginal(X)[0])
    known = gp.y[gp.y.isfinite()]
    lie = {"liar_min": known.min(), "liar_mean": known.mean(), "liar_max": known.max()}[belief]
    return gp.condition(X, lie.expand(len(X)))
