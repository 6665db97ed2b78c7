"""gpbo: a GPU-accelerated Bayesian optimization engine.

The names below are loaded when they are first used, so that `import gpbo` does not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gpbo._version import __version__

if TYPE_CHECKING:
    from gpbo.checkpoint import Checkpoints
    from gpbo.errors import GpboError
    from gpbo.job import Job
    from gpbo.parameters import Categorical, Float, Int
    from gpbo.schedulers.asha import ASHA
    from gpbo.schedulers.hyperband import Hyperband, SuccessiveHalving
    from gpbo.schedulers.median import MedianStopping
    from gpbo.simulation import Simulation, simulate
    from gpbo.space import SearchSpace
    from gpbo.study import Study
    from gpbo.suggesters.bayes import GPSuggester
    from gpbo.suggesters.density import BOHBSuggester
    from gpbo.suggesters.grid import GridSuggester
    from gpbo.suggesters.multi_objective import MultiObjectiveSuggester
    from gpbo.suggesters.multifidelity import MultiFidelitySuggester
    from gpbo.suggesters.quasirandom import RandomSuggester, SobolSuggester
    from gpbo.trial import Observation, State, Trial

_HOMES = {
    "ASHA": "gpbo.schedulers.asha",
    "BOHBSuggester": "gpbo.suggesters.density",
    "Categorical": "gpbo.parameters",
    "Checkpoints": "gpbo.checkpoint",
    "Float": "gpbo.parameters",
    "GPSuggester": "gpbo.suggesters.bayes",
    "GpboError": "gpbo.errors",
    "GridSuggester": "gpbo.suggesters.grid",
    "Hyperband": "gpbo.schedulers.hyperband",
    "Int": "gpbo.parameters",
    "Job": "gpbo.job",
    "MedianStopping": "gpbo.schedulers.median",
    "MultiFidelitySuggester": "gpbo.suggesters.multifidelity",
    "MultiObjectiveSuggester": "gpbo.suggesters.multi_objective",
    "Observation": "gpbo.trial",
    "RandomSuggester": "gpbo.suggesters.quasirandom",
    "SearchSpace": "gpbo.space",
    "Simulation": "gpbo.simulation",
    "SobolSuggester": "gpbo.suggesters.quasirandom",
    "State": "gpbo.trial",
    "Study": "gpbo.study",
    "SuccessiveHalving": "gpbo.schedulers.hyperband",
    "Trial": "gpbo.trial",
    "simulate": "gpbo.simulation",
}

__all__ = [
    "ASHA",
    "BOHBSuggester",
    "Categorical",
    "Checkpoints",
    "Float",
    "GPSuggester",
    "GpboError",
    "GridSuggester",
    "Hyperband",
    "Int",
    "Job",
    "MedianStopping",
    "MultiFidelitySuggester",
    "MultiObjectiveSuggester",
    "Observation",
    "RandomSuggester",
    "SearchSpace",
    "Simulation",
    "SobolSuggester",
    "State",
    "Study",
    "SuccessiveHalving",
    "Trial",
    "__version__",
    "simulate",
]


def __getattr__(name: str) -> Any:
    if name == "schedulers":  # for `gpbo.schedulers.rungs`, whose functions are public but have no short name
        return importlib.import_module("gpbo.schedulers")
    if name not in _HOMES:
        raise AttributeError(f"module 'gpbo' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
