import csv
import dataclasses
import gc
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml

import gpbo
from gpbo import cli
from gpbo.export import as_text, cell, from_cell
from gpbo.trial import State

STUDY = """\
study: {name: parabola, metric: loss}
objective: OBJECTIVE
search_space:
  x: {type: float, low: -1.0, high: 1.0}
  opt: {type: categorical, choices: [sgd, "1", 1, null, true, ""]}
  momentum: {type: float, low: 0, high: 0.99, when: {opt: sgd}}
sampler: {type: random, seed: 1}
resources: {n_trials: 4}
"""


@pytest.fixture
def gpbo_cli(tmp_path, monkeypatch, capsys):
    """Run a command in an empty directory; its exit code, output and complaints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["gpbo", *map(str, arguments)])
        code = cli.main()
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def study_file(tmp_path):
    """Write study.yaml with an objective of this body, in a module that no other test has."""

    def write(body="return {'loss': config['x'] ** 2}", **replacements):
        module = f"user_{tmp_path.name.replace('-', '_')}"
        (tmp_path / f"{module}.py").write_text(f"def objective(config):\n    {body}\n")
        sys.modules.pop(module, None)
        text = STUDY.replace("OBJECTIVE", f"{module}:objective")
        for old, new in replacements.items():
            text = text.replace(old, new)
        (tmp_path / "study.yaml").write_text(text)
        return module

    return write


def files():
    return {path.name: path.read_bytes() for path in Path().iterdir() if path.is_file()}


def test_help_and_version_do_not_load_torch():
    for argument in ("--help", "--version"):
        code = (
            "import sys; from gpbo.cli import main; sys.argv = ['gpbo', sys.argv[1]]; code = main(); "
            "heavy = {'torch', 'sqlalchemy', 'sklearn', 'botorch'} & set(sys.modules); "
            "print(heavy, file=sys.stderr); sys.exit(code)"
        )
        done = subprocess.run([sys.executable, "-c", code, argument], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "set()\n")
        assert "gpbo" in done.stdout


def test_reading_a_study_does_not_load_torch(gpbo_cli, study_file):
    study_file()
    gpbo_cli("run")
    code = (
        "import sys; from gpbo.cli import main; sys.argv = ['gpbo', 'status', 'study.db']; main(); "
        "print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == "False\n"


def test_version_and_no_command(gpbo_cli):
    assert gpbo_cli("--version") == (0, f"gpbo {gpbo.__version__}\n", "")
    code, out, err = gpbo_cli("bset")
    assert (code, out) == (2, "")
    assert "best" in err


def test_run_resumes_and_says_what_to_type_next(gpbo_cli, study_file):
    study_file()
    code, out, err = gpbo_cli("run", "study.yaml")
    assert code == 0
    assert "study 'parabola' (minimize), 4 trials: 4 complete" in out
    assert "next: gpbo status study.yaml" in out
    assert "study 'parabola' in study.db: new, to 4." in err
    first = gpbo.Study.load("study.db", "parabola").trials
    code, out, err = gpbo_cli("run", "study.yaml")
    assert code == 0
    assert "4 trials so far, to 4." in err
    assert "gpbo run study.yaml --trials 14" in err
    code, out, err = gpbo_cli("run", "study.yaml", "--trials", 6, "--workers", 2, "--timeout", "5m")
    assert code == 0
    trials = gpbo.Study.load("study.db", "parabola").trials
    assert len(trials) == 6
    assert trials[:4] == first
    assert all(t.value == t.config["x"] ** 2 for t in trials)


FORMS = {
    "plain": "def objective(config, budget):\n    return {'loss': config['x'] ** 2 + 1 / budget}\n",
    "job": """\
def objective(job):
    for budget in (1, 3, 9):
        value = job.config['x'] ** 2 + 1 / budget
        if budget < job.budget and not job.report(value, budget):
            return None
        if budget == job.budget:
            return {'loss': value}
""",
}


@pytest.mark.parametrize("form", [*FORMS, "command"])
def test_run_with_budgets(gpbo_cli, study_file, form):
    module = study_file(
        **{
            "resources:": "pruner: {type: asha, max_resource: 9}\nresources:",
            "n_trials: 4": "n_trials: 9",
        }
    )
    if form == "command":
        code = (
            "import json, sys; x, b = sys.argv[1:]; print(json.dumps({'loss': float(x) ** 2 + 1 / int(b)}))"
        )
        text = Path("study.yaml").read_text()
        words = json.dumps(
            [sys.executable, "-c", code.replace("{", "{{").replace("}", "}}"), "{x}", "{budget}"]
        )
        Path("study.yaml").write_text(
            text.replace(f"objective: {module}:objective", f"objective: {{command: {words}}}")
        )
    else:
        Path(f"{module}.py").write_text(FORMS[form])
    code, out, err = gpbo_cli("run")
    assert code == 0, err
    trials = gpbo.Study.load("study.db", "parabola").trials
    assert len(trials) == 9
    states = {str(trial.state) for trial in trials}
    assert states == {"paused", "complete"}, [t.error for t in trials]
    assert {o.budget for t in trials for o in t.observations} == {1, 3, 9}
    assert all(o.value == t.config["x"] ** 2 + 1 / o.budget for t in trials for o in t.observations)
    assert "paused" in out


def test_an_objective_of_another_form_is_refused_where_it_is_named(gpbo_cli, study_file):
    module = study_file()
    Path(f"{module}.py").write_text("def objective(config, budget):\n    return 0\n")
    code, _, err = gpbo_cli("run")
    assert code == 1
    assert "study.yaml:" in err
    assert "`objective` must be f(config), got objective(config, budget). Jobs and budgets come with" in err
    assert not Path("study.db").exists()


def test_the_best_says_its_budget(gpbo_cli, study_file):
    module = study_file(
        **{"resources:": "pruner: {type: asha, max_resource: 9}\nresources:", "n_trials: 4": "n_trials: 9"}
    )
    Path(f"{module}.py").write_text(FORMS["plain"])
    assert " at budget 9" in gpbo_cli("run")[1].split("best: ")[1].splitlines()[0]
    assert json.loads(gpbo_cli("best", "--json")[1])["budget"] == 9


def test_run_says_what_is_not_at_work(gpbo_cli, study_file, tmp_path):
    Path("sweep.yaml").write_text(
        f"command: ['{sys.executable}', '-c', 'print(1)']\nproject: p\nmethod: random\nrun_cap: 2\n"
        "parameters: {x: {min: 0.0, max: 1.0}}\n"
    )
    code, _, err = gpbo_cli("run", "sweep.yaml")
    assert code == 0
    assert "note: `project` has no effect here: nothing is sent to W&B." in err.splitlines()


def test_run_a_command(gpbo_cli, study_file):
    Path("job.py").write_text(
        "import sys, json\nprint('x' * 10)\nx = float(sys.argv[1])\nprint(json.dumps({'loss': x}))\n"
        "sys.exit('too high' if x > 0 else 0)\n"
    )
    module = study_file()
    study_file(**{f"{module}:objective": f"{sys.executable} job.py {{x}}"})
    code, out, _ = gpbo_cli("run", "--trials", 8)
    states = {t.state: t for t in gpbo.Study.load("study.db", "parabola").trials}
    assert code == 0
    assert set(states) == {"complete", "failed"}
    assert states["complete"].value == states["complete"].config["x"] < 0
    assert "too high" in states["failed"].error
    assert "exited with code 1." in out


def test_run_fails_when_every_trial_failed(gpbo_cli, study_file):
    study_file("raise ValueError('diverged')")
    code, out, err = gpbo_cli("run")
    assert code == 1
    assert "last failure: trial 3, ValueError: diverged" in out
    assert "error: every trial failed" in err


def test_wrong_study_files_and_objectives(gpbo_cli, study_file):
    code, out, err = gpbo_cli("run", "none.yaml")
    assert (code, out, err) == (2, "", "error: none.yaml: cannot be read: No such file or directory.\n")
    study_file()
    code, out, err = gpbo_cli("run", "stduy.yaml")
    assert err == (
        "error: stduy.yaml: cannot be read: No such file or directory. Did you mean 'study.yaml'?\n"
    )
    study_file(**{"high: 1.0": "hgih: 1.0"})
    code, out, err = gpbo_cli("run")
    assert (code, out) == (2, "")
    assert err == (
        "error: study.yaml:4: search_space.x: 'hgih' is not an option of type 'float'. Did you mean 'high'?\n"
    )
    study_file(**{":objective": ":objectiv"})
    code, out, err = gpbo_cli("run")
    assert (code, out) == (1, "")
    assert err.startswith("error: study.yaml:2: objective ")
    assert err.endswith("has no 'objectiv'. Did you mean 'objective'?\n")
    assert not Path("study.db").exists()
    study_file(**{"resources: {n_trials: 4}": ""})
    code, out, err = gpbo_cli("run")
    assert (code, out) == (2, "")
    assert err == (
        "error: study.yaml: resources needs n_trials or timeout_hours (or --trials, --timeout), because its "
        "space never runs out of configs.\n"
    )
    assert not Path("study.db").exists()
    Path("sweep.yaml").write_text(
        "command: ['true']\nmethod: random\nmetric: {name: loss}\nparameters: {x: {min: 0.0, max: 1.0}}\n"
    )
    assert "sweep.yaml: the sweep needs run_cap" in gpbo_cli("run", "sweep.yaml")[2]
    study_file()
    for timeout in ("soon", "0s", "-1", "nan"):
        code, _, err = gpbo_cli("run", f"--timeout={timeout}")
        assert code == 2
        assert f"`--timeout` must be a time such as 90s, 30m or 2h, got '{timeout}'." in err
    assert gpbo_cli("run", "--trials", 0)[0] == 2


def test_a_changed_space_is_refused(gpbo_cli, study_file):
    study_file()
    gpbo_cli("run")
    study_file(**{"high: 1.0": "high: 2.0"})
    code, _, err = gpbo_cli("run")
    assert code == 1
    assert "+ x: " in err


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_stops_cleanly_and_loses_nothing(gpbo_cli, study_file, workers, tmp_path):
    study_file("import time; time.sleep(60 if config['x'] > 0 else 0); return config['x']")
    command = [sys.executable, "-m", "gpbo", "run", "--trials", "9", "--workers", str(workers)]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for _ in range(300):
        time.sleep(0.2)
        if Path("study.db").exists() and (json.loads(gpbo_cli("status", "--json")[1] or "{}")).get("studies"):
            summary = json.loads(gpbo_cli("status", "--json")[1])["studies"][0]
            if summary["pending"] and summary["pending"][0]["config"]["x"] > 0:
                break
    run.send_signal(signal.SIGINT)
    out, err = run.communicate()
    assert run.returncode == 130, err
    assert "stopped; finished trials are kept in study.db. The same command goes on." in err
    assert "Traceback" not in out + err


# Python runs sitecustomize.py when it starts; this one sends a signal in the midst of an import.
SENDER = """
import os, signal, sys

class Sender:
    def find_spec(name, path=None, target=None):
        if name == MODULE:
            sys.meta_path.remove(Sender)
            os.kill(os.getpid(), NUMBER)

sys.meta_path.insert(0, Sender)
"""
STOPPED = "stopped; finished trials are kept in study.db. The same command goes on.\n"


def process(tmp_path, *arguments, customize=""):
    (tmp_path / "sitecustomize.py").write_text(customize)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "gpbo", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)
@pytest.mark.parametrize("module", ["torch", "torch._tensor", "gpbo.studyfile"])
def test_a_signal_while_starting_is_not_lost(gpbo_cli, study_file, tmp_path, module, number):
    study_file()
    done = process(
        tmp_path,
        "run",
        customize=SENDER.replace("MODULE", repr(module)).replace("NUMBER", str(int(number))),
    )
    said = "stopped.\n" if module == "gpbo.studyfile" else STOPPED
    assert (done.returncode, done.stdout, done.stderr) == (130, "", said)
    assert not Path("study.db").exists()


def test_ctrl_c_while_python_loads_the_command_line(gpbo_cli, study_file, tmp_path):
    study_file()
    sender = SENDER.replace("MODULE", "'typer'").replace("NUMBER", str(int(signal.SIGINT)))
    done = process(tmp_path, "run", customize=sender)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_ctrl_c_while_the_demo_starts(gpbo_cli, tmp_path):
    sender = SENDER.replace("MODULE", "'torch'").replace("NUMBER", str(int(signal.SIGINT)))
    done = process(tmp_path, "demo", "--short", customize=sender)
    assert (done.returncode, done.stdout) == (130, "")
    assert "stopped; finished trials are kept in gpbo-demo.db." in done.stderr


@pytest.mark.parametrize("then", ["pass", "raise ImportError('half imported')"])
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_that_the_objectives_module_swallows(gpbo_cli, study_file, tmp_path, then, workers):
    module = study_file()
    with (tmp_path / f"{module}.py").open("a") as file:
        file.write(
            "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\n"
            f"except KeyboardInterrupt:\n    {then}\n"
        )
    done = process(tmp_path, "run", "--workers", str(workers))
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.endswith(STOPPED if then == "pass" else "stopped.\n")
    assert "Traceback" not in done.stderr
    if Path("study.db").exists():
        assert gpbo.Study.load("study.db", "parabola").trials == []


def test_another_ctrl_c_while_python_exits(gpbo_cli, study_file, tmp_path):
    study_file()
    insist = "import atexit\natexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))\n"
    sender = SENDER.replace("MODULE", "'torch'").replace("NUMBER", str(int(signal.SIGINT)))
    done = process(tmp_path, "run", customize=sender + insist)
    assert (done.returncode, done.stderr) == (130, STOPPED)


def test_status_before_the_first_trial(gpbo_cli):
    gpbo.Study(gpbo.SearchSpace(x=gpbo.Float(0, 1)), store="study.db")
    assert gpbo_cli("status") == (0, "study 'default' (minimize), no trials\n", "")
    assert json.loads(gpbo_cli("status", "--json")[1]) == {
        "store": "study.db",
        "studies": [
            {
                "name": "default",
                "directions": ["minimize"],
                "n_trials": 0,
                "states": {"running": 0, "paused": 0, "complete": 0, "stopped": 0, "failed": 0},
                "outcome_constraints": {},
                "best": [],
                "pending": [],
                "last_error": None,
            }
        ],
    }
    code, out, err = gpbo_cli("best")
    assert (code, out, err) == (1, "", "error: study 'default' has no complete trial yet.\n")
    assert gpbo_cli("export")[1] == ("number,state,value,config.x,budget,seconds,started,finished,error\n")


@pytest.fixture
def mixed(gpbo_cli):
    """A store with a study of every kind of trial, and one with two objectives; in the directory."""
    space = gpbo.SearchSpace(
        x=gpbo.Float(-1, 1),
        opt=gpbo.Categorical(["sgd", "1", 1, None, True, ""]),
        momentum=gpbo.Float(0, 0.99, when={"opt": "sgd"}),
        constraints=[lambda c: c["x"] < 2],
    )
    study = gpbo.Study(space, store="study.db", name="one", suggester=gpbo.RandomSuggester(), seed=5)
    for opt in space.parameters["opt"].choices:
        momentum = {"momentum": 0.1} if opt == "sgd" else {}
        study.add({"x": 0.1 + 0.2, "opt": opt} | momentum, len(str(opt)))
    study.fail(study.ask(), 'a "quoted",\nerror')
    study.ask()
    two = gpbo.Study(
        {"x": gpbo.Float(0, 1)}, store="study.db", name="two", direction=["minimize", "maximize"]
    )
    two.add({"x": 0.0}, [0.0, 0.0])
    two.add({"x": 1.0}, [1.0, 1.0])
    two.add({"x": 0.5}, [2.0, 0.5])
    return study


def test_status_and_best_of_one_of_several_studies(gpbo_cli, mixed):
    code, out, err = gpbo_cli("status", "study.db")
    assert (code, err) == (0, "")
    assert (
        "study 'one' (minimize), 8 trials: 1 running, 6 complete, 1 failed\nbest: trial 5, value 0\n" in out
    )
    assert "study 'two' (minimize, maximize), 3 trials: 3 complete\nbest: trial 0, values [0.0, 0.0]" in out
    assert "pending: trial 7 {'x': " in out
    assert "last failure: trial 6, error" in out
    code, out, err = gpbo_cli("best")
    assert (code, out) == (2, "")
    assert "choose with --name one of one, two" in err
    assert json.loads(gpbo_cli("best", "--name", "one", "--json")[1]) == {
        "number": 5,
        "value": 0.0,
        "outcomes": {},
        "config": {"x": 0.1 + 0.2, "opt": ""},
    }
    assert [one["number"] for one in json.loads(gpbo_cli("best", "--name", "two", "--json")[1])] == [0, 1]
    code, _, err = gpbo_cli("status", "--name", "on")
    assert code == 1
    assert "holds no study 'on'" in err


def test_outcome_constraints(gpbo_cli, study_file):
    study_file(
        "return {'loss': config['x'], 'ms': 1 + config['x']}",
        **{"sampler:": "outcome_constraints: [ms >= 0.3, ms <= 3]\nsampler:"},
    )
    assert gpbo_cli("run")[0] == 0
    trials = json.loads(gpbo_cli("export", "--format", "json")[1])["trials"]
    feasible = [t for t in trials if t["outcomes"]["ms"] >= 0.3]
    assert 0 < len(feasible) < len(trials) == 4
    best = json.loads(gpbo_cli("best", "--json")[1])
    assert best["value"] == min(t["values"][0] for t in feasible)
    assert best["outcomes"] == {"ms": 1 + best["value"]}
    met = {"ms >= 0.3": len(feasible), "ms <= 3": 4}
    assert json.loads(gpbo_cli("status", "--json")[1])["studies"][0]["outcome_constraints"] == met
    out = gpbo_cli("status")[1]
    assert "outcome constraint ms <= 3: met by 4 complete trials\n" in out
    assert f"value {best['value']:.6g}, ms {best['outcomes']['ms']:.6g}\n" in out
    rows = list(csv.DictReader(io.StringIO(gpbo_cli("export")[1])))
    assert [float(row["outcome.ms"]) for row in rows] == [t["outcomes"]["ms"] for t in trials]


def test_no_trial_is_feasible(gpbo_cli, study_file):
    study_file(
        "return {'loss': config['x'], 'ms': 1}", **{"sampler:": "outcome_constraints: [ms <= 0]\nsampler:"}
    )
    code, out, _ = gpbo_cli("run")
    assert code == 0
    assert "outcome constraint ms <= 0: met by no complete trials" in out
    code, out, err = gpbo_cli("best")
    assert (code, out) == (1, "")
    assert "none of the 4 complete trials of study 'parabola' is feasible: `ms <= 0` is met by 0." in err


def test_reading_changes_nothing(gpbo_cli, mixed):
    mixed._store.close()
    Path("study.db.lock").unlink()
    before = files()
    for command in ("status", "best --name one", "best --json --name two", "export --name one"):
        assert gpbo_cli(*command.split())[0] == 0
    assert files() == before


AS_ANOTHER_USER = """
import os, sys
from gpbo import cli
# While the source is still within reach.
import gpbo.export, gpbo.parameters, gpbo.sweepfile, gpbo.stores.sql, gpbo.study
if os.getuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
os.chdir(sys.argv.pop())
sys.exit(cli.main())
"""


@pytest.mark.parametrize("is_logged", [False, True])
def test_reading_needs_no_right_to_write(gpbo_cli, mixed, tmp_path, is_logged):
    expected = gpbo_cli("status", "study.db")
    if is_logged:  # another process writes: its log, and the log's index, stay while it lives
        assert Path("study.db-wal").exists()
    else:
        mixed._store.close()
        gc.collect()
        assert not Path("study.db-wal").exists()
    # Where tests run as root, the folder itself is out of another user's reach.
    with tempfile.TemporaryDirectory() as folder:
        for file in Path().glob("study.db*"):
            shutil.copy(file, folder)
            Path(folder, file.name).chmod(0o444)
        Path(folder).chmod(0o555)
        for command in ("status study.db", "best --name one", "export --name two"):
            done = subprocess.run(
                [sys.executable, "-c", AS_ANOTHER_USER, *command.split(), folder],
                capture_output=True,
                text=True,
            )
            assert (done.returncode, done.stderr) == (0, "")
            if command == "status study.db":
                assert done.stdout == expected[1]
        code = AS_ANOTHER_USER.replace(
            "sys.exit(cli.main())", "gpbo.stores.sql.SQLStore('study.db', 'two').meta['x'] = 1"
        )
        done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True)
        assert "readonly database; make the file and its directory writable." in done.stderr
        Path(folder).chmod(0o755)


def test_reading_makes_nothing(gpbo_cli, tmp_path):
    for command in ("status", "best", "export"):
        code, out, err = gpbo_cli(command)
        assert (code, out) == (2, "")
        assert "there is neither study.yaml nor study.db here" in err
        code, out, err = gpbo_cli(command, "none.db")
        assert (code, out) == (1, "")
        assert "there is no study file" in err
    assert files() == {}
    Path("notes.txt").write_text("not a study")
    code, _, err = gpbo_cli("status", "notes.txt")
    assert code == 1
    assert "is not an SQLite file" in err
    assert files() == {"notes.txt": b"not a study"}


def test_csv_holds_every_config_exactly(gpbo_cli, mixed):
    out = gpbo_cli("export", "--name", "one")[1]
    rows = list(csv.DictReader(io.StringIO(out)))
    for row, trial in zip(rows, mixed.trials, strict=True):
        cells = {name: row[f"config.{name}"] for name in mixed.space.parameters}
        config = {name: from_cell(text) for name, text in cells.items() if text != ""}
        assert config == dict(trial.config)
        assert [type(v) for v in config.values()] == [type(v) for v in trial.config.values()]
        assert row["state"] == trial.state
        assert (float(row["value"]) if row["value"] else None) == trial.value
    assert rows[1]["config.momentum"] == ""
    assert rows[6]["error"] == 'a "quoted",\nerror'
    assert out == as_text(mixed, "csv")


def test_csv_with_several_objectives(gpbo_cli, mixed):
    rows = list(csv.DictReader(io.StringIO(gpbo_cli("export", "--name", "two")[1])))
    assert (rows[1]["value_0"], rows[1]["value_1"]) == ("1.0", "1.0")


@pytest.mark.parametrize(
    "value", ["sgd", "1", 1, 1.5, 1e-5, None, True, "", "null", "NaN", '"x"', " 1", "a,b\n'"]
)
def test_cells(value):
    text = cell(value)
    assert text != ""
    assert from_cell(text) == value
    assert type(from_cell(text)) is type(value)


@pytest.mark.parametrize(("form", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_json_and_yaml_hold_every_config_exactly(gpbo_cli, mixed, form, read):
    plain = read(gpbo_cli("export", "--name", "one", "--format", form)[1])
    assert [trial["config"] for trial in plain["trials"]] == [dict(trial.config) for trial in mixed.trials]
    assert gpbo_cli("export", "--name", "one", "-o", f"out.{form}")[2] == f"8 trials written to out.{form}.\n"
    assert read(Path(f"out.{form}").read_text()) == plain


def test_export_does_not_write_where_it_must_not(gpbo_cli, mixed):
    before = Path("study.db").read_bytes()
    code, _, err = gpbo_cli("export", "--name", "one", "-o", "study.db")
    assert code == 2
    assert "must not be the store itself" in err
    assert Path("study.db").read_bytes() == before
    code, _, err = gpbo_cli("export", "--name", "one", "-o", "missing/x.csv")
    assert code == 2
    assert "cannot be written: No such file or directory." in err


def test_export_takes_the_format_from_the_name_or_is_told(gpbo_cli, mixed):
    code, _, err = gpbo_cli("export", "--name", "one", "-o", "t.xls")
    assert code == 2
    assert err == (
        "error: `--output` must end in .csv, .json or .yaml, or `--format` say what to write; got 't.xls'.\n"
    )
    assert not Path("t.xls").exists()
    code, _, err = gpbo_cli("export", "--name", "one", "--format", "xml")
    assert (code, err) == (2, "error: `--format` must be one of csv, json, yaml, got 'xml'.\n")
    for arguments, form in [
        (["-o", "t.xls", "--format", "csv"], "csv"),
        (["-o", "t.yml"], "yaml"),
        (["-o", "T.JSON"], "json"),
        (["-o", "plain"], "csv"),
    ]:
        assert gpbo_cli("export", "--name", "one", *arguments)[0] == 0
        assert Path(arguments[1]).read_text() == (gpbo_cli("export", "--name", "one", "--format", form)[1])


def test_a_failure_without_a_reason(gpbo_cli):
    space = gpbo.SearchSpace(x=gpbo.Float(0, 1))
    study = gpbo.Study(space, store="study.db", suggester=gpbo.RandomSuggester())
    trial = study.ask()
    # A store may hold an empty reason, whoever wrote it.
    study._store.swap(trial, dataclasses.replace(trial, state=State.FAILED, error=""))
    assert "last failure: trial 0, no reason given" in gpbo_cli("status")[1]
    assert json.loads(gpbo_cli("status", "--json")[1])["studies"][0]["last_error"] == {
        "number": 0,
        "error": "",
    }


def test_a_study_that_was_never_defined(gpbo_cli):
    from gpbo.stores.sql import SQLStore

    SQLStore("study.db", "bare").close()
    code, _, err = gpbo_cli("status")
    assert code == 1
    assert "was begun but never defined" in err


def test_a_closed_pipe_is_no_traceback(gpbo_cli, mixed):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "gpbo", "export", "--name", "one"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert "Traceback" not in done.stderr
