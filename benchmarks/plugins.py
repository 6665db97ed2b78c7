"""gpbo plugged into Optuna, scikit-learn and Ray Tune, beside what each host itself brings along.

    python -m benchmarks.plugins --out plugins --seeds 0-9              # a folder, one file for each part
    python -m benchmarks.plugins --out plugins --parts sklearn,times    # some parts only
    python -m benchmarks.plugins --out plugins --seeds '' --publish     # only publishes what is there

Files that are there are continued, and the tables printed at the end. Problems are of the test half alone.
What a part runs on is chosen by what its entrants can express, by cost, and by no result.

`optuna`   `GPBOSampler` against `TPESampler` (multivariate, group) and `GPSampler`, each in an Optuna study
           by ask, suggest and tell; 50 trials; on the panel, but for pressure_vessel-4, whose constraint has
           GPSampler propose anew for minutes, and the training. By `benchmarks.run`, whose rules hold.
`ray`      `GPBOSearch` against `OptunaSearch` and `TuneBOHB`, on some of these problems. They are driven by
           the calls that Ray makes on a searcher; without one Ray draws at random, here `random`.
`sklearn`  `GPBOSearchCV` against `RandomizedSearchCV` (here `random`) and `HalvingRandomSearchCV`: searches
           by cross-validation with 30 candidates, on models and data of the test half's trainings but for
           the slowest, mlp-digits. Each is given the same dictionary of scipy's distributions, which has no
           conditions. Halving begins with 90 candidates on a ninth of the samples, which in all costs as
           many samples as the 30; what it found counts at its end alone, which stands for halfway too.
`times`    What a trial costs beside its evaluation, at several numbers of trials, in milliseconds, on one
           problem of six dimensions; imports and first results, each in fresh processes.

Regret, shares and intervals are those of `compare.py`: the entrants are paired by problem and seed.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import Any, ClassVar

import numpy as np
from scipy import stats
from sklearn.base import BaseEstimator
from sklearn.experimental import enable_halving_search_cv  # noqa: F401  the next import needs it
from sklearn.model_selection import HalvingRandomSearchCV, KFold, RandomizedSearchCV, StratifiedKFold

from benchmarks import compare, published, records
from benchmarks import run as runs
from benchmarks.compare import Table
from benchmarks.problems.trainings import data_of
from gpbo.errors import SettingError

PARTS = ("optuna", "ray", "sklearn", "times")
SUBJECTS = {"optuna": "optuna-gpbo", "ray": "ray-gpbo", "sklearn": "sklearn-gpbo"}
EVALUATIONS = 50
CANDIDATES = 30
MARKS = (25, 50, 100, 200)  # numbers of trials at which the time of one is looked at
REPEATS = 7  # fresh processes for each import

_PUBLISHED = Path(__file__).with_name("published")
_WIDTH = 118  # of a line of text
_WINDOW = 10  # trials up to a mark whose median is its time

_OPTUNA = (
    "synthetic/beale-2,synthetic/dixon_price-10,synthetic/michalewicz-5,synthetic/rastrigin-6,synthetic/levy-5,"
    "synthetic/levy-20,mixed/levy-9,mixed/branches-9,mixed/network-8,lcbench/126029,lcbench/167201,"
    "lcbench/189873,rbv2_rpart/312,rbv2_rpart/40923"
)
_RAY = (
    "synthetic/dixon_price-10,synthetic/rastrigin-6,synthetic/levy-5,mixed/branches-9,lcbench/126029,"
    "rbv2_rpart/40923"
)
_PEERS = {
    "optuna": "random,optuna-tpe,optuna-gp,optuna-gpbo",
    "ray": "random,ray-optuna,ray-bohb,ray-gpbo",
}
_TIMED = "optuna-tpe,optuna-gp,optuna-gpbo,ray-optuna,ray-bohb,ray-gpbo,random,gpbo"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the files do not hold yet, and print the tables."""
    options = _parser().parse_args(arguments)
    try:
        _main(options)
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _main(options: argparse.Namespace) -> None:
    parts = options.parts.split(",")
    for part in parts:
        if part not in PARTS:
            raise SettingError(f"`--parts` must be among {', '.join(PARTS)}; got {part!r}.")
    seeds = runs.parse_seeds(options.seeds) if options.seeds else []
    for part in parts:
        file = options.out / f"{part}.jsonl"
        if seeds:
            _run(part, file, options.seeds)
        if not file.is_file():
            continue
        if part == "times":
            print(f"\n{times(read(file))}\n\n{imports(read(file))}")
        else:
            print(f"\n{summary(compare.tabulate(records.read([file])), SUBJECTS[part])}")
        if options.publish:
            publish(part, file)


def _run(part: str, file: Path, seeds: str) -> None:
    if part == "sklearn":
        _search(file, runs.parse_seeds(seeds))
    elif part == "times":
        _time(file)
    else:
        problems = _OPTUNA if part == "optuna" else _RAY
        _runs(file, _PEERS[part], problems, seeds, EVALUATIONS)


def _runs(file: Path, peers: str, problems: str, seeds: str, evaluations: int) -> None:
    chosen = ["--peers", peers, "--problems", problems, "--split", "test", "--seeds", seeds]
    code = runs.main([*chosen, "--evaluations", str(evaluations), "--out", str(file)])
    if code:
        raise SettingError(f"`benchmarks.run` ended with {code}.")


# scikit-learn


@dataclass(frozen=True, slots=True)
class Searched:
    """A search's task: one of the trainings of the test half, as scikit-learn's users write it.

    Attributes:
        data: The data set, by the name of its loader.
        estimator: What is tuned.
        space: Names and scipy's distributions.
        scoring: As scikit-learn calls it.
    """

    data: str
    estimator: Any
    space: Mapping[str, Any]
    scoring: str

    def folds(self) -> Any:
        """The splitter, the same for all."""
        kind = KFold if "squared" in self.scoring else StratifiedKFold
        return kind(3, shuffle=True, random_state=0)


@cache
def searches() -> dict[str, Searched]:
    """The tasks by name."""
    from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    log, uniform, whole = stats.loguniform, stats.uniform, stats.randint
    return {
        "svc-breast_cancer": Searched(
            "breast_cancer",
            make_pipeline(StandardScaler(), SVC(max_iter=5000)),
            {
                "svc__C": log(1e-3, 1e3),
                "svc__gamma": log(1e-5, 10),
                "svc__kernel": ["rbf", "poly", "sigmoid"],
                "svc__degree": whole(2, 6),
                "svc__coef0": uniform(-1, 2),
                "svc__shrinking": [True, False],
            },
            "accuracy",
        ),
        "boosting-diabetes": Searched(
            "diabetes",
            HistGradientBoostingRegressor(early_stopping=False, random_state=0),
            {
                "learning_rate": log(1e-3, 1.0),
                "max_iter": whole(5, 81),
                "max_leaf_nodes": whole(2, 65),
                "min_samples_leaf": whole(1, 61),
                "l2_regularization": log(1e-6, 100),
                "max_features": uniform(0.1, 0.9),
            },
            "neg_mean_squared_error",
        ),
        "forest-wine": Searched(
            "wine",
            RandomForestClassifier(n_estimators=25, random_state=0),
            {
                "max_features": uniform(0.05, 0.95),
                "max_depth": whole(1, 21),
                "min_samples_split": whole(2, 61),
                "min_samples_leaf": whole(1, 41),
            },
            "neg_log_loss",
        ),
        "linear-breast_cancer": Searched(
            "breast_cancer",
            make_pipeline(StandardScaler(), SGDClassifier(max_iter=20, tol=None, random_state=0)),
            {
                "sgdclassifier__loss": ["hinge", "log_loss", "modified_huber"],
                "sgdclassifier__penalty": ["l2", "l1", "elasticnet"],
                "sgdclassifier__alpha": log(1e-7, 1),
                "sgdclassifier__l1_ratio": uniform(0, 1),
                "sgdclassifier__learning_rate": ["optimal", "constant", "invscaling"],
                "sgdclassifier__eta0": log(1e-5, 10),
                "sgdclassifier__power_t": uniform(0.05, 0.95),
            },
            "accuracy",
        ),
    }


def entrant(
    name: str, estimator: Any, space: Any, seed: int, n_iter: int, n_samples: int, **same: Any
) -> Any:
    """The search of that name, as its documentation has it.

    Raises:
        SettingError: if there is none.
    """
    from gpbo.integrations.sklearn import GPBOSearchCV

    same = {**same, "random_state": seed, "refit": False}
    if name == "random":
        return RandomizedSearchCV(estimator, space, n_iter=n_iter, **same)
    if name == "sklearn-halving":
        ninth = n_samples // 9
        rungs = {"n_candidates": 3 * n_iter, "factor": 3, "min_resources": ninth, "max_resources": 9 * ninth}
        return HalvingRandomSearchCV(estimator, space, **rungs, **same)
    if name == "sklearn-gpbo":
        return GPBOSearchCV(estimator, space, n_iter=n_iter, **same)
    raise SettingError(f"there is no search {name!r}.")


_SEARCHERS = ("random", "sklearn-halving", "sklearn-gpbo")


def search(task: str, name: str, seed: int, *, n_iter: int = CANDIDATES) -> records.Record:
    """The record of one search, in the form of a run's."""
    given = searches()[task]
    X, y = data_of(given.data)
    values: list[float] = []
    error = None
    gc.collect()
    begun = time.perf_counter()
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # trainings that do not converge, or fail
            made = entrant(
                name,
                given.estimator,
                given.space,
                seed,
                n_iter,
                len(y),
                scoring=given.scoring,
                cv=given.folds(),
            )
            made.fit(X, y)
        scores = [-float(s) for s in made.cv_results_["mean_test_score"]]
        worst = max(s for s in scores if np.isfinite(s))
        if "n_resources" in made.cv_results_:  # what is found on a part of the samples is no result
            scores = []
        values = [s if np.isfinite(s) else worst for s in scores] or [-float(made.best_score_)]
    except Exception:
        error = traceback.format_exc()
    spent = round(time.perf_counter() - begun, 4)
    return {
        "problem": f"sklearn/{task}", "split": "test", "peer": name, "seed": seed, "evaluations": n_iter,
        "initial": "own", "device": "cpu", "direction": "minimize", "optimum": None, "worst": None,
        "values": values, "error": error, "rejections": 0,
        "ask_seconds": [spent], "ask_cpu_seconds": [spent], "tell_seconds": [0.0], "tell_cpu_seconds": [0.0],
    }  # fmt: skip


def _search(file: Path, seeds: Sequence[int]) -> None:
    done = {records.key_of(r) for r in records.read([file])} if file.is_file() else set()
    about = {"revision": runs.revision(), "versions": records.versions(), "threads": 1, "jobs": 1}
    for i, (seed, task) in enumerate((seed, task) for seed in seeds for task in searches()):
        for name in reversed(_SEARCHERS) if i % 2 else _SEARCHERS:
            if (f"sklearn/{task}", name, seed, CANDIDATES, "own", "cpu") not in done:
                record = {**search(task, name, seed), **about}
                records.append(file, record)
                print(f"{task} {name} seed {seed}: {record['values'] and min(record['values'])}", flush=True)


# times


class Function(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """An estimator whose score costs nothing and which keeps when it was asked for."""

    moments: ClassVar[list[tuple[float, float]]] = []

    def __init__(
        self, a: float = 0.0, b: float = 0.0, c: float = 0.0, d: float = 0.0, e: float = 0.0, f: float = 0.0
    ) -> None:
        self.a, self.b, self.c, self.d, self.e, self.f = a, b, c, d, e, f

    def fit(self, X: Any, y: Any = None) -> Function:
        """Itself."""
        return self

    def score(self, X: Any, y: Any = None) -> float:
        """Minus Rastrigin's function."""
        Function.moments.append((time.perf_counter(), time.process_time()))
        x = np.array([self.a, self.b, self.c, self.d, self.e, self.f])
        return -float(10 * len(x) + (x * x - 10 * np.cos(2 * np.pi * x)).sum())


STATEMENTS = {  # what is done first, and what is timed after it, in a fresh process
    "import torch": ("", "import torch"),
    "import gpbo": ("", "import gpbo"),
    "import gpbo.integrations.optuna, after optuna": ("import optuna", "import gpbo.integrations.optuna"),
    "import gpbo.integrations.sklearn, after sklearn": (
        "import sklearn.model_selection",
        "import gpbo.integrations.sklearn",
    ),
    "import gpbo.integrations.ray_tune, after ray.tune": (
        "import ray.tune",
        "import gpbo.integrations.ray_tune",
    ),
    "from `import gpbo` to the first suggestion, after torch": (
        "import torch",
        "import gpbo\nstudy = gpbo.Study(gpbo.SearchSpace(x=gpbo.Float(0, 1)))\nstudy.ask()",
    ),
    "three lines to a first result, after torch": (
        "import torch",
        "import gpbo\nstudy = gpbo.Study(gpbo.SearchSpace(x=gpbo.Float(0, 1)))\n"
        "study.optimize(lambda config: config['x'] ** 2, n_trials=1, progress=False)",
    ),
    "the same with 12 results, the last ones by the model": (
        "import torch",
        "import gpbo\nstudy = gpbo.Study(gpbo.SearchSpace(x=gpbo.Float(0, 1)))\n"
        "study.optimize(lambda config: config['x'] ** 2, n_trials=12, progress=False)",
    ),
    "three lines to a first result, nothing imported before": (
        "",
        "import gpbo\nstudy = gpbo.Study(gpbo.SearchSpace(x=gpbo.Float(0, 1)))\n"
        "study.optimize(lambda config: config['x'] ** 2, n_trials=1, progress=False)",
    ),
    "Optuna's three lines to a first result": (
        "",
        "import optuna\nstudy = optuna.create_study()\n"
        "study.optimize(lambda trial: trial.suggest_float('x', 0, 1) ** 2, n_trials=1)",
    ),
}


def _time(file: Path) -> None:
    have = read(file)
    done = {(r.get("statement"), r.get("repeat")) for r in have} | {(r.get("peer"), None) for r in have}
    about = {"revision": runs.revision(), "versions": records.versions()}
    for name in ("random", "sklearn-gpbo"):
        key = "sklearn-random" if name == "random" else name
        if (key, None) not in done:
            records.append(file, {**_searched(name), "peer": key, **about})
    for repeat in range(REPEATS):
        for text, (before, timed) in STATEMENTS.items():
            if (text, repeat) not in done:
                wall, cpu = _fresh(before, timed)
                record = {"statement": text, "repeat": repeat, "wall": wall, "cpu": cpu, **about}
                records.append(file, record)
    others = file.with_name("times-runs.jsonl")
    _runs(others, _TIMED, "synthetic/rastrigin-6", "0", MARKS[-1])
    for run in records.read([others]):
        if (run["peer"], None) not in done and not run["error"]:
            records.append(file, {**_reduced(run), **about})


def _searched(name: str) -> dict[str, Any]:
    """The gaps between the evaluations of a search with candidates that cost nothing."""
    Function.moments.clear()
    space = {name: stats.uniform(-5.12, 10.24) for name in "abcdef"}
    folds = [(np.arange(2), np.arange(2, 4))]
    made = entrant(name, Function(), space, 0, MARKS[-1], 4, cv=folds)
    began = (time.perf_counter(), time.process_time())
    made.fit(np.zeros((4, 1)), np.zeros(4))
    gaps = np.diff([began, *Function.moments], axis=0)
    return _at_marks(gaps[:, 0], gaps[:, 1])


def _reduced(run: records.Record) -> dict[str, Any]:
    wall, cpu = (np.add(run[f"ask_{unit}"], run[f"tell_{unit}"]) for unit in ("seconds", "cpu_seconds"))
    return {"peer": run["peer"], **_at_marks(wall, cpu)}


def _at_marks(wall: Any, cpu: Any) -> dict[str, Any]:
    return {
        unit: [round(float(np.median(seconds[mark - _WINDOW : mark])), 6) for mark in MARKS]
        for unit, seconds in (("wall", wall), ("cpu", cpu))
    }


def _fresh(before: str, timed: str) -> tuple[float, float]:
    """Seconds of wall clock and of CPU time that some statements take in a fresh process."""
    code = (
        f"import time\n{before}\nwall, cpu = time.perf_counter(), time.process_time()\n{timed}\n"
        "print(time.perf_counter() - wall, time.process_time() - cpu)"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=True)
    wall, cpu = done.stdout.split()[-2:]
    return round(float(wall), 4), round(float(cpu), 4)


# tables


def summary(table: Table, subject: str) -> str:
    """The subject beside the host's own, in markdown."""
    by_group = compare.groups(table)
    means = [compare.mean_regret(table, problems) for problems in by_group.values()]
    losses = compare.losses(table, subject, [peer for peer in table.peers if peer != subject])
    header = [
        "mean regret",
        *(f"{group} ({len(problems)})" for group, problems in by_group.items()),
        f"{subject}'s share of it, halfway",
        "at the end",
        f"problems: {subject} better / equal / worse",
        "of these significantly worse",
        "runs: better / equal / worse",
        "time",
    ]
    rows = []
    for peer in [subject, *(peer for peer in table.peers if peer != subject)]:
        cells = [f"{mean[-1, table.index(peer)]:.3f}" for mean in means]
        if peer != subject:
            shares = compare.ratios(table, subject, peer, by_group)
            cells += [f"{s.value:.2f} [{s.low:.2f}, {s.high:.2f}]" for s in shares[1:]]
            lost = [loss for loss in losses if loss.peer == peer]
            cells += [" / ".join(map(str, _problems(table, subject, peer, len(lost))))]
            cells += [str(sum(loss.p < 0.05 for loss in lost))]
            cells += [" / ".join(map(str, compare.pairs(table, subject, peer)))]
            cells += [f"{compare.time_ratio(table.cpu, table, subject, peer):.2g}x"]
        rows.append([peer, *cells, *[""] * (len(header) - 1 - len(cells))])
    n_seeds = [len(regret) for regret in table.regret.values()]
    worse = "; ".join(
        f"{loss.problem} {loss.peer} ({loss.peer_regret:.3f} against {loss.regret:.3f}, p = {loss.p:.2f})"
        for loss in losses
    )
    caption = (
        f"{len(n_seeds)} problems, {min(n_seeds)} to {max(n_seeds)} seeds, {sum(n_seeds)} blocks of both, "
        f"{table.about['evaluations'][0]} evaluations. Normalised regret, 0 the best known; shares with the "
        "95 % interval of a paired bootstrap over problems and seeds. Problems go by mean regret, and "
        "count as significant below p = 0.05 (paired Wilcoxon, one-sided, Holm over the peers). Time is a "
        f"multiple of {subject}'s, the median over runs: CPU time of all asks and tells, or in scikit-learn "
        f"the wall clock of whole searches. All losses: {worse or 'none'}. "
        f"{_made_by(table.about['revisions'], table.about['versions'])}"
    )
    return f"{_markdown(header, rows)}\n\n{fill(caption, _WIDTH)}"


def _problems(table: Table, subject: str, peer: str, n_lost: int) -> tuple[int, int, int]:
    """How many problems the subject has less mean regret on, the same, more."""
    s, o = table.index(subject), table.index(peer)
    gaps = [abs(regret[:, -1, s].mean() - regret[:, -1, o].mean()) for regret in table.regret.values()]
    n_equal = sum(gap < compare.SAME / 2 for gap in gaps)
    return len(gaps) - n_equal - n_lost, n_equal, n_lost


def times(measured: Sequence[Mapping[str, Any]]) -> str:
    """What a trial costs, in markdown."""
    rows = [
        [
            record["peer"],
            *(f"{1e3 * w:.3g} ({1e3 * c:.3g})" for w, c in zip(record["wall"], record["cpu"], strict=True)),
        ]
        for record in measured
        if "peer" in record
    ]
    caption = (
        "Milliseconds of wall clock, and of CPU time in brackets, that a trial takes beside its evaluation: "
        f"the median of the {_WINDOW} trials up to that number, in one run on six dimensions. `random` and "
        f"`gpbo` are without a host. {_made_by(*_about(measured))}"
    )
    return f"{_markdown(['ms a trial', *(f'at {mark}' for mark in MARKS)], rows)}\n\n{fill(caption, _WIDTH)}"


def imports(measured: Sequence[Mapping[str, Any]]) -> str:
    """What imports and first results take, in markdown."""
    rows = []
    for text in dict.fromkeys(r["statement"] for r in measured if "statement" in r):
        walls, cpus = ([r[unit] for r in measured if r.get("statement") == text] for unit in ("wall", "cpu"))
        rows.append([text, *(f"{x:.3f}" for x in (min(walls), median(walls), min(cpus), median(cpus)))])
    n = len({r["repeat"] for r in measured if "repeat" in r})
    header = ["seconds", "least", "median", "least CPU time", "median CPU time"]
    caption = f"In {n} fresh processes each. {_made_by(*_about(measured))}"
    return f"{_markdown(header, rows)}\n\n{fill(caption, _WIDTH)}"


def publish(part: str, file: Path) -> None:
    """Keep what the tables are made of."""
    to = _PUBLISHED / f"plugins-{part}.jsonl"
    if part == "times":
        to.write_bytes(file.read_bytes())
    else:
        published.write(to, compare.tabulate(records.read([file])))


def read(file: Path) -> list[dict[str, Any]]:
    """The records of a file, without a last line that was cut off."""
    lines = file.read_text().split("\n") if file.is_file() else []
    return [json.loads(line) for line in lines[:-1]]


def _about(measured: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    versions = {f"{name} {version}" for r in measured for name, version in r["versions"].items()}
    return sorted({r["revision"] for r in measured}), sorted(versions)


def _made_by(revisions: Sequence[str], versions: Sequence[str]) -> str:
    return f"Revision {', '.join(revisions)}; {', '.join(versions)}."


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.plugins", description="gpbo in Optuna, scikit-learn and Ray Tune."
    )
    parser.add_argument("--parts", default=",".join(PARTS), help="names, with commas")
    parser.add_argument("--seeds", default="0-9", help="such as 0-9 or 0,3,5-7; '' runs nothing")
    parser.add_argument("--out", type=Path, required=True, help="a folder")
    parser.add_argument("--publish", action="store_true", help="keep the results for `benchmarks.pages`")
    return parser


if __name__ == "__main__":
    sys.exit(main())
