import re
import shutil
from pathlib import Path

from gpbo.studyfile import load_study_file

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_study_files_are_valid(tmp_path):
    shutil.copytree(ROOT / "examples", tmp_path, dirs_exist_ok=True)
    example = load_study_file(tmp_path / "study.yaml", tmp_path)
    assert example.objective.resolve()({
        "lr": 0.01, "alpha": 1e-4, "width": 8, "depth": 1, "solver": "adam",
    }).keys() == {"loss", "accuracy"}  # fmt: skip
    pages = README + (ROOT / "docs" / "study-file.md").read_text()
    whole = [
        text for text in re.findall(r"```yaml\n(.*?)```", pages, re.DOTALL) if len(text.splitlines()) > 4
    ]
    assert len(whole) == 3
    assert whole[0] == (ROOT / "examples" / "study.yaml").read_text()
    for text in whole:
        (tmp_path / "page.yaml").write_text(text)
        load_study_file(tmp_path / "page.yaml", tmp_path).suggester()


def test_the_whole_file_is_valid_with_outcome_constraints_instead_of_a_pruner(tmp_path):
    shutil.copytree(ROOT / "examples", tmp_path, dirs_exist_ok=True)
    page = (ROOT / "docs" / "study-file.md").read_text()
    text = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[0]
    other = re.sub(r"^# ", "", text, flags=re.MULTILINE).replace("type: hyperband", "type: none")
    other = re.sub(r"^  rounds:.*\n", "", other, flags=re.MULTILINE)  # which goes with hyperband alone
    (tmp_path / "page.yaml").write_text(text)
    (tmp_path / "other.yaml").write_text(other)
    file, without = (load_study_file(tmp_path / f"{name}.yaml", tmp_path) for name in ("page", "other"))
    assert file.scheduler() is not None
    assert file.outcome_constraints == ()
    assert without.scheduler() is None
    assert without.outcome_constraints == ("latency <= 10",)
