"""Ray itself, in processes of its own: it leaves sockets and children to the end of the process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ray = pytest.importorskip("ray", reason="needs gpbo[ray]")
pytest.importorskip("ray.tune", reason="needs gpbo[ray]")

from gpbo import State, Study
from gpbo.errors import StoreError

pytestmark = pytest.mark.usefixtures("one_ray")


def start(script, *arguments):
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)],
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def printed(process):
    """The words of the line that begins with "done", among all that Ray prints."""
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, text
    return next(line for line in text.splitlines() if line.startswith("done")).split()[1:]


CHANGES = {
    "from ray.tune.schedulers.hb_bohb import HyperBandForBOHB\n": "",
    "from ray.tune.search.bohb import TuneBOHB": (
        "from gpbo.integrations.ray_tune import HyperBandForBOHB, TuneBOHB"
    ),
    # the rest only makes it small, and lets it run where hpbandster does not
    "sys.version_info >= (3, 12)": "sys.version_info >= (4, 0)",
    "ray.init(num_cpus=8)": "ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)",
    "time.sleep(0.1)": "time.sleep(0.0)",
    "num_samples=32": "num_samples=3",
    'name="bohb_test",': 'name="bohb_test", storage_path=sys.argv[1], verbose=0,',
}


def test_the_bohb_example_of_ray_by_other_imports(tmp_path):
    example = Path(ray.__file__).parent / "tune" / "examples" / "bohb_example.py"
    text = example.read_text()
    for old, new in CHANGES.items():
        assert text.count(old) == 1, f"{old!r} is not in Ray's example any more"
        text = text.replace(old, new)
    text += "    print('done', results.num_errors, *(r.metrics['training_iteration'] for r in results))\n"
    (tmp_path / "bohb.py").write_text(text)
    errors, *iterations = map(int, printed(start(tmp_path / "bohb.py", tmp_path)))
    assert errors == 0
    assert sorted(iterations) == [3, 5, 10]  # a bracket of 8, 4, 2, 1 of which three were started


DRIVER = """
import json, sys, tempfile, time
from pathlib import Path

import ray
from ray import tune

from gpbo import ASHA, SobolSuggester
from gpbo.integrations.ray_tune import GPBOScheduler, GPBOSearch

root = Path(sys.argv[1])


def train(config):
    saved, start = tune.get_checkpoint(), 0
    if saved:
        with saved.as_directory() as folder:
            start = json.loads((Path(folder) / "i.json").read_text())
    for i in range(start + 1, 10):
        time.sleep(0.02)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "i.json").write_text(json.dumps(i))
            loss = (config["opt"]["x"] - config["goal"]) ** 2 + 1 / i
            tune.report({"loss": loss}, checkpoint=tune.Checkpoint.from_directory(folder))


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    if tune.Tuner.can_restore(root / "kill"):
        tuner = tune.Tuner.restore(str(root / "kill"), train)
    else:
        tuner = tune.Tuner(
            train,
            param_space={"opt": {"x": tune.uniform(0, 1)}, "goal": 0.3},
            tune_config=tune.TuneConfig(
                metric="loss",
                mode="min",
                num_samples=6,
                search_alg=GPBOSearch(store=root / "study.db", suggester=SobolSuggester()),
                scheduler=GPBOScheduler(ASHA(1, 9)),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(name="kill", storage_path=str(root), verbose=0),
        )
    results = tuner.fit()
    print("done", len(results), results.num_errors, results.get_best_result().metrics["loss"])
"""


def observations(path):
    """What the study in a file has observed, by trial; nothing before there is one."""
    try:
        study = Study.load(path)
    except StoreError:
        return []
    found = [trial.observations for trial in study.trials]
    study.close()
    return found


def test_a_driver_that_is_killed_loses_nothing(tmp_path):
    (tmp_path / "driver.py").write_text(DRIVER)
    first = start(tmp_path / "driver.py", tmp_path)
    deadline = time.monotonic() + 200
    while sum(map(len, observations(tmp_path / "study.db"))) < 4:
        assert first.poll() is None, first.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    before = observations(tmp_path / "study.db")
    assert 0 < sum(map(len, before)) < 12

    n, errors, best = printed(start(tmp_path / "driver.py", tmp_path))
    after = observations(tmp_path / "study.db")
    assert (int(n), int(errors), len(after)) == (6, 0, 6)
    for old, new in zip(before, after, strict=False):
        assert new[: len(old)] == old
    assert all(after)
    assert sum(len(seen) > 1 for seen in after) >= 2  # a third of the six
    study = Study.load(tmp_path / "study.db")
    assert min(seen[-1].value for seen in after) == float(best)
    assert not [trial for trial in study.trials if trial.state is State.RUNNING]
    study.close()
