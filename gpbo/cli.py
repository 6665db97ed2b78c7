"""The command line: `gpbo demo`, `run`, `status`, `best` and `export`.

Exit codes: 0 on success, 1 when something failed, 2 for a wrong command or study file, 130 after Ctrl-C.
Results go to standard output, everything else to standard error. Reading commands look at a copy of the
study in memory and change nothing.
"""

from __future__ import annotations

import functools
import json
import logging
import math
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, ParamSpec

import typer

from gpbo._version import __version__
from gpbo.errors import GpboError, ObjectiveError, SettingError, SignatureError, StudyFileError
from gpbo.executors.interrupts import Interrupts

if TYPE_CHECKING:
    from gpbo.study import Study
    from gpbo.studyfile import StudyFile

P = ParamSpec("P")
INTERRUPTED = 130  # what a shell gives a command that Ctrl-C ended
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_FORMATS: tuple[Literal["csv", "json", "yaml"], ...] = ("csv", "json", "yaml")
_DEFAULT_PLACES = ("study.yaml", "study.yml", "study.db")

app = typer.Typer(
    help="Bayesian optimization from the command line.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


Place = Annotated[
    str | None,
    typer.Argument(
        metavar="[STORE|STUDY_FILE]",
        help="A store or a study file; by default study.yaml or study.db of this directory.",
    ),
]
Name = Annotated[str | None, typer.Option("--name", help="The study, where a store holds several.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Workers = Annotated[int | None, typer.Option(min=1, help="How many trials run at the same time.")]


class _Stopped(KeyboardInterrupt):
    """Ctrl-C, with what to tell the user."""


def main() -> int:
    """The exit code of the command that the arguments name."""
    try:
        with Interrupts():  # from here on no Ctrl-C is lost, whoever swallows the exception it becomes
            app(prog_name="gpbo")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _command(function: Callable[P, None]) -> Callable[P, None]:
    """The function as a command: what it raises on purpose becomes a message and an exit code."""

    @functools.wraps(function)
    def command(*args: P.args, **kwargs: P.kwargs) -> None:
        with Interrupts() as interrupts:
            try:
                with interrupts.at_once():
                    function(*args, **kwargs)
            except (Exception, KeyboardInterrupt) as error:
                interrupts.hold()
                raise typer.Exit(_explained(error, interrupts)) from None

    app.command()(command)
    return command


def _explained(error: BaseException, interrupts: Interrupts) -> int:
    """The exit code for what a command raised, after telling the user; what is no user's matter is raised."""
    # What Ctrl-C cut in two, such as the import of a module, may also fail in its own way.
    if interrupts.noted or isinstance(error, KeyboardInterrupt):
        _complain(str(error) if isinstance(error, _Stopped) else "stopped.")
        return INTERRUPTED
    if not isinstance(error, GpboError):
        raise error
    _complain(f"error: {error}")
    return 2 if isinstance(error, StudyFileError | SettingError) else 1


@contextmanager
def _resumable(store: str) -> Iterator[None]:
    """A context in which Ctrl-C says that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        raise _Stopped(f"stopped; finished trials are kept in {store}. The same command goes on.") from None


def _load_torch() -> None:
    """Nothing; Ctrl-C waits for the end, for within torch it is sometimes swallowed."""
    with Interrupts():
        import_module("gpbo.data")


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(f"gpbo {__version__}")
        raise typer.Exit


@_command
def demo(
    trials: Annotated[int, typer.Option(min=1, help="Trials for each of the two searches.")] = 40,
    workers: Annotated[int, typer.Option(min=1, help="How many trainings at the same time.")] = 2,
    store: Annotated[str, typer.Option(help="Where the trials are kept.")] = "gpbo-demo.db",
    seed: Annotated[int, typer.Option(help="Decides all randomness.")] = 0,
    short: Annotated[
        bool, typer.Option("--short", help="A few short trainings, to see that it works.")
    ] = False,
    multifidelity: Annotated[
        bool, typer.Option("--multifidelity", help="Train most configs for a few epochs only.")
    ] = False,
) -> None:
    """Tune a network on handwritten digits, against random search."""
    with _resumable(store):
        _load_torch()
        from gpbo.demo import run_demo, run_multifidelity

        tell = run_multifidelity if multifidelity else run_demo
        tell(trials=trials, workers=workers, store=store, seed=seed, short=short, say=typer.echo)


@_command
def run(
    study_file: Annotated[Path, typer.Argument(help="The study file.")] = Path("study.yaml"),
    workers: Workers = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Stop when the study holds so many.")] = None,
    timeout: Annotated[
        str | None, typer.Option(help="Start nothing more after this time: 90s, 30m, 2h.")
    ] = None,
) -> None:
    """Run a study file's study, or go on with it."""
    from gpbo.study import Study
    from gpbo.studyfile import load_study_file

    file = load_study_file(study_file)
    seconds = _seconds(timeout) if timeout else (file.resources.timeout_hours or 0) * 3600 or None
    n_trials = trials or file.resources.n_trials
    _check_stop_rule(file, n_trials, seconds)
    with _resumable(file.store):
        _load_torch()
        suggester = file.suggester()
        _check_objective(file)
        study = Study(
            file.space,
            suggester=suggester,
            scheduler=file.scheduler(),
            store=file.store,
            direction=file.directions,
            outcome_constraints=file.outcome_constraints,
            seed=file.sampler.seed,
            name=file.name,
        )
        _announce(file, study, n_trials)
        with _logged():
            study.optimize(
                file.objective,
                n_trials,
                workers=workers or file.resources.max_parallel_trials,
                timeout=seconds,
                target=file.target,
                trial_timeout=file.trial_timeout,
                gpus_per_trial=file.resources.gpus_per_trial,
            )
    snapshot = _snapshot(file.store, file.name)
    typer.echo(_text(_summary(snapshot)))
    typer.echo(f"next: gpbo status {study_file} | gpbo best {study_file} | gpbo export {study_file}")
    finished = [trial for trial in snapshot.trials if trial.state.is_final]
    if finished and all(trial.state == "failed" for trial in finished):
        _complain("error: every trial failed; the last failure is shown above.")
        raise typer.Exit(1)


@_command
def status(place: Place = None, name: Name = None, as_json: Json = False) -> None:
    """How far a store's studies are."""
    store, only = _where(place, name)
    summaries = [_summary(_snapshot(store, one)) for one in _names(store, only)]
    if as_json:
        _print_json({"store": store, "studies": summaries})
    else:
        typer.echo("\n\n".join(_text(summary) for summary in summaries))


@_command
def best(place: Place = None, name: Name = None, as_json: Json = False) -> None:
    """The best config of a study; of several objectives, the Pareto front."""
    from gpbo.errors import NoResultError
    from gpbo.standing import why_none_is_best

    store, only = _where(place, name)
    study = _snapshot(store, _only(store, _names(store, only)))
    found = _best(study)
    if not found:
        raise NoResultError(why_none_is_best(study.name, study.trials, study.outcome_constraints))
    if as_json:
        _print_json(found[0] if len(study.directions) == 1 else found)
    else:
        typer.echo("\n".join(line for one in found for line in _trial_lines(one)))


@_command
def export(
    place: Place = None,
    name: Name = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format", metavar=f"[{'|'.join(_FORMATS)}]", help="By default from FILE's name, or csv."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="By default, standard output.")
    ] = None,
) -> None:
    """All trials of a study as CSV, JSON or YAML."""
    from gpbo.export import as_text

    store, only = _where(place, name)
    study = _snapshot(store, _only(store, _names(store, only)))
    if output and output.exists() and Path(store).exists() and output.samefile(store):
        raise SettingError(f"`--output` must not be the store itself, got {output}.")
    text = as_text(study, _format(form, output))
    if output is None:
        sys.stdout.write(text)
        return
    try:
        with output.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
    except OSError as error:
        raise SettingError(f"`--output` {output} cannot be written: {error.strerror}.") from None
    _complain(f"{len(study.trials)} trials written to {output}.")


def _format(form: str | None, output: Path | None) -> Literal["csv", "json", "yaml"]:
    """The format that is asked for, or that the file's name says."""
    suffix = output.suffix.lower().removeprefix(".") if output else ""
    chosen = form or {"yml": "yaml", "": "csv"}.get(suffix, suffix)
    for known in _FORMATS:
        if chosen == known:
            return known
    if form is not None:
        raise SettingError(f"`--format` must be one of {', '.join(_FORMATS)}, got {form!r}.")
    raise SettingError(
        f"`--output` must end in .csv, .json or .yaml, or `--format` say what to write; got {str(output)!r}."
    )


def _check_stop_rule(file: StudyFile, n_trials: int | None, seconds: float | None) -> None:
    """Refuse what would never end before anything is stored or started."""
    from gpbo.sweepfile import is_sweep

    is_finite = all(parameter.n_levels for parameter in file.space.parameters.values())
    if n_trials is seconds is file.target is None and not is_finite:
        known = (
            "the sweep needs run_cap"
            if is_sweep(file.source.plain)
            else "resources needs n_trials or timeout_hours"
        )
        raise StudyFileError(
            f"{file.source.name}: {known} (or --trials, --timeout), "
            "because its space never runs out of configs."
        )


def _check_objective(file: StudyFile) -> None:
    """Find the function before anything is stored or started."""
    from gpbo.job import check_signature
    from gpbo.objective import FunctionObjective

    if isinstance(file.objective, FunctionObjective):
        scheduler = file.scheduler()
        try:
            check_signature(file.objective.resolve(), has_budgets=bool(scheduler and scheduler.rungs))
        except (ObjectiveError, SignatureError) as error:
            line = file.source.line(("objective",))
            raise type(error)(f"{file.source.name}:{line}: {error}") from error


def _announce(file: StudyFile, study: Study, n_trials: int | None) -> None:
    count = len(study.trials)
    begun = f"{_many(count, 'trial')} so far" if count else "new"
    goal = f", to {n_trials}" if n_trials else ""
    _complain(f"study {file.name!r} in {file.store}: {begun}{goal}.")
    if count and n_trials and count >= n_trials:
        _complain(f"to run more trials: gpbo run {file.source.name} --trials {n_trials + 10}")
    for note in file.notes:
        _complain(f"note: {note}")


def _where(place: str | None, name: str | None) -> tuple[str, str | None]:
    """The store, and the name of the study if it is known."""
    if place is None:
        place = next((known for known in _DEFAULT_PLACES if Path(known).exists()), None)
    if place is None:
        raise SettingError("there is neither study.yaml nor study.db here; name a store or a study file.")
    if Path(place).suffix not in (".yaml", ".yml"):
        return place, name
    from gpbo.studyfile import load_study_file

    file = load_study_file(place)
    return file.store, name or file.name


def _names(store: str, name: str | None) -> list[str]:
    if name is not None:
        return [name]
    from gpbo.stores.sql import study_names

    return study_names(store)


def _only(store: str, names: list[str]) -> str:
    if len(names) > 1:
        raise SettingError(f"{store} holds several studies; choose with --name one of {', '.join(names)}.")
    return names[0]


def _snapshot(store: str, name: str) -> Study:
    """A copy of a stored study in memory."""
    from gpbo.errors import StoreError
    from gpbo.space import SearchSpace
    from gpbo.stores.memory import MemoryStore
    from gpbo.stores.open import open_store
    from gpbo.study import Study

    stored = open_store(store, name, create=False)
    try:
        plain, trials = stored.meta.get("study"), stored.trials()
    finally:
        stored.close()
    if plain is None:
        raise StoreError(f"study {name!r} in {store} was begun but never defined; it has no trials.")
    rules = [rule for rule in plain["space"].get("constraints", ()) if isinstance(rule, str)]
    space = SearchSpace.from_dict({"parameters": plain["space"]["parameters"], "constraints": rules})
    memory = MemoryStore()
    memory.add(trials)
    return Study(
        space,
        store=memory,
        name=name,
        direction=plain["directions"],
        outcome_constraints=plain.get("outcome_constraints", ()),
        seed=plain["seed"],
    )


def _summary(study: Study) -> dict[str, Any]:
    """What `status` tells about a study, as JSON values."""
    from gpbo.standing import how_often_met
    from gpbo.trial import State

    trials = study.trials
    failed = [trial for trial in trials if trial.state is State.FAILED]
    last = max(failed, key=lambda trial: (trial.finished or 0.0, trial.number)) if failed else None
    return {
        "name": study.name,
        "directions": list(study.directions),
        "n_trials": len(trials),
        "states": {str(state): sum(trial.state is state for trial in trials) for state in State},
        "outcome_constraints": how_often_met(trials, study.outcome_constraints),
        "best": _best(study),
        "pending": [
            {"number": trial.number, "config": dict(trial.config)}
            for trial in trials
            if trial.state is State.RUNNING
        ],
        "last_error": {"number": last.number, "error": last.error or ""} if last else None,
    }


def _best(study: Study) -> list[dict[str, Any]]:
    """The best trial, or the Pareto front, as JSON values; empty before the first result."""
    from gpbo.errors import NoResultError

    try:
        found = study.pareto_front if len(study.directions) > 1 else [study.best]
    except NoResultError:
        return []
    key = "value" if len(study.directions) == 1 else "values"
    return [
        {
            "number": t.number,
            key: getattr(t, key),
            **({} if t.observations[-1].budget is None else {"budget": t.observations[-1].budget}),
            "outcomes": dict(t.outcomes),
            "config": dict(t.config),
        }
        for t in found
    ]


def _text(summary: dict[str, Any]) -> str:
    """A summary for people."""
    states = ", ".join(f"{n} {state}" for state, n in summary["states"].items() if n)
    counted = f"{_many(summary['n_trials'], 'trial')}{': ' if states else ''}{states}"
    lines = [f"study {summary['name']!r} ({', '.join(summary['directions'])}), {counted}"]
    lines += [
        f"outcome constraint {constraint}: met by {_many(n, 'complete trial')}"
        for constraint, n in summary["outcome_constraints"].items()
    ]
    for one in summary["best"]:
        first, *config = _trial_lines(one)
        lines += [f"best: {first}", *config]
    lines += [f"pending: trial {one['number']} {one['config']}" for one in summary["pending"]]
    if summary["last_error"]:
        error = summary["last_error"]
        reason = next(
            (line for line in reversed(error["error"].splitlines()) if line.strip()), "no reason given"
        )
        lines.append(f"last failure: trial {error['number']}, {reason.strip()}")
    return "\n".join(lines)


def _trial_lines(trial: dict[str, Any]) -> list[str]:
    result = f"value {trial['value']:.6g}" if "value" in trial else f"values {list(trial['values'])}"
    result += f" at budget {trial['budget']:g}" if "budget" in trial else ""
    measured = "".join(f", {name} {value:.6g}" for name, value in trial["outcomes"].items())
    return [
        f"trial {trial['number']}, {result}{measured}",
        *(f"  {name}: {json.dumps(value)}" for name, value in trial["config"].items()),
    ]


def _print_json(plain: Any) -> None:
    typer.echo(json.dumps(plain, indent=2))


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count or 'no'} {what}s"


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not found or not math.isfinite(float(found[1])) or float(found[1]) == 0:
        raise SettingError(f"`--timeout` must be a time such as 90s, 30m or 2h, got {text!r}.")
    return float(found[1]) * _UNITS[found[2]]


def _complain(message: str) -> None:
    typer.echo(message, err=True)


@contextmanager
def _logged() -> Iterator[None]:
    """A context in which gpbo's log goes to standard error."""
    logger = logging.getLogger("gpbo")
    handler, level = logging.StreamHandler(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


if __name__ == "__main__":
    sys.exit(main())
