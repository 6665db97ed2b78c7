import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import gpbo

ROOT = Path(__file__).parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
LINKED = {"gpbo.kernels": "kernels", "gpbo.acquisition": "acquisition"}


def run(code, cwd):
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=120)


def test_the_list_of_packages_is_complete():
    found = set()
    for folder, package in [("gpbo", "gpbo"), *((where, name) for name, where in LINKED.items())]:
        for init in (ROOT / folder).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT / folder).parts
            if folder != "gpbo" or parts[:1] not in [("kernels",), ("acquisition",)]:
                found.add(".".join((package, *parts)))
    assert sorted(found) == sorted(SETUPTOOLS["packages"])


def test_every_folder_with_code_is_a_package():
    for folder in ("gpbo", *LINKED.values()):
        for path in (ROOT / folder).rglob("*.py"):
            assert (path.parent / "__init__.py").exists(), f"{path.parent} has no __init__.py"


def test_builds_come_from_the_real_folders():
    assert SETUPTOOLS["package-dir"] == {"gpbo": "gpbo", **LINKED}


@pytest.mark.parametrize("name", LINKED.values())
def test_the_links_are_relative_and_right(name):
    link = ROOT / "gpbo" / name
    assert link.is_symlink()
    assert link.readlink() == Path("..") / name


@pytest.mark.parametrize("name", LINKED.values())
def test_the_real_folders_refuse_their_short_names(name):
    refused = run(f"import {name}", ROOT)
    assert refused.returncode == 1
    assert f"ImportError: import this package as gpbo.{name}, not as a top-level '{name}'" in refused.stderr


@pytest.mark.parametrize("name", LINKED)
def test_the_long_names_work_outside_of_the_repository(name, tmp_path):
    imported = run(f"import {name}; print({name}.__name__)", tmp_path)
    assert imported.stdout.strip() == name, imported.stderr


@pytest.mark.parametrize(
    "statement",
    [
        "import gpbo",
        "from gpbo import Float, SearchSpace, Trial, Study; Study(SearchSpace(x=Float(0, 1)))",
        "import gpbo.run, gpbo.executors.local, gpbo.schedulers.base, gpbo.trial",
        "import gpbo.cli",
    ],
)
def test_importing_loads_nothing_heavy(statement, tmp_path):
    code = f"{statement}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert not {"torch", "numpy", "sqlalchemy", "alembic", "pandas", "sklearn"} & set(json.loads(done.stdout))


def test_the_version_comes_from_one_place():
    assert SETUPTOOLS["dynamic"]["version"] == {"attr": "gpbo._version.__version__"}
    assert importlib.metadata.version("gpbo") == gpbo.__version__


def test_the_lock_leaves_torch_its_own_choice():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    names = {line.split("==")[0].lower() for line in lines if line and not line.startswith("#")}
    assert "torch==2.13.0" in lines
    assert "gpbo" not in names
    assert not [name for name in names if name.startswith(("nvidia", "cuda", "triton"))]
    assert not [line for line in lines if line and not line.startswith("#") and "==" not in line]


def test_the_lock_holds_every_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    wanted += [line for line in project["optional-dependencies"]["dev"] if not line.startswith("gpbo")]
    names = {re.split(r"[<>=\[]", line)[0].lower().replace("_", "-") for line in wanted}
    locked = (ROOT / "constraints.txt").read_text().lower().replace("_", "-").splitlines()
    assert names <= {line.split("==")[0] for line in locked}
