import json
import math
import sys

import pytest

import gpbo
from gpbo.errors import StudyFileError
from gpbo.studyfile import load_study_file

GOOD = """\
program: train.py
name: sweep
method: bayes
metric: {name: loss, goal: maximize}
parameters:
  lr: {distribution: log_uniform_values, min: 1e-5, max: 0.1}
  e: {distribution: log_uniform, min: -2, max: 0}
  n: {min: 1, max: 8}
  x: {min: 0.0, max: 1}
  q: {distribution: q_uniform, min: 0, max: 1, q: 0.25}
  k: {distribution: q_uniform, min: 0, max: 10, q: 5}
  w: {distribution: q_log_uniform_values, min: 8, max: 64}
  opt: {values: [sgd, adam]}
  c: {value: 10}
early_terminate: {type: hyperband, max_iter: 27, s: 2}
run_cap: 20
"""
BUDGETS = GOOD.replace(
    "run_cap", 'command: ["${interpreter}", "${program}", "${args}", "--iterations=${budget}"]\nrun_cap'
)


def load(tmp_path, text):
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    (tmp_path / "train.py").write_text("import json, sys\nprint(json.dumps({'loss': len(sys.argv)}))\n")
    return load_study_file(path, tmp_path)


def test_a_whole_sweep(tmp_path):
    file = load(tmp_path, GOOD)
    assert file.space == gpbo.SearchSpace(
        lr=gpbo.Float(1e-5, 0.1, log=True),
        e=gpbo.Float(math.exp(-2), 1.0, log=True),
        n=gpbo.Int(1, 8),
        x=gpbo.Float(0, 1),
        q=gpbo.Float(0, 1, step=0.25),
        k=gpbo.Int(0, 10, step=5),
        w=gpbo.Int(8, 64, log=True),
        opt=gpbo.Categorical(["sgd", "adam"]),
        c=10,
    )
    assert (file.name, file.directions, file.store) == ("sweep", ("maximize",), "sweep.db")
    assert (file.sampler.type, file.resources.n_trials, file.scheduler()) == ("gp", 20, None)
    assert file.objective.words == (sys.executable, "train.py", "${args}")
    assert file.objective({"lr": 1e-5, "n": 3}) == 3


def test_a_sweeps_own_command(tmp_path, monkeypatch):
    monkeypatch.setenv("GPBO_FLAG", "--fast")
    words = ["${env}", "sh", "${program}", "${envvar:GPBO_FLAG}", "{lr}", "${args_json}"]
    file = load(tmp_path, GOOD.replace("name: sweep", f"command: {json.dumps(words)}"))
    assert file.objective.command({"n": 3}) == [
        "/usr/bin/env", "sh", "train.py", "--fast", "{lr}", '{"n": 3}',
    ]  # fmt: skip


def test_early_terminate_with_budgets(tmp_path):
    file = load(tmp_path, BUDGETS)
    assert (file.scheduler(), file.notes) == (gpbo.Hyperband(3, 27), ())
    assert file.suggester() == gpbo.MultiFidelitySuggester()
    assert file.objective.words == (sys.executable, "train.py", "${args}", "--iterations={budget}")
    assert file.objective.with_budgets()({"lr": 1e-5, "n": 3}, 9) == 4
    assert file.objective.command({"n": 3}, 9)[2:] == ["--n=3", "--iterations=9"]
    assert load(tmp_path, BUDGETS.replace("bayes", "random")).sampler.type == "random"


def test_early_terminate_that_cannot_be_at_work_is_noted(tmp_path):
    [note] = load(tmp_path, GOOD).notes
    assert note.startswith("`early_terminate` has no effect without ${budget} in its `command`")
    [note] = load(tmp_path, GOOD.replace("max_iter: 27, s: 2", "min_iter: 3")).notes
    assert note.startswith("`early_terminate` has no effect without `max_iter`")


def test_what_concerns_the_service_alone_is_noted(tmp_path):
    file = load(tmp_path, BUDGETS.replace("name: sweep", "project: p\nentity: e"))
    assert [note.split()[0] for note in file.notes] == ["`project`", "`entity`"]
    strict = load(tmp_path, BUDGETS.replace("s: 2", "s: 2, strict: true"))
    assert strict.notes == (
        "`strict` has no effect here: gpbo's hyperband always keeps to its reduction factor.",
    )


def test_the_target_and_the_samplers(tmp_path):
    assert load(tmp_path, GOOD.replace("goal: maximize", "target: 0.1")).target == 0.1
    for method, sampler in {"random": "random", "grid": "grid", "bayes": "gp"}.items():
        assert load(tmp_path, GOOD.replace("bayes", method)).sampler.type == sampler


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("bayes", "bayse", r":3: method: must be one of .*Did you mean 'bayes'"),
        ("goal: maximize", "goal: up", r":4: metric\.goal: must be one of"),
        ("n: {min: 1,", "n: {mni: 1,", r":8: parameters\.n: 'mni' is not an option .*Did you mean 'min'"),
        ("n: {min: 1, max: 8}", "n: {min: 1}", r":8: parameters\.n: 'max' is missing"),
        ("n: {min: 1, max: 8}", "n: {distribution: normal, mu: 0}", r":8: .*'normal' cannot be expressed"),
        ("n: {min: 1, max: 8}", "n: 3", r":8: parameters\.n: must be a mapping"),
        ("n: {min: 1, max: 8}", "n: {parameters: {a: {value: 1}}}", r":8: parameters\.n: nested parameters"),
        ("n: {min: 1, max: 8}", "n: {values: [1, 2], probabilities: [0.1, 0.9]}", r":8: .*`probabilities`"),
        ("min: -2", "min: 1e9", r":7: parameters\.e: `min` of distribution 'log_uniform' is an exponent"),
        ("log_uniform_values, min: 1e-5", "log_unifrom_values, min: 1e-5", r":6: .*'log_uniform_values'"),
        ("min: 8, max: 64", "min: 8, max: 64, q: 8", r":12: .*'q_log_uniform_values' cannot be expressed"),
        ("q: 0.25", "q: 0.3", r":10: parameters\.q: `step` must divide"),
        ("run_cap", "runcap", r":16: 'runcap' is not a known key\. Did you mean 'run_cap'"),
        ("max_iter: 27, s: 2", "max_iter: 27", r":15: early_terminate: hyperband needs `min_iter`"),
        ("max_iter: 27, s: 2", "max_iter: 3, min_iter: 3", r":15: early_terminate: `max_iter` must be above"),
        ("program: train.py", "program: trian.py", r":1: program: there is no file 'trian\.py'.*'train\.py'"),
        ("program: train.py\n", "", r":1: a sweep needs `program` or `command`"),
        ("program: train.py", "command: ['${program}']", r":1: command: .* needs the key `program`"),
        ("program: train.py", "command: [sh, '${arsg}']", r":1: command\.1: .*Did you mean '\$\{args\}'"),
        ("program: train.py", "command: [sh, '${args_json_file}']", r":1: command\.1: .*cannot be expressed"),
        ("program: train.py", "command: [sh, '${envvar:GPBO_UNSET}']", r":1: command\.1: .*'GPBO_UNSET'"),
    ],
)  # fmt: skip
def test_what_cannot_be_expressed_is_refused_with_its_line(tmp_path, old, new, message):
    assert old in GOOD
    with pytest.raises(StudyFileError, match=r"sweep\.yaml" + message):
        load(tmp_path, GOOD.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "{type: hyperband, max_iter: 27, s: 2}",
            "null",
            r":16: command: \${budget} needs `early_terminate`",
        ),
        ("max_iter: 27, s: 2", "min_iter: 3", r":16: command: \${budget} needs `early_terminate` with"),
        ("s: 2", "s: 0.5", r":15: early_terminate\.s: must be a valid integer"),
        ("s: 2", "s: 2, rounds: 2", r":15: early_terminate: 'rounds' is not a known key"),
        ("${budget}", "${budge}", None),  # W&B passes on what is no macro of its own
        ("  c: {value: 10}", "  budget: {value: 10}", r".*'budget' is how far to train; give the parameter"),
    ],
)
def test_budgets_that_cannot_be_expressed(tmp_path, old, new, message):
    assert old in BUDGETS
    text = BUDGETS.replace(old, new, 1)
    if message is None:
        load(tmp_path, text)
    else:
        with pytest.raises(StudyFileError, match=r"sweep\.yaml" + message):
            load(tmp_path, text)
