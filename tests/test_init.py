import inspect
import subprocess
import sys

import pytest

import gpbo


@pytest.mark.parametrize("name", gpbo.__all__)
def test_every_public_name_is_there(name):
    assert getattr(gpbo, name) is not None


@pytest.mark.parametrize("name", [name for name in gpbo.__all__ if name != "__version__"])
def test_a_name_leads_to_where_it_is_defined(name):
    thing = getattr(gpbo, name)
    assert thing.__name__ == name
    assert thing.__module__ == gpbo._HOMES[name]
    assert inspect.getdoc(thing)


def test_the_list_of_names_is_sorted_and_honest():
    assert gpbo.__all__ == sorted(gpbo.__all__)
    assert set(gpbo.__all__) == {*gpbo._HOMES, "__version__"}
    assert dir(gpbo) == gpbo.__all__


def test_the_rungs_are_reached_without_another_import():
    code = "import gpbo; print(gpbo.schedulers.rungs.rung_budgets(1, 27, 3))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "(1, 3, 9, 27)\n", done.stderr


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match=r"module 'gpbo' has no attribute 'Floot'"):
        _ = gpbo.Floot
