"""Between a trial and its row: what is exact in a column is a column, the rest is JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gpbo.errors import StoreError
from gpbo.trial import Observation, State, Trial


def to_json(value: Any, what: str) -> str:
    """`value` as JSON in ASCII, which any database keeps as it is.

    Args:
        value: Made of dictionaries, lists, strings, numbers, booleans and None.
        what: How a message calls it.

    Raises:
        StoreError: if it is made of anything else.
    """
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise StoreError(f"{what} must be made of JSON values to be stored: {error}; convert it.") from None


def to_row(trial: Trial) -> dict[str, Any]:
    """The trial as the columns of its row."""
    what = f"of trial {trial.number}"
    seen = [_plain(observation) for observation in trial.observations]
    return {
        "number": trial.number,
        "state": trial.state.value,
        "config": to_json(dict(trial.config), f"the config {what}"),
        "budget": trial.budget,
        "bracket": trial.bracket,
        "observations": to_json(seen, f"the observations {what}"),
        # JSON, because a traceback may hold characters that no database takes.
        "error": None if trial.error is None else to_json(trial.error, f"the error {what}"),
        "info": to_json(dict(trial.info), f"the info {what}"),
        "owner": trial.owner,
        "started": trial.started,
        "finished": trial.finished,
    }


def from_row(row: Mapping[str, Any]) -> Trial:
    """The trial that a row holds.

    Raises:
        ValueError: if the row is damaged.
    """
    return Trial(
        number=row["number"],
        config=json.loads(row["config"]),
        state=State(row["state"]),
        budget=row["budget"],
        bracket=row["bracket"],
        observations=tuple(
            Observation(tuple(values), budget, seconds, *outcomes)
            for values, budget, seconds, *outcomes in json.loads(row["observations"])
        ),
        error=None if row["error"] is None else json.loads(row["error"]),
        info=json.loads(row["info"]),
        owner=row["owner"],
        started=row["started"],
        finished=row["finished"],
    )


def _plain(observation: Observation) -> list[Any]:
    """The observation as JSON values; without outcomes as it was before there were any."""
    plain = [list(observation.values), observation.budget, observation.seconds]
    return [*plain, dict(observation.outcomes)] if observation.outcomes else plain
