"""Imports point down: every module is read, none is imported."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A row may import the rows above it and its own, never those below; rooms of one row form no cycle.
ROWS = [
    ["_version", "checks", "errors", "markup", "seeding"],
    ["constraints", "cube", "kernels", "numerics", "outcomes", "parameters", "results", "trial"],
    ["executors", "gp", "schedulers", "space", "stores"],
    ["acquisition", "amendment", "checkpoint", "data", "definition", "diagnostics", "job", "standing"],
    ["suggesters"],
    ["study"],
    ["budgets", "progress", "run", "simulation"],
    # The top uses the public names, `__init__`, as any user does.
    [
        *("__init__", "__main__", "analysis", "cli", "demo", "export", "integrations", "objective"),
        *("studyfile", "sweepfile", "yamlfile"),
    ],
]
ROW = {room: row for row, rooms in enumerate(ROWS) for room in rooms}

# CONTRIBUTING.md has the reasons.
EXCEPTIONS = {
    ("study", "run"),
    ("study", "analysis"),
    ("studyfile", "sweepfile"),
    ("space", "integrations"),
}

# Where each third party may be imported: rooms, or single modules of a room.
THIRD_PARTIES = {
    "ConfigSpace": {"integrations.configspace"},
    "IPython": {"progress"},
    "alembic": {"stores"},
    "botorch": {"acquisition.multi_objective", "integrations.botorch", "integrations.botorch_model"},
    "cloudpickle": {"executors"},
    "filelock": {"stores"},
    "gpytorch": {"integrations.botorch", "integrations.botorch_model"},
    "linear_operator": {"integrations.botorch", "integrations.botorch_model"},
    "joblib": {"integrations.fingerprint", "integrations.sklearn"},
    "numpy": {"executors", "integrations.sklearn"},
    "optuna": {"integrations.optuna", "integrations.optuna_space", "integrations.optuna_trials"},
    "pandas": {"analysis.frame", "study"},
    "plotly": {"analysis.figures"},
    "pydantic": {"studyfile", "sweepfile"},
    "pydantic_core": {"studyfile", "sweepfile"},
    "ray": {"integrations.ray_search", "integrations.ray_space", "integrations.ray_tune"},
    "rich": {"cli"},
    "sklearn": {"demo", "integrations.sklearn"},
    "sqlalchemy": {"stores"},
    "torch": {
        *("acquisition", "analysis", "checks", "cube", "data", "demo", "diagnostics", "gp", "integrations"),
        *("job", "kernels", "numerics", "seeding", "space", "suggesters"),
    },
    "tqdm": {"progress"},
    "triton": {"kernels"},
    "typer": {"cli"},
    "yaml": {"export", "yamlfile"},
}

# So that `gpbo --help`, a worker and a scheduler start fast: torch takes two seconds.
TORCH_WHEN_CALLED = {"demo", "job", "seeding", "space"}


def modules():
    """The dotted name below gpbo, without `__init__`, and the file of every module."""
    for folder, prefix in [("gpbo", ()), ("kernels", ("kernels",)), ("acquisition", ("acquisition",))]:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            if folder == "gpbo" and parts[0] in ("kernels", "acquisition"):
                continue  # some Pythons walk through the links
            name = ".".join((*prefix, *parts)).removesuffix(".__init__")
            yield name, path


MODULES = dict(modules())


def imports(path):
    """Every import in a file: its dotted target, and whether it runs when the module is imported."""
    tree = ast.parse(path.read_text())
    later = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) not in later
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", id(node) not in later


def room_of(target):
    """The room that an import of gpbo reaches, or None for another package."""
    package, _, rest = target.partition(".")
    if package != "gpbo":
        return None
    return rest.split(".")[0] if rest.split(".")[0] in ROW else "__init__"


IMPORTS = [(name, target, at_import) for name, path in MODULES.items() for target, at_import in imports(path)]


def test_every_module_has_a_row():
    assert {name.split(".")[0] for name in MODULES} <= set(ROW)
    assert len(MODULES) > 25


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name):
    here = name.split(".")[0]
    for source, target, _ in IMPORTS:
        there = room_of(target)
        if source != name or there is None or (here, there) in EXCEPTIONS:
            continue
        assert ROW[there] <= ROW[here], f"{name} imports {target}, which is below it"


def test_rooms_form_no_cycle():
    below = {}
    for name, target, _ in IMPORTS:
        here, there = name.split(".")[0], room_of(target)
        if there is not None and there != here and (here, there) not in EXCEPTIONS:
            below.setdefault(here, set()).add(there)

    def reached(room, path=()):
        assert room not in path, f"rooms import each other: {' -> '.join([*path, room])}"
        for there in below.get(room, ()):
            reached(there, (*path, room))

    for room in below:
        reached(room)


def test_every_exception_is_needed_and_inside_a_function():
    used = {(name.split(".")[0], room_of(target), at_import) for name, target, at_import in IMPORTS}
    assert {(here, there) for here, there, _ in used} >= EXCEPTIONS
    assert not {(here, there) for here, there, at_import in used if at_import} & EXCEPTIONS


def test_contributors_read_the_same_rows_and_exceptions():
    page = (ROOT / "CONTRIBUTING.md").read_text()
    rows = [row.split(", ") for row in re.findall(r"^    \d  (.*)$", page, re.MULTILINE)]
    assert rows == [sorted(row) for row in ROWS]
    assert set(re.findall(r"^    (\w+) -> (\w+) ", page, re.MULTILINE)) == EXCEPTIONS


@pytest.mark.parametrize("name", MODULES)
def test_third_parties_stay_in_their_rooms(name):
    for source, target, at_import in IMPORTS:
        package = target.split(".")[0]
        if source != name or package == "gpbo" or package in sys.stdlib_module_names:
            continue
        assert package in THIRD_PARTIES, f"{name} imports {package}, which has no room"
        homes = THIRD_PARTIES[package]
        room = name.split(".")[0]
        assert room in homes or name in homes, f"{name} imports {package}, which belongs in {sorted(homes)}"
        if package == "torch" and room in TORCH_WHEN_CALLED:
            assert not at_import, f"{name} imports torch at module level"
