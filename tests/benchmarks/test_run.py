import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import measure, records, run
from benchmarks.peers import PEERS, Spec
from benchmarks.problems import Problem
from gpbo import Float, SearchSpace
from gpbo.errors import SettingError

BOWL = Problem("made/bowl", SearchSpace(x=Float(-1, 1)), lambda c: (c["x"] - 0.3) ** 2, "dev", optimum=0.0)


def once(peer="gpbo-random", problem=BOWL, *, evaluations=8, shared_initial=False, seed=0):
    return measure.run_once(
        problem, peer, seed, evaluations=evaluations, device="cpu", shared_initial=shared_initial
    )


def test_a_record_holds_values_and_times_and_is_json():
    record = once()
    assert json.loads(json.dumps(record)) == record
    assert len(record["values"]) == len(record["ask_seconds"]) == len(record["tell_cpu_seconds"]) == 8
    assert min(record["ask_seconds"]) > 0
    assert record["values"] == once()["values"]
    assert record["values"] != once(seed=1)["values"]
    assert record["error"] is None


def test_the_shared_initial_design_is_the_same_for_all_and_is_not_asked_for():
    one, two = (once(peer, evaluations=20, shared_initial=True) for peer in ("gpbo-random", "random"))
    n = len(measure.initial_design(BOWL, 0, 20))
    assert n == 4  # 2 (d + 1)
    assert one["values"][:n] == two["values"][:n]
    assert one["values"][n:] != two["values"][n:]
    assert len(one["ask_seconds"]) == 16
    assert len(measure.initial_design(BOWL, 0, 8)) == 2  # a quarter


def test_a_crash_is_recorded_with_the_values_before_it():
    def falls_over(config, seen=[]):  # noqa: B006
        seen.append(config)
        if len(seen) == 3:
            raise RuntimeError("out of luck")
        return 1.0

    record = once(problem=Problem("made/bad", BOWL.space, falls_over, "dev"))
    assert record["values"] == [1.0, 1.0]
    assert "RuntimeError: out of luck" in record["error"]


def test_a_peer_that_cannot_be_made_is_recorded(monkeypatch):
    monkeypatch.setitem(PEERS, "odd", Spec("no_such_module", ""))
    assert "no_such_module" in once("odd")["error"]


def test_the_stopwatch_counts_cpu_time_apart():
    watch = measure.Stopwatch()
    with watch:
        sum(range(20_000))
    assert len(watch.wall) == len(watch.cpu) == 1
    assert watch.wall[0] > 0


def test_blocks_turn_the_peers_round():
    found = run.blocks([BOWL], [0, 1, 2], ["a", "b", "c"])
    assert [block.peers for block in found] == [("a", "b", "c"), ("c", "b", "a"), ("a", "b", "c")]


def test_seeds():
    assert run.parse_seeds("0-3,7,2") == [0, 1, 2, 3, 7]
    for text in ("", "a", "3-", "-3", "1-b"):
        with pytest.raises(SettingError, match="must look like 0-29"):
            run.parse_seeds(text)


def test_appending_repairs_a_line_that_was_cut_off(tmp_path):
    path = tmp_path / "new" / "runs.jsonl"
    records.append(path, once())
    with path.open("a") as file:
        file.write('{"problem": "made/b')
    assert len(records.read([path])) == 1
    records.append(path, once(seed=1))
    assert [record["seed"] for record in records.read([path])] == [0, 1]


def test_reading_names_what_is_wrong(tmp_path):
    with pytest.raises(SettingError, match="there is no file of runs at"):
        records.read([tmp_path / "no.jsonl"])
    path = tmp_path / "bad.jsonl"
    path.write_text('{"a": 1}\n')
    with pytest.raises(SettingError, match=r"line 1 of .* is not a run"):
        records.read([path])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--peers", "randm"], "Did you mean 'random'"),
        (["--peers", ""], "names nothing that is installed"),
        (["--peers", "random", "--problems", "nothing/*"], "matches none of the groups"),
        (["--peers", "random", "--problems", "panel"], "`--split` dev holds none of `--problems` 'panel'"),
        (["--peers", "random", "--evaluations", "3"], "`--evaluations` must be >= 4, got 3"),
        (["--peers", "random", "--jobs", "0"], "`--jobs` must be >= 1, got 0"),
    ],
)
def test_bad_arguments_are_told_in_one_line(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("GPBO_BENCH_DATA", raising=False)
    assert run.main([*arguments, "--out", str(tmp_path / "o.jsonl")]) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_missing_package_is_said_and_the_rest_runs(monkeypatch, capsys):
    monkeypatch.setitem(PEERS, "ghost", Spec("uniform", "uniform", ("a_package_that_is_not",)))
    assert run._installed(["ghost", "random", "random"]) == ["random"]
    error = capsys.readouterr().err
    assert error == "ghost is left out: a_package_that_is_not is not installed; pip install 'gpbo[bench]'\n"


def test_runs_are_written_once_and_continued(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("GPBO_BENCH_DATA", raising=False)
    for variable in run._THREAD_VARIABLES:  # set by the run; given back afterwards
        monkeypatch.setenv(variable, "1")
    out = tmp_path / "runs.jsonl"
    arguments = ["--peers", "random,gpbo-sobol", "--problems", "synthetic/branin-2", "--evaluations", "5"]
    arguments += ["--out", str(out)]
    assert run.main([*arguments, "--seeds", "0"]) == 0
    first = out.read_text()
    assert run.main([*arguments, "--seeds", "0-1"]) == 0
    assert out.read_text().startswith(first)
    found = records.read([out])
    assert [(r["peer"], r["seed"]) for r in found] == [
        ("random", 0), ("gpbo-sobol", 0), ("gpbo-sobol", 1), ("random", 1),
    ]  # fmt: skip
    assert all(r["error"] is None and r["versions"]["torch"] and r["revision"] for r in found)
    assert "2.0" not in capsys.readouterr().err


def test_a_process_that_dies_is_a_line_and_is_replaced():
    import os

    plan = run.Plan(data=None, evaluations=4, device="cpu", shared_initial=False, threads=1)
    with run.Worker(plan) as worker:
        worker._pool.submit(os.getpid).result()
        worker._pool.submit(os._exit, 1).exception()
        dead = worker.run("synthetic/branin-2", "random", 0)
        alive = worker.run("synthetic/branin-2", "random", 1)
    assert dead["error"] == "the process died"
    assert records.key_of(dead) == plan.key("synthetic/branin-2", "random", 0)
    assert alive["error"] is None
    assert "the process died" in run._summary(dead)


ORPHAN = """
import os, sys
from benchmarks import run

if __name__ == "__main__":
    plan = run.Plan(data=None, evaluations=1, device="cpu", shared_initial=False, threads=1)
    worker = run.Worker(plan)
    print(worker._pool.submit(os.getpid).result(), flush=True)
    worker.run("synthetic/branin-2", "no such peer", 0)
    worker._pool.submit(__import__("time").sleep, 600)
    print("busy", flush=True)
    __import__("time").sleep(600)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks for the process in /proc")
def test_a_worker_ends_when_its_parent_is_killed(tmp_path):
    script = tmp_path / "orphan.py"
    script.write_text(ORPHAN)
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert parent.stdout.readline() == "busy\n"
        parent.kill()
    for _ in range(200):
        if not is_alive(pid):
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the worker outlived its parent by 20 seconds")


def is_alive(pid):
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "zombie" not in status.read_text()
