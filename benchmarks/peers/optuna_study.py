"""Optuna: define-by-run through ask and suggest.

TPE with `multivariate=True, group=True`, which its documentation advises for conditional spaces and better
results; the GP sampler as it comes, or with `deterministic_objective=True`, which its documentation advises
for objectives without noise; both with Optuna's 10 random startup trials. Besides, gpbo's own sampler in
Optuna, with gpbo's startup trials.

Approximated: the GP sampler draws parameters that do not exist in every trial at random (its documented
`independent_sampler`); ordered categories are given as the whole number of their place; a config that breaks
a constraint is told as a failed trial and another is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.peers.base import MAX_REJECTIONS, Config, Task, in_order, quietly, random_config, tidy
from gpbo import Categorical, Float, SearchSpace


class OptunaStudy:
    """An Optuna study in memory."""

    def __init__(self, kind: str, task: Task) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with quietly():  # multivariate, group and deterministic_objective are marked experimental
            self._study = optuna.create_study(sampler=_sampler(kind, task))
        self._failed = optuna.trial.TrialState.FAIL
        self._task = task
        self._order = in_order(task.space)
        self._asked: tuple[Any, Config] | None = None

    def ask(self) -> Config:
        """The next trial's config; after too many infeasible ones, a random feasible config."""
        for _ in range(MAX_REJECTIONS):
            trial, config = self._next()
            if self._task.space.satisfies(config):
                return config
            self._study.tell(trial, state=self._failed)
            self._task.counts.rejections += 1
        return self._next(random_config(self._task, "rejected", len(self._study.trials)))[1]

    def tell(self, config: Config, loss: float) -> None:
        """Tell the trial that was asked for, or one that is enqueued for a result from elsewhere."""
        if self._asked is None or self._asked[1] != config:
            self._next(config)
        assert self._asked is not None
        with quietly():
            self._study.tell(self._asked[0], loss)
        self._asked = None

    def _next(self, config: Config | None = None) -> tuple[Any, Config]:
        if config is not None:
            self._study.enqueue_trial({name: self._plain(name, value) for name, value in config.items()})
        with quietly():
            trial = self._study.ask()
            self._asked = (trial, suggested(self._task.space, self._order, trial))
        return self._asked

    def _plain(self, name: str, value: Any) -> Any:
        p = self._task.space.parameters[name]
        return p.choices.index(value) if isinstance(p, Categorical) and p.ordered else value


def suggested(space: SearchSpace, order: Sequence[str], trial: Any) -> Config:
    """The config of an Optuna trial, which is asked for the parameters in this order."""
    config = Config()
    for name in order:
        if not space.is_active(name, config):
            continue
        p = space.parameters[name]
        if isinstance(p, Categorical):
            if p.ordered:
                config[name] = p.choices[trial.suggest_int(name, 0, p.n_levels - 1)]
            else:
                config[name] = trial.suggest_categorical(name, p.choices)
        elif isinstance(p, Float):
            config[name] = trial.suggest_float(name, p.low, p.high, log=p.log, step=p.step)
        else:
            config[name] = trial.suggest_int(name, p.low, p.high, log=p.log, step=p.step)
    return tidy(space, config)


def _sampler(kind: str, task: Task) -> Any:
    from optuna.samplers import GPSampler, TPESampler

    if kind == "gpbo":
        from gpbo.integrations.optuna import GPBOSampler

        return GPBOSampler(seed=task.seed, device=task.device)
    n_startup_trials = task.n_given or 10
    if kind == "tpe":
        return TPESampler(
            seed=task.seed,
            multivariate=True,
            group=True,
            n_startup_trials=n_startup_trials,
            warn_independent_sampling=False,
        )
    return GPSampler(
        seed=task.seed,
        deterministic_objective=kind == "gp-deterministic",
        n_startup_trials=n_startup_trials,
        warn_independent_sampling=False,
    )


def create(kind: str, task: Task) -> OptunaStudy:
    """The sampler called `kind` for the task."""
    return OptunaStudy(kind, task)
