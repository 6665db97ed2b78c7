"""A study's trials as a pandas frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpbo.errors import MissingExtraError
from gpbo.outcomes import are_met

if TYPE_CHECKING:
    import pandas as pd

    from gpbo.study import Study


def to_frame(study: Study) -> pd.DataFrame:
    """One row a trial; see `Study.to_dataframe`.

    Raises:
        MissingExtraError: if pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError:
        raise MissingExtraError("pandas is not installed; pip install 'gpbo[pandas]'.") from None
    m = len(study.directions)
    names = ["value"] if m == 1 else [f"value_{k}" for k in range(m)]
    configs = [f"config.{name}" for name in study.space.parameters]
    bounded = study.outcome_names
    names += [*(f"outcome.{name}" for name in bounded), *(["feasible"] if bounded else [])]
    columns = ["number", "state", *names, "budget", "seconds", *configs, "started", "finished", "error"]
    rows = []
    for t in study.trials:
        last = t.observations[-1] if t.observations else None
        seen: list[Any] = [None] * len(names)
        if last:
            seen = [*last.values, *(last.outcomes[name] for name in bounded)]
            seen += [are_met(study.outcome_constraints, last.outcomes)] if bounded else []
        row: dict[str, Any] = {"number": t.number, "state": str(t.state)}
        row |= dict(zip(names, seen, strict=True))
        row |= {"budget": last.budget if last else t.budget, "seconds": last.seconds if last else None}
        row |= {f"config.{name}": t.config.get(name) for name in study.space.parameters}
        row |= {"started": t.started, "finished": t.finished, "error": t.error}
        rows.append(row)
    frame = pd.DataFrame(rows, columns=columns)
    for column in ("started", "finished"):
        frame[column] = pd.to_datetime(frame[column], unit="s")
    return frame
