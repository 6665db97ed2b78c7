import json
import logging
import math
import threading

import numpy as np
import pandas as pd
import pytest
import torch
from botorch.utils.multi_objective.pareto import is_non_dominated
from hypothesis import given
from hypothesis import strategies as st

import gpbo
from gpbo.errors import (
    ConfigError,
    NoResultError,
    ResultError,
    SettingError,
    SpaceError,
    StoreError,
    StudyMismatchError,
    TrialStateError,
    UnknownTrialError,
)
from gpbo.schedulers.asha import ASHA
from gpbo.space import Categorical, Float, Int, SearchSpace
from gpbo.stores.memory import MemoryStore
from gpbo.stores.open import open_store
from gpbo.study import Study
from gpbo.suggesters.bayes import GPSuggester
from gpbo.suggesters.multi_objective import MultiObjectiveSuggester
from gpbo.suggesters.quasirandom import RandomSuggester
from gpbo.trial import Observation, State

SPACE = SearchSpace(x=Float(0, 1), opt=Categorical(["sgd", "adam"]), m=Float(0, 1, when={"opt": "sgd"}))
A = {"x": 0.25, "opt": "adam"}
B = {"x": 0.5, "opt": "sgd", "m": 0.125}


def study_of(space=SPACE, **options):
    return Study(space, **{"suggester": RandomSuggester(), **options})


def test_ask_and_tell():
    study = study_of()
    trial = study.ask()
    assert (trial.number, trial.state) == (0, State.RUNNING)
    assert SPACE.validate(trial.config) == trial.config
    told = study.tell(trial, 0.5, seconds=2)
    assert told.state is State.COMPLETE
    assert told.observations == (Observation((0.5,), None, 2.0),)
    assert told.started <= told.finished
    assert study.trials == [told]
    assert study.ask().number == 1


def test_a_trial_can_be_told_by_its_number():
    study = study_of()
    study.ask()
    assert study.tell(np.int64(0), 1.0, budget=3).observations == (Observation((1.0,), 3.0, None),)


@pytest.mark.parametrize(
    "value",
    [2, 2.0, [2], (2.0,), np.float32(2), np.array(2), np.array([2.0]), torch.tensor(2), torch.tensor([2.0])],
)
def test_numbers_of_other_libraries_are_numbers(value):
    study = study_of()
    seen = study.tell(study.ask(), value).value
    assert seen == 2.0
    assert type(seen) is float


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, torch.tensor(math.nan), np.float64("inf"), 10**400]
)
def test_a_value_that_is_not_finite_is_a_failure(value):
    study = study_of()
    told = study.tell(study.ask(), value)
    assert told.state is State.FAILED
    assert told.error.startswith("the objective's value was ")
    assert told.observations == ()
    assert study.add(A, value).error.startswith("the added value was ")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("0.5", r"`value` must be a number, got '0.5' of type str"),
        (None, r"`value` must be a number, got None of type NoneType"),
        (True, r"`value` must be a number, got True of type bool"),
        (np.bool_(True), r"must be a number, got True of type bool"),
        (1j, r"`value` must be a number, got 1j of type complex"),
        ({"loss": 1}, r"`value` must be a number, got \{'loss': 1\} of type dict"),
        (torch.tensor([1.0, 2.0]), r"`value` must be a number, got tensor"),
        (torch.tensor([[1.0]]), r"`value` must be a number, got \[1.0\] of type list"),
        ([], r"`value` must be a number, got \[\]"),
        ([1.0, 2.0], r"`value` must be a number, got \[1.0, 2.0\]"),
        (["a"], r"`value` must be a number, got 'a'"),
    ],
)
def test_what_is_no_result_leaves_the_trial_as_it_is(value, message):
    study = study_of()
    trial = study.ask()
    with pytest.raises(ResultError, match=message):
        study.tell(trial, value)
    assert study.trials == [trial]
    with pytest.raises(ResultError, match=message):
        study.add(A, value)
    assert len(study.trials) == 1


@pytest.mark.parametrize("value", [1.0, [1.0], [1.0, 2.0, 3.0], torch.zeros(3), None, "ab"])
def test_a_wrong_number_of_objectives_leaves_the_trial_as_it_is(value):
    study = study_of(direction=["minimize", "maximize"])
    trial = study.ask()
    with pytest.raises(ResultError, match=r"must be a sequence of 2 numbers, one for each objective, got"):
        study.tell(trial, value)
    assert study.trials == [trial]
    assert study.tell(trial, (1.0, 2.0)).values == (1.0, 2.0)


@pytest.mark.parametrize("name", ["budget", "seconds"])
@pytest.mark.parametrize("value", [math.nan, "3", True, 10**400, -1])
def test_budget_and_seconds_are_numbers(name, value):
    study = study_of()
    trial = study.ask()
    with pytest.raises(SettingError, match=f"`{name}` must be a finite number >= 0, got {value!r}"):
        study.tell(trial, 1.0, **{name: value})
    with pytest.raises(SettingError, match=f"`{name}` must be a finite number"):
        study.add(A, 1.0, **{name: value})
    assert study.trials == [trial]


def test_telling_twice_is_refused():
    study = study_of()
    trial = study.ask()
    told = study.tell(trial, 1.5)
    with pytest.raises(TrialStateError, match=r"can be told, but trial 0 is complete with value 1.5"):
        study.tell(trial, 2.0)
    with pytest.raises(TrialStateError, match=r"can be failed, but trial 0 is complete"):
        study.fail(trial, "why")
    assert study.trials == [told]


def test_telling_a_failed_trial_is_refused():
    study = study_of()
    study.fail(study.ask(), "out of memory")
    with pytest.raises(TrialStateError, match=r"trial 0 is failed with error 'out of memory'"):
        study.tell(0, 2.0)


@pytest.mark.parametrize("number", [1, -1, 10**6])
def test_an_unknown_trial_is_refused(number):
    study = study_of()
    study.ask()
    for change, what in ((study.tell, 1.0), (study.fail, "why")):
        with pytest.raises(UnknownTrialError, match=f"has no trial {number}; it has 1 trials, from 0 on"):
            change(number, what)


@pytest.mark.parametrize("trial", ["0", None, True, 0.0])
def test_what_is_no_trial_is_refused(trial):
    study = study_of()
    study.ask()
    with pytest.raises(SettingError, match=r"`trial` must be a trial or its number, got"):
        study.tell(trial, 1.0)


def test_failures_keep_their_traceback():
    study = study_of()
    try:
        raise ZeroDivisionError("by zero")
    except ZeroDivisionError as error:
        failed = study.fail(study.ask(), error)
    assert failed.state is State.FAILED
    assert failed.finished is not None
    assert failed.error.startswith("Traceback")
    assert failed.error.endswith("ZeroDivisionError: by zero")
    assert study.fail(study.ask(), "because").error == "because"


def test_a_config_may_be_taken_apart():
    study = study_of()
    trial = study.ask()
    trial.config.pop("x")
    assert "x" in study.trials[0].config
    assert study.tell(trial, 1.0).state is State.COMPLETE


@pytest.mark.parametrize(("direction", "best"), [("minimize", 1), ("maximize", 0)])
def test_the_best_trial_is_the_earliest_of_the_best(direction, best):
    study = study_of(direction=direction)
    for value in (3.0, 1.0, 1.0, 3.0):
        study.tell(study.ask(), value)
    study.fail(study.ask(), "why")
    study.ask()
    assert study.best.number == best


def test_the_best_trial_is_sought_at_the_largest_budget():
    study = study_of()
    study.add(A, 0.1, budget=1)
    study.add(A, 0.5, budget=9)
    study.add(B, 0.4, budget=9)
    assert study.best.number == 2


def test_no_best_trial_yet():
    study = study_of(name="mnist")
    study.ask()
    with pytest.raises(NoResultError, match=r"study 'mnist' has no complete trial yet"):
        _ = study.best
    assert study.pareto_front == []


def test_the_pareto_front_of_several_objectives():
    study = study_of(direction=["minimize", "maximize"])
    for values in [(1, 1), (2, 2), (2, 1), (1, 1), (3, 5), (3, 4)]:
        study.add(A, values)
    study.add(B, (0.0, math.nan))
    assert [t.number for t in study.pareto_front] == [0, 1, 3, 4]
    with pytest.raises(SettingError, match=r"`best` needs one objective.* use `pareto_front`"):
        _ = study.best


def test_the_pareto_front_of_one_objective_is_every_best_trial():
    study = study_of(direction="maximize")
    for value in (1.0, 3.0, 3.0):
        study.add(A, value)
    assert [t.number for t in study.pareto_front] == [1, 2]


LIMITED = {"outcome_constraints": ["latency <= 10", "accuracy >= 0.5"]}


def measured(latency, accuracy=0.5):
    return {"outcomes": {"latency": latency, "accuracy": accuracy}}


def test_only_feasible_trials_are_the_best():
    study = study_of(**LIMITED, direction="maximize")
    told = study.tell(study.ask(), 9.0, **measured(10.5))
    assert told.state is State.COMPLETE
    assert told.outcomes == {"latency": 10.5, "accuracy": 0.5}
    with pytest.raises(
        NoResultError,
        match=r"none of the 1 complete trials of study 'default' is feasible: "
        r"`latency <= 10` is met by 0, `accuracy >= 0.5` is met by 1\.",
    ):
        _ = study.best
    assert study.pareto_front == []
    study.add(A, 8.0, **measured(9, 0.4))
    study.add(A, 2.0, **measured(10))
    study.add(B, 1.0, **measured(3, 0.9))
    assert study.best.number == 2
    assert [t.number for t in study.pareto_front] == [2]


def test_the_front_of_feasible_trials():
    study = study_of(outcome_constraints="latency <= 10", direction=["minimize", "maximize"])
    for values, latency in [((0, 9), 11), ((1, 1), 1), ((2, 2), 10), ((2, 1), 1), ((1, 1), 10.0)]:
        study.add(A, values, outcomes={"latency": latency})
    assert [t.number for t in study.pareto_front] == [1, 2, 4]


@given(
    losses=st.lists(st.tuples(*[st.integers(-3, 3)] * 3), min_size=1, max_size=25),
    directions=st.tuples(*[st.sampled_from(["minimize", "maximize"])] * 3),
)
def test_the_front_is_what_botorch_calls_non_dominated(losses, directions):
    study = study_of(direction=directions)
    for values in losses:
        study.add(A, values)
    signs = torch.tensor([1.0 if direction == "maximize" else -1.0 for direction in directions])
    expected = is_non_dominated(torch.tensor(losses) * signs, deduplicate=False)
    assert [t.number for t in study.pareto_front] == expected.nonzero().flatten().tolist()


def test_the_largest_budget_counts_whether_or_not_it_was_feasible():
    study = study_of(outcome_constraints="latency <= 10")
    study.add(A, 1.0, budget=1, outcomes={"latency": 1})
    study.add(A, 1.0, budget=9, outcomes={"latency": 11})
    with pytest.raises(NoResultError, match="`latency <= 10` is met by 1"):
        _ = study.best


@pytest.mark.parametrize(
    ("outcomes", "message"),
    [
        (None, r"must have a number for 'latency' and 'accuracy', .*; got None"),
        ({"latency": 1}, r"`outcomes` must have a number for 'accuracy', of which the study's outcome"),
        ({"latency": 1, "accuracy": 1, "latncy": 1}, r"names 'latncy', .* Did you mean 'latency'\?"),
        ({"latency": "1", "accuracy": 1}, r"`outcomes\['latency'\]` must be a number, got '1' of type str"),
        ({"latency": True, "accuracy": 1}, r"`outcomes\['latency'\]` must be a number, got True"),
        ([1, 1], r"`outcomes` must map names to numbers, got \[1, 1\]"),
    ],
)
def test_outcomes_that_do_not_fit_leave_the_trial_as_it_is(outcomes, message):
    study = study_of(**LIMITED)
    trial = study.ask()
    with pytest.raises(ResultError, match=message):
        study.tell(trial, 1.0, outcomes=outcomes)
    with pytest.raises(ResultError, match=message):
        study.add(A, 1.0, outcomes=outcomes)
    assert study.trials == [trial]


def test_outcomes_of_a_study_without_constraints_are_refused():
    study = study_of()
    with pytest.raises(ResultError, match=r"names 'latency', which no .* does; the study has none"):
        study.tell(study.ask(), 1.0, outcomes={"latency": 1})
    assert study.tell(0, 1.0, outcomes={}).outcomes == {}


@pytest.mark.parametrize("latency", [math.nan, math.inf, torch.tensor(math.nan)])
def test_an_outcome_that_is_not_finite_is_a_failure(latency):
    study = study_of(**LIMITED)
    told = study.tell(study.ask(), 1.0, **measured(latency))
    assert (told.state, told.observations) == (State.FAILED, ())
    assert told.error.startswith("the objective's outcome 'latency' was ")
    assert study.add(A, 1.0, **measured(latency)).error.startswith("the added outcome 'latency' was ")


def test_outcomes_and_their_constraints_are_stored(tmp_path):
    study = study_of(**LIMITED, store=tmp_path / "study.db")
    study.add(A, 1.0, **measured(np.float32(3), torch.tensor(0.75)))
    study.close()
    loaded = Study.load(tmp_path / "study.db")
    assert [str(c) for c in loaded.outcome_constraints] == ["latency <= 10", "accuracy >= 0.5"]
    assert loaded.best.observations == (Observation((1.0,), None, None, {"latency": 3.0, "accuracy": 0.75}),)
    loaded.close()
    with pytest.raises(StudyMismatchError, match=r"\+ outcome constraints: \['latency <= 9'\]"):
        study_of(outcome_constraints="latency <= 9.0", store=tmp_path / "study.db")
    with pytest.raises(StudyMismatchError, match=r"\+ outcome constraints: \[\]"):
        study_of(store=tmp_path / "study.db")


def test_a_frame_of_outcomes():
    study = study_of(**LIMITED)
    study.add(A, 1.0, **measured(11))
    study.add(A, 2.0, **measured(10))
    study.fail(study.ask(), "why")
    frame = study.to_dataframe()
    assert list(frame.columns)[:6] == [
        *("number", "state", "value", "outcome.latency", "outcome.accuracy", "feasible")
    ]
    assert list(frame["outcome.latency"][:2]) == [11.0, 10.0]
    assert list(frame["feasible"]) == [False, True, None]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, GPSuggester),
        ({"direction": ["minimize"] * 2}, MultiObjectiveSuggester),
        ({"outcome_constraints": "latency <= 10"}, MultiObjectiveSuggester),
    ],
)
def test_the_default_suggester_is_the_one_that_knows_the_task(options, expected):
    study = Study(SPACE, device="cpu", **options)
    study.ask()
    assert type(study._suggester) is expected


def test_queued_configs_come_first_and_in_order():
    study = study_of()
    study.enqueue(A)
    study.enqueue({**B, "x": np.float64(0.5)})
    asked = [study.ask() for _ in range(3)]
    assert [t.config for t in asked[:2]] == [A, B]
    assert [t.info["source"] for t in asked] == ["queue", "queue", "random"]
    study.enqueue(A)
    assert study.ask().config == A
    json.dumps(study._store.meta["queue"])


def test_a_queued_or_added_config_must_fit():
    study = study_of()
    for take in (study.enqueue, lambda config: study.add(config, 1.0)):
        with pytest.raises(ConfigError, match=r"`m` is missing"):
            take({"x": 0.1, "opt": "sgd"})
    assert study.trials == []
    assert study.ask().info["source"] == "random"


def test_added_results_are_trials():
    study = study_of()
    trial = study.add(A, 0.5, seconds=3)
    assert (trial.number, trial.state, trial.config, trial.value) == (0, State.COMPLETE, A, 0.5)
    assert trial.observations[0].seconds == 3
    assert study.best == trial
    assert study.ask().number == 1


def test_an_empty_cell_among_many_budgets_is_none():
    trials = study_of().add_many([A, B, A], [1.0, 2.0, 3.0], budgets=[9, math.nan, None])
    assert [t.observations[-1].budget for t in trials] == [9, None, None]


def test_many_results_are_added_in_one_transaction(tmp_path):
    study = study_of(store=tmp_path / "study.db")
    begun = []
    writing = study._store._database.writing
    study._store._database.writing = lambda: begun.append(1) or writing()
    configs = [{"x": k / 1000, "opt": "adam"} for k in range(1000)]
    values = [float(k) for k in range(999)] + [math.nan]
    trials = study.add_many(configs, values, budgets=[None] * 999 + [3])
    assert len(begun) == 1
    assert [t.number for t in trials] == list(range(1000))
    assert Study.load(tmp_path / "study.db").trials == trials == study.trials
    assert (trials[998].value, trials[999].state, trials[0].info) == (
        998.0,
        State.FAILED,
        {"source": "added"},
    )
    assert study.add_many([], []) == []
    series = pd.Series([5.0, 6.0], index=[1, 0])  # in the order of its rows, whatever their names
    assert [t.value for t in study.add_many(iter([A, B]), series)] == [5.0, 6.0]
    assert study.ask().number == 1002


@pytest.mark.parametrize(
    ("configs", "values", "options", "error", "message"),
    [
        (
            [A, {"x": 2, "opt": "adam"}],
            [1.0, 2.0],
            {},
            ConfigError,
            r"result 1: `x` must be in \[0.0, 1.0\], got 2",
        ),
        ([A, B], [1.0, "a"], {}, ResultError, "result 1: `value` must be a number, got 'a'"),
        ([A, B], [1.0, 2.0], {"budgets": [None, -1]}, SettingError, "result 1: `budget` must be a finite"),
        ([A, B], [1.0], {}, SettingError, "`values` must have one entry for each of 2 configs, got 1"),
        ([A], [1.0], {"outcomes": []}, SettingError, "`outcomes` must have one entry for each of 1 configs"),
        (
            A,
            [1.0, 2.0],
            {},
            SettingError,
            "`configs` must be a list or a data frame with one entry each, got {",
        ),
        ([A], 1.0, {}, SettingError, "`values` must be a list or a data frame with one entry each, got 1.0"),
        ("A", [1.0], {}, SettingError, "`configs` must be a list or a data frame"),
    ],
)
def test_of_many_results_all_are_added_or_none(configs, values, options, error, message):
    study = study_of()
    with pytest.raises(error, match=message):
        study.add_many(configs, values, **options)
    assert study.trials == []


def test_the_rows_of_a_data_frame_are_results():
    study = study_of(direction=["minimize", "maximize"])
    configs = pd.DataFrame([{"x": 0.25, "opt": "adam"}, {"x": 0.75, "opt": "sgd", "m": 0.5}], index=[7, 7])
    values = pd.DataFrame({"loss": [1.0, 2.0], "accuracy": [3.0, 4.0]})
    trials = study.add_many(configs, values)
    assert math.isnan(configs["m"].iloc[0])  # which is how a table says that it is not there
    assert [t.config for t in trials] == [A | {"x": 0.25}, {"x": 0.75, "opt": "sgd", "m": 0.5}]
    assert [t.values for t in trials] == [(1.0, 3.0), (2.0, 4.0)]


@pytest.mark.parametrize("nothing", [None, math.nan, np.float64("nan"), pd.NA, pd.NaT])
def test_nothing_is_accepted_for_a_parameter_that_is_inactive_and_there_alone(nothing):
    study = study_of()
    assert study.add({"x": 0.5, "opt": "adam", "m": nothing}, 1.0).config == {"x": 0.5, "opt": "adam"}
    with pytest.raises(ConfigError, match="`m` must be a finite number, got"):
        study.add({"x": 0.5, "opt": "sgd", "m": nothing}, 1.0)


def test_a_vector_is_not_nothing():
    with pytest.raises(ConfigError, match="`m` must be absent unless"):
        study_of().add({"x": 0.5, "opt": "adam", "m": np.array([math.nan, math.nan])}, 1.0)


def test_what_a_suggester_sees():
    seen = []

    class Recorder(RandomSuggester):
        def suggest(self, data, cube, n, seed):
            seen.append((data, n, seed))
            return super().suggest(data, cube, n, seed)

    study = Study(SPACE, suggester=Recorder(), direction="maximize", seed=5, device="cpu")
    study.add(A, 2.0)
    running = study.ask()
    study.ask()
    data, n, seed = seen[-1]
    assert (n, seed, data.number) == (1, 5, 2)
    assert data.Y.tolist() == [[2.0]]
    assert torch.equal(data.pending, SPACE.encode([running.config]))


@pytest.mark.parametrize("suggester", [None, RandomSuggester()])
def test_fixed_values_are_kept_to_the_last_digit(suggester):
    study = Study(SPACE, suggester=suggester)
    m = 0.1234567890123456789
    for _ in range(7):
        study.tell(study.ask(fixed={"m": m}), 1.0)
    asked = [study.ask(fixed={"m": m}), *study.ask(3, fixed={"opt": "sgd", "m": m})]
    assert all(trial.config["m"] == m and trial.config["opt"] == "sgd" for trial in asked)
    assert len({trial.config["x"] for trial in study.trials}) == 11
    assert asked[0].info["fixed"] == {"opt": "sgd", "m": m}
    assert "fixed" not in study.ask().info


def test_a_part_that_is_used_up_has_no_more():
    study = study_of()
    assert study.ask(fixed={"opt": "adam", "x": 0.5}).config == {"x": 0.5, "opt": "adam"}
    assert study.ask(fixed={"opt": "adam", "x": 0.5}) is None
    with pytest.raises(SettingError, match="leaves nothing to choose, so there is one config, and 3 were"):
        study.ask(3, fixed={"opt": "adam", "x": 0.5})
    assert study.ask() is not None


def test_a_part_that_is_used_up_says_so(caplog):
    study = study_of({"x": Float(0, 1), "k": Int(1, 3), "constant": 5})
    with caplog.at_level("WARNING", logger="gpbo"):
        assert len(study.ask(3, fixed={"x": 0.5})) == 3
        assert caplog.text == ""
        assert study.ask(2, fixed={"x": 0.5}) == []
    assert "0 of 2 asked for; with {'x': 0.5} fixed no config is left that was not asked for" in caplog.text


def test_queued_configs_wait_while_values_are_fixed():
    study = study_of()
    study.enqueue(A)
    assert study.ask(fixed={"opt": "sgd"}).config["opt"] == "sgd"
    assert [t.config["opt"] for t in study.ask(2, fixed={"opt": "sgd"})] == ["sgd", "sgd"]
    assert study.ask(fixed={}).config == A


def test_fixed_values_are_those_of_new_trials_under_a_scheduler():
    study = study_of(scheduler=ASHA(1, 9))
    for trial in study.ask(3, fixed={"opt": "adam"}):
        assert trial.config["opt"] == "adam"
        study.tell(trial, trial.config["x"])
    resumed, new = study.ask(2, fixed={"opt": "sgd"})
    assert (resumed.budget, resumed.config["opt"]) == (3, "adam")
    assert (new.budget, new.config["opt"]) == (1, "sgd")


@pytest.mark.parametrize(
    ("fixed", "message"),
    [({"y": 1}, "`y` is not a parameter"), ({"opt": "adam", "m": 0.5}, "`m` exists only where opt is 'sgd'")],
)
@pytest.mark.parametrize("n", [None, 2])
def test_what_cannot_be_fixed_adds_no_trial(fixed, message, n):
    study = study_of()
    with pytest.raises(ConfigError, match=message):
        study.ask(n, fixed=fixed)
    assert study.trials == []


def test_a_part_that_the_constraints_forbid():
    rules = ["x < 0.5", "m < x", lambda config: config.get("m", 0) < 0.3]
    study = study_of(SearchSpace(SPACE.parameters, constraints=rules))
    for fixed, rule in (
        ({"x": 0.75}, "'x < 0.5'"),
        ({"x": 0.2, "m": 0.25}, "'m < x'"),
        ({"opt": "sgd", "x": 0.45, "m": 0.35}, "test_a_part_.*lambda>"),
    ):
        with pytest.raises(
            ConfigError, match=rf"the constraint {rule} does not hold for .*, which are fixed"
        ):
            study.ask(fixed=fixed)
    words = (
        r"with {'opt': 'sgd', 'm': 0.35} fixed, the constraints 'x < 0.5', .*lambda>: no config that meets"
    )
    with pytest.raises(SpaceError, match=words):  # of a function that is not known beforehand
        study.ask(fixed={"m": 0.35})
    assert study.ask(fixed={"m": 0.2}).config["m"] == 0.2
    assert len(study.trials) == 1


def test_a_suggester_that_ignores_what_is_fixed_is_told_so():
    class Deaf(RandomSuggester):
        def suggest(self, data, cube, n, seed):
            return super().suggest(data, SPACE.cube, n, seed)

    study = study_of(suggester=Deaf())
    study.ask()
    with pytest.raises(SettingError, match="cannot be asked with `fixed`"):
        study.ask(5, fixed={"x": 0.5})
    assert len(study.trials) == 1


def test_the_same_seed_asks_for_the_same_configs():
    def configs(seed):
        study = study_of(seed=seed)
        return [study.ask().config for _ in range(5)]

    assert configs(1) == configs(1)
    assert configs(1) != configs(2)


def test_a_finite_space_ends():
    study = study_of(SearchSpace(a=Int(0, 2), b=7))
    asked = [study.ask().config["a"] for _ in range(3)]
    assert sorted(asked) == [0, 1, 2]
    assert study.ask() is None
    study.tell(0, 1.0)
    assert study.ask() is None
    assert len(study.trials) == 3


def test_a_space_of_constants_is_asked_for_once():
    study = study_of({"a": 1, "b": "x"})
    assert study.ask().config == {"a": 1, "b": "x"}
    assert study.ask() is None


def test_two_studies_share_a_store():
    store = MemoryStore()
    one, two = study_of(store=store), study_of(store=store)

    def ask(study):
        for _ in range(50):
            study.tell(study.ask(), 1.0)

    threads = [threading.Thread(target=ask, args=[study]) for study in (one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert one.trials == two.trials
    assert [t.number for t in one.trials] == list(range(100))
    assert len({repr(t.config) for t in one.trials}) == 100


def test_reopening_goes_on_with_the_stored_seed(caplog):
    undisturbed, store = study_of(seed=3), MemoryStore()
    study_of(store=store, seed=3).ask()
    with caplog.at_level(logging.INFO, "gpbo.study"):
        again = study_of(store=store, seed=4)
    assert again.seed == 3
    assert "keeps its stored seed 3, not 4" in caplog.text
    assert [undisturbed.ask().config for _ in range(2)][1] == again.ask().config


def test_a_stored_study_is_loaded_without_its_space():
    store = MemoryStore()
    space = SearchSpace({**SPACE.parameters, "n": Int(0, 3)}, constraints=["x < 0.9"])
    study_of(space, store=store, direction=["minimize", "maximize"], seed=9).add({**A, "n": 1}, (1, 2))
    loaded = Study.load(store, suggester=RandomSuggester())
    assert loaded.space == space
    assert loaded.directions == ("minimize", "maximize")
    assert loaded.seed == 9
    assert len(loaded.trials) == 1


def test_loading_what_is_not_there_is_refused():
    with pytest.raises(StoreError, match=r"the store holds no study 'mnist'"):
        Study.load(MemoryStore(), name="mnist")


def test_a_closed_study_has_let_go_of_its_file(tmp_path):
    study = study_of(store=tmp_path / "study.db")
    study.ask()
    log = tmp_path / "study.db-wal"  # SQLite removes it when the last connection goes
    assert log.exists()
    study.close()
    assert not log.exists()


def test_a_study_that_cannot_be_opened_lets_go_of_its_file(tmp_path):
    path, log = tmp_path / "study.db", tmp_path / "study.db-wal"
    space = SearchSpace(x=Float(0, 1), constraints=[lambda c: c["x"] < 0.5])
    study_of(space, store=path).close()
    study_of(store=path, name="plain").close()
    with pytest.raises(SpaceError, match=r"is a function and must be given in code") as kept:
        Study.load(path)
    assert not log.exists(), kept
    with pytest.raises(SettingError, match=r"`suggester` must be an object") as kept:
        Study.load(path, "plain", suggester="gp")
    assert not log.exists(), kept
    with pytest.raises(StudyMismatchError, match=r"was stored with another definition") as kept:
        study_of(store=path)
    assert not log.exists(), kept
    store = open_store(path, "default")
    with pytest.raises(StudyMismatchError, match=r"was stored with another definition"):
        study_of(store=store)
    assert log.exists()  # whoever opened a store closes it
    store.close()


def test_loading_takes_what_the_store_does_not_hold(caplog):
    store = MemoryStore()
    study_of(store=store, seed=7)
    with caplog.at_level(logging.INFO, logger="gpbo"):
        loaded = Study.load(store, suggester=RandomSuggester(), scheduler=ASHA(), device="cpu")
    assert (loaded.seed, loaded.device) == (7, "cpu")
    assert loaded.ask().budget == 1
    assert caplog.text == ""
    with pytest.raises(TypeError, match="direction"):
        Study.load(store, direction="maximize")


def test_loading_a_study_with_a_function_needs_code():
    store = MemoryStore()
    space = SearchSpace(x=Float(0, 1), constraints=[lambda c: c["x"] < 0.5])
    study_of(space, store=store)
    with pytest.raises(SpaceError, match=r"is a function and must be given in code"):
        Study.load(store)
    assert study_of(space, store=store).ask().config["x"] < 0.5


@pytest.mark.parametrize(
    ("other", "options", "lines"),
    [
        (
            {**SPACE.parameters, "x": Float(0, 2)},
            {},
            [
                "- x: {'type': 'float', 'low': 0.0, 'high': 1.0}",
                "+ x: {'type': 'float', 'low': 0.0, 'high': 2.0}",
            ],
        ),
        ({**SPACE.parameters, "y": Int(0, 1)}, {}, ["+ y: {'type': 'int', 'low': 0, 'high': 1}"]),
        ({"x": SPACE.parameters["x"], "opt": SPACE.parameters["opt"]}, {}, ["- m: {'type': 'float'"]),
        (
            dict(reversed(SPACE.parameters.items())),
            {},
            ["- order: ['x', 'opt', 'm']", "+ order: ['m', 'opt', 'x']"],
        ),
        (
            SearchSpace(SPACE.parameters, constraints="x < 0.5"),
            {},
            ["- constraints: []", "+ constraints: ['x < 0.5']"],
        ),
        (SPACE, {"direction": "maximize"}, ["- direction: ['minimize']", "+ direction: ['maximize']"]),
    ],
)
def test_another_definition_is_refused_with_the_difference(other, options, lines):
    store = MemoryStore()
    study_of(store=store).ask()
    with pytest.raises(StudyMismatchError, match=r"was stored with another definition") as caught:
        study_of(other, store=store, **options)
    for line in lines:
        assert line in str(caught.value)
    assert len(study_of(store=store).trials) == 1


def test_true_in_place_of_one_is_another_space():
    store = MemoryStore()
    study_of({"b": Categorical([True, False])}, store=store)
    with pytest.raises(StudyMismatchError, match=r"\+ b: \{'type': 'categorical', 'choices': \[1, 0\]\}"):
        study_of({"b": Categorical([1, 0])}, store=store)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"direction": "minimise"}, r"`direction` must be .* got 'minimise'. Did you mean 'minimize'\?"),
        ({"direction": []}, r"`direction` must name at least one objective"),
        ({"direction": ["minimize", None]}, r"`direction` must be 'minimize' or 'maximize', got None"),
        ({"direction": None}, r"`direction` must be 'minimize' or 'maximize', got None"),
        ({"seed": 1.5}, r"`seed` must be a whole number, got 1.5"),
        ({"seed": True}, r"`seed` must be a whole number, got True"),
        ({"outcome_constraints": "t < 1"}, r"`outcome_constraints` must read like 'latency <= 10'"),
        (
            {"outcome_constraints": "t <= 1", "scheduler": ASHA()},
            r"`scheduler` compares trials by their values alone; leave it or `outcome_constraints` out",
        ),
        ({"name": ""}, r"`name` must be a non-empty string, got ''"),
        ({"name": 3}, r"`name` must be a non-empty string, got 3"),
        ({"store": ""}, r"`store` must name a file or a database"),
        ({"store": 3}, r"`store` must be None, a path, a database URL or a store, got 3"),
        ({"store": MemoryStore}, r"`store` must be None, .* got <class 'gpbo"),
        ({"suggester": "gp"}, r"`suggester` must be an object such as GPSuggester\(\), got 'gp'"),
        ({"suggester": RandomSuggester}, r"`suggester` must be an object .* got <class 'gpbo"),
        ({"scheduler": "asha"}, r"`scheduler` must be an object such as ASHA\(\), got 'asha'"),
        ({"scheduler": ASHA}, r"`scheduler` must be an object .* got <class 'gpbo"),
    ],
)
def test_settings_that_break_their_rule_are_refused(options, message):
    with pytest.raises(SettingError, match=message):
        study_of(**options)


def test_an_unknown_device_is_refused():
    for name in ("cuba", "cuda:99"):
        with pytest.raises(SettingError, match=f"`device` must name a device of .* 'cpu'.*, got '{name}'"):
            study_of(device=name)
    with pytest.raises(SettingError, match=r"`device` must be the name of a device, such as .*, got None"):
        study_of(device=None)


def test_the_repr_counts_trials():
    study = study_of(name="mnist")
    assert repr(study) == "Study('mnist', 3 parameters, no trials)"
    study.tell(study.ask(), 1.0)
    study.ask()
    assert repr(study) == "Study('mnist', 3 parameters, 1 running, 1 complete)"


def test_a_frame_of_no_trials_has_the_columns_of_many():
    study = study_of()
    before = study.to_dataframe()
    assert len(before) == 0
    study.ask()
    one = study.to_dataframe()
    assert list(before.columns) == list(one.columns)
    assert list(before.columns) == [
        *("number", "state", "value", "budget", "seconds", "config.x", "config.opt", "config.m"),
        *("started", "finished", "error"),
    ]
    assert one.loc[0, "state"] == "running"
    assert one["value"].isna().all()


def test_a_frame_has_one_row_a_trial():
    study = study_of(direction=["minimize", "maximize"])
    study.add(A, (1.0, 2.0), budget=3, seconds=4)
    study.fail(study.ask(), "why")
    study.add(B, (5.0, 6.0))
    frame = study.to_dataframe()
    assert list(frame["number"]) == [0, 1, 2]
    assert list(frame["state"]) == ["complete", "failed", "complete"]
    assert list(frame["value_1"][[0, 2]]) == [2.0, 6.0]
    assert (frame.loc[0, "budget"], frame.loc[0, "seconds"]) == (3.0, 4.0)
    assert frame.loc[1, "error"] == "why"
    assert frame.loc[2, "config.m"] == 0.125
    assert frame.loc[0, "started"].year >= 2024


class TestAskingForSeveral:
    SPACE = gpbo.SearchSpace(x=gpbo.Float(0.0, 1.0), y=gpbo.Float(0.0, 1.0))

    @pytest.mark.parametrize("suggester", [gpbo.SobolSuggester(), gpbo.GPSuggester(n_initial=3)])
    def test_a_batch_is_as_many_different_trials(self, suggester):
        study = gpbo.Study(self.SPACE, suggester=suggester)
        for trial in study.ask(3):
            study.tell(trial, trial.config["x"])
        batch = study.ask(4)
        assert [trial.number for trial in batch] == [3, 4, 5, 6]
        assert len({tuple(trial.config.values()) for trial in batch}) == 4
        assert [trial.state for trial in study.trials[3:]] == ["running"] * 4

    def test_the_queue_comes_first(self):
        study = gpbo.Study(self.SPACE, suggester=gpbo.RandomSuggester())
        study.enqueue({"x": 0.25, "y": 0.75})
        batch = study.ask(3)
        assert batch[0].config == {"x": 0.25, "y": 0.75}
        assert [trial.info["source"] for trial in batch] == ["queue", "random", "random"]

    def test_a_finite_space_gives_what_it_has(self):
        study = gpbo.Study(gpbo.SearchSpace(k=gpbo.Int(1, 3)), suggester=gpbo.RandomSuggester())
        assert sorted(trial.config["k"] for trial in study.ask(5)) == [1, 2, 3]
        assert study.ask(2) == []

    def test_joint_batches_are_chosen_together(self):
        def batch(way):
            study = gpbo.Study(self.SPACE, suggester=gpbo.GPSuggester(n_initial=5, batch=way))
            for trial in study.ask(6):
                study.tell(trial, (trial.config["x"] - 0.3) ** 2 + (trial.config["y"] - 0.6) ** 2)
            return [trial.config for trial in study.ask(3)]

        assert batch("joint") == batch("joint")
        assert batch("joint") != batch("greedy")

    @pytest.mark.parametrize("n", [0, -1, 1.5, True, "2"])
    def test_a_bad_number_is_refused(self, n):
        with pytest.raises(SettingError, match=r"`n` must be a whole number >= 1, got"):
            gpbo.Study(self.SPACE).ask(n)


def test_a_trial_of_another_study_is_refused():
    space = SearchSpace(x=Float(0.0, 1.0))
    one, other = (Study(space, suggester=RandomSuggester(), seed=seed) for seed in (0, 5))
    one.ask()
    with pytest.raises(UnknownTrialError, match=r"trial 0 of study 'default' has .* another study"):
        one.tell(other.ask(), 1.0)
    assert one.trials[0].state is State.RUNNING


@pytest.mark.parametrize("error", [None, "", "  ", 3])
def test_a_failure_needs_a_reason(error):
    study = Study(SearchSpace(x=Float(0.0, 1.0)), suggester=RandomSuggester())
    study.ask()
    with pytest.raises(SettingError, match="`error` must be an exception or a text"):
        study.fail(0, error)
    assert study.trials[0].state is State.RUNNING


def test_a_result_that_cannot_be_shown_is_still_refused():
    class Shy:
        def __repr__(self):
            raise RuntimeError("no repr")

    study = Study(SearchSpace(x=Float(0.0, 1.0)), suggester=RandomSuggester())
    with pytest.raises(ResultError, match="`value` must be a number, got <Shy instance at"):
        study.tell(study.ask(), Shy())


@pytest.mark.parametrize("suggester", [RandomSuggester(), gpbo.GPSuggester()])
def test_constraints_that_nearly_nothing_meets_are_met_near_what_does(suggester):
    space = SearchSpace(x=Float(0.0, 1.0), y=Float(0.0, 1.0), constraints=["x + y > 1.995"])
    study = Study(space, suggester=suggester)
    study.enqueue({"x": 0.999, "y": 0.999})
    for _ in range(8):
        trial = study.ask()
        study.tell(trial, trial.config["x"])
    assert len(study.trials) == 8
