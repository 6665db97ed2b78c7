"""Ray Tune's search spaces as gpbo's: nested dictionaries there, flat names such as ``opt/lr`` here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from gpbo.errors import MissingExtraError, SpaceError
from gpbo.parameters import Categorical, Float, Int, Parameter
from gpbo.space import Config, SearchSpace

try:
    from ray.tune.search import sample
except ImportError as error:
    raise MissingExtraError(f"Ray Tune is not installed ({error}); pip install 'gpbo[ray]'.") from None

_DELIMITER = "/"
_OPEN_KEYS = frozenset({"eval", "grid_search"})  # how YAML spells tune.sample_from and tune.grid_search

_Path = tuple[Any, ...]


def space_from_ray(param_space: Mapping[str, Any]) -> SearchSpace:
    """The space of a Tuner's `param_space`, constants included; parameters of gpbo's may stand in it too.

    Raises:
        SpaceError: if a domain has no counterpart here, or a constant is not a plain value; it names both.
    """
    return _space(_leaves(_checked(param_space)))


def tuned_space(param_space: Mapping[str, Any]) -> SearchSpace:
    """The space of what a Tuner's `param_space` leaves open; Ray adds the constants itself.

    Constants in a list with domains are in the space: a list is suggested as a whole.

    Raises:
        SpaceError: if a domain has no counterpart here, or there is nothing to tune.
    """
    leaves = list(_leaves(_checked(param_space)))
    for path, value in leaves:
        if isinstance(value, Parameter):
            raise SpaceError(
                f"`{_joined(path)}`: Ray hands gpbo's parameters to the trainable as they are; give "
                "GPBOSearch(space) all that is tuned."
            )
    tuned = [path for path, value in leaves if _is_open(value)]
    if not tuned:
        raise SpaceError(f"`param_space` has nothing to tune, got {dict(param_space)!r}.")
    lists = {path[:i] for path in tuned for i, key in enumerate(path) if isinstance(key, int)}
    return _space(
        (path, value)
        for path, value in leaves
        if _is_open(value) or any(path[:i] in lists for i in range(len(path)))
    )


def flat(config: Mapping[str, Any]) -> Config:
    """A nested config by flat names."""
    return {_joined(path): value for path, value in _leaves(config)}


def nested(config: Mapping[str, Any]) -> Config:
    """The config as Ray wants it; numbers in flat names are places in lists, where they are 0, 1, ... ."""
    tree: Config = {}
    for name, value in config.items():
        *keys, last = name.split(_DELIMITER)
        branch = tree
        for key in keys:
            branch = branch.setdefault(key, {})
        branch[last] = value
    return {key: _with_lists(value) for key, value in tree.items()}


def _with_lists(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    inner = {key: _with_lists(value) for key, value in tree.items()}
    places = [str(i) for i in range(len(inner))]
    # where an element is absent, a list would move those behind it to the places of others
    return [inner[place] for place in places] if inner.keys() == set(places) else inner


def _checked(param_space: Any) -> Mapping[str, Any]:
    if not isinstance(param_space, Mapping):
        raise SpaceError(f"`param_space` must be a dictionary, got {param_space!r}.")
    return param_space


def _leaves(tree: Any, path: _Path = ()) -> Iterator[tuple[_Path, Any]]:
    """Every value and domain in order, with its path: strings for keys, whole numbers for places in lists."""
    if isinstance(tree, Mapping) and not _is_open(tree):
        for key, value in tree.items():
            yield from _leaves(value, (*path, str(int(key)) if isinstance(key, int) else key))
    elif isinstance(tree, list | tuple):
        for i, value in enumerate(tree):
            yield from _leaves(value, (*path, i))
    else:
        yield path, tree


def _is_open(value: Any) -> bool:
    """Whether Ray would draw this value, or try several in turn."""
    return isinstance(value, sample.Domain) or (
        isinstance(value, Mapping) and len(value) == 1 and not value.keys().isdisjoint(_OPEN_KEYS)
    )


def _space(leaves: Iterable[tuple[_Path, Any]]) -> SearchSpace:
    parameters = {}
    for path, value in leaves:
        name = _joined(path)
        for key in path:
            if not isinstance(key, int) and (not isinstance(key, str) or _DELIMITER in key or key.isdigit()):
                raise SpaceError(
                    f"`{name}`: a key must be a string without {_DELIMITER!r} that is no number, got {key!r}."
                )
        parameters[name] = _parameter(name, value) if _is_open(value) else value
    return SearchSpace(parameters)


def _parameter(name: str, domain: Any) -> Parameter:
    """The parameter for a domain.

    Raises:
        SpaceError: if there is none.
    """
    if isinstance(domain, sample.Function) or (isinstance(domain, Mapping) and "eval" in domain):
        raise SpaceError(
            f"`{name}`: tune.sample_from(...) draws what gpbo cannot choose; compute it in the trainable."
        )
    if isinstance(domain, Mapping) or domain.is_grid():
        raise SpaceError(
            f"`{name}`: tune.grid_search([...]) is run in full by Ray alone; give tune.choice([...])."
        )
    sampler, step = domain.get_sampler(), None
    if isinstance(sampler, sample.Quantized):
        sampler, step = sampler.get_sampler(), sampler.q
    if isinstance(domain, sample.Integer) and step == 1:
        step = None  # then, and only then, Ray leaves the upper bound out
    log = isinstance(sampler, sample.LogUniform)
    if not log and not isinstance(sampler, sample.Uniform):
        raise SpaceError(
            f"`{name}`: gpbo searches ranges with bounds, not {type(domain).__name__} values drawn by "
            f"{sampler}; give tune.uniform(low, high)."
        )
    if log and step is not None:
        raise SpaceError(
            f"`{name}`: a range cannot have both a logarithmic scale and a step, got {step}; give "
            "tune.loguniform or tune.lograndint, or tune.choice with the values."
        )
    try:
        return _converted(domain, log, step)
    except SpaceError as error:
        raise SpaceError(f"`{name}`: {error}") from None


def _converted(domain: Any, log: bool, step: float | None) -> Parameter:
    if isinstance(domain, sample.Categorical):
        return Categorical(domain.categories)
    if isinstance(domain, sample.Integer):
        low, high = domain.lower, domain.upper - 1
        if step is not None:
            low, high = step * math.ceil(domain.lower / step), step * math.floor(domain.upper / step)
        return Categorical([low]) if low == high else Int(low, high, log=log, step=int(step or 1))
    if step is None:
        return Float(domain.lower, domain.upper, log=log)
    # the decimals that people write: 3 * 0.1 is not 0.3
    low, high = (float(round(bound / step) * Decimal(str(step))) for bound in (domain.lower, domain.upper))
    return Float(low, high, step=step)


def _joined(path: _Path) -> str:
    return _DELIMITER.join(map(str, path))
