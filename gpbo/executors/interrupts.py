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
    waits until the context ends. A context within another takes over what was noted, and gives back what
    it notes. Handlers that the user has set, and threads other than the main one, are left alone.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._replaced: dict[signal.Signals, Any] = {}
        self._outer: Interrupts | None = None
        self._noted: str | None = None
        self._at_once = False
        self._held = False

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number, default in _DEFAULTS.items():
                before = signal.getsignal(number)
                outer = getattr(before, "__self__", None)
                if isinstance(outer, Interrupts):
                    self._outer = outer
                elif before != default:
                    continue
                self._replaced[number] = before
                signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._replaced.items():
            signal.signal(number, before)
        if self._outer is not None:
            self._outer._noted = self.noted
        if kind is None:
            self.check()

    @property
    def noted(self) -> str | None:
        """The name of the signal that came, or None."""
        return self._noted or (self._outer.noted if self._outer is not None else None)

    def check(self) -> None:
        """Nothing; raises KeyboardInterrupt if a signal was noted."""
        if self.noted is not None:
            raise KeyboardInterrupt(self.noted)

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

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within `at_once`, a context in which a signal is noted, and raised at its end; for a few writes."""
        before, self._at_once = self._at_once, False
        try:
            yield
        finally:
            self._at_once = before
        if before:
            self.check()

    def hold(self) -> None:
        """From now on let nothing interrupt, for clean-up."""
        self._held = True

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a fork of this process; it ends as it would have without us
            signal.signal(number, _DEFAULTS[signal.Signals(number)])
            os.kill(os.getpid(), number)
            return
        insists = self.noted is not None
        self._noted = signal.Signals(number).name
        if (self._at_once or insists) and not self._held:
            raise KeyboardInterrupt(self._noted)


def signal_name(number: int) -> str:
    """A signal in words: "signal 9 (SIGKILL)", or "signal 40" where it has no name."""
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"
