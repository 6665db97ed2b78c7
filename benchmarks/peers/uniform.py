"""Random search: independent uniform configs in the scales that the space states."""

from __future__ import annotations

from benchmarks.peers.base import Config, Task, random_config


class Uniform:
    """Draws and never looks."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._n_told = 0

    def ask(self) -> Config:
        """The draw addressed by the number of results so far."""
        return random_config(self._task, self._n_told)

    def tell(self, config: Config, loss: float) -> None:
        """Count."""
        self._n_told += 1


def create(kind: str, task: Task) -> Uniform:
    """Random search for the task."""
    return Uniform(task)
