"""Executors for this machine: in this process, and in worker processes.

A worker is a new interpreter in a session of its own, so that Ctrl-C in the terminal reaches the driver
alone and everything a run has started can be killed with it. Workers are started when first needed and
kept; one that dies, or is killed for its run's sake, is replaced at the next submit.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, final

import cloudpickle  # type: ignore[import-untyped]

from gpbo.errors import ObjectiveError, SettingError
from gpbo.executors.base import Hear, Message, Outcome
from gpbo.executors.devices import assign_gpus, usable_cores, visible_gpus, worker_environ
from gpbo.executors.interrupts import signal_name
from gpbo.executors.worker import READY, evaluate

_TICK = 0.1  # seconds between looks at processes: a run's own children can keep a dead worker's socket open
_START_SECONDS = 60.0  # that a run's limit is longer while its worker still imports what the objective needs
_STOP_SECONDS = 2.0  # that idle workers have to run their exit handlers
_COMMAND = "import sys; sys.path[:] = sys.argv[1:]; from gpbo.executors.worker import main; main()"


@final
class InlineExecutor:
    """Runs the objective in this process, within `poll`; KeyboardInterrupt passes through.

    Args:
        objective: What is run.
        hear: What answers its messages; None for an objective that sends none.
    """

    def __init__(self, objective: Callable[..., Any], *, hear: Hear | None = None) -> None:
        self._objective = objective
        self._hear = hear
        self._submitted: tuple[int, Mapping[str, Any]] | None = None

    @property
    def capacity(self) -> int:
        """One."""
        return 1

    def submit(self, number: int, config: Mapping[str, Any]) -> None:
        """Put the run down for the next `poll`."""
        self._submitted = (number, config)

    def poll(self, timeout: float) -> Sequence[Outcome]:
        """The submitted run's outcome, however long that takes; nothing if there is none."""
        if self._submitted is None:
            return []
        (number, config), self._submitted = self._submitted, None
        send = None if self._hear is None else partial(self._hear, number)
        return [evaluate(self._objective, number, config, send=send, through=KeyboardInterrupt)]

    def cancel(self, number: int) -> None:
        """Forget the run if it has not begun."""
        if self._submitted is not None and self._submitted[0] == number:
            self._submitted = None

    def close(self) -> None:
        """Forget what has not begun."""
        self._submitted = None


@dataclass(slots=True, eq=False)
class _Worker:
    """One worker process and what it is doing."""

    slot: int
    process: subprocess.Popen[bytes]
    channel: Connection[Any, Any]
    ready: bool = False
    number: int | None = None
    since: float = 0.0

    def kill(self) -> None:
        """Kill the process and everything in its group, and wait for it."""
        with suppress(ProcessLookupError, PermissionError):  # nothing is left, or (macOS) only zombies are
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.channel.close()


@final
class ProcessExecutor:
    """Runs the objective in worker processes.

    Args:
        objective: Travels to each worker once, with cloudpickle.
        workers: How many runs at the same time.
        timeout: A run is killed, with all processes it has started, after so many seconds.
        gpus_per_trial: How many of the visible GPUs each worker sees; with 0 it sees none.
        hear: What answers the objective's messages; None for an objective that sends none.

    Raises:
        ObjectiveError: if the objective cannot be pickled.
        SettingError: if there are not as many GPUs, or the platform has no process groups.
    """

    def __init__(
        self,
        objective: Callable[..., Any],
        workers: int,
        *,
        timeout: float | None = None,
        gpus_per_trial: int = 1,
        hear: Hear | None = None,
    ) -> None:
        if not hasattr(os, "killpg"):
            raise SettingError(
                "`workers` > 1 and `trial_timeout` need Linux or macOS; leave them out on this platform."
            )
        try:
            self._objective: bytes = cloudpickle.dumps((objective, hear is not None))
        except Exception as error:
            raise ObjectiveError(
                f"the objective cannot be sent to worker processes: {error}. Create what it holds within "
                "it, or leave out `workers` and `trial_timeout` to run it in this process."
            ) from error
        self._answer = hear
        self._timeout = timeout
        gpus = assign_gpus(visible_gpus(os.environ), workers, gpus_per_trial)
        cores = usable_cores()
        self._environs = [worker_environ(os.environ, given, workers, cores) for given in gpus]
        self._workers: dict[int, _Worker] = {}  # by slot
        self._ever_ready = False

    @property
    def capacity(self) -> int:
        """The number of workers."""
        return len(self._environs)

    def submit(self, number: int, config: Mapping[str, Any]) -> None:
        """Send the run to an idle worker, started if there is none."""
        request = (number, dict(config))
        for worker in list(self._workers.values()):
            if worker.number is None:
                if self._send(worker, request):
                    return
                self._discard(worker)
        slot = next(slot for slot in range(self.capacity) if slot not in self._workers)
        self._send(self._start(slot), request)  # if it is dead already, `poll` finds out why

    def poll(self, timeout: float) -> Sequence[Outcome]:
        """The runs that ended since the last call; waits up to `timeout` seconds for the first.

        Raises:
            ObjectiveError: if no worker can be started, for instance because the objective's modules
                cannot be imported there.
        """
        until = time.monotonic() + timeout
        while True:
            busy = [worker for worker in self._workers.values() if worker.number is not None]
            left = max(0.0, until - time.monotonic())
            wait([worker.channel for worker in busy], min(left, _TICK)) if busy else None
            outcomes = [outcome for worker in busy if (outcome := self._look(worker)) is not None]
            if outcomes or not busy or left == 0.0:
                return outcomes

    def cancel(self, number: int) -> None:
        """Kill the run's worker with everything it has started."""
        for worker in list(self._workers.values()):
            if worker.number == number:
                self._discard(worker)

    def close(self) -> None:
        """Kill what runs, let idle workers exit, and leave no process behind."""
        idle = [worker for worker in self._workers.values() if worker.number is None]
        for worker in idle:
            self._send(worker, None)
        until = time.monotonic() + _STOP_SECONDS
        for worker in idle:
            with suppress(subprocess.TimeoutExpired):
                worker.process.wait(max(0.0, until - time.monotonic()))
        for worker in list(self._workers.values()):
            self._discard(worker)

    def _start(self, slot: int) -> _Worker:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            try:
                process = subprocess.Popen(
                    [sys.executable, "-c", _COMMAND, *map(str, sys.path)],
                    stdin=theirs.fileno(),
                    env=self._environs[slot],
                    start_new_session=True,
                )
            except OSError as error:
                raise ObjectiveError(f"a worker process could not be started: {error}") from error
            worker = self._workers[slot] = _Worker(slot, process, Connection(ours.detach()))
        self._send(worker, sys.argv)
        self._send(worker, self._objective)
        return worker

    def _send(self, worker: _Worker, message: Any) -> bool:
        """Whether the worker took the message; a run is then its current one."""
        if isinstance(message, tuple):
            worker.number, worker.since = message[0], time.monotonic()
        try:
            worker.channel.send(message)
        except OSError:
            return False
        return True

    def _look(self, worker: _Worker) -> Outcome | None:
        """The outcome of a busy worker's run if it has ended, one way or another."""
        over = self._exceeded_limit(worker)
        exited = worker.process.poll() is not None  # before the channel, so that the last word is heard
        try:
            while worker.channel.poll():
                outcome = self._hear(worker, worker.channel.recv_bytes())
                if outcome is not None:
                    return outcome
        except (EOFError, OSError):
            exited = True
        if exited:
            return self._bury(worker)
        if over:
            what = "the objective ran" if worker.ready else "loading the objective took"
            return self._end(worker, f"{what} over its limit of {over:g} seconds and was stopped.")
        return None

    def _hear(self, worker: _Worker, message: bytes) -> Outcome | None:
        if message == READY:
            worker.ready = self._ever_ready = True
            worker.since = time.monotonic()
            return None
        if not worker.ready:
            return self._end(worker, f"a worker could not load the objective:\n{message.decode()}")
        number = worker.number or 0
        try:
            said: Outcome | Message = pickle.loads(message)
        except Exception as error:
            return self._end(worker, f"the objective's result could not be read: {error}")
        if isinstance(said, Message):
            assert self._answer is not None  # without it, no objective is given anything to send with
            self._send(worker, self._answer(number, said.content))
            return None
        worker.number = None
        return said

    def _bury(self, worker: _Worker) -> Outcome:
        """The outcome of a run whose worker has died."""
        with suppress(subprocess.TimeoutExpired):  # its socket may close just before it ends
            worker.process.wait(_STOP_SECONDS)
        code = worker.process.poll()
        if code is None:
            how = "lost its connection"
        elif code < 0:
            how = f"was killed by {signal_name(-code)}"
            how += ", perhaps for want of memory" if code == -signal.SIGKILL else ""
        else:
            how = f"ended with exit code {code}"
        doing = "while running the objective" if worker.ready else "before it could start"
        return self._end(worker, f"the worker process {how} {doing}.", lost=True)

    def _end(self, worker: _Worker, reason: str, *, lost: bool = False) -> Outcome:
        """The outcome of a run that its worker does not survive.

        Raises:
            ObjectiveError: if no worker has ever come as far as to run the objective.
        """
        number, seconds = worker.number or 0, time.monotonic() - worker.since
        self._discard(worker)
        if not self._ever_ready:
            raise ObjectiveError(f"the objective was not run: {reason}")
        return Outcome(number, error=reason, seconds=seconds, lost=lost)

    def _exceeded_limit(self, worker: _Worker) -> float | None:
        """The limit, in seconds, that the worker's run is over, or None."""
        if self._timeout is None:
            return None
        limit = self._timeout if worker.ready else self._timeout + _START_SECONDS
        return limit if time.monotonic() - worker.since > limit else None

    def _discard(self, worker: _Worker) -> None:
        del self._workers[worker.slot]
        worker.kill()
