"""Every Python block of the README and of the pages in docs/ runs, and what they say of commands is true."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

from gpbo.cli import app

ROOT = Path(__file__).parents[1]
PAGES = {path.name: path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
BLOCKS = {name: re.findall(r"```python\n(.*?)```", text, re.DOTALL) for name, text in PAGES.items()}

# What a page prints or leaves behind, where it matters.
PRINTED = {"README.md": ["failed"], "ask-tell.md": ["'solvent': ", "0.13 "], "sklearn.md": ["n_estimators"]}
LEFT = {"README.md": ["study.db", "budgets.db.checkpoints"], "ask-tell.md": ["plate.csv", "lab.db"]}

# The blocks of a page go on from one another, as its reader would.
DRIVER = """
import json, sys
namespace = {"__name__": "__main__"}
for number, code in enumerate(json.load(sys.stdin)):
    print("block", number, flush=True)
    exec(compile(code, f"block {number}", "exec"), namespace)
"""


@pytest.mark.parametrize("name", [name for name, blocks in BLOCKS.items() if blocks])
def test_every_python_block_runs(request, tmp_path, name):
    if name == "ray-tune.md":
        request.getfixturevalue("one_ray")
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        cwd=tmp_path,
        input=json.dumps(BLOCKS[name]),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for text in PRINTED.get(name, ()):
        assert text in done.stdout
    for path in LEFT.get(name, ()):
        assert (tmp_path / path).exists()


def test_there_are_pages_with_blocks():
    assert len(BLOCKS["README.md"]) >= 7
    assert len(BLOCKS["ask-tell.md"]) >= 10
    assert all(
        re.findall("^```py", text, re.MULTILINE) == ["```py"] * len(BLOCKS[n]) for n, text in PAGES.items()
    )


@pytest.mark.parametrize("name", PAGES)
def test_commands_and_their_options_exist(name):
    commands = get_command(app).commands
    for verb, rest in re.findall(r"^(?:    )?gpbo (\w+)(.*)", PAGES[name], re.MULTILINE):
        known = {option for parameter in commands[verb].params for option in parameter.opts}
        assert set(re.findall(r"(?<=\s)-[-\w]+", rest.split("#")[0])) <= known, f"gpbo {verb}{rest}"


@pytest.mark.parametrize("name", PAGES)
def test_extras_exist(name):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.findall(r"gpbo\[([\w,]+)\]", PAGES[name])
    assert {extra for one in named for extra in one.split(",")} <= extras.keys()


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    folder = ROOT if name == "README.md" else ROOT / "docs"
    for target in re.findall(r"\]\(([^)#:]+)\)", PAGES[name]):
        assert (folder / target).exists(), target
