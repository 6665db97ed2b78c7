"""A YAML file as plain values that remember their lines, so that every complaint can point at one.

Scalars are read by the rules of YAML 1.2, not PyYAML's 1.1: ``1e-5`` is a number, only ``true`` and
``false`` are booleans (``on``, ``off``, ``yes`` and ``no`` are strings), ``010`` is ten, and dates are
strings.

A `path` below is the sequence of keys and indices that leads to a value, such as
``("search_space", "lr", "high")``.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gpbo.errors import StudyFileError, did_you_mean

KeyPath = tuple[Hashable, ...]

_INT = re.compile(r"^[-+]?[0-9]+$")
_FLOAT = re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.inf$|^\.nan$")
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
_MERGE = re.compile(r"^<<$")


@dataclass(frozen=True, slots=True)
class Problem:
    """One complaint about the value at `path`, or about the entry `key` in it."""

    path: KeyPath
    text: str
    key: Hashable = None


@dataclass(frozen=True)
class YamlFile:
    """A mapping read from a file.

    Attributes:
        name: The file's name, as the user gave it.
        plain: The values.
        lines: The line, from 1, of the key or item that each path ends with.
    """

    name: str
    plain: Mapping[str, Any]
    lines: Mapping[KeyPath, int]

    def line(self, path: KeyPath) -> int:
        """The line of the value at `path`, or of the nearest one around it."""
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]

    def error(self, problems: Iterable[Problem]) -> StudyFileError:
        """The error that lists the problems by line, each as ``file:line: path: text``."""
        found = []
        for problem in problems:
            where = ".".join(str(key) for key in problem.path)
            line = self.line(problem.path if problem.key is None else (*problem.path, problem.key))
            found.append((line, f"{self.name}:{line}: {where + ': ' if where else ''}{problem.text}"))
        found.sort(key=lambda one: one[0])
        return StudyFileError("\n".join(text for _, text in found))


def read_yaml(path: Path) -> YamlFile:
    """The file at `path`.

    Raises:
        StudyFileError: if it cannot be read, is not UTF-8, not YAML, or not one mapping without duplicate
            keys.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        beside = [f.name for f in path.parent.glob("*.y*ml")] if isinstance(error, FileNotFoundError) else []
        hint = did_you_mean(path.name, beside)
        raise StudyFileError(f"{path}: cannot be read: {error.strerror or error}.{hint}") from None
    except UnicodeDecodeError as error:
        line = 1 + error.object[: error.start].count(b"\n")
        raise StudyFileError(f"{path}:{line}: the file must be UTF-8 text; save it as UTF-8.") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str) -> YamlFile:
    """The mapping that `text` holds; `name` is what messages call it.

    Raises:
        StudyFileError: if the text is not YAML, or not one mapping without duplicate keys.
    """
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            raise StudyFileError(f"{name}: the file is empty; it needs at least a search space.")
        _check(node, name)
        plain = loader.construct_document(node)
    except yaml.YAMLError as error:
        raise StudyFileError(_syntax(error, name)) from None
    finally:
        if loader is not None:
            loader.dispose()
    if not isinstance(plain, dict):
        line = node.start_mark.line + 1
        raise StudyFileError(
            f"{name}:{line}: the file must be a mapping of names to values, got {plain!r:.60}."
        )
    return YamlFile(name, plain, dict(_lines(node, loader)))


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2."""

    # Not inherited: SafeLoader's own table holds the rules of YAML 1.1.
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for _tag, _pattern, _first in (
    ("null", _NULL, ["~", "n", "N", ""]),
    ("bool", _BOOL, list("tTfF")),
    ("int", _INT, list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
    ("merge", _MERGE, ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, _first)


def _number(loader: _Loader, node: yaml.ScalarNode) -> int | float:
    text = node.value.replace(".inf", "inf").replace(".nan", "nan")
    try:
        return int(text) if node.tag.endswith(":int") else float(text)
    except ValueError:
        raise yaml.constructor.ConstructorError(
            None, None, f"{node.value!r} is not a number", node.start_mark
        ) from None


_Loader.add_constructor("tag:yaml.org,2002:int", _number)
_Loader.add_constructor("tag:yaml.org,2002:float", _number)


def _check(node: yaml.Node, name: str, above: tuple[int, ...] = ()) -> None:
    """Refuse what PyYAML lets pass: a key that stands twice, and a value that holds itself."""
    line = node.start_mark.line + 1
    if id(node) in above:
        raise StudyFileError(f"{name}:{line}: a value must not contain itself through an anchor.")
    above = (*above, id(node))
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _check(child, name, above)
    if isinstance(node, yaml.MappingNode):
        first: dict[Any, int] = {}
        for key, value in node.value:
            here = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise StudyFileError(f"{name}:{here}: a key must be a plain name.")
            if key.value in first and key.tag != "tag:yaml.org,2002:merge":
                before = first[key.value]
                raise StudyFileError(
                    f"{name}:{here}: {key.value!r} stands here a second time, first in line {before}; "
                    "remove one of them."
                )
            first[key.value] = here
            _check(value, name, above)


def _lines(node: yaml.Node, loader: _Loader, path: KeyPath = ()) -> Iterator[tuple[KeyPath, int]]:
    if not path:
        yield path, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, loader.construct_object(key))
            yield here, key.start_mark.line + 1
            yield from _lines(value, loader, here)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*path, index), item.start_mark.line + 1
            yield from _lines(item, loader, (*path, index))


def _syntax(error: yaml.YAMLError, name: str) -> str:
    if not isinstance(error, yaml.MarkedYAMLError):
        return f"{name}: not YAML: {str(error).splitlines()[0]}."
    mark = error.problem_mark or error.context_mark
    where = f"{name}:{mark.line + 1}" if mark else name
    what = " ".join(filter(None, (error.context, error.problem)))
    if "\\t" in what:
        what += "; indent with spaces, not tabs"
    return f"{where}: not YAML: {what}."
