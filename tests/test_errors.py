import inspect
import pickle

import pytest

from gpbo import errors

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.GpboError)]


@pytest.mark.parametrize("error", CLASSES)
def test_every_error_is_in_the_tree_that_the_docstring_draws(error):
    assert error.__name__ in errors.__doc__
    assert error.__doc__


@pytest.mark.parametrize("error", [c for c in CLASSES if c is not errors.GpboError])
def test_every_error_is_also_the_builtin_it_is(error):
    builtin = error.__bases__[1]
    assert builtin.__module__ == "builtins"
    assert f"({builtin.__name__})" in errors.__doc__.split(error.__name__, 1)[1].splitlines()[0]


@pytest.mark.parametrize("error", CLASSES)
def test_errors_travel_between_processes(error):
    there = pickle.loads(pickle.dumps(error("why")))
    assert type(there) is error
    assert str(there) == "why"


def test_did_you_mean_names_the_nearest():
    assert errors.did_you_mean("learning_rat", ["lr", "learning_rate"]) == " Did you mean 'learning_rate'?"


def test_did_you_mean_is_silent_when_nothing_is_near():
    assert errors.did_you_mean("zzz", ["lr", "width"]) == ""
