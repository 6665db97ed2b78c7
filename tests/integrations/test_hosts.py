import importlib
import subprocess
import sys
import warnings

import pytest

from gpbo.errors import MissingExtraError
from gpbo.integrations.hosts import check_tested, release


@pytest.mark.parametrize("version", ["1.9.1", "1.10.dev0", "2.0rc1", "2.0+cpu"])
def test_versions_in_the_range_say_nothing(version):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_tested("Host", version, "1.9", "2.0")


@pytest.mark.parametrize("version", ["4.9.2", "6.0.0rc1"])
def test_a_range_may_be_all_of_one_number(version):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_tested("Host", "5.0.0", "5", "5")
        check_tested("Host", "5.12", "5", "5")
    with pytest.warns(UserWarning, match=f"gpbo is tested with Host 5; this is Host {version}"):
        check_tested("Host", version, "5", "5")


@pytest.mark.parametrize(
    ("version", "high"), [("1.8.9", "2.0"), ("2.1", "2.0"), ("10.0", "2.0"), ("2.0", "1.9")]
)
def test_others_are_named(version, high):
    tested = "1.9 to 2.0" if high == "2.0" else "1.9"
    with pytest.warns(UserWarning, match=f"gpbo is tested with Host {tested}; this is Host {version}"):
        check_tested("Host", version, "1.9", high)


@pytest.mark.parametrize(
    ("module", "host", "extra"),
    [("configspace", "ConfigSpace", "configspace"), ("optuna_space", "optuna.distributions", "optuna")],
)
def test_a_host_that_is_missing_is_named_with_its_extra(monkeypatch, module, host, extra):
    monkeypatch.delitem(sys.modules, f"gpbo.integrations.{module}", raising=False)
    monkeypatch.setitem(sys.modules, host, None)
    with pytest.raises(MissingExtraError, match=rf"{host} is not installed; pip install 'gpbo\[{extra}\]'"):
        importlib.import_module(f"gpbo.integrations.{module}")


def test_a_release():
    assert [release(version) for version in ("1.9.1", "1.10.dev0", "2")] == [(1, 9), (1, 10), (2,)]


@pytest.mark.parametrize(
    ("host", "module"), [("optuna", "optuna"), ("sklearn", "sklearn"), ("ray.tune", "ray_tune")]
)
def test_importing_an_integration_does_not_load_torch(host, module):
    pytest.importorskip(host)
    code = f"import {host}, gpbo.integrations.{module}, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.stdout.split()[-1:] == ["False"], done.stderr
