"""What all integrations say about the library they plug into."""

from __future__ import annotations

import re
import warnings


def check_tested(host: str, version: str, low: str, high: str) -> None:
    """Warn where the host's version is outside the range that gpbo is tested with.

    Of a bound two numbers count, or one where it has no more: "5" to "5" are all versions 5. Modules call
    it when they are imported, so that it is said once.
    """
    lowest, highest, this = release(low), release(high), release(version)
    if not (lowest <= this and this[: len(highest)] <= highest):
        tested = low if low == high else f"{low} to {high}"
        warnings.warn(f"gpbo is tested with {host} {tested}; this is {host} {version}.", stacklevel=3)


def release(version: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
