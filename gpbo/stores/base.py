"""What a store is: the only thing that remembers.

A store holds one study's trials and a few named facts about the study (`meta`). Everything that happens to
a trial is one atomic `swap` of its old value for its new one, so a crash leaves either the one or the
other, and of two processes that change the same trial one is told so and looks again.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from gpbo.trial import Trial


class Store(Protocol):
    """One study's memory, shared by all processes that open it."""

    @property
    def meta(self) -> MutableMapping[str, Any]:
        """Named JSON values: the space, the directions, the seed, the queue of configs to try first."""
        ...

    def trials(self) -> Sequence[Trial]:
        """All trials by number, as of now; the sequence must not be changed. Reads only what is new."""
        ...

    def add(self, trials: Sequence[Trial]) -> None:
        """Append trials, numbered on from the last; all of them or, on an error, none.

        Raises:
            StoreError: if a number is taken or skipped.
        """
        ...

    def swap(self, old: Trial, new: Trial) -> bool:
        """Replace `old` by `new` if it is still the stored value, durably; whether that was so."""
        ...

    def asking(self) -> AbstractContextManager[None]:
        """A lock between processes for choosing and adding trials; freed when its holder dies."""
        ...

    def alone(self) -> AbstractContextManager[None]:
        """A block that only one thread of all processes is in at a time; free again when its holder dies.

        Raises:
            StoreError: if another is in it.
        """
        ...

    def close(self) -> None:
        """Let go of files and connections; the store is not used afterwards."""
        ...
