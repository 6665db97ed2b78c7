"""Write the tables of README.md and RESULTS.md anew from the published results: nobody types a figure.

    python -m benchmarks.pages

A table stands between ``<!-- benchmarks:NAME -->`` and ``<!-- /benchmarks:NAME -->``, with a name of
`TABLES`. One whose results are not published is left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from benchmarks import asynchronous, multifidelity, plugins, published, report, speed, speed_table
from gpbo.errors import SettingError

FOLDER = Path(__file__).with_name("published")
PAGES = (Path(__file__).parents[1] / "README.md", Path(__file__).with_name("RESULTS.md"))

TABLES: dict[str, tuple[str, Callable[[Path], str]]] = {  # by name: a file of results and what is made of it
    "speed": ("speed.jsonl", lambda path: speed_table.short(speed.read(path))),
    "speed-all": ("speed.jsonl", lambda path: speed_table.table(speed.read(path))),
    "speed-cuda": ("speed-cuda.jsonl", lambda path: speed_table.short(speed.read(path))),
    "regret": ("regret.jsonl", lambda path: report.summary(published.read(path), "gpbo")),
    "regret-current": (
        "regret-current.jsonl",
        lambda path: report.summary(published.read(path), "gpbo"),
    ),
    "ablations": (
        "ablations.jsonl",
        lambda path: report.summary(published.read(path), "gpbo", variants=True),
    ),
    "multifidelity": ("multifidelity.jsonl", lambda path: multifidelity.summary(multifidelity.read(path))),
    "multifidelity-all": ("multifidelity.jsonl", lambda path: multifidelity.table(multifidelity.read(path))),
    "multifidelity-anchors": (
        "multifidelity.jsonl",
        lambda path: multifidelity.anchored(multifidelity.read(path)),
    ),
    "asynchronous": (
        "asynchronous.jsonl",
        lambda path: asynchronous.table(multifidelity.read(path), "bohb-reference"),
    ),
    "plugins-optuna": ("plugins-optuna.jsonl", lambda path: _plugged("optuna", path)),
    "plugins-sklearn": ("plugins-sklearn.jsonl", lambda path: _plugged("sklearn", path)),
    "plugins-ray": ("plugins-ray.jsonl", lambda path: _plugged("ray", path)),
    "plugins-times": ("plugins-times.jsonl", lambda path: plugins.times(plugins.read(path))),
    "plugins-imports": ("plugins-times.jsonl", lambda path: plugins.imports(plugins.read(path))),
}


def filled(page: str, folder: Path) -> str:
    """The text of a page with its tables as the results in the folder have them.

    Raises:
        SettingError: if a table has no known name or no end.
    """
    marked = re.compile(r"(<!-- benchmarks:(\S+) -->\n).*?(<!-- /benchmarks:\2 -->)", re.DOTALL)

    def made(match: re.Match[str]) -> str:
        begin, name, end = match.groups()
        if name not in TABLES:
            raise SettingError(f"a table must be one of {list(TABLES)}, got {name!r}.")
        file, make = TABLES[name]
        return f"{begin}{make(folder / file)}\n{end}" if (folder / file).is_file() else match[0]

    text, n = marked.subn(made, page)
    if n != page.count("<!-- benchmarks:"):
        raise SettingError("a table must end with <!-- /benchmarks:NAME -->, with the name of its beginning.")
    return text


def _plugged(host: str, path: Path) -> str:
    return plugins.summary(published.read(path), plugins.SUBJECTS[host])


def main() -> None:
    """Fill the pages."""
    for page in PAGES:
        page.write_text(filled(page.read_text(), FOLDER))


if __name__ == "__main__":
    main()
