"""From trials to tensors: the one place with the move to the device.

Values are turned to be maximized here, by the sign of `Observation.losses`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gpbo.checks import device_name
from gpbo.outcomes import OutcomeConstraint
from gpbo.schedulers.base import changed
from gpbo.space import SearchSpace
from gpbo.trial import State, Trial

_OF_OTHERS = frozenset({"amended", "attempts", "run"})  # written on a trial by whoever, not its suggester


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """What a suggester is given; m objectives, all to be maximised.

    Attributes:
        X: (n, d) observed points of the unit cube.
        Y: (n, m) what was observed there; a row of nan where the trial failed or is infeasible.
        budget: (n,) the resource behind each row; nan where there is none.
        pending: (p, d) points that are being evaluated.
        number: The number of the trial that is being asked for; addresses randomness.
        info: What the suggester wrote on the latest trial it proposed; for warm starts.
        outcomes: (n, m + c) under outcome constraints the objectives again, now of infeasible rows too, and
            how far each constraint is on the right side of its bound; a row of nan where the trial failed.
            A suggester that does not look at it avoids infeasible points as it avoids failures.
    """

    X: Tensor
    Y: Tensor
    budget: Tensor
    pending: Tensor
    number: int = 0
    info: Mapping[str, Any] = field(default_factory=dict)
    outcomes: Tensor | None = None

    @property
    def seen(self) -> Tensor:  # (n + p, d)
        """Every point that was asked for already."""
        return torch.cat([self.X, self.pending])


def choose_device(device: str) -> torch.device:
    """The device to compute on: "auto" is CUDA where there is one, else the CPU.

    Raises:
        SettingError: if the device does not exist here.
    """
    name = device_name(device)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.empty(0, device=name).device


def to_dataset(
    trials: Sequence[Trial],
    space: SearchSpace,
    maximize: Sequence[bool],
    *,
    number: int,
    outcome_constraints: Sequence[OutcomeConstraint] = (),
    device: str = "auto",
) -> Dataset:
    """The trials as a suggester sees them, on the chosen device.

    Args:
        trials: In the order of their numbers.
        space: The space their configs come from.
        maximize: For each objective, whether larger is better.
        number: The number of the trial to be asked for.
        outcome_constraints: What a trial must meet to be feasible.
        device: A torch device's name, or "auto".
    """
    return Datasets(space, maximize, outcome_constraints, device=device)(trials, number=number)


class Datasets:
    """`to_dataset` for one study: a pure function of the trials that reads only those that changed.

    It keeps its last answer and returns a new one, so that threads may share it. Reading all of a thousand
    trials takes ten times as long as everything else in asking for a random one.

    Args:
        space: The space the configs come from.
        maximize: For each objective, whether larger is better.
        outcome_constraints: What a trial must meet to be feasible.
        device: A torch device's name, or "auto".
    """

    def __init__(
        self,
        space: SearchSpace,
        maximize: Sequence[bool],
        outcome_constraints: Sequence[OutcomeConstraint] = (),
        *,
        device: str = "auto",
    ) -> None:
        self._space = space
        self._maximize = tuple(maximize)
        self._constraints = tuple(outcome_constraints)
        self._device = device
        rows = torch.empty(0, 2 + len(self._unknown), dtype=torch.float64)
        self._last = _Memory((), self._space.encode([]), rows, [])

    def __call__(self, trials: Sequence[Trial], *, number: int) -> Dataset:
        """What is known when trial `number` is asked for, rows in the order of the trials."""
        self._last = last = self._updated(self._last, tuple(trials))
        to, m = choose_device(self._device), len(self._maximize)
        Y = -last.rows[:, 1:-1].to(to)
        feasible = Y
        if self._constraints:
            feasible = Y.masked_fill((Y[:, m:] < 0.0).any(-1, keepdim=True), torch.nan)
        return Dataset(
            X=last.X[last.rows[:, 0].long()].to(to),
            Y=feasible[:, :m],
            budget=last.rows[:, -1].to(to, copy=True),
            pending=last.X[last.running].to(to),
            number=number,
            info=_latest_info(last.trials),
            outcomes=Y if self._constraints else None,
        )

    def _updated(self, last: _Memory, trials: tuple[Trial, ...]) -> _Memory:
        news = changed(last.trials, trials)
        if not news:
            return last
        both = min(len(last.trials), len(trials))
        same = next((i for i in news if i < both and last.trials[i].config != trials[i].config), both)
        X = last.X
        if same < max(len(last.trials), len(trials)):
            X = torch.cat([X[:same], self._space.encode([t.config for t in trials[same:]])])
        edges = torch.tensor([news, [i + 1 for i in news]], dtype=torch.float64)
        begins, ends = torch.searchsorted(last.rows[:, 0].contiguous(), edges).tolist()
        parts, done = [], 0
        for i, begin, end in zip(news, begins, ends, strict=True):
            new = [(i, *row) for row in self._seen(trials[i])] if i < len(trials) else []
            parts += [last.rows[done:begin], last.rows.new_tensor(new).reshape(-1, last.rows.shape[1])]
            done = end
        now = {i for i in news if i < len(trials) and trials[i].state is State.RUNNING}
        running = sorted({*last.running} - {*news} | now)
        return _Memory(trials, X, torch.cat([*parts, last.rows[done:]]), running)

    @property
    def _unknown(self) -> tuple[float, ...]:
        return (math.nan,) * (len(self._maximize) + len(self._constraints))

    def _seen(self, trial: Trial) -> Iterator[tuple[float, ...]]:
        if trial.state is State.FAILED:
            yield *self._unknown, math.nan if trial.budget is None else trial.budget
        for seen in trial.observations:
            excess = (-constraint.slack(seen.outcomes) for constraint in self._constraints)
            budget = math.nan if seen.budget is None else seen.budget
            yield *seen.losses(self._maximize), *excess, budget


@dataclass(frozen=True, slots=True, eq=False)
class _Memory:
    """What `Datasets` made of the trials last."""

    trials: tuple[Trial, ...]
    X: Tensor  # (trials, d)
    rows: Tensor  # (n, 1 + m + c + 1) whose, in order; the losses; at which budget
    running: Sequence[int]


def _latest_info(trials: Sequence[Trial]) -> Mapping[str, Any]:
    """What the suggester wrote on the latest trial it proposed."""
    own = (t.info for t in reversed(trials) if t.info.get("source") not in ("added", "queue"))
    written = ({name: value for name, value in info.items() if name not in _OF_OTHERS} for info in own)
    return next((info for info in written if info), {})
