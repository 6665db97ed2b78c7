"""gpbo as a process: `gpbo` and `python -m gpbo`.

The command line itself is loaded within `main`, so that Ctrl-C in the meantime is no traceback.
"""

from __future__ import annotations

import os
import signal
import sys

_INTERRUPTED = 130  # what a shell gives a command that Ctrl-C ended


def main() -> int:
    """The exit code of the command that the arguments name."""
    try:
        from gpbo.cli import main as command

        code = command()
    except KeyboardInterrupt:
        code = _INTERRUPTED
    if code == _INTERRUPTED:
        # All is stored and said; who cannot wait for the interpreter to take itself apart need not.
        signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
        signal.signal(signal.SIGTERM, lambda *_: os._exit(_INTERRUPTED))
    return code


if __name__ == "__main__":
    sys.exit(main())
