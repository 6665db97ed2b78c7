"""gpbo in Optuna: a sampler and a pruner for any study, storage and number of workers.

Both are functions of a study's trials and a seed and keep nothing, so that one object may serve many studies
and threads, and a study that is loaded again goes on as if it had never stopped. What the sampler proposes is
written on its trial at once: other workers see it before the program has asked for all of it.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from gpbo.errors import MissingExtraError, SettingError

try:
    import optuna
except ModuleNotFoundError as error:
    raise MissingExtraError(f"{error.name} is not installed; pip install 'gpbo[optuna]'.") from None

from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from gpbo.checks import device_name, whole
from gpbo.integrations.hosts import check_tested
from gpbo.integrations.optuna_trials import PROPOSAL, standing, to_held, to_history, to_parameter, union
from gpbo.schedulers.asha import ASHA
from gpbo.schedulers.base import Minimised
from gpbo.seeding import derive, generator
from gpbo.trial import Observation, State, Trial

if TYPE_CHECKING:
    from gpbo.suggesters.base import Suggester

__all__ = ["GPBOPruner", "GPBOSampler"]

logger = logging.getLogger(__name__)

_PASSED = "gpbo:passed"  # the attribute of a trial that holds the highest rung that it went on from
_MOST_ATTEMPTS = 4  # at a proposal; with many processes there is always another one meanwhile

# One proposal at a time in a process and a study: whoever is next sees the one before as running. By storage
# and the study's id there; of a thread that proposes while the process forks, the child has only the lock.
_proposing: WeakKeyDictionary[BaseStorage, dict[int, threading.Lock]] = WeakKeyDictionary()
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_proposing.clear)

check_tested("Optuna", optuna.__version__, "5", "5")


class GPBOSampler(BaseSampler):
    """Proposes parameters by gpbo's models, for one objective or several, constrained, pruned or not.

    Parameters are proposed together over the union of all that any trial asked for. One that some trials did
    not ask for is inactive in these, and is proposed where the values of choices and whole numbers say that
    it will be asked for; what was proposed in vain is ignored. A parameter that is new, or is asked for over
    a range that the proposal does not fit, is drawn at random, of the first trial at the middle. Ranges are
    those of the last ten trials, taken together; trials outside, or between steps, are left out.

    Running trials count as such, failed ones (also: infinite values, pruned without a report) as infeasible.
    Where some were pruned, reports at the steps at which that happened are observations at lower budgets.
    Constraints are those of ``trial.set_constraint``; one that a trial did not set is taken to be just met.
    When a finite space has nothing new left, trials are random.

    Args:
        seed: Addresses all randomness, together with the trial's number: a study that is loaded again does
            not repeat its points, and workers with the same seed propose different ones. None draws one.
        suggester: How parameters are chosen; by default as in `gpbo.Study`, with budgets once one was pruned.
        device: Where tensors are computed: "auto" (CUDA where there is one), "cpu", "cuda:1", ...

    Raises:
        SettingError: if `seed` is neither a whole number nor None, `suggester` is no suggester, or there is
            no such `device`.
    """

    def __init__(
        self, *, seed: int | None = 0, suggester: Suggester | None = None, device: str = "auto"
    ) -> None:
        self._seed = secrets.randbits(32) if seed is None else whole("seed", seed)
        if suggester is not None and (isinstance(suggester, type) or not hasattr(suggester, "suggest")):
            raise SettingError(f"`suggester` must be an object such as GPSuggester(), got {suggester!r}.")
        self._suggester = suggester
        self._device = device_name(device)

    def __repr__(self) -> str:
        given = [f"seed={self._seed}"]
        given += [f"suggester={self._suggester!r}"] if self._suggester is not None else []
        given += [f"device={self._device!r}"] if self._device != "auto" else []
        return f"GPBOSampler({', '.join(given)})"

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All parameters that other trials asked for and that can vary."""
        return union(_others(study, trial))

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The proposal for a trial: a value for each parameter that is expected to be asked for."""
        domain = {name: one for name, one in sorted(search_space.items()) if to_parameter(one) is not None}
        if not domain:
            return {}
        with _turn(study):
            others = _others(study, trial)
            for attempt in range(_MOST_ATTEMPTS):
                config, info = self._proposal(study, trial, others, domain)
                proposal = {"config": config, "info": info}
                study._storage.set_trial_system_attr(trial._trial_id, PROPOSAL, proposal)
                # What other processes proposed meanwhile: of two that saw each other too late both ask again,
                # and the later one until the earlier one has what it wants.
                before, others = others, _others(study, trial)
                news = _news(before, others)
                if not news or (attempt > 0 and min(news) > trial.number):
                    break
        return {name: domain[name].to_external_repr(value) for name, value in config.items()}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The middle for the first trial, as in `gpbo.Study`; a random value for others."""
        stream = derive(self._seed, trial.number, "independent", param_name)
        parameter = to_parameter(param_distribution)
        if parameter is None:
            drawing = optuna.samplers.RandomSampler(seed=stream % 2**32)
            return drawing.sample_independent(study, trial, param_name, param_distribution)
        [value] = parameter.from_unit([stream / 2**63 if trial.number else 0.5])
        return param_distribution.to_external_repr(value)

    def reseed_rng(self) -> None:
        """Nothing: trials have different numbers, and with them different random streams."""

    def _proposal(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        others: list[FrozenTrial],
        domain: dict[str, BaseDistribution],
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Values in Optuna's internal form, and how they were chosen."""
        from gpbo.data import to_dataset  # these load torch
        from gpbo.suggesters.default import default_suggester

        history = to_history(others, domain)
        space, maximize = history.space, _maximize(study)
        data = to_dataset(
            history.trials,
            space,
            maximize,
            number=trial.number,
            outcome_constraints=history.constraints,
            device=self._device,
        )
        suggester = self._suggester or default_suggester(
            objectives=data.Y.shape[1],
            is_constrained=data.outcomes is not None,
            has_budgets=bool(data.budget.isfinite().any()),
        )
        held = to_held(trial, domain, space)
        cube = space.part(held) if held else space.cube
        suggestion = suggester.suggest(data, cube, 1, self._seed)
        X, info = suggestion.X, dict(suggestion.info)
        if len(X) == 0:
            X = cube.draw(1, generator(self._seed, trial.number, "repeat"))
            info = {"source": "random", "fallback": "every point of the space was asked for"}
            if data.info.get("fallback") != info["fallback"]:
                logger.warning("study %r: %s; trials are random now.", study.study_name, info["fallback"])
        [config] = space.decode(X)
        return config | held, info


class GPBOPruner(BasePruner):
    """Prunes by asynchronous successive halving over gpbo's rungs, which are steps as they are reported.

    A trial stands at a rung with its first report there or beyond. It is pruned unless it is among the best
    1 / `reduction_factor` of all that ever were at the highest rung it has reached and at each rung before;
    the first ones at a rung, fewer than `reduction_factor`, go on. That is decided when ``should_prune`` is
    called for the first time since a rung was reached, and written on a trial that goes on, which is then
    left alone up to the next rung. A report that is not finite prunes, and the trial ranks last.
    Where steps and rungs do not meet, so that nothing can ever be pruned, a warning says so once.

    Args:
        min_budget: The lowest rung; 1 by default.
        max_budget: The highest rung, from which no trial is pruned; 27 by default.
        reduction_factor: How many trials at a rung there are for each that goes on.
        budgets: The rungs themselves; `min_budget` and `max_budget` are then the first and the last of them.
        audit: How many of the trials that go on, as a share up to 1/2, are ones that would be pruned.

    Raises:
        SettingError: if an argument breaks its rule.
    """

    def __init__(
        self,
        min_budget: int | None = None,
        max_budget: int | None = None,
        reduction_factor: float = 3,
        *,
        budgets: Sequence[int] | None = None,
        audit: float = 0.0,
    ) -> None:
        self._asha = ASHA(
            min_budget, max_budget, reduction_factor, budgets=budgets, stopping=True, audit=audit
        )
        self._has_warned = False

    def __repr__(self) -> str:
        given = [f"budgets={list(self._asha.rungs)}", f"reduction_factor={self._asha.reduction_factor}"]
        given += [f"audit={self._asha.audit}"] if self._asha.audit else []
        return f"GPBOPruner({', '.join(given)})"

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial should end with its last report."""
        if not all(map(math.isfinite, trial.intermediate_values.values())):
            return True
        if not self._has_warned and (mismatch := self._mismatch(study, trial)):
            self._has_warned = True
            logger.warning("study %r: %r can prune nothing: %s.", study.study_name, self, mismatch)
        rung = max(standing(trial, self._asha.rungs), default=0)
        passed = f"{_PASSED}:{trial.number}"  # a trial that is run again has the attributes of the first run
        if rung <= trial.system_attrs.get(passed, 0):
            return False
        trials = [self._trial(t) for t in study.get_trials(deepcopy=False)]
        trials[trial.number] = self._trial(trial)
        if self._asha.judge(Minimised(_maximize(study))(trials), trial.number) is State.STOPPED:
            return True
        study._storage.set_trial_system_attr(trial._trial_id, passed, rung)
        return False

    def _mismatch(self, study: optuna.Study, trial: FrozenTrial) -> str | None:
        """Why the steps at which trials report make pruning impossible, or None where they do not."""
        rungs, steps = self._asha.rungs, trial.intermediate_values
        if len(rungs) == 1:
            return f"its only rung is {rungs[0]}, and from the highest none is; give a larger `max_budget`"
        if steps and min(steps) >= rungs[-1]:
            return (
                f"trial {trial.number} first reports at step {min(steps)}, and from {rungs[-1]} on none is; "
                "give `min_budget` and `max_budget` in the steps that you report"
            )
        if not steps or max(steps) >= rungs[0]:
            return None
        for other in study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]):
            last = max(other.intermediate_values, default=rungs[0])
            if last < rungs[0]:
                return (
                    f"trial {other.number} ended with step {last}, before the lowest rung, {rungs[0]}; "
                    "give `min_budget` and `max_budget` in the steps that you report"
                )
        return None

    def _trial(self, trial: FrozenTrial) -> Trial:
        reports = trial.intermediate_values
        stands = {rung: reports[step] for rung, step in standing(trial, self._asha.rungs).items()}
        has_failed = trial.state is TrialState.FAIL or not all(map(math.isfinite, reports.values()))
        return Trial(
            number=trial.number,
            config={},
            state=State.FAILED if has_failed else State.RUNNING,
            budget=self._asha.rungs[-1],
            observations=tuple(Observation((v,), at) for at, v in stands.items() if math.isfinite(v)),
        )


def _turn(study: optuna.Study) -> threading.Lock:
    """The lock of all who propose in this study, which may be several objects on one storage."""
    return _proposing.setdefault(study._storage, {}).setdefault(study._study_id, threading.Lock())


def _others(study: optuna.Study, trial: FrozenTrial) -> list[FrozenTrial]:
    """All trials that were begun but this one, by number; of all brackets, under Optuna's Hyperband."""
    whole_study: optuna.Study = getattr(study, "_study", study)
    trials = whole_study.get_trials(deepcopy=False)
    return [t for t in trials if t.number != trial.number and t.state is not TrialState.WAITING]


def _news(before: list[FrozenTrial], after: list[FrozenTrial]) -> list[int]:
    """The trials that something was proposed for between two readings; some may be finished already."""
    known = {t.number: t.system_attrs.get(PROPOSAL) for t in before}
    return [t.number for t in after if t.system_attrs.get(PROPOSAL) != known.get(t.number)]


def _maximize(study: optuna.Study) -> list[bool]:
    return [direction == StudyDirection.MAXIMIZE for direction in study.directions]
