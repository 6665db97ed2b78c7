"""The study file: everything `gpbo run` needs to know, in one YAML file.

`load_study_file` reads gpbo's own form, described in docs/study-file.md, and the form of a W&B sweep
(gpbo/sweepfile.py). Whatever is wrong with a file is reported with its line and the nearest known name.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

import gpbo
from gpbo.errors import ObjectiveError, SettingError, SpaceError, did_you_mean
from gpbo.objective import BUDGET, CommandObjective, FunctionObjective, find_objective, placeholders
from gpbo.outcomes import parse_outcome_constraints
from gpbo.space import Categorical, Float, Int, Parameter, SearchSpace, parameter_from_dict
from gpbo.yamlfile import KeyPath, Problem, YamlFile, read_yaml

if TYPE_CHECKING:
    from gpbo.schedulers.base import Scheduler
    from gpbo.suggesters.base import Suggester

Direction = Literal["minimize", "maximize"]
SectionT = TypeVar("SectionT", bound="Section")
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]

SAMPLERS: Mapping[str, str] = {
    "gp": "GPSuggester",
    "random": "RandomSuggester",
    "sobol": "SobolSuggester",
    "grid": "GridSuggester",
    "bohb": "BOHBSuggester",
    "multifidelity": "MultiFidelitySuggester",
}
"""The names of gpbo's suggesters in a study file."""


class Section(BaseModel):
    """A part of a study file: no unknown keys, no guessing of types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class StudySection(Section):
    """What the study is called, what it optimizes and where it is kept."""

    name: Annotated[str, Field(min_length=1)] = "default"
    direction: Direction | Annotated[list[Direction], Field(min_length=1)] = "minimize"
    metric: str | Annotated[list[str], Field(min_length=1)] | None = None
    store: Annotated[str, Field(min_length=1)] | None = None


class ObjectiveSection(Section):
    """What is evaluated: a function or a command."""

    function: Annotated[str, Field(pattern=r"^[\w.]+:[\w.]+$")] | None = None
    command: str | list[str] | None = None
    timeout_minutes: PositiveFloat | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.function is None) == (self.command is None):
            raise ValueError("give either `function` or `command`")
        return self


class SamplerSection(Section):
    """How configs are chosen; further keys are options of the suggester."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    type: Literal["gp", "random", "sobol", "grid", "bohb", "multifidelity"] = "gp"
    seed: int = 0
    n_startup_trials: PositiveInt | None = None


class PrunerSection(Section):
    """Which trials are stopped early."""

    type: Literal["hyperband", "asha", "median", "none"]
    min_resource: PositiveFloat = 1.0
    max_resource: PositiveFloat | None = None
    reduction_factor: Annotated[float, Field(ge=2, allow_inf_nan=False)] = 3.0
    rounds: PositiveInt | None = 1

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_resource is not None and self.max_resource <= self.min_resource:
            raise ValueError("`max_resource` must be above `min_resource`")
        if "rounds" in self.model_fields_set and self.type != "hyperband":
            raise ValueError(f"`rounds` is an option of type 'hyperband', not of {self.type!r}")
        return self

    def scheduler(self) -> Scheduler | None:
        """What it asks for; None without a largest resource."""
        if self.type == "none" or self.max_resource is None:
            return None
        low, high = _plain(self.min_resource), _plain(self.max_resource)
        if self.type == "median":
            return gpbo.MedianStopping(high, low)
        if self.type == "asha":
            return gpbo.ASHA(low, high, self.reduction_factor)
        return gpbo.Hyperband(low, high, self.reduction_factor, rounds=self.rounds)


class ResourcesSection(Section):
    """How much may be spent, and on what."""

    n_trials: PositiveInt | None = None
    timeout_hours: PositiveFloat | None = None
    gpus_per_trial: Annotated[int, Field(ge=0)] = 1
    max_parallel_trials: PositiveInt = 1


class Document(Section):
    """A whole study file in gpbo's own form."""

    study: StudySection = StudySection()
    objective: ObjectiveSection
    search_space: dict[str, Any]
    constraints: list[str] = []
    outcome_constraints: list[str] = []
    sampler: SamplerSection = SamplerSection()
    pruner: PrunerSection | None = None
    resources: ResourcesSection = ResourcesSection()


@dataclass(frozen=True)
class StudyFile:
    """A study file that was understood.

    Attributes:
        source: The file, for messages.
        name: The study's name.
        directions: One for each objective.
        store: The path or URL of its store.
        space: What is tuned.
        objective: What is evaluated.
        sampler: How configs are chosen.
        sampler_path: Where the file says so.
        pruner: Which trials are stopped early.
        resources: How much may be spent.
        outcome_constraints: Bounds on what else the objective measures.
        trial_timeout: Stop and fail a trial after so many seconds.
        target: Stop when a value as good as this was observed.
        notes: What the file says that has no effect here, one sentence each.
    """

    source: YamlFile
    name: str
    directions: tuple[Direction, ...]
    store: str
    space: SearchSpace
    objective: FunctionObjective | CommandObjective
    sampler: SamplerSection
    sampler_path: KeyPath = ("sampler",)
    pruner: PrunerSection | None = None
    resources: ResourcesSection = field(default_factory=ResourcesSection)
    outcome_constraints: tuple[str, ...] = ()
    trial_timeout: float | None = None
    target: float | None = None
    notes: tuple[str, ...] = ()

    def scheduler(self) -> Scheduler | None:
        """The scheduler that the pruner section describes; None where every trial runs in full."""
        return None if self.pruner is None else self.pruner.scheduler()

    def suggester(self) -> Suggester:
        """The suggester that the sampler section describes.

        Raises:
            StudyFileError: if an option is unknown or breaks its rule.
        """
        name = self.sampler.type
        if self.scheduler() is not None and "type" not in self.sampler.model_fields_set:
            name = "multifidelity"
        kind: Any = getattr(gpbo, SAMPLERS[name])
        if kind is gpbo.GPSuggester and (len(self.directions) > 1 or self.outcome_constraints):
            kind = gpbo.MultiObjectiveSuggester
        known = [f.name for f in fields(kind) if f.init] if is_dataclass(kind) else []
        options = dict(self.sampler.model_extra or {})
        problems = [
            Problem(
                self.sampler_path,
                f"{option!r} is not an option of sampler {name!r}."
                f"{did_you_mean(option, [*known, *SamplerSection.model_fields])}",
                option,
            )
            for option in options
            if option not in known
        ]
        if self.sampler.n_startup_trials is not None:  # the field's name; ours is n_initial
            options["n_initial"] = self.sampler.n_startup_trials
            if "n_initial" not in known:
                text = f"sampler {name!r} has no startup trials."
                problems.append(Problem(self.sampler_path, text, "n_startup_trials"))
        if problems:
            raise self.source.error(problems)
        try:
            suggester: Suggester = kind(**options)
        except (SettingError, TypeError) as error:
            raise self.source.error([_about(self.sampler_path, str(error), options)]) from None
        return suggester


def load_study_file(path: str | Path, directory: str | Path | None = None) -> StudyFile:
    """The study that the file describes.

    Args:
        path: The file.
        directory: Where the objective is found and run; by default the working directory.

    Raises:
        StudyFileError: if the file breaks its schema; the message has a line for each problem.
    """
    from gpbo.sweepfile import is_sweep, read_sweep

    source = read_yaml(Path(path))
    here = str(Path(directory or ".").resolve())
    return read_sweep(source, here) if is_sweep(source.plain) else _read(source, here)


def validated(model: type[SectionT], plain: Mapping[str, Any], source: YamlFile) -> SectionT:
    """The model made of `plain`, with pydantic's complaints turned into ours.

    Raises:
        StudyFileError: if `plain` does not fit the model.
    """
    try:
        return model.model_validate(plain)
    except ValidationError as error:
        problems: dict[KeyPath, Problem] = {}
        for detail in error.errors(include_url=False):
            problem = _problem(model, detail, source)
            problems.setdefault((*problem.path, problem.key), problem)  # of a union's complaints, the first
        raise source.error(problems.values()) from None


def space_of(
    source: YamlFile, path: KeyPath, parameters: Mapping[str, Any], constraints: Sequence[str] = ()
) -> SearchSpace:
    """The space with these parameters, each a `Parameter` or what `parameter_from_dict` reads.

    Raises:
        StudyFileError: if there can be no such space.
    """
    known = Float | Int | Categorical
    found: dict[str, Parameter] = {}
    problems = []
    for name, plain in parameters.items():
        try:
            found[name] = plain if isinstance(plain, known) else parameter_from_dict(name, plain)
        except SpaceError as error:
            text = str(error).removeprefix(f"`{name}`: ")
            problems.append(_about((*path, name), text, plain if isinstance(plain, Mapping) else {}))
    if problems:
        raise source.error(problems)
    try:
        SearchSpace(found)
    except SpaceError as error:
        text = str(error)
        at = next((name for name in found if text.startswith(f"`{name}`")), None)
        if at is None:
            raise source.error([Problem(path, text)]) from None
        raise source.error([_about((*path, at), text.removeprefix(f"`{at}`: "), parameters[at])]) from None
    for index, constraint in enumerate(constraints):
        try:
            SearchSpace(found, constraints=[constraint])
        except SpaceError as error:
            problems.append(Problem(("constraints", index), str(error)))
    if problems:
        raise source.error(problems)
    return SearchSpace(found, constraints=constraints)


def objective_of(
    source: YamlFile,
    path: KeyPath,
    text: str | Sequence[str],
    space: SearchSpace,
    directory: str,
    metrics: Sequence[str],
    outcomes: Sequence[str] = (),
    *,
    has_budgets: bool = False,
) -> FunctionObjective | CommandObjective:
    """The objective that `text` names; with budgets a command may have the placeholder ``{budget}``.

    Raises:
        StudyFileError: if there can be no such objective.
    """
    names = [*space.parameters, *([BUDGET] if has_budgets else [])]
    if has_budgets and BUDGET in space.parameters:
        text = f"with a pruner, {BUDGET!r} is how far to train; give the parameter another name."
        raise source.error([Problem(("search_space", BUDGET), text)])
    try:
        return find_objective(text, names, directory=directory, metrics=metrics, outcomes=outcomes)
    except ObjectiveError as error:
        raise source.error([Problem(path, str(error))]) from None


def takes_budget(objective: FunctionObjective | CommandObjective) -> bool:
    """Whether an objective can be told how far to train; of a function that shows when it is called."""
    if isinstance(objective, FunctionObjective):
        return True
    return any(BUDGET in placeholders(word) for word in objective.words)


def default_store(source: YamlFile) -> str:
    """The SQLite file, in the working directory, that a study file's trials are kept in by default."""
    return f"{Path(source.name).stem}.db"


def _read(source: YamlFile, directory: str) -> StudyFile:
    plain = dict(source.plain)
    if isinstance(plain.get("objective"), str):
        plain["objective"] = {"command": plain["objective"]}
    document = validated(Document, plain, source)
    study, objective = document.study, document.objective
    metrics, directions = _listed(study.metric), _listed(study.direction)
    if metrics and len(directions) != len(metrics):
        text = f"`metric` and `direction` go in pairs, got {len(metrics)} and {len(directions)} of them."
        raise source.error([Problem(("study",), text, "metric")])
    pruner = document.pruner
    if pruner and pruner.type != "none" and pruner.max_resource is None:
        text = f"type {pruner.type!r} needs `max_resource`, the budget of a full trial."
        raise source.error([Problem(("pruner",), text)])
    space = space_of(source, ("search_space",), document.search_space, document.constraints)
    timeout = objective.timeout_minutes and objective.timeout_minutes * 60
    text_or_words = objective.function or objective.command or ""
    outcomes = _outcomes(document.outcome_constraints, source)
    has_budgets = pruner is not None and pruner.scheduler() is not None
    if has_budgets and (len(directions) > 1 or document.outcome_constraints):
        text = "compares trials by one objective's values; leave it, or other objectives and outcomes, out."
        raise source.error([Problem(("pruner",), text)])
    found = objective_of(
        source, ("objective",), text_or_words, space, directory, metrics, outcomes, has_budgets=has_budgets
    )
    if has_budgets and not takes_budget(found):
        text = (
            f"with a pruner, the command needs {{{BUDGET}}} where it is told how far to train: it is run "
            "anew for every budget that its trial reaches."
        )
        raise source.error([Problem(("objective",), text)])
    return StudyFile(
        source=source,
        name=study.name,
        directions=typing.cast(tuple[Direction, ...], directions),
        store=study.store or default_store(source),
        space=space,
        objective=found,
        sampler=document.sampler,
        pruner=pruner,
        resources=document.resources,
        outcome_constraints=tuple(document.outcome_constraints),
        trial_timeout=timeout,
    )


def _outcomes(constraints: Sequence[str], source: YamlFile) -> list[str]:
    """The names that the outcome constraints speak of."""
    try:
        return list(dict.fromkeys(found.name for found in parse_outcome_constraints(list(constraints))))
    except SettingError as error:
        raise source.error([Problem(("outcome_constraints",), str(error))]) from None


def _plain(number: float) -> float:
    """A whole number as one, so that a command is told 3 rather than 3.0."""
    return int(number) if number == int(number) else number


def _listed(one_or_more: str | Sequence[str] | None) -> tuple[str, ...]:
    if one_or_more is None:
        return ()
    return (one_or_more,) if isinstance(one_or_more, str) else tuple(one_or_more)


def _about(path: KeyPath, text: str, options: Mapping[str, Any]) -> Problem:
    """The problem at the option that the text speaks of, where it is one of these."""
    quoted = re.findall(r"[`'](\w+)[`']", text)
    return Problem(path, text, next((name for name in quoted if name in options), None))


def _problem(model: type[BaseModel], detail: Any, source: YamlFile) -> Problem:
    path: KeyPath = detail["loc"]
    kind, given, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        hint = did_you_mean(str(path[-1]), _keys_at(model, path[:-1]))
        return Problem(path[:-1], f"{path[-1]!r} is not a known key.{hint}", path[-1])
    if kind == "missing":
        return Problem(path[:-1], f"the key {path[-1]!r} is missing.")
    while path not in source.lines:  # pydantic also names members of a union
        path = path[:-1]
    if kind == "value_error":
        return Problem(path, f"{context['error']}.")
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", context["expected"])
        hint = did_you_mean(given, known) if isinstance(given, str) else ""
        return Problem(path, f"must be one of {known}, got {given!r}.{hint}")
    if kind == "model_type":
        return Problem(path, f"must be a mapping of names to values, got {given!r}.")
    if kind == "string_pattern_mismatch":
        return Problem(path, f"must be 'module:function', got {given!r}.")
    rule = detail["msg"].replace("Input should", "must").replace("Keys should be", "keys must be")
    return Problem(path, f"{rule}, got {given!r}.")


def _keys_at(model: type[BaseModel], path: KeyPath) -> list[str]:
    for name in path:
        annotation = model.model_fields[str(name)].annotation
        choices = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
        model = next(c for c in choices if isinstance(c, type) and issubclass(c, BaseModel))
    return [field.alias or name for name, field in model.model_fields.items()]
