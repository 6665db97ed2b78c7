"""Acquisition functions and their optimiser."""

if __name__ != "gpbo.acquisition":
    raise ImportError("import this package as gpbo.acquisition, not as a top-level 'acquisition'")

from gpbo.acquisition.analytic import Analytic, ei, log_ei, log_pi, ucb
from gpbo.acquisition.batch import (
    PENDING,
    Exploration,
    Fantasies,
    Pending,
    constant_lie,
    explore,
    over_fantasies,
    ucb_pe_batch,
    with_pending,
)
from gpbo.acquisition.greedy import Turns, greedy_batch
from gpbo.acquisition.monte_carlo import MonteCarlo, base_samples, q_log_ei, q_ucb
from gpbo.acquisition.optimize import CPU_EFFORT, GPU_EFFORT, Effort, maximize
from gpbo.acquisition.thompson import Paths, draw_paths, thompson_batch

__all__ = [
    "CPU_EFFORT",
    "GPU_EFFORT",
    "PENDING",
    "Analytic",
    "Effort",
    "Exploration",
    "Fantasies",
    "MonteCarlo",
    "Paths",
    "Pending",
    "Turns",
    "base_samples",
    "constant_lie",
    "draw_paths",
    "ei",
    "explore",
    "greedy_batch",
    "log_ei",
    "log_pi",
    "maximize",
    "over_fantasies",
    "q_log_ei",
    "q_ucb",
    "thompson_batch",
    "ucb",
    "ucb_pe_batch",
    "with_pending",
]
