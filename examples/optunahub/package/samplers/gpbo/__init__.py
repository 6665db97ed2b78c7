"""gpbo's sampler and pruner for Optuna, as an OptunaHub package."""

from gpbo.integrations.optuna import GPBOPruner, GPBOSampler

__all__ = ["GPBOPruner", "GPBOSampler"]
