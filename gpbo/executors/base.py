"""What an executor is: something that runs objectives and reports how they ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one run of the objective ended.

    Attributes:
        number: The trial's number.
        value: What the objective returned, whatever that is; meaningless with an error.
        error: Why there is no value, with the traceback where there is one; None on success.
        seconds: How long it ran.
        lost: Whether the process that ran it died, which need not be the objective's fault.
    """

    number: int
    value: Any = None
    error: str | None = None
    seconds: float = 0.0
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """What a run says before it ends.

    Attributes:
        number: The trial's number.
        content: Whatever the objective sent.
    """

    number: int
    content: Any


Hear = Callable[[int, Any], Any]
"""What answers the messages of runs: takes a trial's number and what its objective sent; must not raise."""


class Executor(Protocol):
    """Runs one objective on many configs. A failing run never raises; it becomes an outcome.

    An executor that was made with a `Hear` calls the objective with a second argument, a function that sends
    a message and returns the answer. Messages are answered within `poll`.
    """

    @property
    def capacity(self) -> int:
        """How many runs it takes at the same time."""
        ...

    def submit(self, number: int, config: Mapping[str, Any]) -> None:
        """Start the objective on `config`; called only while fewer than `capacity` are running."""
        ...

    def poll(self, timeout: float) -> Sequence[Outcome]:
        """The runs that ended since the last call; waits up to `timeout` seconds for the first."""
        ...

    def cancel(self, number: int) -> None:
        """Stop a run; no outcome is reported for it."""
        ...

    def close(self) -> None:
        """Stop everything and free the workers."""
        ...
