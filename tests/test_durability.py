"""Nothing told is lost: drivers that are killed at any moment, and processes that share a study.

The tests start this file as a program, which loads torch once and forks the processes that it kills.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

KILLS = 50
MORE = 20  # trials after the last kill
ASKS = 200

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def program(what: str, folder: Path) -> dict[str, Any]:
    """What this file prints when it is run as a program."""
    command = [sys.executable, "-W", "ignore", __file__, what, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_a_driver_killed_at_any_moment_loses_nothing_and_goes_on_as_if_nothing_were(tmp_path: Path) -> None:
    killed, whole = program("kill", tmp_path)["studies"]
    told = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    assert len(told) >= KILLS // 2 + MORE
    # Every told trial is there exactly once, with the value that was told.
    assert [number for number, *_ in killed] == list(range(len(killed)))
    values = {number: seen for number, _, _, seen in killed}
    assert all(values[number] == [[value]] for number, value in told)
    # Its configs, states and values are those of a study that nobody disturbed.
    assert killed == whole


def test_two_processes_ask_and_tell_without_losing_or_doubling_a_trial(tmp_path: Path) -> None:
    result = program("share", tmp_path)
    (trials,) = result["studies"]
    assert [number for number, *_ in trials] == list(range(2 * ASKS))
    assert {state for _, _, state, _ in trials} == {"complete"}
    assert len({json.dumps(config) for _, config, *_ in trials}) == 2 * ASKS
    told = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    assert sorted(told) == [[number, seen[0][0]] for number, _, _, seen in trials]


# What follows runs in the program that the tests start.


def objective(config: dict[str, Any]) -> float:
    time.sleep(0.002)
    return float((config["x"] - 3) ** 2 + config["k"])


def study_in(path: Path) -> Any:
    from gpbo import Float, Int, RandomSuggester, Study

    space = {"x": Float(-5, 5), "k": Int(0, 9)}
    return Study(space, suggester=RandomSuggester(), store=path, seed=7, device="cpu")


def grid_in(path: Path) -> Any:
    from gpbo import Int, RandomSuggester, Study

    space = {"x": Int(1, 25), "k": Int(1, 20)}  # 500 configs, so that doubles would be likely
    return Study(space, suggester=RandomSuggester(), store=path, seed=7, device="cpu")


def note(path: Path, trial: Any) -> None:
    """Write down, durably, that a tell has returned."""
    with path.open("a") as file:
        file.write(json.dumps([trial.number, trial.value]) + "\n")
        file.flush()
        os.fsync(file.fileno())


def drive(folder: Path, name: str, n_trials: int) -> None:
    noted = [lambda _, trial: note(folder / "told", trial)] if name == "killed" else []
    study_in(folder / f"{name}.db").optimize(objective, n_trials, callbacks=noted, progress=False)


def fork(work: Any, *args: Any) -> int:
    """A child that does `work`; its process id."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work(*args)
        status = 0
    finally:
        os._exit(status)


def kill_at_random(folder: Path) -> None:
    """Drivers that are killed, each at a random moment after its start or after its first tell.

    Every other one gets as far as a tell, so that no trial is lost so often that the loop gives it up.
    """
    moments = random.Random(0)
    told = folder / "told"
    told.touch()
    for k in range(KILLS):
        before = told.stat().st_size
        pid = fork(drive, folder, "killed", 10**6)
        while k % 2 and told.stat().st_size == before:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.08))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status), f"driver {k} ended by itself with {status}"
        check_told(folder)


def check_told(folder: Path) -> None:
    """Reopen the study and find what was told until now."""
    trials = study_in(folder / "killed.db").trials
    for number, value in map(json.loads, (folder / "told").read_text().splitlines()):
        assert trials[number].number == number
        assert [seen.value for seen in trials[number].observations] == [value], f"trial {number}"


def ask_and_tell(folder: Path) -> None:
    study = grid_in(folder / "shared.db")
    for _ in range(ASKS):
        trial = study.ask()
        note(folder / "told", study.tell(trial, trial.config["x"] * trial.config["k"]))


def plain(study: Any) -> list[Any]:
    return [
        [t.number, dict(t.config), t.state.value, [list(seen.values) for seen in t.observations]]
        for t in study.trials
    ]


def main(what: str, folder: Path) -> None:
    import torch

    import gpbo.run
    import gpbo.stores.sql
    import gpbo.suggesters.quasirandom  # noqa: F401  (loaded once, here, rather than in every child)

    torch.set_num_threads(1)
    if what == "kill":
        kill_at_random(folder)
        n_trials = len(study_in(folder / "killed.db").trials) + MORE
        for name in ("killed", "whole"):
            drive(folder, name, n_trials)
        studies = [study_in(folder / f"{name}.db") for name in ("killed", "whole")]
    else:
        pids = [fork(ask_and_tell, folder) for _ in range(2)]
        assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0]
        studies = [grid_in(folder / "shared.db")]
    print(json.dumps({"studies": [plain(study) for study in studies]}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
