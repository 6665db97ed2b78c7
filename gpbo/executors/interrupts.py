"""Signals: Ctrl-C and SIGTERM as one KeyboardInterrupt when nothing is half done, and their names."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, final

_DEFAULTS: dict[signal.Signals, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}


@final
class Interrupts:
    """Within this context, SIGINT and SIGTERM are noted, and raised where the holder allows it.

    A second one is raised at once wherever that is, for the user insists; except after `hold`, when it
    waits until the context ends. Handlers that the user has set, and threads other than the main one,
    are left alone.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._replaced: list[signal.Signals] = []
        self._noted: str | None = None
        self._at_once = False
        self._held = False

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number, default in _DEFAULTS.items():
                if signal.getsignal(number) == default:
                    signal.signal(number, self._note)
                    self._replaced.append(number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in self._replaced:
            signal.signal(number, _DEFAULTS[number])
        if kind is None:
            self.check()

    def check(self) -> None:
        """Nothing; raises KeyboardInterrupt if a signal was noted."""
        if self._noted is not None:
            raise KeyboardInterrupt(self._noted)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A context in which a signal is raised when it comes; and again at the end, if it was caught."""
        self._at_once = True
        try:
            self.check()
            yield
        finally:
            self._at_once = False
        self.check()

    def hold(self) -> None:
        """From now on let nothing interrupt, for clean-up."""
        self._held = True

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a fork of this process; it ends as it would have without us
            signal.signal(number, _DEFAULTS[signal.Signals(number)])
            os.kill(os.getpid(), number)
            return
        insists = self._noted is not None
        self._noted = signal.Signals(number).name
        if (self._at_once or insists) and not self._held:
            raise KeyboardInterrupt(self._noted)


def signal_name(number: int) -> str:
    """A signal in words: "signal 9 (SIGKILL)", or "signal 40" where it has no name."""
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"
