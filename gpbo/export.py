"""A study as text that other programs read: CSV, JSON or YAML.

In CSV a config's values stand in columns ``config.NAME``: an inactive parameter is an empty cell, a string
stands as it is, and everything else as JSON. A string that could be taken for JSON is written as JSON too,
so that every config can be read back exactly.
"""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from gpbo.study import Study
    from gpbo.trial import Trial


def as_text(study: Study, form: Literal["csv", "json", "yaml"]) -> str:
    """All trials of the study in the given format."""
    if form == "csv":
        return _csv(study)
    plain = {
        "name": study.name,
        "directions": list(study.directions),
        "outcome_constraints": [str(constraint) for constraint in study.outcome_constraints],
        "space": study.space.to_dict(),
        "trials": [_plain(trial) for trial in study.trials],
    }
    if form == "json":
        return json.dumps(plain, indent=2) + "\n"
    import yaml

    return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))


def _csv(study: Study) -> str:
    m = len(study.directions)
    values = ["value"] if m == 1 else [f"value_{k}" for k in range(m)]
    outcomes = study.outcome_names
    names = list(study.space.parameters)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    facts = ["budget", "seconds", "started", "finished", "error"]
    measured = [*values, *(f"outcome.{name}" for name in outcomes)]
    writer.writerow(["number", "state", *measured, *(f"config.{name}" for name in names), *facts])
    for trial in study.trials:
        plain = _plain(trial)
        seen = [*(plain["values"] or [None] * m), *(trial.outcomes.get(name) for name in outcomes)]
        config = [cell(trial.config[name]) if name in trial.config else "" for name in names]
        writer.writerow([trial.number, plain["state"], *seen, *config, *(plain[fact] for fact in facts)])
    return text.getvalue()


def cell(value: Any) -> str:
    """A config's value as the text of a CSV cell; `from_cell` reads it back."""
    if isinstance(value, str) and value and from_cell(value) == value:
        return value
    return json.dumps(value)


def from_cell(text: str) -> Any:
    """The config's value that a CSV cell holds; an empty cell holds none and is not asked for."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _plain(trial: Trial) -> dict[str, Any]:
    """The trial as JSON values."""
    last = trial.observations[-1] if trial.observations else None
    return {
        "number": trial.number,
        "state": str(trial.state),
        "config": dict(trial.config),
        "values": list(last.values) if last else None,
        "outcomes": dict(trial.outcomes),
        "budget": last.budget if last else trial.budget,
        "seconds": last.seconds if last else None,
        "started": trial.started,
        "finished": trial.finished,
        "error": trial.error,
        "info": dict(trial.info),
    }
