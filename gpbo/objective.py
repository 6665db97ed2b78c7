"""A study file's objective: a Python function by name, or a command line with placeholders.

Both are small values that can be sent to a worker process. They find the function, or start the command,
in the directory that the study was started in.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from gpbo.errors import ObjectiveError, did_you_mean
from gpbo.executors.interrupts import signal_name

_NAME = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_FUNCTION = re.compile(rf"^{_NAME}:{_NAME}$")
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")
BUDGET = "budget"  # what stands for how far to train in a command's words
_READ = 2**20  # bytes: the result is looked for in this much of the end of stdout
_SHOWN = 1500  # characters of output that an error message shows


@dataclass(frozen=True, slots=True)
class FunctionObjective:
    """A function of a config, found by its name when it is called.

    Args:
        target: ``"module:function"``.
        directory: Where modules are looked for first.
        metrics: The keys to pick when the function returns a dictionary.
        outcomes: The keys of outcomes, to be picked as well.
    """

    target: str
    directory: str
    metrics: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()

    def __call__(self, config: Mapping[str, Any]) -> Any:
        """The function's value for `config`."""
        return pick(self.resolve()(config), self.metrics, self.outcomes)

    def with_budgets(self) -> Callable[..., Any]:
        """The function for a scheduler with budgets: of a job, or of a config and a budget."""
        from gpbo.job import is_plain

        function: Callable[..., Any] = self.resolve()
        if is_plain(function):
            return lambda config, budget: pick(function(config, budget), self.metrics)
        return lambda job: pick(function(job), self.metrics)

    def resolve(self) -> Callable[[Mapping[str, Any]], Any]:
        """The function itself.

        Raises:
            ObjectiveError: if the module cannot be imported, or holds no such function.
        """
        module_name, _, path = self.target.partition(":")
        if self.directory not in sys.path:
            sys.path.insert(0, self.directory)
        found: Any = self._module(module_name)
        for name in path.split("."):
            if not hasattr(found, name):
                public = [known for known in vars(found) if not known.startswith("_")]
                hint = did_you_mean(name, public)
                raise ObjectiveError(f"objective {self.target!r}: {module_name!r} has no {name!r}.{hint}")
            found = getattr(found, name)
        if not callable(found):
            raise ObjectiveError(
                f"objective {self.target!r} must be a function of a config, got {found!r:.80}."
            )
        function: Callable[[Mapping[str, Any]], Any] = found
        return function

    def _module(self, name: str) -> Any:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise ObjectiveError(
                    f"objective {self.target!r}: importing {name!r} failed: {error}."
                ) from error
            beside = [path.stem for path in Path(self.directory).glob("*.py")]
            hint = did_you_mean(name.removesuffix(".py"), beside)
            raise ObjectiveError(
                f"objective {self.target!r}: there is no module {name!r}, "
                f"neither in {self.directory} nor installed.{hint}"
            ) from None
        # What a user's module raises while it is imported can be anything.
        except Exception as error:
            raise ObjectiveError(
                f"objective {self.target!r}: importing {name!r} raised {type(error).__name__}: {error}."
            ) from error


@dataclass(frozen=True, slots=True)
class CommandObjective:
    """A command that is run once for each config, without a shell.

    Args:
        words: The program and its arguments. In an argument ``{name}`` stands for that parameter's value
            and ``{{``, ``}}`` for braces; a word that is one of `MACROS` stands for all parameters, and
            ``{budget}`` for how far to train, where a scheduler says so.
        directory: Where it is run.
        metrics: The keys to pick when the result is an object.
        outcomes: The keys of outcomes, to be picked as well.
    """

    words: tuple[str, ...]
    directory: str
    metrics: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()

    def __call__(self, config: Mapping[str, Any]) -> Any:
        """The result that the command printed for `config`.

        Raises:
            ObjectiveError: if it cannot be started, fails or prints no result.
        """
        return self._evaluate(self.command(config))

    def with_budgets(self) -> Callable[[Mapping[str, Any], float], Any]:
        """The objective for a scheduler with budgets."""
        return lambda config, budget: self._evaluate(self.command(config, budget))

    def _evaluate(self, command: list[str]) -> Any:
        # Files rather than pipes: no amount of output blocks, nor does a child that outlives the command.
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            code = self._run(command, stdout, stderr)
            printed, complaints = _end_of(stdout), _end_of(stderr)
        if code:
            how = f"exited with code {code}" if code > 0 else f"was killed by {signal_name(-code)}"
            shown = _shown("stderr", complaints) if complaints.strip() else _shown("stdout", printed)
            raise ObjectiveError(f"{shown}\nthe command {shlex.join(command)} {how}.")
        return pick(self._result(command, printed), self.metrics, self.outcomes)

    def command(self, config: Mapping[str, Any], budget: float | None = None) -> list[str]:
        """The program and its arguments for `config` and a budget; values are never split or interpreted.

        An argument with the placeholder of an inactive parameter is left out, and with it the option
        before it when the argument is nothing but the placeholder.
        """
        filled: list[str] = []
        named = config if budget is None else {**config, BUDGET: budget}
        for word in self.words:
            if word in MACROS:
                filled += MACROS[word](config)
            elif all(name in named for name in placeholders(word)):
                filled.append(_PLACEHOLDER.sub(lambda found: _fill(found, named), word))
            elif _PLACEHOLDER.fullmatch(word) and len(filled) > 1 and filled[-1].startswith("-"):
                filled.pop()
        return filled

    def _run(self, command: list[str], stdout: IO[bytes], stderr: IO[bytes]) -> int:
        # A worker of gpbo leads a session, and is stopped together with all that is in it. Elsewhere the
        # command gets a group of its own, so that its children can be stopped with it.
        grouped = hasattr(os, "killpg") and os.getsid(0) != os.getpid()
        try:
            process = subprocess.Popen(
                command,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=grouped,
            )
        except (OSError, ValueError) as error:
            raise ObjectiveError(
                f"the command {shlex.join(command)} could not be started: {error}."
            ) from None
        try:
            return process.wait()
        finally:
            if process.returncode is None:  # interrupted
                _kill(process, grouped)

    def _result(self, command: list[str], printed: str) -> Any:
        for line in reversed(printed.splitlines()):
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(value, int | float | list | dict) and not isinstance(value, bool):
                return value
        wanted = [*self.metrics, *self.outcomes]
        keys = f" with {' and '.join(map(repr, wanted))}" if wanted else ""
        raise ObjectiveError(
            f"{_shown('stdout', printed)}\nthe command {shlex.join(command)} printed no result; the last "
            f"JSON line of its stdout must be a number, a list or an object{keys}."
        )


def find_objective(
    text: str | Sequence[str],
    names: Iterable[str],
    *,
    directory: str,
    metrics: Sequence[str] = (),
    outcomes: Sequence[str] = (),
) -> FunctionObjective | CommandObjective:
    """The objective that a study file names; a function is not imported yet.

    Args:
        text: ``"module:function"``, a command line, or a command's words.
        names: The parameters of the space, which placeholders may name.
        directory: Where it is found and run.
        metrics: What to pick from a result that is an object.
        outcomes: The outcomes to pick from it as well.

    Raises:
        ObjectiveError: if it is neither a function's name nor a command whose program exists, or a
            placeholder names no parameter.
    """
    if isinstance(text, str) and _FUNCTION.match(text.strip()):
        target = text.strip()
        if target.partition(":")[0].endswith(".py"):
            module, _, function = target.partition(":")
            fixed = f"{module.removesuffix('.py')}:{function}"
            raise ObjectiveError(f"{target!r} must name a module, not a file; write {fixed!r}.")
        return FunctionObjective(target, directory, tuple(metrics), tuple(outcomes))
    try:
        words = tuple(shlex.split(text)) if isinstance(text, str) else tuple(text)
    except ValueError as error:
        raise ObjectiveError(f"{text!r} cannot be read as a command line: {error}.") from None
    _check_words(words, list(names), directory)
    return CommandObjective(words, directory, tuple(metrics), tuple(outcomes))


def pick(result: Any, metrics: Sequence[str], outcomes: Sequence[str] = ()) -> Any:
    """The named entries of a result that is a mapping; any other result as it is.

    With outcomes, a pair: the value or values, and a dictionary of the outcomes.

    Raises:
        ObjectiveError: if a name is not in the mapping, or there are no names.
    """
    if not isinstance(result, Mapping):
        return result
    keys = [str(key) for key in result]
    if not metrics:
        raise ObjectiveError(f"the objective gave {keys}; say which to optimize with `metric`.")
    for what, name in [*(("metric", m) for m in metrics), *(("outcome", o) for o in outcomes)]:
        if name not in result:
            hint = did_you_mean(name, keys)
            raise ObjectiveError(f"the objective gave {keys}, but the study's {what} is {name!r}.{hint}")
    picked = [result[name] for name in metrics]
    value = picked[0] if len(picked) == 1 else picked
    return (value, {name: result[name] for name in outcomes}) if outcomes else value


def placeholders(word: str) -> list[str]:
    """The parameters that a word of a command names in braces."""
    return [name for name in _PLACEHOLDER.findall(word) if name]


def _check_words(words: Sequence[str], names: Sequence[str], directory: str) -> None:
    if not words:
        raise ObjectiveError("an objective must be 'module:function' or a command line, got nothing.")
    for word in words:
        if word.startswith("${") and word not in MACROS:
            hint = did_you_mean(word, MACROS)
            raise ObjectiveError(f"{word!r} is not known in a command; there is {', '.join(MACROS)}.{hint}")
        for name in [] if word in MACROS else placeholders(word):
            if name not in names:
                hint = did_you_mean(name, names) or " Write {{ and }} for braces that are no placeholder."
                raise ObjectiveError(f"the placeholder {{{name}}} names no parameter of the space.{hint}")
    program = words[0]
    if program in MACROS or placeholders(program):
        raise ObjectiveError(f"a command's program must be fixed, got {program!r}.")
    if shutil.which(program) is None and shutil.which(str(Path(directory, program))) is None:
        raise ObjectiveError(
            f"{' '.join(words)!r} is neither 'module:function' nor a command: "
            f"no program {program!r} was found."
        )


def _fill(found: re.Match[str], config: Mapping[str, Any]) -> str:
    braces = {"{{": "{", "}}": "}"}
    return braces[found[0]] if found[0] in braces else str(config[found[1]])


def _flags(config: Mapping[str, Any]) -> list[str]:
    flags = []
    for name, value in config.items():
        if isinstance(value, bool):
            flags += [f"--{name}"] if value else []
        else:
            flags.append(f"--{name}={value}")
    return flags


MACROS: Mapping[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "${args}": lambda config: [f"--{name}={value}" for name, value in config.items()],
    "${args_no_hyphens}": lambda config: [f"{name}={value}" for name, value in config.items()],
    "${args_no_boolean_flags}": _flags,
    "${args_json}": lambda config: [json.dumps(dict(config))],
}
"""What stands for all active parameters of a config, as in a W&B sweep's command."""


def _kill(process: subprocess.Popen[bytes], grouped: bool) -> None:
    if grouped:
        with contextlib.suppress(ProcessLookupError):  # it may end in this very moment
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _end_of(file: IO[bytes]) -> str:
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - _READ))
    return file.read().decode(errors="replace")


def _shown(stream: str, text: str) -> str:
    text = text.strip()
    if not text:
        return f"{stream} was empty."
    return f"the end of {stream}:\n{text[-_SHOWN:]}"
