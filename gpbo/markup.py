"""Tables for Jupyter: plain HTML without scripts or styles of their own, every text escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

_MOST_ROWS = 100


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, caption: str = "") -> str:
    """An HTML table; of many rows the last hundred, and a word on how many came before."""
    rows = list(rows)
    left_out = max(0, len(rows) - _MOST_ROWS)
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    note = f"<tr><td colspan={len(columns)}>{left_out} more above</td></tr>" if left_out else ""
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(text(cell))}</td>' for cell in row)}</tr>" for row in rows[left_out:]
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{note}{body}</tbody></table>"


def paragraph(words: str) -> str:
    """An HTML paragraph."""
    return f"<p>{escape(words)}</p>"


def text(value: Any) -> str:
    """A value as people read it: numbers to six digits, nothing for None."""
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def settings(config: Mapping[str, Any]) -> str:
    """A config in one line."""
    return ", ".join(f"{name}={text(value)}" for name, value in config.items())
