"""Which suggester a study has when none is given."""

from __future__ import annotations

from gpbo.suggesters.base import Suggester
from gpbo.suggesters.bayes import GPSuggester
from gpbo.suggesters.multi_objective import MultiObjectiveSuggester
from gpbo.suggesters.multifidelity import MultiFidelitySuggester


def default_suggester(*, objectives: int, is_constrained: bool, has_budgets: bool) -> Suggester:
    """The one for several objectives, for one at several budgets, under outcome constraints, or for neither.

    With budgets, what breaks an outcome constraint is avoided as failures are.
    """
    if has_budgets and objectives == 1:
        return MultiFidelitySuggester()
    return MultiObjectiveSuggester() if objectives > 1 or is_constrained else GPSuggester()
