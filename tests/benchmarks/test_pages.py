import json
from dataclasses import replace

import pytest

from benchmarks import pages, plugins, published, report, speed
from benchmarks.compare import tabulate
from gpbo.errors import SettingError

PAGE = """Before.

<!-- benchmarks:speed -->
An old table.
<!-- /benchmarks:speed -->

Between.

<!-- benchmarks:regret -->
<!-- /benchmarks:regret -->
"""


def publish(folder, cpu=8.0):
    about = {"revision": "abc", "versions": {"torch": "2.13"}}
    entrants = {"gpbo": 2.0, "optuna": cpu}
    measured = [
        {**speed._record("ask-200", name, 0, "cpu", wall=1.0, cpu=seconds), **about}
        for name, seconds in entrants.items()
    ]
    (folder / "speed.jsonl").write_text("".join(json.dumps(record) + "\n" for record in measured))
    runs = [
        {
            "problem": problem, "peer": peer, "seed": seed, "evaluations": 20, "initial": "own",
            "device": "cpu", "split": "test", "direction": "minimize", "optimum": 0.0, "worst": None,
            "values": [9.0] * 10 + [last + seed / 7] * 10, "error": None, "rejections": 0, **about,
            "ask_seconds": [last / 3] * 20, "ask_cpu_seconds": [last / 3] * 20,
            "tell_seconds": [0.0] * 20, "tell_cpu_seconds": [0.0] * 20,
        }
        for problem in ("g/a", "h/a") for seed in range(3)
        for peer, last in {"random": 5.0, "gpbo": 2.0, "gpbo-plain": 2.5}.items()
    ]  # fmt: skip
    table = tabulate(runs)
    published.write(folder / "regret.jsonl", table)
    return table


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_the_pages_say_what_is_published(page):
    text = page.read_text()
    assert pages.filled(text, pages.FOLDER) == text, "run python -m benchmarks.pages"


def test_what_is_published_is_small_and_shown():
    found = {path.name: path for path in pages.FOLDER.glob("*")}
    text = "".join(page.read_text() for page in pages.PAGES)
    shown = {file for name, (file, _) in pages.TABLES.items() if f"<!-- benchmarks:{name} -->" in text}
    assert found.keys() <= shown
    assert all(path.stat().st_size < 500_000 for path in found.values())


def test_tables_are_made_of_the_files_and_nothing_else_is_touched(tmp_path):
    publish(tmp_path)
    text = pages.filled(PAGE, tmp_path)
    assert "An old table." not in text
    assert "| ask with refit, n = 200 | 2 s | 4x, **missed** (5x) |" in text
    assert "| random | " in text
    assert "gpbo-plain" not in text  # a variant of its own is no rival
    assert [line for line in text.splitlines() if line in PAGE.splitlines() and line] == [
        line for line in PAGE.splitlines() if line and line != "An old table."
    ]
    assert pages.filled(text, tmp_path) == text
    publish(tmp_path, cpu=12.0)
    assert "6x, met (5x)" in pages.filled(text, tmp_path)


def test_what_is_not_published_stays(tmp_path):
    assert pages.filled(PAGE, tmp_path) == PAGE


def publish_budgets(folder):
    regret = {"random": 0.4, "hyperband": 0.2, "gpbo-hyperband": 0.1}
    runs = [
        {"problem": name, "entrant": entrant, "seed": seed, "full": [value] * 4, "any": [value] * 4}
        for name in ("lcbench/167168", "rbv2_rpart/14")
        for entrant, value in regret.items() for seed in range(2)
    ]  # fmt: skip
    (folder / "multifidelity.jsonl").write_text("".join(json.dumps(run) + "\n" for run in runs))


def test_every_table_can_be_made(tmp_path):
    publish(tmp_path)
    publish_budgets(tmp_path)
    run = {"problem": "g/a", "seed": 0, "workers": 8, "entrant": "bohb-reference"}
    run |= {"seconds": 9.0, "busy": 1.0, "steps": [[3.0, 0.5], [6.0, 0.1]]}
    (tmp_path / "asynchronous.jsonl").write_text(json.dumps(run) + "\n")
    for other in ("ablations", "regret-current"):
        (tmp_path / f"{other}.jsonl").write_bytes((tmp_path / "regret.jsonl").read_bytes())
    for host, subject in plugins.SUBJECTS.items():
        table = published.read(tmp_path / "regret.jsonl")
        published.write(
            tmp_path / f"plugins-{host}.jsonl", replace(table, peers=("random", subject, "other"))
        )
    times = {"versions": {"torch": "2.13"}, "revision": "abc", "wall": [1.0] * 4, "cpu": [0.5] * 4}
    import_ = {**times, "statement": "import gpbo", "repeat": 0, "wall": 0.1, "cpu": 0.05}
    (tmp_path / "plugins-times.jsonl").write_text(
        "".join(json.dumps(one) + "\n" for one in [{**times, "peer": "gpbo"}, import_])
    )
    (tmp_path / "speed-cuda.jsonl").write_bytes((tmp_path / "speed.jsonl").read_bytes())
    for name in pages.TABLES:
        page = f"<!-- benchmarks:{name} -->\n<!-- /benchmarks:{name} -->\n"
        assert pages.filled(page, tmp_path).count("\n| ") >= 2


def test_markers_that_are_wrong_are_refused(tmp_path):
    with pytest.raises(SettingError, match=r"a table must be one of .* got 'sped'"):
        pages.filled(PAGE.replace(":speed", ":sped"), tmp_path)
    with pytest.raises(SettingError, match="a table must end with"):
        pages.filled(PAGE.replace("/benchmarks:speed", "/benchmarks:regret"), tmp_path)


def test_the_command_writes_the_pages(tmp_path, monkeypatch):
    publish(tmp_path)
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    monkeypatch.setattr(pages, "PAGES", (page,))
    monkeypatch.setattr(pages, "FOLDER", tmp_path)
    pages.main()
    assert page.read_text() == pages.filled(PAGE, tmp_path)


def test_a_published_table_says_what_the_runs_do(tmp_path):
    table = publish(tmp_path)
    again = published.read(tmp_path / "regret.jsonl")
    assert again.peers == table.peers
    for problem, regret in table.regret.items():
        assert again.regret[problem] == pytest.approx(regret, abs=1e-12)
        assert again.cpu[problem] == pytest.approx(table.cpu[problem], rel=1e-3)
    assert report.report(again, "gpbo") == report.report(table, "gpbo")


def test_a_file_without_a_table_is_an_error(tmp_path):
    (tmp_path / "runs.jsonl").write_text('{"problem": "g/a"}\n')
    for name in ("runs.jsonl", "none.jsonl"):
        with pytest.raises(SettingError, match="does not hold a table"):
            published.read(tmp_path / name)


def test_the_summary_over_budgets_shares_out_the_regret(tmp_path):
    publish_budgets(tmp_path)
    table = pages.filled("<!-- benchmarks:multifidelity -->\n<!-- /benchmarks:multifidelity -->\n", tmp_path)
    assert (
        "| random | 0.4000 | 0.4000 | 0.4000 | 0.4000 | 0.25 (0.25 to 0.25) | 0.25 (0.25 to 0.25) | 4 |"
        in table
    )
    assert "| gpbo-hyperband | 0.1000 | 0.1000 | 0.1000 | 0.1000 |  |  | 4 |" in table
