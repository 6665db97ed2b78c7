"""The Gaussian process: hyper-parameters, their fit, and the posterior as a value."""

from gpbo.gp.exact import ExactPosterior, exact_posterior
from gpbo.gp.fit import Fit
from gpbo.gp.hypers import Hypers
from gpbo.gp.model import GP, fit_gp, make_gp
from gpbo.gp.warp import STRENGTHS, Warped, unwarp_values, warp_values

__all__ = [
    "GP",
    "STRENGTHS",
    "ExactPosterior",
    "Fit",
    "Hypers",
    "Warped",
    "exact_posterior",
    "fit_gp",
    "make_gp",
    "unwarp_values",
    "warp_values",
]
