"""Covariance functions: Matern kernels over the features of a cube's points."""

if __name__ != "gpbo.kernels":
    raise ImportError("import this package as gpbo.kernels, not as a top-level 'kernels'")

from gpbo.kernels.embedding import Embedding, squared_distances
from gpbo.kernels.fidelity import AtBudget, with_budget_column
from gpbo.kernels.matern import NUS, matern, matern_and_slope

__all__ = [
    "NUS",
    "AtBudget",
    "Embedding",
    "matern",
    "matern_and_slope",
    "squared_distances",
    "with_budget_column",
]
