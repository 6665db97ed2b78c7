"""From Optuna: search spaces, and the trials of past studies."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from gpbo.errors import ConfigError, MissingExtraError, SettingError, SpaceError
from gpbo.parameters import Categorical, Float, Int, Parameter
from gpbo.space import SearchSpace
from gpbo.study import Study
from gpbo.trial import Trial

try:
    from optuna.distributions import (
        BaseDistribution,
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )
    from optuna.trial import TrialState
except ModuleNotFoundError as error:
    raise MissingExtraError(f"{error.name} is not installed; pip install 'gpbo[optuna]'.") from None

if TYPE_CHECKING:
    import optuna

__all__ = ["add_optuna_trials", "space_from_optuna"]

logger = logging.getLogger(__name__)


def space_from_optuna(distributions: Mapping[str, BaseDistribution]) -> SearchSpace:
    """The space of distributions by name, such as ``study.best_trial.distributions``.

    Optuna does not say when a parameter exists: give conditions with `when=` to parameters of gpbo's.

    Raises:
        SpaceError: if a distribution has no counterpart, such as a choice that is no plain value; it names
            the parameter.
    """
    if not isinstance(distributions, Mapping):
        raise SpaceError(f"`distributions` must map names to Optuna's distributions, got {distributions!r}.")
    return SearchSpace({name: _named(name, given) for name, given in distributions.items()})


def add_optuna_trials(study: Study, source: optuna.Study) -> list[Trial]:
    """Takes the complete trials of an Optuna study into a study, all at once; those that were taken.

    Trials outside of the study's space are left out, and a warning in the log says how many and why.
    Constants of the space that Optuna did not know are filled in. What Optuna calls constraints is taken for
    outcomes of the same names.

    Raises:
        SettingError: if the two studies have other directions.
        ResultError: if a trial lacks an outcome that the study's constraints speak of.
    """
    directions = [direction.name.lower() for direction in source.directions]
    if directions != list(study.directions):
        raise SettingError(
            f"the Optuna study must have the directions {list(study.directions)}, got {directions}."
        )
    constants = {
        name: parameter.from_unit([0.5])[0]
        for name, parameter in study.space.parameters.items()
        if parameter.n_levels == 1 and parameter.when is None
    }
    complete = source.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    inside, configs, reasons = [], [], []
    for trial in complete:
        try:
            configs.append(study.space.validate(constants | trial.params))
            inside.append(trial)
        except ConfigError as error:
            reasons.append(f"trial {trial.number}: {error}")
    if reasons:
        logger.warning(
            "%d of %d trials are outside of the space and left out; %s",
            len(reasons),
            len(complete),
            reasons[0],
        )
    outcomes = [{n: t.constraints[n] for n in study.outcome_names if n in t.constraints} for t in inside]
    return study.add_many(configs, [trial.values for trial in inside], outcomes=outcomes)


def to_parameter(given: BaseDistribution) -> Parameter:
    """The parameter of a distribution; a constant for a single number.

    Raises:
        SpaceError: if there is none.
    """
    match given:
        case FloatDistribution() | IntDistribution() if given.low == given.high:
            return Categorical([given.low])
        case FloatDistribution():
            return Float(given.low, given.high, log=given.log, step=given.step)
        case IntDistribution():
            return Int(given.low, given.high, log=given.log, step=given.step)
        case CategoricalDistribution():
            return Categorical(given.choices)
    raise SpaceError(f"it must be a distribution of Optuna's, got {given!r}.")


def _named(name: str, given: BaseDistribution) -> Parameter:
    try:
        return to_parameter(given)
    except SpaceError as error:
        raise SpaceError(f"`{name}`: {error}") from None
