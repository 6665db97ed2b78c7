"""Who runs a trial, so that the trials of a loop that died can be told from those of one that lives.

An owner is written ``host/pid/start/loop``: the driving process, when it started (a pid is used again, a
pid with its start is not), and which of its loops. A loop that gives a trial back writes `RELEASED`.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RELEASED = "released"
_UNKNOWN = 0  # the start of a process of which only its existence can be known

_loops = itertools.count()
_live: set[str] = set()  # the owners whose loops run in this process


@contextmanager
def ownership() -> Iterator[str]:
    """A new owner, alive as long as the context."""
    pid = os.getpid()
    owner = f"{socket.gethostname()}/{pid}/{process_start(pid)}/{next(_loops)}"
    _live.add(owner)
    try:
        yield owner
    finally:
        _live.discard(owner)


def is_gone(owner: str) -> bool:
    """Whether `owner` is certainly not at work any more: released, or a loop of this host that ended."""
    if owner == RELEASED:
        return True
    host, *numbers = owner.rsplit("/", 3)
    if host != socket.gethostname() or len(numbers) != 3 or not all(n.isdecimal() for n in numbers):
        return False
    pid, start = int(numbers[0]), int(numbers[1])
    now = process_start(pid)
    if now is None or (start != now and _UNKNOWN not in (start, now)):
        return True
    return pid == os.getpid() and owner not in _live


def process_start(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is none, 0 if only that is known."""
    try:
        return start_from_stat(Path(f"/proc/{pid}/stat").read_text(errors="replace"))
    except OSError:  # not Linux, a process of somebody else's that is hidden, or none
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return _UNKNOWN


def start_from_stat(text: str) -> int | None:
    """The start time in the text of ``/proc/<pid>/stat``; None for a process that has ended (a zombie)."""
    # proc_pid_stat(5): the name, field 2, is in parentheses and may itself hold spaces and parentheses.
    state, *fields = text.rpartition(")")[2].split()
    return None if state in "ZXx" else int(fields[18])  # field 22; the state is field 3
