"""What a study has found out: the posterior over the space, which parameters matter, and figures."""

from gpbo.analysis.importance import Effect, Importance
from gpbo.analysis.surrogate import Draws, Surrogate, fit_surrogate

__all__ = ["Draws", "Effect", "Importance", "Surrogate", "fit_surrogate"]
