"""A store in this process's memory: the default of the API, gone when the process ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

from gpbo.errors import StoreError
from gpbo.trial import Trial


class MemoryStore:
    """Trials in a list; safe for many threads of one process."""

    def __init__(self) -> None:
        self._trials: list[Trial] = []
        self._seen: tuple[Trial, ...] | None = ()  # the last answer, while nothing has changed
        self._meta: dict[str, Any] = {}
        self._asking = threading.RLock()
        self._alone = threading.Lock()
        self._writing = threading.Lock()

    def __getstate__(self) -> tuple[dict[str, Any], Sequence[Trial]]:
        return dict(self._meta), self.trials()

    def __setstate__(self, state: tuple[dict[str, Any], Sequence[Trial]]) -> None:
        MemoryStore.__init__(self)  # locks are this process's own
        meta, trials = state
        self._meta.update(meta)
        self.add(trials)

    @property
    def meta(self) -> MutableMapping[str, Any]:
        """Named values of the study."""
        return self._meta

    def trials(self) -> Sequence[Trial]:
        """All trials by number, as of now."""
        with self._writing:
            if self._seen is None:
                self._seen = tuple(self._trials)
            return self._seen

    def add(self, trials: Sequence[Trial]) -> None:
        """Append trials, numbered on from the last."""
        with self._writing:
            n = len(self._trials)
            numbers = [trial.number for trial in trials]
            if numbers != list(range(n, n + len(trials))):
                raise StoreError(f"new trials must be numbered on from {n}, got {numbers}.")
            self._trials.extend(trials)
            self._seen = None

    def swap(self, old: Trial, new: Trial) -> bool:
        """Replace `old` by `new` if it is still the stored value; whether that was so."""
        with self._writing:
            if not 0 <= old.number < len(self._trials) or self._trials[old.number] != old:
                return False
            self._trials[old.number] = new
            self._seen = None
            return True

    @contextmanager
    def asking(self) -> Iterator[None]:
        """A lock between threads for choosing and adding trials."""
        with self._asking:
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """A block that only one thread is in at a time.

        Raises:
            StoreError: if another is in it.
        """
        if not self._alone.acquire(blocking=False):
            raise StoreError("another thread is at work on this study, and only one may be.")
        try:
            yield
        finally:
            self._alone.release()

    def close(self) -> None:
        """Nothing to let go of."""
