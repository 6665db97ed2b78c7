"""Print what the runs in some files say, as markdown.

    python -m benchmarks.report runs.jsonl [more.jsonl ...] [--subject gpbo]

How each figure is made is written at the top of `compare.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from benchmarks import compare, records
from benchmarks.compare import FRACTIONS, Table
from gpbo.errors import GpboError, SettingError

_ALPHA = 0.05


def main(arguments: Sequence[str] | None = None) -> int:
    """Read, compare and print; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description="Compare runs.")
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--subject", default="gpbo", help="the peer that the others are compared with")
    parser.add_argument("--problems", default="*", help="patterns such as 'synthetic/*'")
    parser.add_argument("--split", choices=["dev", "test", "both"], default="both")
    options = parser.parse_args(arguments)
    try:
        runs = _chosen(records.read(options.files), options.problems.split(","), options.split)
        print(report(runs, options.subject))
    except GpboError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def report(runs: Sequence[records.Record], subject: str) -> str:
    """The whole report, in markdown.

    Raises:
        SettingError: if the subject is not among the runs, or they cannot be compared.
    """
    table = compare.tabulate(runs)
    if subject not in table.peers:
        raise SettingError(f"`--subject` must be one of {list(table.peers)}, got {subject!r}.")
    # variants of the subject are shown, but only other people's optimisers are its rivals
    rivals = [p for p in table.peers if p != subject and not p.startswith(f"{subject}-")]
    by_group = compare.groups(table)
    parts = [
        "# Comparison",
        _about(runs, table),
        "## Mean normalised regret\n\n" + _per_group(table, by_group, compare.mean_regret),
        "## Mean ranks\n\n" + _per_group(table, by_group, compare.mean_ranks),
    ]
    if rivals:
        parts += [
            f"## Regret of {subject} as a share of each peer's\n\nBelow 1, {subject} is ahead. In brackets "
            "95 % intervals of the bootstrap (problems, then seeds; paired).\n\n"
            + _ratios(table, subject, by_group, rivals),
            "## Time\n\n" + _times(table, subject, rivals),
            "## Losses\n\n" + _losses(table, subject, rivals),
        ]
    return "\n\n".join([*parts, "## Left out\n\n" + _left_out(runs, table)])


def _about(runs: Sequence[records.Record], table: Table) -> str:
    n_blocks = sum(len(regret) for regret in table.regret.values())
    seeds = sorted({len(regret) for regret in table.regret.values()})
    lines = [
        f"- {len(table.regret)} problems, {n_blocks} blocks of problem and seed ({_listed(seeds)} seeds a "
        f"problem), {runs[0]['evaluations']} evaluations",
        f"- splits: {_listed({r['split'] for r in runs if 'split' in r})}; initial designs: "
        f"{_listed({r['initial'] for r in runs})}; device: {_listed({r['device'] for r in runs})}",
        f"- revisions: {_listed({r.get('revision', 'unknown') for r in runs})}",
        f"- versions: {_listed({f'{n} {v}' for r in runs for n, v in r.get('versions', {}).items()})}",
        f"- at a time: {_listed({r.get('jobs', 1) for r in runs})} runs of "
        f"{_listed({r.get('threads', 1) for r in runs})} threads",
    ]
    return "\n".join(lines)


def _per_group(table: Table, by_group: Mapping[str, Sequence[str]], figure: object) -> str:
    assert callable(figure)
    rows = []
    found = {group: figure(table, problems) for group, problems in by_group.items()}
    for peer in table.peers:
        k = table.index(peer)
        cells = [[float(found[group][i, k]) for i in range(len(FRACTIONS))] for group in by_group]
        overall = [sum(cell[i] for cell in cells) / len(cells) for i in range(len(FRACTIONS))]
        rows.append([peer, *(" / ".join(f"{x:.4f}" for x in cell) for cell in [*cells, overall])])
    header = [
        "peer",
        *(f"{group} ({len(problems)})" for group, problems in by_group.items()),
        "mean of groups",
    ]
    return "After 25 / 50 / 100 % of the evaluations.\n\n" + _markdown(header, rows)


def _ratios(table: Table, subject: str, by_group: Mapping[str, Sequence[str]], rivals: Sequence[str]) -> str:
    rows = []
    for group, part in [*((g, {g: p}) for g, p in by_group.items()), ("all groups", by_group)]:
        best = compare.best_peer(table, subject, part, rivals)
        for rival in rivals:
            cells = [
                f"{r.value:.3f} [{r.low:.3f}, {r.high:.3f}]"
                for r in compare.ratios(table, subject, rival, part)
            ]
            rows.append([group, f"**{rival}** (best peer)" if rival == best else rival, *cells])
    return _markdown(["group", "peer", *(f"{100 * f:.0f} %" for f in FRACTIONS)], rows)


def _times(table: Table, subject: str, rivals: Sequence[str]) -> str:
    rows = []
    for rival in rivals:
        figures = [compare.time_ratio(t, table, subject, rival) for t in (table.ask, table.spent, table.cpu)]
        rows.append([rival, *(f"{x:.3g}" for x in figures)])
    header = ["peer", "late ask", "all asks and tells", "the same, CPU time"]
    return (
        f"Each peer's time as a multiple of {subject}'s, median over pairs of runs; above 1, {subject} is "
        "faster. A late ask is the median ask of a run's second half.\n\n" + _markdown(header, rows)
    )


def _losses(table: Table, subject: str, rivals: Sequence[str]) -> str:
    found = compare.losses(table, subject, rivals)
    significant = {loss.problem for loss in found if loss.p < _ALPHA}
    share = (
        f"Some peer is significantly better than {subject} on {len(significant)} of {len(table.regret)} "
        f"problems ({100 * len(significant) / len(table.regret):.0f} %; paired Wilcoxon, one-sided, Holm "
        "over the peers, 5 %)."
    )
    rows = [
        [loss.problem, loss.peer, f"{loss.regret:.4g}", f"{loss.peer_regret:.4g}", f"{loss.p:.3g}"]
        for loss in found
    ]
    if not rows:
        return share + " No peer has a smaller mean regret on any problem."
    return share + "\n\n" + _markdown(["problem", "peer", f"{subject}'s regret", "the peer's", "p"], rows)


def _left_out(runs: Sequence[records.Record], table: Table) -> str:
    crashes = Counter((r["peer"], r["error"].strip().splitlines()[-1][:120]) for r in runs if r["error"])
    lines = [f"- {n} crashed: {peer}: {error}" for (peer, error), n in crashes.items()]
    rejections = Counter[str]()
    for run in runs:
        rejections[run["peer"]] += run.get("rejections", 0)
    lines += [f"- {text}" for text in table.left_out]
    lines += [
        f"- not an omission: {n} proposals of {peer} broke a constraint"
        for peer, n in rejections.items()
        if n
    ]
    return "\n".join(lines) or "Nothing."


def _chosen(runs: Sequence[records.Record], patterns: Sequence[str], split: str) -> list[records.Record]:
    splits = {r["problem"]: r["split"] for r in runs if "split" in r}  # a run that died does not know its own
    return [
        run
        for run in runs
        if any(fnmatchcase(run["problem"], p) for p in patterns)
        and split in ("both", splits.get(run["problem"]))
    ]


def _listed(values: Iterable[object]) -> str:
    return ", ".join(sorted(map(str, values)))


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
