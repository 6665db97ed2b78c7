"""What is particular to each of the two local executors."""

import array
import importlib
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from gpbo.errors import ObjectiveError, SettingError
from gpbo.executors import local
from gpbo.executors.local import InlineExecutor, ProcessExecutor
from gpbo.executors.owner import process_start


@pytest.fixture
def make():
    """Make a `ProcessExecutor`; closed afterwards."""
    made = []

    def factory(objective, workers=1, **options):
        made.append(ProcessExecutor(objective, workers, **options))
        return made[-1]

    yield factory
    for executor in made:
        executor.close()


def run_one(executor, config=None, number=0):
    executor.submit(number, config or {})
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up:
        for outcome in executor.poll(1.0):
            assert outcome.number == number
            return outcome
    raise AssertionError("no outcome")


def run_two(executor):
    """The values of two runs at the same time."""
    for me in (0, 1):
        executor.submit(me, {"me": me})
    outcomes = []
    while len(outcomes) < 2:
        outcomes += executor.poll(1.0)
    return {outcome.number: outcome.value for outcome in outcomes}


def wait_for(condition, what):
    give_up = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up, what
        time.sleep(0.01)


def test_inline_lets_keyboard_interrupt_through():
    def objective(config):
        raise KeyboardInterrupt

    executor = InlineExecutor(objective)
    executor.submit(0, {})
    with pytest.raises(KeyboardInterrupt):
        executor.poll(0.0)
    assert executor.poll(0.0) == []


def test_inline_runs_in_this_process_and_needs_no_pickling():
    lock = threading.Lock()
    assert run_one(InlineExecutor(lambda config: (os.getpid(), lock))).value == (os.getpid(), lock)


def test_a_worker_is_another_process_that_lives_on(make):
    executor = make(lambda config: os.getpid())
    first, second = run_one(executor).value, run_one(executor).value
    assert first == second != os.getpid()


def test_workers_run_at_the_same_time(make, tmp_path):
    def objective(config):
        (tmp_path / str(config["me"])).touch()
        while not (tmp_path / str(1 - config["me"])).exists():
            time.sleep(0.01)
        return config["me"]

    assert run_two(make(objective, 2, timeout=30)) == {0: 0, 1: 1}


def test_a_worker_loads_neither_torch_nor_numpy_and_knows_the_scripts_arguments_and_paths(make):
    def objective(config):
        return [m for m in ("torch", "numpy", "gpbo.run") if m in sys.modules], sys.argv, sys.path

    assert run_one(make(objective)).value == [[], sys.argv, [str(path) for path in sys.path]]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("kill", r"killed by signal 9 \(SIGKILL\), perhaps for want of memory while running the objective"),
        ("segfault", r"killed by signal 11 \(SIGSEGV\) while running the objective"),
        ("realtime", r"killed by signal 40 while running the objective"),
        ("exit", "ended with exit code 3 while running the objective"),
        ("disconnect", "the worker process .* while running the objective"),
    ],
)
def test_a_worker_that_dies_is_a_failure_and_is_replaced(make, how, message):
    def objective(config):
        match config["how"]:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "segfault":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "realtime":
                os.kill(os.getpid(), 40)
            case "exit":
                os._exit(3)
            case "disconnect":
                os.closerange(3, 256)
                time.sleep(0.2)
        return 1.0

    executor = make(objective)
    outcome = run_one(executor, {"how": how})
    assert re.search(message, outcome.error)
    assert outcome.lost
    assert run_one(executor, {"how": "well"}).value == 1.0


def test_an_idle_worker_that_died_is_replaced(make):
    executor = make(lambda config: os.getpid())
    first = run_one(executor).value
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: process_start(first) is None, "the worker lives")
    assert run_one(executor).value != first


def test_a_run_over_its_limit_is_killed_with_what_it_started(make, tmp_path):
    def objective(config):
        if config["hang"]:
            child = subprocess.Popen(["sleep", "60"])
            (tmp_path / "pid").write_text(str(child.pid))
            time.sleep(60)
        return 1.0

    executor = make(objective, timeout=0.5)
    outcome = run_one(executor, {"hang": True})
    assert outcome.error == "the objective ran over its limit of 0.5 seconds and was stopped."
    assert outcome.seconds >= 0.5
    child = int((tmp_path / "pid").read_text())
    wait_for(lambda: process_start(child) is None, "the child lives")
    assert run_one(executor, {"hang": False}).value == 1.0


def test_a_dead_worker_is_noticed_though_its_child_keeps_the_socket(make, tmp_path):
    def objective(config):
        if os.fork() == 0:
            (tmp_path / "pid").write_text(str(os.getpid()))
            time.sleep(60)
        while not (tmp_path / "pid").exists():
            time.sleep(0.01)
        os._exit(4)

    assert "exit code 4" in run_one(make(objective)).error
    child = int((tmp_path / "pid").read_text())
    wait_for(lambda: process_start(child) is None, "the child lives")


def test_a_result_that_cannot_be_pickled_is_a_failure(make):
    executor = make(lambda config: threading.Lock() if config["bad"] else 1.0)
    error = run_one(executor, {"bad": True}).error
    assert error.startswith("the objective returned a lock, which cannot be sent to the driver: ")
    assert run_one(executor, {"bad": False}).value == 1.0


def test_a_result_that_cannot_be_read_is_a_failure(make):
    class Garbage:
        def __reduce__(self):
            return int, ("garbage",)

    error = run_one(make(lambda config: Garbage())).error
    assert error.startswith("the objective's result could not be read: invalid literal")


def test_arrays_travel_as_numbers(make):
    executor = make(lambda config: (array.array("d", [1.0, 2.0]), 3.0))
    assert run_one(executor).value == [[1.0, 2.0], 3.0]


def test_a_worker_turns_keyboard_interrupt_into_a_failure_and_ignores_sigint(make):
    def objective(config):
        os.kill(os.getpid(), signal.SIGINT)
        if config["raises"]:
            raise KeyboardInterrupt
        return 1.0

    executor = make(objective)
    assert run_one(executor, {"raises": True}).error.endswith("KeyboardInterrupt")
    assert run_one(executor, {"raises": False}).value == 1.0


def test_output_goes_through_and_standard_input_is_empty(make, capfd):
    def objective(config):
        print("to stdout")
        print("to stderr", file=sys.stderr)
        return sys.stdin.read()

    assert run_one(make(objective)).value == ""
    assert capfd.readouterr() == ("to stdout\n", "to stderr\n")


def test_closed_streams_do_no_harm(make):
    def objective(config):
        sys.stdout.close()
        sys.stderr = None
        return 1.0

    assert run_one(make(objective)).value == 1.0


def test_workers_have_their_own_gpus_and_share_the_cores(make, monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)

    def objective(config):
        (tmp_path / str(config["me"])).touch()
        while not (tmp_path / str(1 - config["me"])).exists():
            time.sleep(0.01)
        return [os.environ[name] for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS")]

    seen = run_two(make(objective, 2, timeout=30))
    threads = str(max(1, local.usable_cores() // 2))
    assert sorted(seen.values()) == [["4", "5", threads], ["7", "5", threads]]


def test_an_objective_that_cannot_be_pickled_is_refused(make):
    lock = threading.Lock()
    with pytest.raises(ObjectiveError, match=r"cannot be sent to worker processes: .*lock"):
        make(lambda config: lock)


class Loaded:
    """An objective that is made by a call in the worker."""

    def __init__(self, call, *arguments):
        self.made_by = call, arguments

    def __reduce__(self):
        return self.made_by

    def __call__(self, config):
        raise NotImplementedError


def test_an_objective_that_cannot_be_loaded_ends_it(make):
    executor = make(Loaded(importlib.import_module, "no_such_module"))
    executor.submit(0, {})
    with pytest.raises(ObjectiveError, match=r"(?s)could not load the objective.*'no_such_module'"):
        executor.poll(30.0)
    assert executor.poll(0.0) == []


def test_an_objective_that_takes_too_long_to_load_ends_it(make, monkeypatch):
    monkeypatch.setattr(local, "_START_SECONDS", 0.5)
    executor = make(Loaded(time.sleep, 60), timeout=0.1)
    executor.submit(0, {})
    with pytest.raises(ObjectiveError, match=r"loading the objective took over its limit of 0\.6 seconds"):
        executor.poll(30.0)


def test_a_worker_that_ends_before_it_starts_ends_it(make, monkeypatch):
    monkeypatch.setattr(sys, "executable", "false")
    executor = make(lambda config: 1.0)
    executor.submit(0, {})
    with pytest.raises(ObjectiveError, match="ended with exit code 1 before it could start"):
        executor.poll(30.0)


def test_an_interpreter_that_is_not_there_ends_it(make, monkeypatch):
    monkeypatch.setattr(sys, "executable", "no-such-python")
    with pytest.raises(ObjectiveError, match=r"a worker process could not be started: .*no-such-python"):
        make(lambda config: 1.0).submit(0, {})


def test_once_a_worker_ran_one_that_does_not_start_is_a_failed_run(make, tmp_path):
    flag = tmp_path / "flag"

    def load():
        if flag.exists():
            raise ImportError("the disk is gone")
        return lambda config: flag.touch() or os._exit(3)

    executor = make(Loaded(load))
    assert "exit code 3" in run_one(executor).error
    assert run_one(executor).error.endswith("ImportError: the disk is gone")


def test_needs_process_groups(make, monkeypatch):
    monkeypatch.delattr(os, "killpg")
    with pytest.raises(SettingError, match="`workers` > 1 and `trial_timeout` need Linux or macOS"):
        make(lambda config: 1.0)


def test_close_leaves_no_process_behind_and_runs_exit_handlers(make, tmp_path):
    def objective(config):
        import atexit

        atexit.register((tmp_path / "exited").touch)
        return os.getpid(), subprocess.Popen(["sleep", "60"]).pid

    executor = make(objective)
    pids = run_one(executor).value
    executor.close()
    for pid in pids:
        wait_for(lambda pid=pid: process_start(pid) is None, "a process lives")
    assert (tmp_path / "exited").exists()


def start(script, *arguments):
    """A script that is running."""
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_workers_die_with_a_driver_that_is_killed(tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(
        textwrap.dedent("""
            import os, subprocess, sys, time
            from pathlib import Path
            from gpbo.executors.local import ProcessExecutor

            def objective(config):
                child = subprocess.Popen(["sleep", "60"])
                Path(sys.argv[1] + ".new").write_text(f"{os.getpid()} {child.pid}")
                os.rename(sys.argv[1] + ".new", sys.argv[1])
                time.sleep(60)

            executor = ProcessExecutor(objective, 1)
            executor.submit(0, {})
            executor.poll(60)
        """)
    )
    pids = tmp_path / "pids"
    with start(script, pids) as driver:
        wait_for(pids.exists, "the objective did not start")
        driver.kill()
        for pid in map(int, pids.read_text().split()):
            wait_for(lambda pid=pid: process_start(pid) is None, "an orphan lives")


def test_a_script_without_a_guard_runs_once(tmp_path):
    (tmp_path / "beside.py").write_text("SCALE = 10\n")
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            from dataclasses import dataclass
            from gpbo.executors.local import ProcessExecutor
            import beside

            print("script runs", flush=True)

            @dataclass
            class Model:
                x: float

                def loss(self):
                    return beside.SCALE * helper(self.x)

            def helper(x):
                return x + OFFSET

            def objective(config):
                return Model(config["x"]).loss()

            OFFSET = 1
            executor = ProcessExecutor(objective, 2)
            for number in range(2):
                executor.submit(number, {"x": number})
            outcomes = []
            while len(outcomes) < 2:
                outcomes += executor.poll(1.0)
            executor.close()
            print(sorted((o.value, o.error) for o in outcomes))
        """)
    )
    with start(Path(script)) as process:
        output = process.communicate(timeout=60)[0]
    assert output == "script runs\n[(10, None), (20, None)]\n"
