"""The arithmetic of the report: normalised regret, ranks, paired intervals and paired tests.

Normalised regret of a run after k evaluations is ``(f_k - f*) / (f_ref - f*)`` with all values turned so that
small is good; f_k is the best of the first k values and

    f*      the problem's known best value, or the best that any run in the files found, if that is better
    f_ref   the problem's published worst value where it has one (the YAHPO surrogates); else the median over
            the seeds of the best of random search's first 10 evaluations

so 0 is the best known and, where random search is the reference, 1 is what ten random configs give. Regret is
cut off above 1, lest one early outlier of a steep function outweigh everything, and regrets that differ by
less than a millionth are equal.

Only complete blocks are compared: a problem and seed that every peer finished.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.records import Record
from gpbo.errors import SettingError

Array = NDArray[np.float64]
FRACTIONS = (0.25, 0.5, 1.0)
N_REFERENCE = 10  # random search's evaluations that make f_ref
N_RESAMPLES = 4000
SAME = 1e-6  # normalised regrets this near each other are equal


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """The compared runs.

    Attributes:
        peers: Their names, in the order of the last axis.
        regret: For each problem, (seeds, fractions, peers).
        ask: For each problem, (seeds, peers): the median seconds of an ask in the second half of the run.
        spent: For each problem, (seeds, peers): seconds of all asks and tells together.
        cpu: The same in seconds of CPU time.
        left_out: Runs, problems and blocks that could not be compared, and why.
        about: What the runs have in common, or the values among them: "versions", "revisions", ...
    """

    peers: tuple[str, ...]
    regret: Mapping[str, Array]
    ask: Mapping[str, Array]
    spent: Mapping[str, Array]
    cpu: Mapping[str, Array]
    left_out: Sequence[str] = ()
    about: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def index(self, peer: str) -> int:
        """The peer's place in the last axis."""
        return self.peers.index(peer)


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and the paired bootstrap's 95 % interval around it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Loss:
    """A peer that did better than the subject on a problem.

    Attributes:
        p: The one-sided paired Wilcoxon test's p-value, corrected by Holm for the number of peers.
    """

    problem: str
    peer: str
    regret: float
    peer_regret: float
    p: float


def tabulate(runs: Sequence[Record]) -> Table:
    """The runs side by side.

    Raises:
        SettingError: if there are none, runs of different lengths, or a run that is there twice.
    """
    runs = list(runs)
    if len({run["evaluations"] for run in runs}) != 1:
        raise SettingError("runs of one length are needed; choose them with `--evaluations`.")
    by_block: dict[str, dict[int, dict[str, Record]]] = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        block = by_block[run["problem"]][run["seed"]]
        if run["peer"] in block:
            raise SettingError(
                f"{run['problem']} {run['peer']} seed {run['seed']} is there twice; name fewer files."
            )
        block[run["peer"]] = run
    peers = tuple(dict.fromkeys(run["peer"] for run in runs))
    regret, ask, spent, cpu, left_out = {}, {}, {}, {}, []
    for problem, by_seed in by_block.items():
        complete = [b for _, b in sorted(by_seed.items()) if all(p in b and not b[p]["error"] for p in peers)]
        if len(complete) < len(by_seed):
            left_out.append(
                f"{problem}: {len(by_seed) - len(complete)} of {len(by_seed)} seeds, not finished by all"
            )
        if not complete:
            continue
        best, reference = references([r for block in by_seed.values() for r in block.values()])
        if not reference - best > 0:
            left_out.append(
                f"{problem}: the reference is no worse than the best value, so regret means nothing"
            )
            continue
        regret[problem] = np.array(
            [[regrets(block[p], best, reference) for p in peers] for block in complete]
        ).transpose(0, 2, 1)
        ask[problem] = np.array([[_late_ask(block[p]) for p in peers] for block in complete])
        spent[problem] = np.array([[_sum(block[p], "seconds") for p in peers] for block in complete])
        cpu[problem] = np.array([[_sum(block[p], "cpu_seconds") for p in peers] for block in complete])
    if not regret:
        raise SettingError(
            f"there is no problem to compare the peers on: {'; '.join(left_out) or 'no runs'}."
        )
    return Table(peers, regret, ask, spent, cpu, [*_mishaps(runs), *left_out], _about(runs))


def references(runs: Sequence[Record]) -> tuple[float, float]:
    """f* and f_ref of one problem, as losses.

    Raises:
        SettingError: if there is neither a published worst value nor a run of random search.
    """
    sign = _sign(runs[0])
    known = next((run for run in runs if "optimum" in run), runs[0])
    found = [sign * value for run in runs for value in run["values"]]
    if known["optimum"] is not None:
        found.append(sign * known["optimum"])
    if known["worst"] is not None:
        return min(found), sign * known["worst"]
    first = [run["values"][:N_REFERENCE] for run in runs if run["peer"] == "random" and run["values"]]
    if not first:
        raise SettingError(
            f"{known['problem']} has no published worst value; run the peer 'random' on it too."
        )
    return min(found), statistics.median(min(sign * v for v in values) for values in first)


def regrets(run: Record, best: float, reference: float) -> list[float]:
    """Normalised regret after each of the `FRACTIONS` of the evaluations."""
    losses = np.minimum.accumulate(_sign(run) * np.array(run["values"]))
    after = [losses[math.ceil(fraction * len(losses)) - 1] for fraction in FRACTIONS]
    scaled = [(loss - best) / (reference - best) for loss in after]
    return [min(round(r / SAME) * SAME, 1.0) for r in scaled]


def groups(table: Table) -> dict[str, list[str]]:
    """The problems of each group."""
    found: dict[str, list[str]] = defaultdict(list)
    for problem in table.regret:
        found[problem.split("/")[0]].append(problem)
    return dict(found)


def mean_regret(table: Table, problems: Sequence[str]) -> Array:  # (fractions, peers)
    """The mean over seeds, then over problems."""
    return np.mean([table.regret[problem].mean(0) for problem in problems], axis=0)


def mean_ranks(table: Table, problems: Sequence[str]) -> Array:  # (fractions, peers)
    """The mean rank among the peers, 1 the best, ties shared; over seeds, then over problems."""
    return np.mean([stats.rankdata(table.regret[p], axis=-1).mean(0) for p in problems], axis=0)


def resampled(table: Table, problems: Sequence[str], rng: np.random.Generator) -> Array:
    """(resamples, fractions, peers) of mean regret: problems drawn with replacement, then seeds within each.

    One draw serves all peers, so that differences between them are paired.
    """
    total = np.zeros((N_RESAMPLES, len(FRACTIONS), len(table.peers)))
    chosen = rng.integers(len(problems), size=(N_RESAMPLES, len(problems)))
    for k, problem in enumerate(problems):
        values = table.regret[problem]
        row, _ = np.nonzero(chosen == k)  # a row is there as often as the problem was drawn in it
        seeds = rng.integers(len(values), size=(len(row), len(values)))
        np.add.at(total, row, values[seeds].mean(1))
    return total / len(problems)


def ratios(table: Table, subject: str, peer: str, by_group: Mapping[str, Sequence[str]]) -> list[Interval]:
    """The subject's mean regret as a share of the peer's, after each fraction; below 1 the subject is ahead.

    Over several groups the geometric mean of their ratios, because regret has another scale in each.
    """
    rng = np.random.default_rng(0)
    logs, draws = [], []
    for problems in by_group.values():
        logs.append(_log_ratio(table, subject, peer)(mean_regret(table, problems)))
        draws.append(_log_ratio(table, subject, peer)(resampled(table, problems, rng)))
    value, spread = np.exp(np.mean(logs, axis=0)), np.exp(np.mean(draws, axis=0))
    low, high = np.quantile(spread, [0.025, 0.975], axis=0)
    return [Interval(*(float(x[k]) for x in (value, low, high))) for k in range(len(FRACTIONS))]


def best_peer(
    table: Table, subject: str, problems_by_group: Mapping[str, Sequence[str]], rivals: Sequence[str]
) -> str:
    """The rival with the least regret after all evaluations, so that the subject's ratio is largest."""

    def ratio(rival: str) -> float:
        logs = [
            _log_ratio(table, subject, rival)(mean_regret(table, p))[-1] for p in problems_by_group.values()
        ]
        return float(np.mean(logs))

    return max(rivals, key=ratio)


def losses(table: Table, subject: str, rivals: Sequence[str]) -> list[Loss]:
    """Every rival whose mean regret after all evaluations is smaller than the subject's, problem by problem.

    Holm's correction counts the rivals of each problem, which is the strict choice: a problem on which all
    are alike shows a significant loss in no more than 5 of 100 cases.
    """
    found = []
    s = table.index(subject)
    for problem, regret in table.regret.items():
        last = regret[:, -1]
        p_values = holm([better(last[:, table.index(rival)], last[:, s]) for rival in rivals])
        for rival, p in zip(rivals, p_values, strict=True):
            mine, other = float(last[:, s].mean()), float(last[:, table.index(rival)].mean())
            if other < mine - SAME / 2:
                found.append(Loss(problem, rival, mine, other, p))
    return sorted(found, key=lambda loss: (loss.p, loss.peer_regret - loss.regret))


def better(one: Array, two: Array) -> float:
    """The p-value of `one` being smaller than `two`: Wilcoxon's signed-rank test, one-sided, paired."""
    if np.allclose(one, two, rtol=0, atol=SAME / 2):
        return 1.0
    return float(stats.wilcoxon(one - two, alternative="less", zero_method="zsplit").pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction."""
    order = np.argsort(p_values, kind="stable")
    corrected, largest = [0.0] * len(p_values), 0.0
    for k, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - k) * p_values[i]))
        corrected[i] = largest
    return corrected


def pairs(table: Table, subject: str, peer: str) -> tuple[int, int, int]:
    """How many runs of the subject ended better than the peer's on that problem and seed, equal, worse."""
    s, o = table.index(subject), table.index(peer)
    gaps = np.concatenate([regret[:, -1, s] - regret[:, -1, o] for regret in table.regret.values()])
    better, worse = int((gaps < -SAME / 2).sum()), int((gaps > SAME / 2).sum())
    return better, len(gaps) - better - worse, worse


def time_ratio(times: Mapping[str, Array], table: Table, subject: str, peer: str) -> float:
    """The median over problems and seeds of the peer's time as a multiple of the subject's, pair by pair."""
    s, o = table.index(subject), table.index(peer)
    return float(np.median(np.concatenate([(t[:, o] / np.maximum(t[:, s], 1e-9)) for t in times.values()])))


def _log_ratio(table: Table, subject: str, peer: str) -> Callable[[Array], Array]:
    s, o = table.index(subject), table.index(peer)

    def of(mean: Array) -> Array:  # (..., fractions, peers) -> (..., fractions)
        # SAME keeps the ratio finite where a peer found the optimum in every run.
        return np.asarray(np.log((mean[..., s] + SAME) / (mean[..., o] + SAME)))

    return of


def _mishaps(runs: Sequence[Record]) -> list[str]:
    crashes = Counter((r["peer"], r["error"].strip().splitlines()[-1][:120]) for r in runs if r["error"])
    rejections = Counter[str]()
    for run in runs:
        rejections[run["peer"]] += run.get("rejections", 0)
    return [f"{n} crashed: {peer}: {error}" for (peer, error), n in crashes.items()] + [
        f"not an omission: {n} proposals of {peer} broke a constraint" for peer, n in rejections.items() if n
    ]


def _about(runs: Sequence[Record]) -> dict[str, list[str]]:
    found = {
        "evaluations": {r["evaluations"] for r in runs},
        "splits": {r["split"] for r in runs if "split" in r},  # a run that died does not know its own
        "initial designs": {r["initial"] for r in runs},
        "devices": {r["device"] for r in runs},
        "revisions": {r.get("revision", "unknown") for r in runs},
        "versions": {f"{n} {v}" for r in runs for n, v in r.get("versions", {}).items()},
        "runs at a time": {r.get("jobs", 1) for r in runs},
        "threads of a run": {r.get("threads", 1) for r in runs},
    }
    return {name: sorted(map(str, values)) for name, values in found.items()}


def _sign(run: Record) -> float:
    return -1.0 if run.get("direction") == "maximize" else 1.0


def _late_ask(run: Record) -> float:
    return statistics.median(run["ask_seconds"][len(run["ask_seconds"]) // 2 :])


def _sum(run: Record, unit: str) -> float:
    return sum(run[f"ask_{unit}"]) + sum(run[f"tell_{unit}"])
