"""The data in the figures, for every kind of study; how they look is for eyes."""

import math
import sys

import pytest
import torch

import gpbo
from gpbo.analysis import fit_surrogate, plots
from gpbo.analysis.figures import Axis, log_ticks, value_axis
from gpbo.analysis.history import random_search
from gpbo.errors import MissingExtraError, NoResultError, SettingError, UnknownTrialError
from gpbo.standing import comparable

EVERY_PLOT = {
    "history": plots.history,
    "parallel": plots.parallel,
    "slices": plots.slices,
    "contour": lambda study: plots.contour(study, *study.space.columns[:2]),
    "importance": plots.importance,
    "rungs": plots.rungs,
    "curves": plots.curves,
    "front": plots.front,
}
OF_A_PLAIN_STUDY = ["history", "parallel", "slices", "contour", "importance"]


def traces(figure):
    found = {}
    for trace in figure.data:
        found.setdefault(trace.name, []).append(trace)
    return found


def add_all(study, f, n):
    for config in study.space.decode(study.space.cube.sobol(n, 1)):
        study.add(config, f(config))
    return study


def bowl(config):
    return 1.0 + (config["a"] - 0.3) ** 2 + 0.1 * config["b"]


def plain(n, **options):
    return add_all(gpbo.Study({"a": gpbo.Float(0, 1), "b": gpbo.Float(0, 1)}, **options), bowl, n)


@pytest.fixture(scope="module")
def conditional():
    """Choices, a condition, a constraint, a log scale, and two failures."""
    space = gpbo.SearchSpace(
        lr=gpbo.Float(1e-4, 1e-1, log=True),
        kind=gpbo.Categorical(["sgd", "adam", None]),
        momentum=gpbo.Float(0.0, 0.9, when={"kind": "sgd"}),
        constraints=["lr <= 0.05 or momentum <= 0.5"],
    )
    study = gpbo.Study(space)
    for k in range(18):
        lr = 10.0 ** (-4 + k / 8)
        config = {"lr": lr, "kind": ["sgd", "adam", None][k % 3]}
        if k % 3 == 0:
            config["momentum"] = k / 20
        value = (math.log10(lr) + 2.5) ** 2 + 1.0 + config.get("momentum", 0.5)
        study.add(config, math.nan if k in (4, 9) else value)
    return study


@pytest.fixture(scope="module")
def halving():
    """Five trials of which two go on and one ends, one that is stopped by its failure, and a silent one."""
    study = gpbo.Study({"a": gpbo.Float(0, 1), "b": gpbo.Float(0, 1)}, scheduler=gpbo.ASHA(1, 9), seed=3)

    def objective(config, budget):
        if config["a"] > 0.8:
            raise ValueError("diverged")
        return bowl(config) + 1.0 / budget

    return study.optimize(objective, n_trials=24, progress=False)


@pytest.fixture(scope="module")
def several():
    study = gpbo.Study(
        {"a": gpbo.Float(0, 1), "b": gpbo.Float(0, 1)},
        direction=["minimize", "maximize"],
        outcome_constraints="load <= 0.8",
    )
    for config in study.space.decode(study.space.cube.sobol(16, 1)):
        study.add(config, [bowl(config), config["a"]], outcomes={"load": config["b"]})
    return study


@pytest.mark.parametrize("name", EVERY_PLOT)
def test_without_plotly_the_extra_is_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(MissingExtraError, match=r"plotly is not installed; pip install 'gpbo\[plot\]'"):
        EVERY_PLOT[name](gpbo.Study({"a": gpbo.Float(0, 1), "b": gpbo.Float(0, 1)}))


@pytest.mark.parametrize("name", EVERY_PLOT)
def test_a_study_without_trials_is_refused(name):
    with pytest.raises((NoResultError, SettingError)):
        EVERY_PLOT[name](gpbo.Study({"a": gpbo.Float(0, 1), "b": gpbo.Float(0, 1)}))


@pytest.mark.parametrize("name", ["history", "parallel", "slices", "contour"])
@pytest.mark.parametrize("kind", ["conditional", "halving", "several"])
def test_every_plot_of_every_study_becomes_a_page(name, kind, request):
    study = request.getfixturevalue(kind)
    if kind == "halving" and name in ("slices", "contour"):
        figure = {
            "slices": lambda: plots.slices(study, budget=1),
            "contour": lambda: plots.contour(study, "a", "b", budget=1),
        }[name]()
    else:
        figure = EVERY_PLOT[name](study)
    assert figure.to_json()
    assert figure.layout.title.text


def failed(n):
    study = gpbo.Study({"a": gpbo.Float(0, 1), "b": gpbo.Float(0, 1)})
    configs = study.space.decode(study.space.cube.sobol(n, 1))
    study.add_many(configs, [bowl(config) if k % 3 else math.nan for k, config in enumerate(configs, 1)])
    return study


def branching(n):
    kind = gpbo.Categorical(["sgd", None])
    study = gpbo.Study({"kind": kind, "a": gpbo.Float(0, 1), "b": gpbo.Float(0, 1, when={"kind": "sgd"})})
    return add_all(study, lambda config: config["a"] + config.get("b", 0.5), n)


def two_objectives(n):
    study = gpbo.Study({"a": gpbo.Float(0, 1), "b": gpbo.Float(0, 1)}, direction=["minimize", "maximize"])
    return add_all(study, lambda config: (bowl(config), config["a"]), n)


def with_budgets(n):
    space = {"a": gpbo.Float(0, 1), "b": gpbo.Float(0, 1)}
    study = gpbo.Study(space, scheduler=gpbo.ASHA(1, 9), suggester=gpbo.RandomSuggester())
    return study.optimize(lambda config, budget: bowl(config) + 1 / budget, n, progress=False)


@pytest.mark.parametrize("n", [1, 10, 1000])
@pytest.mark.parametrize("kind", [failed, branching, two_objectives, with_budgets])
def test_one_ten_and_a_thousand_trials(kind, n):
    study = kind(n)
    full = len(comparable(study.trials, study.outcome_constraints))
    shown = {
        "parallel": full > 0,
        "slices": full > 1,
        "contour": full > 1,
        "rungs": kind is with_budgets,
        "curves": kind is with_budgets and n > 1,
        "front": kind is two_objectives,
    }
    if full < 500:  # of a model of so many points other tests look at the history
        shown |= {"history": full > 0}
    else:
        del shown["slices"], shown["contour"]
    for name, is_shown in shown.items():
        if is_shown:
            assert EVERY_PLOT[name](study).to_json()
        else:
            with pytest.raises((NoResultError, SettingError), match="study"):
                EVERY_PLOT[name](study)


def test_history_shows_values_the_best_so_far_and_failures():
    study = gpbo.Study({"a": gpbo.Float(0, 1), "b": gpbo.Float(0, 1)}, direction="maximize")
    for k, value in enumerate([1.0, 3.0, math.nan, 2.0, 5.0]):
        study.add({"a": k / 5, "b": 0.5}, value)
    figure = plots.history(study)
    found = traces(figure)
    assert found["trials"][0].x == (1, 2, 4, 5)
    assert found["trials"][0].y == (1.0, 3.0, 2.0, 5.0)
    assert found["best so far"][0].y == (1.0, 3.0, 3.0, 3.0, 5.0)
    assert (found["failed"][0].x, found["failed"][0].y) == ((3,), (1.0,))
    assert "no random search: this needs 5 trials with a value; study 'default' has 4" in (
        figure.layout.title.subtitle.text
    )


def test_history_of_one_trial():
    figure = plots.history(plain(1))
    assert traces(figure)["best so far"][0].y == (plain(1).best.value,)


def test_what_random_search_finds_is_the_best_of_so_many_draws():
    """Of f = a, the best of k uniform draws is below v with probability 1 - (1 - v)^k."""
    study = add_all(gpbo.Study({"a": gpbo.Float(0, 1)}), lambda c: c["a"], 30)
    found = random_search(fit_surrogate(study, warps=[0.0]), [1, 4, 20], 0)
    for level, row in zip((0.05, 0.5, 0.95), found.tolist(), strict=True):
        assert row == pytest.approx([1.0 - (1.0 - level) ** (1.0 / k) for k in (1, 4, 20)], abs=0.02)
    study = add_all(gpbo.Study({"a": gpbo.Float(0, 1)}, direction="maximize"), lambda c: c["a"], 30)
    mirrored = random_search(fit_surrogate(study, warps=[0.0]), [1, 4, 20], 0)
    torch.testing.assert_close(mirrored, 1.0 - found.flip(0), atol=0.02, rtol=0.0)


def test_history_of_a_thousand_trials_with_random_search():
    study = gpbo.Study({"a": gpbo.Float(0, 1), "b": gpbo.Float(0, 1)}, suggester=gpbo.RandomSuggester())
    add_all(study, bowl, 200)
    figure = plots.history(study)
    found = traces(figure)
    band = found["random search, by the surrogate (90 %)"][0]
    assert band.x[-1] == 200
    assert list(band.y) == sorted(band.y, reverse=True)
    assert 1.0 < band.y[-1] < 1.05


def test_history_with_budgets_is_over_what_was_spent(halving):
    found = traces(plots.history(halving))
    spent = sum(t.info["run"]["spent"] if "run" in t.info else t.budget for t in halving.trials)
    assert found["best so far"][0].x[-1] == spent
    assert found["best so far"][0].y[-1] == halving.best.value
    values = {t.value for t in halving.trials if t.observations and t.observations[-1].budget == 9.0}
    assert set(found["trials"][0].y) == values


def test_history_of_several_objectives_has_a_panel_each(several):
    found = traces(plots.history(several))
    feasible = [t for t in several.trials if t.outcomes["load"] <= 0.8]
    assert len(found["infeasible"]) == 2
    assert found["best so far"][0].y[-1] == min(t.values[0] for t in feasible)
    assert found["best so far"][1].y[-1] == max(t.values[1] for t in feasible)


def test_parallel_has_a_line_for_every_trial_with_a_value(conditional):
    figure = plots.parallel(conditional)
    lr, kind, momentum, value = figure.data[0].dimensions
    seen = [t for t in conditional.trials if t.value is not None]
    assert lr.values == pytest.approx([math.log10(t.config["lr"]) for t in seen])
    assert list(kind.values) == [["sgd", "adam", None].index(t.config["kind"]) for t in seen]
    assert kind.ticktext == ("sgd", "adam", "None")
    assert momentum.ticktext[0] == "absent"
    absent = momentum.tickvals[0]
    assert absent < 0.0
    assert list(momentum.values) == [t.config.get("momentum", absent) for t in seen]
    assert list(value.values) == [t.value for t in seen]
    assert figure.data[0].line.reversescale is True
    assert figure.layout.title.subtitle.text == "without one: 2 failed"


def test_parallel_of_several_objectives_and_budgets(several, halving):
    *_, first, second = plots.parallel(several, 1).data[0].dimensions
    assert list(first.values) == [t.values[0] for t in several.trials]
    assert list(plots.parallel(several, 1).data[0].line.color) == list(second.values)
    assert plots.parallel(several, 1).data[0].line.reversescale is False
    figure = plots.parallel(halving)
    full = [t for t in halving.trials if t.observations and t.observations[-1].budget == 9.0]
    assert len(figure.data[0].line.color) == len(full)
    assert "values at budget 9; without one: " in figure.layout.title.subtitle.text
    with pytest.raises(SettingError, match="`objective` must be a whole number from 0 to 1, got 2"):
        plots.parallel(several, 2)


def test_parallel_of_values_decades_apart_is_logarithmic():
    study = add_all(gpbo.Study({"a": gpbo.Float(0, 1)}), lambda c: 10 ** (4 * c["a"]), 8)
    value = plots.parallel(study).data[0].dimensions[-1]
    assert value.values == pytest.approx([math.log10(t.value) for t in study.trials])
    assert set(value.ticktext) <= {"1", "10", "100", "1e+03", "1e+04"}


def test_slices_go_through_the_best_trial():
    study = plain(15)
    figure = plots.slices(study)
    found, best = traces(figure), study.best
    surrogate = fit_surrogate(study)
    for k, name in enumerate("ab"):
        line = found["median"][k]
        assert (line.x[0], line.x[-1], len(line.x)) == (0.0, 1.0, 101)
        other = {**best.config, name: line.x[37]}
        low, median, high = surrogate.quantiles(study.space.encode([other]), (0.05, 0.5, 0.95)).flatten()
        assert line.y[37] == pytest.approx(float(median), abs=1e-6)
        band = found["90 %"][k]
        assert band.y[37] == pytest.approx(float(high), abs=1e-6)
        assert band.y[201 - 37] == pytest.approx(float(low), abs=1e-6)
        assert (found["slices go through"][k].x, found["slices go through"][k].y) == (
            (best.config[name],),
            (best.value,),
        )
        assert list(found["trials"][k].y) == [t.value for t in study.trials]
    assert [a.text for a in figure.layout.annotations] == [f"{n}, through trial {best.number}" for n in "ab"]
    assert traces(plots.slices(study, at=3))["slices go through"][0].y == (study.trials[3].value,)
    with pytest.raises(UnknownTrialError, match="`at` must be a trial with a value that is modelled"):
        plots.slices(study, at=99)


def test_slices_of_conditional_parameters_and_gaps(conditional):
    figure = plots.slices(conditional)
    titles = [annotation.text for annotation in figure.layout.annotations]
    with_momentum = [t for t in conditional.trials if "momentum" in t.config and t.value is not None]
    best_with = min(with_momentum, key=lambda t: t.value)
    assert titles == [
        f"lr, through trial {conditional.best.number}",
        f"kind, through trial {conditional.best.number}",
        f"momentum, through trial {best_with.number}",
    ]
    found = traces(figure)
    of_kind = found["median, 90 %"][0]
    assert of_kind.x == (0.0, 1.0, 2.0)
    assert min(*of_kind.error_y.array, *of_kind.error_y.arrayminus) >= 0.0
    assert len(found["trials"][2].x) == len(with_momentum)
    blank = [x for x, y in zip(found["median"][0].x, found["median"][0].y, strict=True) if y is None]
    assert all(x > 0.05 for x in blank)


def test_what_the_constraints_forbid_is_blank():
    space = gpbo.SearchSpace(a=gpbo.Float(0, 1), b=gpbo.Float(0, 1), constraints=["a + b <= 1"])
    study = gpbo.Study(space)
    for config in space.decode(space.cube.draw(10, torch.Generator().manual_seed(0))):
        study.add(config, bowl(config))
    median = traces(plots.slices(study))["median"][0]
    limit = 1.0 - study.best.config["b"]
    assert all((y is None) == (x > limit + 1e-12) for x, y in zip(median.x, median.y, strict=True))
    table = plots.contour(study, "a", "b").data[0]
    for y, row in zip(table.y, table.z, strict=True):
        assert all(math.isnan(z) == (x + y > 1.0 + 1e-12) for x, z in zip(table.x, row, strict=True))


def test_contours_of_the_median_and_the_width():
    study = plain(15)
    figure = plots.contour(study, "a", "b")
    median, width = figure.data[0], figure.data[3]
    assert (len(median.x), len(median.y)) == (41, 41)
    config = {"a": median.x[10], "b": median.y[30]}
    low, middle, high = (
        fit_surrogate(study).quantiles(study.space.encode([config]), (0.05, 0.5, 0.95)).flatten()
    )
    assert median.z[30][10] == pytest.approx(float(middle), abs=1e-6)
    assert width.z[30][10] == pytest.approx(float(high - low), abs=1e-6)
    assert list(figure.data[1].x) == [t.config["a"] for t in study.trials]


def test_contours_of_choices_and_of_what_is_absent(conditional):
    figure = plots.contour(conditional, "lr", "kind")
    assert figure.data[0].type == "heatmap"
    assert figure.layout.yaxis.ticktext == ("sgd", "adam", "None")
    assert figure.layout.xaxis.type == "log"
    blank = plots.contour(conditional, "kind", "momentum").data[0].z
    assert all(not math.isnan(row[0]) and math.isnan(row[1]) and math.isnan(row[2]) for row in blank)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("a", "a"), "`x` and `y` must be two parameters, got 'a' twice"),
        (("a", "bb"), r"`y` must be one of \['a', 'b'\], got 'bb'. Did you mean 'b'"),
    ],
)
def test_contours_of_what_is_not_there(names, words):
    with pytest.raises(SettingError, match=words):
        plots.contour(plain(5), *names)


def test_a_contour_over_a_constant_is_refused():
    study = gpbo.Study({"a": gpbo.Float(0, 1), "c": 3})
    with pytest.raises(SettingError, match="`y` is a constant, got 'c'"):
        plots.contour(study, "a", "c")


def test_importance_has_a_bar_for_every_share():
    study = plain(15)
    found, known = traces(plots.importance(study)), study.importance()
    for name, kind in (("alone", "first"), ("in total, with others", "total")):
        shares = [getattr(effect, kind) for effect in reversed(known.effects)]
        [bar] = found[name]
        assert list(bar.x) == [share.value for share in shares]
        ends = [x + e for x, e in zip(bar.x, bar.error_x.array, strict=True)]
        assert ends == pytest.approx([share.high for share in shares])


def test_rungs_count_what_became_of_trials(halving):
    found = traces(plots.rungs(halving))
    at = {
        b: [t for t in halving.trials if any(o.budget == b for o in t.observations)] for b in (1.0, 3.0, 9.0)
    }
    assert found["went on"][0].x == ("1", "3", "9")
    assert found["went on"][0].y == (len(at[3.0]), len(at[9.0]), 0)
    totals = [sum(trace.y[k] for [trace] in found.values()) for k in range(3)]
    assert totals == [len(at[b]) for b in (1.0, 3.0, 9.0)]
    silent = sum(not t.observations for t in halving.trials)
    assert silent > 0
    assert plots.rungs(halving).layout.title.subtitle.text == f"{silent} failed before their first value"
    with pytest.raises(NoResultError, match="rungs need a study whose trials have budgets"):
        plots.rungs(plain(3))


def test_curves_have_every_value_and_the_best_trial(halving):
    found = traces(plots.curves(halving))
    best = found.pop("best")[0]
    assert list(best.y) == [o.value for o in halving.best.observations]
    assert list(best.x) == [1.0, 3.0, 9.0]
    points = [(x, y) for [t] in found.values() for x, y in zip(t.x, t.y, strict=True) if x is not None]
    assert sorted(points) == sorted((o.budget, o.value) for t in halving.trials for o in t.observations)
    with pytest.raises(NoResultError, match="curves need a study whose trials have budgets"):
        plots.curves(plain(3))
    study = gpbo.Study({"a": gpbo.Float(0, 1)})
    study.add({"a": 0.5}, 1.0, budget=2)
    with pytest.raises(SettingError, match="need values at two budgets or more; study 'default' has only 2"):
        plots.curves(study)


def test_curves_of_several_objectives_show_one_and_no_best():
    study = gpbo.Study({"a": gpbo.Float(0, 1)}, direction=["minimize", "maximize"])
    for k in range(4):
        study.add({"a": k / 10}, [k, 10 - k], budget=1 + k % 2)
    for objective, values, title in [(0, [0, 1, 2, 3], "0 (minimized)"), (1, [10, 9, 8, 7], "1 (maximized)")]:
        figure = plots.curves(study, objective)
        [line] = figure.data
        assert [y for y in line.y if y is not None] == values
        assert figure.layout.yaxis.title.text == f"value_{title}"
    with pytest.raises(SettingError, match="`objective` must be a whole number from 0 to 1, got 2"):
        plots.curves(study, 2)


def test_curves_without_a_feasible_trial_have_no_best():
    study = gpbo.Study({"a": gpbo.Float(0, 1)}, outcome_constraints="load <= 0.5")
    for k in range(3):
        study.add({"a": k / 10}, k, budget=1 + k % 2, outcomes={"load": 1})
    assert [t.name for t in plots.curves(study).data] == ["complete"]
    study.add({"a": 0.9}, 5, budget=2, outcomes={"load": 0})
    assert list(traces(plots.curves(study))["best"][0].y) == [5]


def test_curves_leave_out_what_has_no_budget():
    study = gpbo.Study({"a": gpbo.Float(0, 1)})
    for k in range(2):
        study.add({"a": k / 10}, k, budget=1 + k)
    study.add({"a": 0.9}, -1e9)
    figure = plots.curves(study)
    assert [(t.name, list(t.y)) for t in figure.data] == [("complete", [0, None, 1])]


def test_the_front_and_what_lies_behind_it(several):
    found = traces(plots.front(several))
    [front], [beaten], [infeasible] = found["Pareto front"], found["beaten"], found["infeasible"]
    assert list(zip(front.x, front.y, strict=True)) == sorted(t.values for t in several.pareto_front)
    assert front.line.shape == "hv"
    assert len(front.x) + len(beaten.x) + len(infeasible.x) == 16
    assert len(infeasible.x) == sum(t.outcomes["load"] > 0.8 for t in several.trials)
    with pytest.raises(SettingError, match="a front needs two objectives or more"):
        plots.front(plain(3))


def test_a_front_of_three_objectives_shows_every_two():
    study = gpbo.Study({"a": gpbo.Float(0, 1)}, direction=["minimize", "maximize", "minimize"])
    add_all(study, lambda c: [c["a"], c["a"] ** 2, 1.0], 6)
    [front] = traces(plots.front(study))["Pareto front"]
    assert [d.label for d in front.dimensions] == [
        "value_0 (minimized)",
        "value_1 (maximized)",
        "value_2 (minimized)",
    ]
    assert sorted(front.dimensions[0].values) == sorted(t.values[0] for t in study.trials)


def test_names_and_choices_are_no_markup():
    space = {"<b>x</b>": gpbo.Categorical(["<i>", "1", 1]), "b": gpbo.Float(0, 1)}
    study = gpbo.Study(space)
    for k in range(6):
        study.add({"<b>x</b>": ["<i>", "1", 1][k % 3], "b": k / 6}, float(k))
    for name in OF_A_PLAIN_STUDY:
        assert "<b>" not in EVERY_PLOT[name](study).to_json().replace("\\u003c", "<")
    assert Axis("x", space["<b>x</b>"]).layout["ticktext"] == ["&lt;i&gt;", "'1'", "1"]


def test_choices_that_are_equal_stand_apart():
    study = gpbo.Study({"x": gpbo.Categorical([1, True, 0, False]), "b": gpbo.Float(0, 1)})
    for k, choice in enumerate([1, True, 0, False]):
        study.add({"x": choice, "b": 0.5}, float(k))
    axis = Axis("x", study.space.parameters["x"])
    assert [axis.at(trial.config["x"]) for trial in study.trials] == [0, 1, 2, 3]
    assert list(plots.parallel(study).data[0].dimensions[0].values) == [0, 1, 2, 3]


def test_a_choice_stands_where_its_tick_is():
    for n in (1, 2, 3, 49, 1000):
        axis = Axis("x", gpbo.Categorical(range(n)))
        assert [axis.at(choice) for choice in range(n)] == axis.layout["tickvals"]


def test_values_decades_apart_stand_on_a_log_axis():
    assert value_axis([1.0, 99.0], "v") == {"title": {"text": "v"}}
    assert value_axis([0.0, 1e6], "v") == {"title": {"text": "v"}}
    assert value_axis([1.0, 101.0], "v")["type"] == "log"
    assert log_ticks(1e-4, 1e-1) == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1])
    assert log_ticks(2.0, 8.0) == [2.0, 8.0]
