"""Acquisition functions and their optimiser."""

if __name__ != "gpbo.acquisition":
    raise ImportError("import this package as gpbo.acquisition, not as a top-level 'acquisition'")

from gpbo.acquisition.analytic import Analytic, ei, log_ei, log_pi, ucb
from gpbo.acquisition.batch import PENDING, Pending, with_pending
from gpbo.acquisition.monte_carlo import MonteCarlo, base_samples, q_log_ei, q_ucb
from gpbo.acquisition.optimize import Effort, maximize

__all__ = [
    "PENDING",
    "Analytic",
    "Effort",
    "MonteCarlo",
    "Pending",
    "base_samples",
    "ei",
    "log_ei",
    "log_pi",
    "maximize",
    "q_log_ei",
    "q_ucb",
    "ucb",
    "with_pending",
]
