import json
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))

# Each notebook has a namespace of its own, as a kernel has; torch is loaded once for all.
DRIVER = """
import json, sys
for name, cells in json.load(sys.stdin).items():
    namespace = {"__name__": "__main__"}
    for number, code in enumerate(cells):
        print(f"{name}, code cell {number}", flush=True)
        exec(compile(code, f"{name}, code cell {number}", "exec"), namespace)
"""


def code_cells(path):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


@pytest.mark.usefixtures("one_ray")
def test_every_notebook_runs_top_to_bottom(tmp_path):
    assert NOTEBOOKS
    code = {path.name: ["".join(cell["source"]) for cell in code_cells(path)] for path in NOTEBOOKS}
    assert all(code.values())
    done = subprocess.run(
        [sys.executable, "-c", DRIVER], cwd=tmp_path, input=json.dumps(code), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(", code cell ") == sum(map(len, code.values()))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_outputs_are_stripped(path):
    for cell in code_cells(path):
        assert (cell["outputs"], cell["execution_count"]) == ([], None), "clear all outputs, then save"
