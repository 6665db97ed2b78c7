"""Print what the runs in some files say, as markdown.

    python -m benchmarks.report runs.jsonl [more.jsonl ...] [--short | --ablations] [--publish table.jsonl]

A published table can stand in place of runs. How each figure is made is written at the top of `compare.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from textwrap import fill

from benchmarks import compare, published, records
from benchmarks.compare import FRACTIONS, Table
from gpbo.errors import GpboError, SettingError

_ALPHA = 0.05
_WIDTH = 118  # of a line of text


def main(arguments: Sequence[str] | None = None) -> int:
    """Read, compare and print; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description="Compare runs.")
    parser.add_argument("files", type=Path, nargs="+", help="of runs, or one published table")
    parser.add_argument("--subject", default="gpbo", help="the peer that the others are compared with")
    parser.add_argument("--problems", default="*", help="patterns such as 'synthetic/*', of runs")
    parser.add_argument("--split", choices=["dev", "test", "both"], default="both", help="of runs")
    parser.add_argument("--publish", type=Path, help="also write the table that the report is made of")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--short", action="store_true", help="one table: the subject and the others")
    which.add_argument("--ablations", action="store_true", help="the same of the subject's variants")
    options = parser.parse_args(arguments)
    try:
        table = _table(options.files, options.problems.split(","), options.split)
        if options.short or options.ablations:
            print(summary(table, options.subject, variants=options.ablations))
        else:
            print(report(table, options.subject))
    except GpboError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.publish:
        published.write(options.publish, table)
    return 0


def report(table: Table, subject: str) -> str:
    """The whole report, in markdown.

    Raises:
        SettingError: if the subject is not among the peers.
    """
    rivals, variants = _others(table, subject)
    by_group = compare.groups(table)
    parts = [
        "# Comparison",
        _about(table),
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
    if variants:
        parts.append(f"## Variants of {subject}\n\n" + summary(table, subject, variants=True))
    left_out = "\n".join(f"- {text}" for text in table.left_out) or "Nothing."
    return "\n\n".join([*parts, "## Left out\n\n" + left_out])


def summary(table: Table, subject: str, *, variants: bool = False) -> str:
    """One table of the subject and other people's optimisers, or its own variants.

    Raises:
        SettingError: if there are none, or the subject is not among the peers.
    """
    others = _others(table, subject)[variants]
    if not others:
        what = f"variant of {subject}" if variants else f"peer to compare {subject} with"
        raise SettingError(f"there is no {what} among {list(table.peers)}.")
    by_group = compare.groups(table)
    means = [compare.mean_regret(table, problems)[-1] for problems in by_group.values()]
    rows = []
    for peer in [subject, *others]:
        regrets = [float(mean[table.index(peer)]) for mean in means]
        cells = [f"{regret:.3f}" for regret in [*regrets, sum(regrets) / len(regrets)]]
        rows.append([peer, *cells, *_against(table, subject, peer, by_group)])
    header = [
        "mean regret",
        *(f"{group} ({len(problems)})" for group, problems in by_group.items()),
        "mean of groups",
        f"{subject}'s share of it",
        f"{subject} better / equal / worse",
        "CPU time",
    ]
    about = {name: ", ".join(values) for name, values in table.about.items()}
    caption = (
        f"Normalised regret after {about['evaluations']} evaluations, 0 the best known: {_size(table)}, "
        f"split: {about['splits']}. The share is the geometric mean over the groups, with the 95 % interval "
        "of a paired bootstrap; then the runs are counted in pairs; CPU time is that of all asks and tells, "
        f"as a multiple of {subject}'s, the median over pairs. Revision {about['revisions']}; "
        f"{about['versions']}."
    )
    return _markdown(header, rows) + "\n\n" + fill(caption, _WIDTH)


def _against(table: Table, subject: str, peer: str, by_group: Mapping[str, Sequence[str]]) -> list[str]:
    if peer == subject:
        return ["", "", ""]
    share = compare.ratios(table, subject, peer, by_group)[-1]
    return [
        f"{share.value:.3f} [{share.low:.3f}, {share.high:.3f}]",
        " / ".join(map(str, compare.pairs(table, subject, peer))),
        f"{compare.time_ratio(table.cpu, table, subject, peer):.2g}x",
    ]


def _table(files: Sequence[Path], patterns: Sequence[str], split: str) -> Table:
    if len(files) == 1 and published.is_table(files[0]):
        return published.read(files[0])
    return compare.tabulate(_chosen(records.read(files), patterns, split))


def _others(table: Table, subject: str) -> tuple[list[str], list[str]]:
    """The rivals, who are other people's optimisers only, and the variants of the subject."""
    if subject not in table.peers:
        raise SettingError(f"`--subject` must be one of {list(table.peers)}, got {subject!r}.")
    others = [peer for peer in table.peers if peer != subject]
    variants = [peer for peer in others if peer.startswith(f"{subject}-")]
    return [peer for peer in others if peer not in variants], variants


def _about(table: Table) -> str:
    lines = [f"- {_size(table)}"]
    lines += [f"- {name}: {', '.join(values)}" for name, values in table.about.items()]
    return "\n".join(lines)


def _size(table: Table) -> str:
    n_seeds = [len(regret) for regret in table.regret.values()]
    blocks = f"{sum(n_seeds)} blocks of problem and seed ({_listed(set(n_seeds))} seeds a problem)"
    return f"{len(n_seeds)} problems, {blocks}"


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
