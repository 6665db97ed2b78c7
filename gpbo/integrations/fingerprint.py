"""What tells one setting of a host from another, the same in every process."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping
from functools import partial
from types import CellType, CodeType, FunctionType
from typing import Any

from joblib.hashing import NumpyHasher


def fingerprint(setting: Any) -> str:
    """A text that equal settings share and others do not.

    Functions and classes go by their names; functions without one by their code, defaults and what they
    enclose; objects by what they are made of, and where that cannot be said, by their repr.
    """
    return _hashed(_taken_apart(setting))


class _Hasher(NumpyHasher):  # type: ignore[misc]  # joblib has no types
    """joblib's, to which the order of a frozenset is nothing either; it depends on the process."""

    dispatch = NumpyHasher.dispatch | dict.fromkeys(
        (set, frozenset), lambda hasher, one: hasher.save(_taken_apart(one))
    )


def _hashed(setting: Any) -> str:
    return str(_Hasher().hash(setting))


def _taken_apart(setting: Any, within: tuple[int, ...] = ()) -> Any:
    if id(setting) in within:
        return "itself"
    apart = partial(_taken_apart, within=(*within, id(setting)))
    if hasattr(setting, "get_params") and not isinstance(setting, type):  # whatever else it has learnt
        return *_name(type(setting)), apart(setting.get_params(deep=False))
    if isinstance(setting, Mapping):
        return {_hashed(apart(name)): apart(one) for name, one in setting.items()}
    if isinstance(setting, set | frozenset):
        return type(setting).__name__, sorted(_hashed(apart(one)) for one in setting)
    if isinstance(setting, list | tuple):
        return [apart(one) for one in setting]
    try:
        return _hashed(setting)
    except (pickle.PicklingError, AttributeError, TypeError, ValueError):
        pass
    if isinstance(setting, type):
        return _name(setting)
    if isinstance(setting, CodeType):
        return setting.co_code, setting.co_names, apart(setting.co_consts)
    if isinstance(setting, FunctionType):
        enclosed = [_content(cell) for cell in setting.__closure__ or ()]
        return [
            apart(one) for one in (setting.__code__, setting.__defaults__, setting.__kwdefaults__, enclosed)
        ]
    try:
        reduced = setting.__reduce_ex__(2)
    except (TypeError, ValueError, pickle.PicklingError):
        return without_address(setting)
    if isinstance(reduced, str):  # the name of a global
        return *_name(type(setting)), reduced
    _, made_of, *state = reduced
    return *_name(type(setting)), apart(made_of), [apart(_listed(one)) for one in state]


def _name(one: type) -> tuple[str, str]:
    return one.__module__, one.__qualname__


def _content(cell: CellType) -> tuple[Any, ...]:
    """What a cell holds; nothing while its variable has no value yet."""
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()


def _listed(state: Any) -> Any:
    return list(state) if isinstance(state, Iterator) else state


def without_address(setting: Any) -> str:
    """Its repr, without where in memory it lies."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(setting))
