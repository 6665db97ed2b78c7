"""One run of the objective, and the process that makes such runs one after another.

The driver starts ``main`` in a new interpreter with one end of a socket as standard input. First come the
script's arguments and the objective, then a number and a config for each run; ``READY`` and one pickled
`Outcome` a run go back, and before it any `Message` of the run, each of which is answered. The user's script
is never imported here: cloudpickle ships what ``__main__`` defines by value, so a script needs no
``if __name__ == "__main__"``.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

import cloudpickle  # type: ignore[import-untyped]

from gpbo.executors.base import Message, Outcome

READY = b"ready"


def evaluate(
    objective: Callable[..., Any],
    number: int,
    config: Mapping[str, Any],
    *,
    send: Callable[[Any], Any] | None = None,
    through: type[BaseException] | tuple[()] = (),
) -> Outcome:
    """What `objective` returned on a copy of `config`, or the traceback of what it raised.

    With `send`, the objective is given that as well. SystemExit is a failure like any other; only exceptions
    of the type `through` are let through.
    """
    started = time.monotonic()
    try:
        value = objective(dict(config)) if send is None else objective(dict(config), send)
    except through:
        raise
    except BaseException as error:
        return Outcome(number, error=_traceback(error), seconds=time.monotonic() - started)
    return Outcome(number, value, seconds=time.monotonic() - started)


def main() -> None:
    """Serve the driver at the other end of standard input until it says stop; die with it if it dies."""
    # The driver decides about Ctrl-C. SIG_IGN would also reach the programs that the objective starts.
    signal.signal(signal.SIGINT, lambda *_: None)
    channel = Connection(os.dup(0))
    _close_stdin()
    requests: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_listen, args=(channel, requests), daemon=True).start()
    sys.argv[:] = requests.get()
    try:
        objective, is_heard = pickle.loads(requests.get())
    except BaseException as error:
        _send(channel, _traceback(error).encode())
        return
    _send(channel, READY)
    while (request := requests.get()) is not None:
        number, config = request
        ask = partial(_ask, channel, requests, number) if is_heard else None
        outcome = evaluate(objective, number, config, send=ask)
        for stream in (sys.stdout, sys.stderr):  # into a file they are buffered, and this process lives on
            if stream is not None and not stream.closed:
                stream.flush()
        _send(channel, _packed(outcome))


def _listen(channel: Connection[Any, Any], requests: SimpleQueue[Any]) -> None:
    """Queue what the driver sends; when it is gone, kill this process and all that it started."""
    while True:
        try:
            requests.put(channel.recv())
        except (EOFError, OSError):
            os.killpg(0, signal.SIGKILL)


def _ask(channel: Connection[Any, Any], requests: SimpleQueue[Any], number: int, content: Any) -> Any:
    """The driver's answer to a message of the run."""
    _send(channel, cloudpickle.dumps(Message(number, content)))
    return requests.get()  # while a run is under way, the driver sends nothing but answers


def _send(channel: Connection[Any, Any], message: bytes) -> None:
    """Send to the driver; when it is gone, kill this process and all that it started."""
    try:
        channel.send_bytes(message)
    except OSError:
        os.killpg(0, signal.SIGKILL)


def _close_stdin() -> None:
    """Let the objective read nothing, rather than the driver's messages, from standard input."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def _packed(outcome: Outcome) -> bytes:
    """The pickled outcome; arrays and tensors travel as plain numbers, so that the driver needs no GPU."""
    try:
        return bytes(cloudpickle.dumps(replace(outcome, value=_plain(outcome.value))))
    except Exception as error:
        kind = type(outcome.value).__name__
        reason = f"the objective returned a {kind}, which cannot be sent to the driver: {error}"
        return pickle.dumps(replace(outcome, value=None, error=reason))


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value.tolist() if hasattr(value, "tolist") else value


def _traceback(error: BaseException) -> str:
    """The traceback from the user's first frame on."""
    frames = error.__traceback__.tb_next if error.__traceback__ else None
    return "".join(traceback.format_exception(type(error), error, frames)).strip()
