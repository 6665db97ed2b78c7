"""Drivers with budgets and checkpoints, killed between any two steps they take on the disk.

The test starts this file as a program, which loads everything once and forks the processes that are killed.
A fork counts its steps: every change of a file or a directory under the checkpoints, every fsync, and every
write to the store. At the step that is its turn it kills itself; then another fork ends the study.
"""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

STRIDE = 19  # every so many steps are tried, each from the start; 1 takes minutes

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


@pytest.mark.parametrize("scheduler", ["promotion", "stopping", "bracket"])
def test_a_driver_killed_between_any_two_steps_loses_nothing(scheduler: str, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", __file__, str(tmp_path), scheduler]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert len(result["killed"]) >= 15
    whole = result["whole"]
    if scheduler == "bracket":  # the last one begun lacks a trial, and its other one went on all the same
        assert [len(seen) for *_, bracket, seen in whole["trials"] if bracket == 1] == [4]
    assert {state for _, _, state, *_ in whole["trials"]} > {"complete"}
    for step, (died, after) in result["killed"].items():
        assert died == -signal.SIGKILL, f"the driver was not killed at step {step}"
        assert after["trials"] == whole["trials"], f"killed at step {step}"
        assert after["kept"] == whole["kept"], f"killed at step {step}"
        assert not after["restarted"], f"killed at step {step}"
        # No epoch is trained more than once too often: the one that ran.
        assert len(after["trained"]) - len(set(after["trained"])) <= 1, f"killed at step {step}"
        assert sorted(set(after["trained"])) == sorted(whole["trained"]), f"killed at step {step}"


def test_a_driver_with_workers_killed_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", __file__, str(tmp_path), "workers"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["kills"] >= 2
    assert result["restarted"] == []
    for number, config, state, _, seen in result["trials"]:
        assert state in ("paused", "complete"), number
        assert seen == [[k, math.cos(9 * config["x"] * k)] for k in range(1, len(seen) + 1)]
        assert len(seen) in (1, 2, 4)
    assert {len(seen) for *_, seen in result["trials"]} == {1, 2, 4}
    assert result["kept"] == sorted(str(number) for number, *_ in result["trials"])


# What follows runs in the programs that the tests start.


def study_in(folder: Path, scheduler: str) -> Any:
    import gpbo

    asha = gpbo.ASHA(budgets=[1, 2, 4], reduction_factor=2, stopping=scheduler == "stopping")
    return gpbo.Study(
        {"x": gpbo.Float(0, 1)},
        suggester=gpbo.RandomSuggester(),
        scheduler=gpbo.Hyperband(1, 4, 2) if scheduler == "bracket" else asha,
        store=folder / "study.db",
        seed=3,
        device="cpu",
    )


def drive(folder: Path, scheduler: str, workers: int = 1) -> None:
    def objective(job: Any) -> None:
        epoch = 0
        if job.last_checkpoint is not None:
            epoch = int((job.last_checkpoint / "epoch").read_text())
            assert (job.last_checkpoint / "more" / "epoch").read_text() == str(epoch)
        while epoch < job.budget:
            epoch += 1
            with (folder / "trained").open("a") as file:
                file.write(f"{job.number}/{epoch}\n")
            (job.checkpoint_dir / "more").mkdir()
            for name in ("epoch", "more/epoch"):
                (job.checkpoint_dir / name).write_text(str(epoch))
            if not job.report(math.cos(9 * job.config["x"] * epoch), epoch):
                return

    study = study_in(folder, scheduler)
    store = study._store
    for name in ("add", "swap"):
        setattr(store, name, counted(getattr(store, name)))
    n_trials = 5 if scheduler == "bracket" else 4  # four make the first bracket, and the second needs two
    study.optimize(objective, n_trials, workers=workers, progress=False)


class Fuse:
    left = 0


def step() -> None:
    Fuse.left -= 1
    if Fuse.left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def counted(function: Any) -> Any:
    """The function, with a step before and after it."""

    def stepping(*args: Any, **options: Any) -> Any:
        step()
        try:
            return function(*args, **options)
        finally:
            step()

    return stepping


def fork(folder: Path, scheduler: str, fuse: int) -> int:
    """Drive the study until the fuse is burnt; the exit status, or minus the signal. Zero burns never."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            Fuse.left = fuse
            os.fsync = counted(lambda file: None)  # what is killed leaves no page behind
            for name in ("rename", "mkdir", "rmdir", "unlink"):
                setattr(os, name, counted(getattr(os, name)))
            drive(folder, scheduler)
            if fuse < 0:
                (folder / "steps").write_text(str(fuse - Fuse.left))
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_workers_driver(folder: Path) -> int:
    """Drive the study with two workers, killed after each few epochs; how often."""
    (folder / "trained").touch()
    for kills in range(100):
        before = (folder / "trained").stat().st_size
        pid = os.fork()
        if pid == 0:
            try:
                drive(folder, "promotion", workers=2)
            finally:
                os._exit(0)
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if (folder / "trained").stat().st_size > before + 2 * len("0/1\n"):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                break
            time.sleep(0.001)
        else:
            return kills
    raise AssertionError("the study does not end")


def found(folder: Path, scheduler: str) -> dict[str, Any]:
    trials = study_in(folder, scheduler).trials
    return {
        "trials": [
            [
                t.number,
                dict(t.config),
                t.state.value,
                t.bracket,
                [[o.budget, o.value] for o in t.observations],
            ]
            for t in trials
        ],
        "restarted": [t.number for t in trials if "restarted" in t.info.get("run", {})],
        "kept": sorted(path.name for path in folder.glob("study.db.checkpoints/*/*")),
        "trained": (folder / "trained").read_text().split(),
    }


def main(folder: Path, scheduler: str) -> None:
    import torch

    import gpbo.run
    import gpbo.stores.sql
    import gpbo.suggesters.quasirandom  # noqa: F401  (loaded once, here, rather than in every child)

    torch.set_num_threads(1)
    if scheduler == "workers":
        kills = kill_workers_driver(folder)
        print(json.dumps({"kills": kills, **found(folder, "promotion")}))
        return
    empty, whole = folder / "empty", folder / "whole"
    empty.mkdir()
    study_in(empty, scheduler).close()
    shutil.copytree(empty, whole)
    assert fork(whole, scheduler, -1) == 0
    n_steps = int((whole / "steps").read_text())
    killed = {}
    for k in range(1, n_steps + 1, STRIDE):
        here = folder / str(k)
        shutil.copytree(empty, here)
        (here / "trained").touch()
        died = fork(here, scheduler, k)
        assert fork(here, scheduler, 0) == 0, f"after a kill at step {k} of {n_steps}"
        killed[k] = died, found(here, scheduler)
        shutil.rmtree(here)
    print(json.dumps({"killed": killed, "whole": found(whole, scheduler)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
