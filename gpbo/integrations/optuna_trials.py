"""Optuna's trials as gpbo's: one space out of all that programs asked for, and what was active when.

Values are those of Optuna's storages: numbers as they are, choices by their index, so that any object can be
a choice. A program's branches are not declared in Optuna; they are read off from which parameters each trial
asked for. Parameters are in alphabetical order, because some storages do not keep that of asking.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from gpbo.errors import ConfigError, SpaceError
from gpbo.outcomes import OutcomeConstraint
from gpbo.space import Categorical, Config, Float, Int, Parameter, SearchSpace
from gpbo.trial import Observation, State, Trial

PROPOSAL = "gpbo"  # the attribute of a trial that holds what was proposed for it, and how

_RECENT = 10  # trials: what a range has been for so long is what it is now
_MOST_PARENT_LEVELS = 64  # a parameter with more switches no other one on and off
_MOST_RUNGS = 8  # at which trials are compared; with every report a row of its own there would be too many
_STATES = {
    TrialState.RUNNING: State.RUNNING,
    TrialState.COMPLETE: State.COMPLETE,
    TrialState.PRUNED: State.STOPPED,
    TrialState.FAIL: State.FAILED,
}


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """What a suggester can be told of a study.

    Attributes:
        space: The parameters, with the conditions that explain who asked for which.
        trials: Those that lie in the space, by number.
        constraints: One for each name that a trial set a constraint of.
    """

    space: SearchSpace
    trials: Sequence[Trial]
    constraints: Sequence[OutcomeConstraint]


def to_parameter(distribution: BaseDistribution) -> Parameter | None:
    """The parameter over Optuna's internal values; None for a single value or what gpbo cannot represent."""
    if distribution.single():
        return None
    try:
        match distribution:
            case FloatDistribution():
                return Float(
                    distribution.low, distribution.high, log=distribution.log, step=distribution.step
                )
            case IntDistribution():
                return Int(distribution.low, distribution.high, log=distribution.log, step=distribution.step)
            case CategoricalDistribution():
                return Categorical(range(len(distribution.choices)))
    except SpaceError:
        pass
    return None


def union(trials: Iterable[FrozenTrial]) -> dict[str, BaseDistribution]:
    """Every parameter that any trial asked for, by name, over the range that it has had lately."""
    asked: dict[str, list[BaseDistribution]] = {}
    for trial in trials:
        for name, distribution in trial.distributions.items():
            asked.setdefault(name, []).append(distribution)
    joined = {name: _joined(given[-_RECENT:]) for name, given in sorted(asked.items())}
    return {name: one for name, one in joined.items() if to_parameter(one) is not None}


def to_history(trials: Sequence[FrozenTrial], domain: Mapping[str, BaseDistribution]) -> History:
    """What the trials say about a domain; those with a value outside of it, or between steps, are left out.

    Args:
        trials: All but those that wait, by number.
        domain: Distributions that are parameters of gpbo, by name.
    """
    asked = [(trial, _internal(trial.params, domain)) for trial in trials]
    inside = [(trial, config) for trial, config in asked if config is not None]
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    space = _to_space(domain, [(config, trial.state in ended) for trial, config in inside if config])
    points = [(trial, _completed(trial, config, domain, space)) for trial, config in inside]
    points = [(trial, config) for trial, config in points if config]
    names = sorted({name for trial, _ in points for name in trial.constraints})
    at = _budgets([trial for trial, _ in points])
    told = [_to_trial(trial, config, at, names) for trial, config in points]
    return History(space, told, [OutcomeConstraint(name, "<=", 0.0) for name in names])


def to_held(trial: FrozenTrial, domain: Mapping[str, BaseDistribution], space: SearchSpace) -> Config:
    """What a trial must have: values it was queued with or has been given; none if they do not fit."""
    values = _internal({**trial.system_attrs.get("fixed_params", {}), **trial.params}, domain)
    try:
        return space.fix(values or {})
    except ConfigError:
        return {}


def _joined(given: Sequence[BaseDistribution]) -> BaseDistribution:
    """The smallest distribution that holds all of them; as the last, of which the others are variants."""
    last = given[-1]
    if isinstance(last, CategoricalDistribution) or all(one == last for one in given):
        return last
    alike: Any = [one for one in given if type(one) is type(last)]
    low, high = min(one.low for one in alike), max(one.high for one in alike)
    return type(alike[-1])(low, high, log=alike[-1].log)


def _internal(params: Mapping[str, Any], domain: Mapping[str, BaseDistribution]) -> Config | None:
    """Internal values of the domain's parameters; None if one lies outside, as between two steps."""
    config: Config = {}
    for name, distribution in domain.items():
        if name in params:
            try:
                config[name] = distribution.to_internal_repr(params[name])
            except ValueError:
                return None
            if not distribution._contains(config[name]):
                return None
    return config


def _completed(
    trial: FrozenTrial, config: Config, domain: Mapping[str, BaseDistribution], space: SearchSpace
) -> Config:
    """The config without what is inactive, and with what was proposed where the program did not ask.

    It may be about to ask, have failed before, or have reasons that no condition explains: then the point was
    tried as proposed, and counts as tried.
    """
    proposed = trial.system_attrs.get(PROPOSAL, {}).get("config", {})
    fitting = {n: v for n, v in proposed.items() if n in domain and domain[n]._contains(v)}
    values = {**fitting, **config}

    def exists(name: str) -> bool:
        when = space.parameters[name].when
        return when is None or (space.is_active(name, values) and all(map(exists, when)))

    return {name: value for name, value in values.items() if exists(name)}


def standing(trial: FrozenTrial, rungs: Iterable[float]) -> dict[float, int]:
    """The step of the report that counts at each rung the trial has been to: the first there or beyond."""
    steps = sorted(trial.intermediate_values)
    found = {rung: next((step for step in steps if step >= rung), None) for rung in rungs}
    return {rung: step for rung, step in found.items() if step is not None}


def _budgets(trials: Sequence[FrozenTrial]) -> dict[float, float]:
    """The rungs at which trials are compared, those at which some were pruned, and the end, with budgets.

    Empty where none was pruned. Steps that are counted from 0 are budgets from 1, whose logarithms exist.
    """
    ends = sorted({t.last_step for t in trials if t.state is TrialState.PRUNED and t.last_step is not None})
    if not ends:
        return {}
    first = 1.0 if any(0 in trial.intermediate_values for trial in trials) else 0.0
    last = 1 + max(trial.last_step for trial in trials if trial.last_step is not None)
    rungs = {ends[len(ends) * k // _MOST_RUNGS] for k in range(_MOST_RUNGS)}
    return {rung: rung + first for rung in (*sorted(rungs), last)}


def _to_trial(trial: FrozenTrial, config: Config, at: Mapping[float, float], names: Sequence[str]) -> Trial:
    """The trial with what was observed of it at the rungs and its end; failed where that is not finite."""
    outcomes = {name: trial.constraints.get(name, 0.0) for name in names}
    reports = trial.intermediate_values
    seen = [
        Observation((reports[step],), at[rung], outcomes=outcomes)
        for rung, step in standing(trial, at).items()
    ]
    state, last = _STATES[trial.state], list[Observation]()
    if trial.state is TrialState.COMPLETE:
        last = [Observation(tuple(trial.values), max(at.values(), default=None), outcomes=outcomes)]
        seen += last
    elif trial.state is TrialState.PRUNED and trial.last_step is not None:
        last = [Observation((reports[trial.last_step],), outcomes=outcomes)]
    if state.is_final and not (last and _is_finite(last[0])):
        state = State.FAILED
    proposal = trial.system_attrs.get(PROPOSAL, {})
    return Trial(
        number=trial.number,
        config=config,
        state=state,
        observations=tuple(filter(_is_finite, seen)),
        info=proposal.get("info", {}),
    )


def _is_finite(seen: Observation) -> bool:
    return all(map(math.isfinite, (*seen.values, *seen.outcomes.values())))


def _to_space(domain: Mapping[str, BaseDistribution], configs: Sequence[tuple[Config, bool]]) -> SearchSpace:
    """The space of the domain, given the configs so far and whether each is whole.

    A parent is asked for in every trial that asks for its child, and in more; so parents come first.
    """
    counts = {name: sum(name in config for config, _ in configs) for name in domain}
    parameters: dict[str, Any] = {name: to_parameter(one) for name, one in domain.items()}
    for name in sorted(domain, key=lambda name: -counts[name]):
        parents = {
            parent: parameter
            for parent, parameter in parameters.items()
            if isinstance(parameter, Int | Categorical)
            and parameter.n_levels <= _MOST_PARENT_LEVELS
            and counts[parent] > counts[name] > 0
        }
        when = _condition(name, parents, configs)
        if when:
            parameters[name] = replace(parameters[name], when=when)
    return SearchSpace(parameters)


def _condition(
    name: str, parents: Mapping[str, Int | Categorical], configs: Sequence[tuple[Config, bool]]
) -> dict[str, list[int]]:
    """The values of other parameters with which trials asked for this one: a conjunction, chosen greedily.

    Values that were not tried yet are taken to allow it: to propose one value too many costs nothing. Of
    parents that explain equally much, the one that does so by its values, then the one with the fewest, is
    chosen.
    """
    having = [config for config, _ in configs if name in config]
    lacking = [config for config, is_whole in configs if is_whole and name not in config]
    candidates = {p: parent for p, parent in parents.items() if all(p in config for config in having)}
    when: dict[str, list[int]] = {}
    while lacking and candidates:
        allowed = {p: _allowed(parent, p, having, lacking) for p, parent in candidates.items()}
        by_value = {p: [c for c in lacking if p not in c or c[p] in allowed[p]] for p in candidates}
        # where the parent is inactive itself, so is the parameter
        left = {p: [c for c in by_value[p] if p in c or parents[p].when is None] for p in candidates}
        best = min(candidates, key=lambda p: (len(left[p]), len(by_value[p]), parents[p].n_levels))
        if len(left[best]) == len(lacking):
            break
        when[best], lacking = allowed[best], left[best]
        del candidates[best]
    return when


def _allowed(
    parent: Int | Categorical, name: str, having: Sequence[Config], lacking: Sequence[Config]
) -> list[int]:
    """The parent's values, without those of trials that lack the parameter: a range, of whole numbers."""
    on = {config[name] for config in having}
    off = {config[name] for config in lacking if name in config} - on
    if isinstance(parent, Categorical):
        return [k for k in parent.choices if k not in off]
    low = max((v for v in off if v < min(on)), default=-math.inf)
    high = min((v for v in off if v > max(on)), default=math.inf)
    return [k for k in range(parent.low, parent.high + 1, parent.step) if low < k < high]
