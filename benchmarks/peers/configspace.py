"""gpbo's spaces as ConfigSpace's, for SMAC and HpBandSter, and the way back.

Floats and integers keep their bounds and log scales. ConfigSpace has no steps and its ordinals are
refused by HpBandSter, so stepped numbers and ordered categories become the whole number of their place.
Categories become the number of their choice. Conditions are expressed exactly; constraints are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpbo import Categorical, Float, Int, SearchSpace
from gpbo.space import Parameter


def to_configspace(space: SearchSpace, seed: int) -> Any:
    """The ConfigurationSpace whose values `to_values` and `from_values` translate."""
    import ConfigSpace as CS  # noqa: N817  its documentation's name

    given = CS.ConfigurationSpace(seed=seed)
    for name, parameter in space.parameters.items():
        given.add(_hyperparameter(CS, name, parameter))
    for name, parameter in space.parameters.items():
        parts = [
            CS.InCondition(given[name], given[parent], [_place(space.parameters[parent], v) for v in values])
            for parent, values in (parameter.when or {}).items()
        ]
        if parts:
            given.add(parts[0] if len(parts) == 1 else CS.AndConjunction(*parts))
    return given


def to_values(space: SearchSpace, config: Mapping[str, Any]) -> dict[str, Any]:
    """The config in ConfigSpace's values."""
    return {name: _place(space.parameters[name], value) for name, value in config.items()}


def from_values(space: SearchSpace, values: Mapping[str, Any]) -> dict[str, Any]:
    """The config of ConfigSpace's values; numbers may be outside their bounds by rounding."""
    return {name: _value(space.parameters[name], values[name]) for name in values}


def _hyperparameter(CS: Any, name: str, p: Parameter) -> Any:
    if isinstance(p, Categorical) and not p.ordered:
        return CS.CategoricalHyperparameter(name, list(range(p.n_levels)))
    if _by_place(p):
        return CS.UniformIntegerHyperparameter(name, 0, p.n_levels - 1)
    assert not isinstance(p, Categorical)
    kind = CS.UniformFloatHyperparameter if isinstance(p, Float) else CS.UniformIntegerHyperparameter
    return kind(name, p.low, p.high, log=p.log)


def _by_place(p: Parameter) -> bool:
    return isinstance(p, Categorical) or (p.step is not None if isinstance(p, Float) else p.step != 1)


def _place(p: Parameter, value: Any) -> Any:
    if isinstance(p, Categorical):
        chosen = p.normalise(value)
        return next(k for k, choice in enumerate(p.choices) if choice is chosen)
    return round((value - p.low) / (p.step or 1)) if _by_place(p) else value


def _value(p: Parameter, value: Any) -> Any:
    if isinstance(p, Categorical):
        return p.choices[int(value)]
    if _by_place(p):
        return p.normalise(p.low + int(value) * (p.step or 1))
    return int(value) if isinstance(p, Int) else float(value)
