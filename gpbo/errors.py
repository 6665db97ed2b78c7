"""Every error that gpbo raises on purpose.

    GpboError
    ├── SpaceError           (ValueError)    a search space that cannot be
    ├── ConfigError          (ValueError)    a config that does not fit its space
    ├── SettingError         (ValueError)    an argument that breaks its rule
    ├── ResultError          (ValueError)    a value that is not a result
    ├── UnknownTrialError    (LookupError)   no trial has that number
    ├── TrialStateError      (RuntimeError)  the trial is not in a state that allows this
    ├── NoResultError        (RuntimeError)  asked for a result before there is one
    ├── StoreError           (OSError)       the store cannot be read or written
    ├── StudyMismatchError   (RuntimeError)  the stored study is not the one described
    ├── StudyFileError       (ValueError)    a study file that breaks its schema
    ├── ObjectiveError       (RuntimeError)  an objective that cannot be found or run
    ├── SignatureError       (TypeError)     a function that cannot be called with what it is given
    ├── CheckpointError      (RuntimeError)  a checkpoint that cannot be made or read
    ├── NumericsError        (ArithmeticError) a computation that failed even after its safeguards
    └── MissingExtraError    (ImportError)   an optional package is not installed

Each also derives from the builtin that it is, so `except ValueError` works as people expect.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GpboError(Exception):
    """The root of every error that gpbo raises on purpose."""


class SpaceError(GpboError, ValueError):
    """A search space that cannot be: bad bounds, unknown parents, no parameters."""


class ConfigError(GpboError, ValueError):
    """A config that does not fit its space."""


class SettingError(GpboError, ValueError):
    """An argument that breaks its rule."""


class ResultError(GpboError, ValueError):
    """A value that is not a result; the trial is unchanged."""


class UnknownTrialError(GpboError, LookupError):
    """No trial of this study has that number."""


class TrialStateError(GpboError, RuntimeError):
    """The trial is not in a state that allows this; it is unchanged."""


class NoResultError(GpboError, RuntimeError):
    """A result was asked for before any trial has one."""


class StoreError(GpboError, OSError):
    """The store cannot be read or written; what was stored before is unchanged."""


class StudyMismatchError(GpboError, RuntimeError):
    """The stored study and the one described here are not the same."""


class StudyFileError(GpboError, ValueError):
    """A study file that breaks its schema."""


class ObjectiveError(GpboError, RuntimeError):
    """An objective that cannot be found or run."""


class SignatureError(GpboError, TypeError):
    """An objective or a callback that cannot be called with what it is given."""


class CheckpointError(GpboError, RuntimeError):
    """A checkpoint that cannot be made, or not be gone on from."""


class NumericsError(GpboError, ArithmeticError):
    """A computation that failed even after its safeguards."""


class MissingExtraError(GpboError, ImportError):
    """An optional package is not installed."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint such as " Did you mean 'lr'?", or the empty string when nothing is near."""
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""
