"""The Gaussian process: hyper-parameters, their fit, and the posterior as a value."""

from gpbo.gp.fit import Fit
from gpbo.gp.hypers import Hypers
from gpbo.gp.model import GP, fit_gp, make_gp
from gpbo.gp.warp import STRENGTHS, Warped, warp_values

__all__ = ["GP", "STRENGTHS", "Fit", "Hypers", "Warped", "fit_gp", "make_gp", "warp_values"]
