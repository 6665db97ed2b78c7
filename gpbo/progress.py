"""The bar that `Study.optimize` shows in a terminal and in Jupyter, and nowhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any, final

from gpbo.errors import NoResultError
from gpbo.standing import comparable
from gpbo.trial import State, Trial

if TYPE_CHECKING:
    from gpbo.study import Study

_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
_ENDLESS = "{n_fmt} trials [{elapsed}{postfix}]"
_COLUMNS = 140  # of the line in Jupyter
_DIAGNOSIS_SECONDS = 10.0  # between two looks at whether low budgets mislead
_DIAGNOSIS_SHARE = 0.01  # of the time, at most, is spent on them
_JUPYTER_SECONDS = 0.5  # between two messages to the page


@final
class Progress:
    """A tqdm bar over the study's own finished trials, with budgets over those begun.

    In Jupyter it is one line below the cell, written over.

    Args:
        study: What is shown.
        total: How many trials there will be, or None when that is open.
        shown: Whether to show it; even then it is silent where it would end in a file.
    """

    def __init__(self, study: Study, total: int | None, *, shown: bool) -> None:
        self._study = study
        self._bar: Any = None
        self._best: tuple[int, str] = (-1, "")  # after so many results: finding a front is quadratic
        if not shown:
            return
        from tqdm import tqdm  # not tqdm.auto: its widgets are gone from a saved notebook, and need a package

        cell = _Cell() if _is_in_jupyter() else None
        self._misleading, self._next_look = "", 0.0
        self._initial = len(_counted(study))
        self._started = time.monotonic()
        self._bar = tqdm(
            total=total,
            initial=self._initial,
            unit="trial",
            desc=study.name if study.name != "default" else None,
            bar_format=_FORMAT if total else _ENDLESS,
            file=cell,  # None is standard error
            ncols=_COLUMNS if cell else None,
            ascii=False if cell else None,
            dynamic_ncols=cell is None,
            mininterval=_JUPYTER_SECONDS if cell else 0.1,
            disable=None,
        )

    def show(self, running: int) -> None:
        """Bring the bar up to date."""
        if self._bar is None or self._bar.disable:
            return
        counted, rungs = _counted(self._study), self._study._scheduler.rungs
        minutes = (time.monotonic() - self._started) / 60
        rate = (len(counted) - self._initial) / minutes if minutes else 0.0
        n_final = sum(trial.state.is_final for trial in self._study.trials)
        if self._best[0] != n_final:
            self._best = n_final, _best(self._study)
        parts = [self._best[1], f"{rate:.3g}/min", f"{running} running"]
        if rungs:
            parts[1:1] = [f"{share_trained(counted, rungs[-1]):.0%} of all training"]
        failed = sum(trial.state is State.FAILED for trial in counted)
        parts += [f"{failed} failed"] if failed else []
        parts += [warning] if rungs and (warning := self._warning()) else []
        self._bar.set_postfix_str(", ".join(parts), refresh=False)
        self._bar.update(len(counted) - self._bar.n)

    def _warning(self) -> str:
        """Which budgets surely mislead; looked into once in a while, since it takes time."""
        now = time.monotonic()
        if now >= self._next_look:
            low = [f"{rung.low:g}" for rung in self._study.diagnose().rungs if rung.misleads]
            self._misleading = f"budget {' and '.join(low)} misleads, see study.diagnose()" if low else ""
            took = time.monotonic() - now
            self._next_look = now + max(_DIAGNOSIS_SECONDS, took / _DIAGNOSIS_SHARE)
        return self._misleading

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.refresh()
            self._bar.close()


@final
class _Cell:
    """A file whose last line is what stands below the running cell of a notebook."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._words = ""

    def isatty(self) -> bool:
        """That what is written stands where people look, and can be written over."""
        return True

    def write(self, line: str) -> int:
        """Show a line in place of the one before."""
        from IPython import display

        show: Any = display.display  # has no annotations
        words = line.strip("\r\n")
        if words.strip() and words != self._words:
            self._words = words
            shown = {"text/plain": words, "text/html": f"<pre>{escape(words)}</pre>"}
            if self._handle is None:
                self._handle = show(shown, raw=True, display_id=True)
            else:
                self._handle.update(shown, raw=True)
        return len(line)

    def flush(self) -> None:
        """Nothing: every line is sent at once."""


def _is_in_jupyter() -> bool:
    """Whether a Jupyter kernel runs this, rather than IPython in a terminal or a script."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get_ipython is not None and hasattr(get_ipython(), "kernel")


def share_trained(trials: Sequence[Trial], full: float) -> float:
    """How much the trials were trained of what training them all in full would be."""
    spent = sum(trial.observations[-1].budget or 0.0 for trial in trials if trial.observations)
    return spent / (len(trials) * full) if trials else 0.0


def _counted(study: Study) -> list[Trial]:
    """The study's own trials that have finished; with budgets, where most stay paused, that have begun."""
    has_budgets = bool(study._scheduler.rungs)
    return [t for t in study.trials if t.is_own and (has_budgets or t.state.is_final)]


def _best(study: Study) -> str:
    if len(study.directions) > 1:
        return f"front of {len(study.pareto_front)}"
    has_budgets = bool(study._scheduler.rungs)
    try:
        best = f"best {study.best.value:.6g}"
    except NoResultError:
        return "none trained in full yet" if has_budgets else "no value yet"
    if not has_budgets:
        return best
    return f"{best} of {len(comparable(study.trials, study.outcome_constraints))} trained in full"
