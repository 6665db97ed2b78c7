"""From trials to tensors: the one place with the move to the device.

Values are turned to be maximized here, by the sign of `Observation.losses`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gpbo.errors import SettingError
from gpbo.outcomes import OutcomeConstraint
from gpbo.space import SearchSpace
from gpbo.trial import State, Trial


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
    if not isinstance(device, str):
        raise SettingError(f"`device` must be the name of a device, got {device!r}.")
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise SettingError(f"`device` must name a device of this machine, got {device!r}: {error}") from None


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
    rows: list[tuple[Mapping[str, Any], tuple[float, ...], float]] = []
    pending: list[Mapping[str, Any]] = []
    m = len(maximize)
    failed = (float("nan"),) * (m + len(outcome_constraints))
    info: Mapping[str, Any] = {}
    for trial in trials:
        if trial.info.get("source") not in ("added", "queue"):
            info = trial.info or info
        if trial.state is State.RUNNING:
            pending.append(trial.config)
        if trial.state is State.FAILED:
            rows.append((trial.config, failed, float("nan") if trial.budget is None else trial.budget))
        for seen in trial.observations:
            budget = float("nan") if seen.budget is None else seen.budget
            excess = (-constraint.slack(seen.outcomes) for constraint in outcome_constraints)
            rows.append((trial.config, (*seen.losses(maximize), *excess), budget))
    to = choose_device(device)
    losses = torch.tensor([row for _, row, _ in rows], dtype=torch.float64).reshape(-1, len(failed))
    Y = -losses.to(to)
    infeasible = (Y[:, m:] < 0.0).any(-1, keepdim=True)
    return Dataset(
        X=space.encode([config for config, _, _ in rows]).to(to),
        Y=Y[:, :m].masked_fill(infeasible, torch.nan),
        budget=torch.tensor([budget for _, _, budget in rows], dtype=torch.float64).to(to),
        pending=space.encode(pending).to(to),
        number=number,
        info=info,
        outcomes=Y if outcome_constraints else None,
    )
