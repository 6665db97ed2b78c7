import sys

import pytest

import gpbo
from gpbo.errors import StudyFileError
from gpbo.objective import CommandObjective, FunctionObjective
from gpbo.studyfile import SAMPLERS, load_study_file

GOOD = """\
study: {name: digits, direction: minimize, metric: loss}
objective: train:objective
search_space:
  lr: {type: float, low: 1e-5, high: 1e-1, log: true}
  n: {type: int, low: 1, high: 8}
  opt: {type: categorical, choices: [sgd, adam]}
  momentum: {type: float, low: 0, high: 0.99, when: {opt: sgd}}
  epochs: 10
constraints: ["n * lr <= 0.4"]
sampler: {type: random, seed: 7}
pruner: {type: hyperband, min_resource: 1, max_resource: 27}
resources: {n_trials: 20, timeout_hours: 0.5, gpus_per_trial: 2, max_parallel_trials: 3}
"""


def load(tmp_path, text):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return load_study_file(path, tmp_path)


def test_a_whole_file(tmp_path):
    file = load(tmp_path, GOOD)
    assert (file.name, file.directions, file.store) == ("digits", ("minimize",), "study.db")
    assert file.objective == FunctionObjective("train:objective", str(tmp_path), ("loss",))
    assert file.space == gpbo.SearchSpace(
        lr=gpbo.Float(1e-5, 1e-1, log=True),
        n=gpbo.Int(1, 8),
        opt=gpbo.Categorical(["sgd", "adam"]),
        momentum=gpbo.Float(0, 0.99, when={"opt": "sgd"}),
        epochs=10,
        constraints=["n * lr <= 0.4"],
    )
    assert file.sampler.seed == 7
    assert isinstance(file.suggester(), gpbo.RandomSuggester)
    assert (file.pruner.type, file.pruner.max_resource, file.pruner.reduction_factor) == ("hyperband", 27, 3)
    assert file.scheduler() == gpbo.Hyperband(1, 27)
    assert all(isinstance(budget, int) for budget in file.scheduler().rungs)
    assert (file.resources.n_trials, file.resources.gpus_per_trial) == (20, 2)
    assert (file.resources.timeout_hours, file.resources.max_parallel_trials) == (0.5, 3)


def test_outcome_constraints(tmp_path):
    text = GOOD.replace("type: random, seed: 7", "type: gp, n_startup_trials: 3")
    text = text.replace("pruner", "pruner: {type: none}\n#")
    assert isinstance(load(tmp_path, text).suggester(), gpbo.GPSuggester)
    file = load(tmp_path, text + "outcome_constraints: [ms <= 10, ms >= 1, mb <= 4]\n")
    assert file.outcome_constraints == ("ms <= 10", "ms >= 1", "mb <= 4")
    assert file.objective.outcomes == ("ms", "mb")
    assert file.suggester() == gpbo.MultiObjectiveSuggester(n_initial=3)
    two = text.replace("minimize", "[minimize, maximize]").replace("metric: loss", "metric: [loss, acc]")
    assert isinstance(load(tmp_path, two).suggester(), gpbo.MultiObjectiveSuggester)
    with pytest.raises(StudyFileError, match=r"study.yaml:14: .*must read like 'latency <= 10'.*'ms < 3'"):
        load(tmp_path, text + "outcome_constraints: [ms < 3]\n")


def test_the_least_file_and_its_defaults(tmp_path):
    file = load(tmp_path, "objective: a:b\nsearch_space: {x: {type: int, low: 0, high: 1}}\n")
    assert (file.name, file.directions, file.store) == ("default", ("minimize",), "study.db")
    assert (file.sampler.type, file.sampler.seed, file.pruner) == ("gp", 0, None)
    assert (file.resources.n_trials, file.resources.max_parallel_trials) == (None, 1)
    assert file.trial_timeout is None


def test_several_objectives(tmp_path):
    text = GOOD.replace(
        "direction: minimize, metric: loss", "direction: [minimize, maximize], metric: [a, b]"
    )
    file = load(tmp_path, text.replace("type: hyperband", "type: none"))
    assert file.directions == ("minimize", "maximize")
    assert file.objective.metrics == ("a", "b")


def test_the_forms_of_an_objective(tmp_path):
    python, text = sys.executable, GOOD.replace("type: hyperband", "type: none")
    file = load(tmp_path, text.replace("train:objective", f"{python} t.py --lr {{lr}}"))
    assert file.objective == CommandObjective((python, "t.py", "--lr", "{lr}"), str(tmp_path), ("loss",))
    mapping = f"{{command: ['{python}', 'a b', '{{n}}'], timeout_minutes: 2}}"
    file = load(tmp_path, text.replace("train:objective", mapping))
    assert file.objective.words == (python, "a b", "{n}")
    assert file.trial_timeout == 120
    file = load(tmp_path, GOOD.replace("train:objective", "{function: 'train:objective'}"))
    assert isinstance(file.objective, FunctionObjective)


def test_the_samplers_options_are_those_of_the_suggester(tmp_path):
    file = load(tmp_path, GOOD.replace("{type: random, seed: 7}", "{type: gp, n_startup_trials: 5}"))
    assert file.suggester() == gpbo.GPSuggester(n_initial=5)
    assert {SAMPLERS[name] for name in SAMPLERS} <= set(gpbo.__all__)
    for name in SAMPLERS:
        sampler = load(tmp_path, GOOD.replace("type: random", f"type: {name}"))
        assert isinstance(sampler.suggester(), getattr(gpbo, SAMPLERS[name]))


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ("{type: gp, n_inital: 5}", r"study\.yaml:10: sampler: 'n_inital' is not an option of sampler 'gp'\. "
         r"Did you mean 'n_initial'"),
        ("{type: gp,\n  n_startup_trial: 5}", r"study\.yaml:11: sampler: .*Did you mean 'n_startup_trials'"),
        ("{type: random, n_startup_trials: 5}", r"study\.yaml:10: sampler: .*'random' has no startup trials"),
        ("{type: gp, beta: much}", r"study\.yaml:10: sampler: "),
        ("{type: gp, n_initial: -3}", r"study\.yaml:10: sampler: .*n_initial"),
    ],
)  # fmt: skip
def test_a_wrong_option_of_the_sampler(tmp_path, sampler, message):
    file = load(tmp_path, GOOD.replace("{type: random, seed: 7}", sampler))
    with pytest.raises(StudyFileError, match=message):
        file.suggester()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("high: 1e-1", "hgih: 1e-1", r":4: search_space\.lr: 'hgih' is not an option of type 'float'\. "
         r"Did you mean 'high'\?"),
        ("type: int", "type: itn", r":5: search_space\.n: type must be one of .*Did you mean 'int'"),
        ("low: 1e-5", "low: 0", r":4: search_space\.lr: `low` must be above 0"),
        ("{opt: sgd}", "{otp: sgd}", r":7: search_space\.momentum: `when` names 'otp'.*Did you mean 'opt'"),
        ("{opt: sgd}", "{opt: sdg}", r":7: search_space\.momentum: `when` gives 'opt' a value"),
        ("n * lr", "m * lr", r":9: constraints\.0: the constraint .*names 'm'"),
        ("search_space:", "serach_space:", r":3: 'serach_space' is not a known key\. Did .*'search_space'"),
        ("search_space:", "serach_space:", r":1: the key 'search_space' is missing"),
        ("minimize", "minimise", r":1: study\.direction: must be one of .*Did you mean 'minimize'"),
        ("name: digits", "nmae: digits", r":1: study: 'nmae' is not a known key\. Did you mean 'name'"),
        ("metric: loss", "metric: [a, b]", r":1: study: `metric` and `direction` go in pairs, got 2 and 1"),
        (
            "direction: minimize",
            "direction: [minimize, maximize]",
            r":1: study: `metric` and `direction` go in pairs, got 1 and 2",
        ),
        ("{opt: sgd}", "{opt: sdg}", r":7: .*got 'sdg' \(Did you mean 'sgd'\?\)\.$"),
        ("metric: loss", "metric: 3", r":1: study\.metric: must be a valid string, got 3"),
        ("train:objective", "train.py:objective", r":2: objective: .*write 'train:objective'"),
        ("train:objective", "no-such-program --lr {lr}", r":2: objective: .*no program 'no-such-program'"),
        ("train:objective", "sh x {lrr}", r":2: objective: the placeholder \{lrr\}.*Did you mean 'lr'"),
        ("train:objective", "{function: 'a:b', command: sh}", r":2: objective: give either"),
        ("train:objective", "{function: train.py}", r":2: objective\.function: must be 'module:function'"),
        ("train:objective", "{command: sh, timeout_minutes: 0}", r":2: objective\.timeout_minutes: must"),
        ("type: random", "type: rnadom", r":10: sampler\.type: must be one of .*Did you mean 'random'"),
        ("seed: 7", "seed: 7.5", r":10: sampler\.seed: must be a valid integer, got 7\.5"),
        ("type: hyperband", "type: hyperbnd", r":11: pruner\.type: .*Did you mean 'hyperband'"),
        ("max_resource", "max_resorce", r":11: pruner: 'max_resorce' .*Did you mean 'max_resource'"),
        (", max_resource: 27", "", r":11: pruner: type 'hyperband' needs `max_resource`"),
        ("max_resource: 27", "max_resource: 0.5", r":11: pruner: `max_resource` must be above"),
        ("max_resource: 27", "rounds: 0", r":11: pruner\.rounds: must be greater than 0, got 0"),
        ("type: hyperband", "type: asha, rounds: 1", r":11: pruner: `rounds` is an option of type 'hyperb"),
        ("n_trials: 20", "n_trials: 0", r":12: resources\.n_trials: must be greater than 0, got 0"),
        ("n_trials: 20", "n_trials: true", r":12: resources\.n_trials: must be a valid integer, got True"),
        ("n_trials: 20", "n_trails: 20", r":12: resources: 'n_trails' .*Did you mean 'n_trials'"),
        ("pruner: {", "pruner:\n#{", r":11: pruner"),
        ("study: {", "study: []\n#{", r":1: study: must be a mapping"),
        ("  lr: {", "  3: {", r":4: search_space\.3: must be a valid string"),
    ],
)  # fmt: skip
def test_a_mistake_is_reported_with_its_line(tmp_path, old, new, message):
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    if "pruner:\n" in new:
        text = text.replace("pruner:\n", "pruner: 5\n")
    with pytest.raises(StudyFileError, match=r"study\.yaml" + message):
        load(tmp_path, text)


@pytest.mark.parametrize(
    ("pruner", "scheduler"),
    [
        ("{type: asha, min_resource: 0.1, max_resource: 1}", gpbo.ASHA(0.1, 1)),
        ("{type: asha, max_resource: 64, reduction_factor: 4}", gpbo.ASHA(1, 64, 4)),
        ("{type: hyperband, max_resource: 9}", gpbo.Hyperband(1, 9)),
        ("{type: hyperband, max_resource: 9, rounds: 2}", gpbo.Hyperband(1, 9, rounds=2)),
        ("{type: hyperband, max_resource: 9, rounds: null}", gpbo.Hyperband(1, 9, rounds=None)),
        ("{type: median, min_resource: 3, max_resource: 9}", gpbo.MedianStopping(9, 3)),
        ("{type: none}", None),
    ],
)
def test_pruners_are_schedulers(tmp_path, pruner, scheduler):
    text = GOOD.replace("{type: hyperband, min_resource: 1, max_resource: 27}", pruner)
    text = text.replace("{type: random, seed: 7}", "{seed: 7}")
    file = load(tmp_path, text)
    assert file.scheduler() == scheduler
    kind = gpbo.GPSuggester if scheduler is None else gpbo.MultiFidelitySuggester
    assert file.suggester() == kind()
    assert load(tmp_path, text.replace("{seed", "{type: gp, seed")).suggester() == gpbo.GPSuggester()
    assert load(tmp_path, text.replace("{seed", "{type: bohb, seed")).suggester() == gpbo.BOHBSuggester()


def test_a_pruner_needs_one_objective(tmp_path):
    for text in (
        GOOD + "outcome_constraints: [ms <= 10]\n",
        GOOD.replace("minimize, metric: loss", "[minimize, maximize], metric: [loss, acc]"),
    ):
        with pytest.raises(StudyFileError, match=r":11: pruner: compares trials by one objective"):
            load(tmp_path, text)


def test_a_command_is_told_how_far_to_train(tmp_path):
    text = GOOD.replace("train:objective", '"echo --lr {lr} --budget {budget} {{budget}}"')
    objective = load(tmp_path, text).objective
    assert objective.command({"lr": 0.1}, 3) == ["echo", "--lr", "0.1", "--budget", "3", "{budget}"]
    with pytest.raises(StudyFileError, match=r":2: objective: with a pruner, the command needs \{budget\}"):
        load(tmp_path, text.replace("--budget {budget}", ""))
    with pytest.raises(StudyFileError, match=r":2: objective: the placeholder \{budget\} names no parameter"):
        load(tmp_path, text.replace("hyperband, ", "none, "))
    with pytest.raises(StudyFileError, match=r"'budget' is how far to train; give the parameter another"):
        load(tmp_path, text.replace("  epochs: 10", "  budget: 10"))


def test_an_empty_search_space(tmp_path):
    with pytest.raises(
        StudyFileError, match=r":2: search_space: a search space needs at least one parameter"
    ):
        load(tmp_path, "objective: a:b\nsearch_space: {}\n")


def test_all_mistakes_are_reported_at_once(tmp_path):
    with pytest.raises(StudyFileError) as caught:
        load(tmp_path, GOOD.replace("type: float", "type: flaot").replace("type: int", "type: itn"))
    assert [line.split(":")[1] for line in str(caught.value).replace(str(tmp_path), "").splitlines()] == [
        "4",
        "5",
        "7",
    ]
