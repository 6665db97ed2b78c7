"""scikit-learn's search spaces as gpbo's: dictionaries of lists and of scipy's frozen distributions."""

from __future__ import annotations

import itertools
import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any

from gpbo.errors import SpaceError
from gpbo.parameters import Categorical, Float, Int, Parameter
from gpbo.space import SearchSpace

_NEAR = 1e-9  # relative


def space_from_sklearn(param_distributions: SearchSpace | Mapping[str, Any]) -> SearchSpace:
    """The space of what `RandomizedSearchCV` takes; parameters of gpbo's may stand in it too.

    A list of rising or falling numbers is ordered. Of distributions there are `uniform`, `loguniform` and
    `randint`.

    Raises:
        SpaceError: if a distribution has no counterpart here, or a choice is not a plain value; it names the
            parameter.
    """
    if isinstance(param_distributions, SearchSpace):
        return param_distributions
    if not isinstance(param_distributions, Mapping):
        raise SpaceError(
            "a search space of scikit-learn must be one dictionary, from names to lists of choices, "
            f"distributions or gpbo's parameters, got {param_distributions!r}."
        )
    return SearchSpace({name: to_parameter(name, given) for name, given in param_distributions.items()})


def to_parameter(name: str, given: Any) -> Parameter:
    """The parameter for a list of choices, a frozen distribution, or a parameter of gpbo's.

    Raises:
        SpaceError: if there is none; it names the parameter.
    """
    if isinstance(given, Parameter):
        return given
    try:
        if hasattr(given, "dist") and hasattr(given, "support"):
            return _from_distribution(given)
        if isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping):
            choices = list(given)
            return Categorical(choices, ordered=_is_ordered(choices))
    except SpaceError as error:
        raise SpaceError(f"`{name}`: {error}") from None
    raise SpaceError(
        f"`{name}` must be a list of choices, a distribution of scipy.stats or a parameter of gpbo's, "
        f"got {given!r}."
    )


def _from_distribution(given: Any) -> Parameter:
    kind = given.dist.name
    low, high = (end.item() if hasattr(end, "item") else end for end in given.support())
    if kind in ("uniform", "randint", "loguniform", "reciprocal") and low == high:
        return Categorical([low])
    if kind == "uniform":
        return Float(low, high)
    if kind == "randint":
        return Int(low, high)
    if kind in ("loguniform", "reciprocal"):
        if low > 0 and math.isclose(given.median(), math.sqrt(low) * math.sqrt(high), rel_tol=_NEAR):
            return Float(low, high, log=True)
        kind = "shifted loguniform"
    raise SpaceError(
        f"the distribution {kind} has no counterpart; use uniform, loguniform, randint, a list, or a "
        "parameter of gpbo's such as gpbo.Float(low, high, log=True)."
    )


def _is_ordered(choices: list[Any]) -> bool:
    """Whether the choices are numbers that rise or fall."""
    if len(choices) < 3 or not all(isinstance(c, numbers.Real) and not isinstance(c, bool) for c in choices):
        return False
    pairs = list(itertools.pairwise(choices))
    return all(a < b for a, b in pairs) or all(a > b for a, b in pairs)
