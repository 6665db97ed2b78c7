"""A W&B sweep's YAML file as a gpbo study, so that nobody has to rewrite theirs.

What gpbo cannot express is refused with its line. What only concerns W&B's own service (``project``,
``entity``, ``description``) is noted and has no effect here.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from gpbo.errors import SpaceError, did_you_mean
from gpbo.objective import BUDGET, MACROS, placeholders
from gpbo.space import Categorical, Float, Int, Parameter
from gpbo.studyfile import (
    PositiveInt,
    PrunerSection,
    ResourcesSection,
    SamplerSection,
    Section,
    StudyFile,
    default_store,
    objective_of,
    space_of,
    validated,
)
from gpbo.yamlfile import Problem, YamlFile

_METHODS: Mapping[str, Literal["gp", "random", "grid"]] = {"bayes": "gp", "random": "random", "grid": "grid"}
_ENVIRONMENT = re.compile(r"\$\{envvar:(\w+)\}")
_BUDGET = f"{{{BUDGET}}}"
_OPTIONS = (
    "value",
    "values",
    "min",
    "max",
    "distribution",
    "q",
    "mu",
    "sigma",
    "probabilities",
    "parameters",
)
_UNBOUNDED = ("normal", "q_normal", "log_normal", "q_log_normal", "beta", "q_beta")


class MetricSection(Section):
    """What a sweep optimizes."""

    name: str
    goal: Literal["minimize", "maximize"] = "minimize"
    target: float | None = None


class StopSection(Section):
    """Which runs a sweep stops early."""

    type: Literal["hyperband"]
    min_iter: PositiveInt | None = None
    max_iter: PositiveInt | None = None
    s: PositiveInt | None = None
    eta: Annotated[float, Field(ge=2)] = 3.0
    strict: bool = False


class Sweep(Section):
    """A whole sweep file."""

    method: Literal["bayes", "random", "grid"]
    parameters: dict[str, Any]
    metric: MetricSection | None = None
    program: str | None = None
    command: list[str] | None = None
    early_terminate: StopSection | None = None
    run_cap: PositiveInt | None = None
    name: str | None = None
    description: str | None = None
    project: str | None = None
    entity: str | None = None


def is_sweep(plain: Mapping[str, Any]) -> bool:
    """Whether the file is a sweep's rather than gpbo's own form."""
    return "search_space" not in plain and ("parameters" in plain or "method" in plain)


def read_sweep(source: YamlFile, directory: str) -> StudyFile:
    """The study that a sweep file describes.

    Raises:
        StudyFileError: if it is no sweep, or gpbo cannot express it.
    """
    sweep = validated(Sweep, source.plain, source)
    parameters, problems = {}, []
    for name, plain in sweep.parameters.items():
        try:
            parameters[name] = _parameter(plain)
        except SpaceError as error:
            problems.append(Problem(("parameters", name), str(error)))
    if problems:
        raise source.error(problems)
    space = space_of(source, ("parameters",), parameters)
    metric = sweep.metric or MetricSection(name="")
    words = _command(sweep, source, directory)
    metrics = (metric.name,) if metric.name else ()
    path = ("command",) if sweep.command else ("program",)
    unused = [key for key in ("project", "entity", "description") if getattr(sweep, key)]
    notes = [f"`{key}` has no effect here: nothing is sent to W&B." for key in unused]
    if sweep.early_terminate and sweep.early_terminate.strict:
        notes.append("`strict` has no effect here: gpbo's hyperband always keeps to its reduction factor.")
    pruner = _pruner(sweep.early_terminate, source)
    has_budgets = any(BUDGET in placeholders(word) for word in words)
    objective = objective_of(source, path, words, space, directory, metrics, has_budgets=has_budgets)
    if pruner is not None and (pruner.max_resource is None or not has_budgets):
        lacking = "`max_iter`" if pruner.max_resource is None else "${budget} in its `command`"
        notes.append(
            f"`early_terminate` has no effect without {lacking}: gpbo says how far a run is to train, and "
            "begins it anew to train it further."
        )
        pruner = None
    if pruner is None and has_budgets:
        text = "${budget} needs `early_terminate` with `max_iter`."
        raise source.error([Problem(path, text)])
    sampler = _METHODS[sweep.method] if pruner is None or sweep.method != "bayes" else "multifidelity"
    return StudyFile(
        source=source,
        name=sweep.name or "default",
        directions=(metric.goal,),
        store=default_store(source),
        space=space,
        objective=objective,
        sampler=SamplerSection(type=sampler),
        sampler_path=("method",),
        pruner=pruner,
        resources=ResourcesSection(n_trials=sweep.run_cap),
        target=metric.target,
        notes=tuple(notes),
    )


def _parameter(plain: Any) -> Parameter:
    """The parameter that a sweep's entry describes.

    Raises:
        SpaceError: if it is none, or one that gpbo does not have.
    """
    if not isinstance(plain, Mapping):
        raise SpaceError(f"must be a mapping such as {{min: 0, max: 1}}, got {plain!r}.")
    for option in plain:
        if option not in _OPTIONS:
            raise SpaceError(
                f"{option!r} is not an option of a parameter.{did_you_mean(str(option), _OPTIONS)}"
            )
    if "parameters" in plain:
        raise SpaceError("nested parameters cannot be expressed; give each parameter a name at the top.")
    if plain.get("probabilities") and len(set(plain["probabilities"])) > 1:
        raise SpaceError("`probabilities` cannot be expressed: gpbo's choices are equally likely at first.")
    distribution = plain.get("distribution") or _implied(plain)
    if distribution == "constant":
        return Categorical([_need(plain, "value")])
    if distribution in ("categorical", "categorical_w_probabilities"):
        return Categorical(_need(plain, "values"))
    return _range(plain, str(distribution))


def _implied(plain: Mapping[str, Any]) -> str:
    if "values" in plain:
        return "categorical"
    if "value" in plain:
        return "constant"
    low, high = _need(plain, "min"), _need(plain, "max")
    return "int_uniform" if isinstance(low, int) and isinstance(high, int) else "uniform"


def _range(plain: Mapping[str, Any], distribution: str) -> Parameter:
    if distribution in _UNBOUNDED:
        raise SpaceError(
            f"distribution {distribution!r} cannot be expressed: gpbo needs bounds and no other weight; "
            "use 'uniform' or 'log_uniform_values' with `min` and `max`."
        )
    low, high = _need(plain, "min"), _need(plain, "max")
    whole = isinstance(low, int) and isinstance(high, int)
    match distribution:
        case "uniform":
            return Float(low, high)
        case "int_uniform":
            return Int(low, high)
        case "q_uniform":
            q = plain.get("q", 1)
            return Int(low, high, step=q) if whole and isinstance(q, int) else Float(low, high, step=q)
        case "log_uniform_values":
            return Float(low, high, log=True)
        case "log_uniform":
            return Float(_exp("min", low), _exp("max", high), log=True)
        case "q_log_uniform_values" if plain.get("q", 1) == 1 and whole:
            return Int(low, high, log=True)
    known = [
        "constant",
        "categorical",
        "uniform",
        "int_uniform",
        "q_uniform",
        "log_uniform_values",
        "log_uniform",
    ]
    hint = did_you_mean(distribution, known)
    raise SpaceError(f"distribution {distribution!r} cannot be expressed; there is {', '.join(known)}.{hint}")


def _need(plain: Mapping[str, Any], option: str) -> Any:
    if option not in plain:
        raise SpaceError(f"{option!r} is missing from {dict(plain)!r}.")
    return plain[option]


def _exp(name: str, exponent: Any) -> float:
    """W&B's log_uniform gives its bounds as natural exponents."""
    try:
        return math.exp(exponent)
    except (TypeError, OverflowError):
        raise SpaceError(
            f"`{name}` of distribution 'log_uniform' is an exponent of e, got {exponent!r}; "
            "use 'log_uniform_values' to give the bounds themselves."
        ) from None


def _pruner(stop: StopSection | None, source: YamlFile) -> PrunerSection | None:
    if stop is None:
        return None
    first: float | None = stop.min_iter
    if first is None:
        if stop.max_iter is None or stop.s is None:
            text = "hyperband needs `min_iter`, or `max_iter` and `s`."
            raise source.error([Problem(("early_terminate",), text)])
        first = max(1.0, stop.max_iter / stop.eta**stop.s)
    if stop.max_iter is not None and stop.max_iter <= first:
        text = f"`max_iter` must be above `min_iter`, got {stop.max_iter} and {first:g}."
        raise source.error([Problem(("early_terminate",), text)])
    return PrunerSection(
        type="hyperband",
        min_resource=float(first),
        max_resource=None if stop.max_iter is None else float(stop.max_iter),
        reduction_factor=stop.eta,
    )


def _command(sweep: Sweep, source: YamlFile, directory: str) -> list[str]:
    """The command's words; W&B's braces that are no macro are literal, so they are doubled for gpbo."""
    if sweep.program is None and sweep.command is None:
        raise source.error([Problem((), "a sweep needs `program` or `command`.")])
    words: list[str] = []
    for index, word in enumerate(sweep.command or ["${interpreter}", "${program}", "${args}"]):
        where = ("command", index) if sweep.command else ("program",)
        if word in MACROS:
            words.append(word)
        elif word == "${env}":
            words += ["/usr/bin/env"] if os.name == "posix" else []
        elif word == "${interpreter}":
            words.append(sys.executable)
        elif word == "${program}":
            words.append(_program(sweep, source, directory))
        else:
            words.append(_literal(word, where, source))
    return words


def _program(sweep: Sweep, source: YamlFile, directory: str) -> str:
    if sweep.program is None:
        raise source.error([Problem(("command",), "${program} needs the key `program`.")])
    if not Path(directory, sweep.program).is_file():
        beside = [path.name for path in Path(directory).glob("*.py")]
        text = f"there is no file {sweep.program!r} in {directory}.{did_you_mean(sweep.program, beside)}"
        raise source.error([Problem(("program",), text)])
    return sweep.program.replace("{", "{{").replace("}", "}}")


def _literal(word: str, where: tuple[str | int, ...], source: YamlFile) -> str:
    for name in _ENVIRONMENT.findall(word):
        if name not in os.environ:
            raise source.error([Problem(where, f"the environment variable {name!r} is not set.")])
    filled = _ENVIRONMENT.sub(lambda found: os.environ[found[1]], word)
    if filled.startswith("${") and not filled.startswith("${budget}"):
        known = [*MACROS, "${env}", "${interpreter}", "${program}", "${envvar:NAME}", "${budget}"]
        hint = did_you_mean(word, known)
        raise source.error(
            [Problem(where, f"{word!r} cannot be expressed; there is {', '.join(known)}.{hint}")]
        )
    return _BUDGET.join(part.replace("{", "{{").replace("}", "}}") for part in filled.split("${budget}"))
