import json

import pytest
import torch

from benchmarks import contest_data, contests, contests_cuda, judge, speed, speed_table
from gpbo import Float, SearchSpace
from gpbo.errors import SettingError
from gpbo.gp import Hypers, fit_gp


def line(cell="ask-200", entrant="gpbo", repeat=0, wall=1.0, cpu=1.0, guards=None, error=None):
    record = speed._record(cell, entrant, repeat, "cpu", wall=wall, cpu=cpu, error=error)
    return {**record, "guards": guards or {}}


def row_of(measured, *, part):
    (found,) = [row for row in speed_table.table(measured).splitlines() if part in row]
    return [cell.strip() for cell in found.strip("|").split("|")]


def small_problem(n=30):
    space = SearchSpace(a=Float(0, 1), b=Float(0, 1))
    draws = torch.Generator().manual_seed(0)
    X = torch.rand(n, 2, dtype=torch.float64, generator=draws)
    y = -(X - 0.4).square().sum(-1) + 0.05 * torch.randn(n, dtype=torch.float64, generator=draws)
    z = (y - y.mean()) / y.std(correction=0)
    return space.cube, X, z


def test_the_judge_sees_the_same_objective_and_variance_as_the_engine():
    cube, X, z = small_problem()
    gp, found = fit_gp(cube, X, z)
    judged = judge.Judge(cube, X, z, gp.hypers)
    assert judge.objective(X, z, gp.hypers) == pytest.approx(found.values[0], abs=1e-8)
    assert judged.variance_error(gp) < 1e-9
    assert judged.fit_gap({}) < 1e-2


def test_the_judge_notices_what_is_worse():
    cube, X, z = small_problem()
    gp, _ = fit_gp(cube, X, z)
    off = Hypers(2.0 * gp.hypers.lengthscale, gp.hypers.noise_var, gp.hypers.outputscale)
    assert judge.Judge(cube, X, z, off).fit_gap({"right": gp.hypers}) > 0.1
    right = judge.Judge(cube, X, z, gp.hypers)
    assert right.variance_error(fit_gp(cube, X, z, nu=1.5)[0]) > 1e-3
    assert right.acquisition_gap(X[z.argmin()], explored=False) > 1.0
    assert right.acquisition_gap(X[z.argmin()], explored=True) > 1e-2


def test_a_model_of_the_judge_starts_at_the_modes_and_gives_its_hypers_back():
    cube, X, z = small_problem(8)
    gp, _ = fit_gp(cube, X, z)
    model = judge.make_model(X, z, gp.hypers)
    assert torch.allclose(judge.get_hypers(model).theta, gp.hypers.theta, atol=1e-9)


def test_one_more_point_is_worth_something_in_a_batch():
    cube, X, z = small_problem()
    gp, _ = fit_gp(cube, X, z)
    few, many = (judge.batch_value(X, z, gp.hypers, X[z.topk(q).indices]) for q in (1, 4))
    assert many > few


def test_the_data_are_new_in_each_repetition_and_the_same_for_all():
    one, again, other = (
        contest_data.make_data(12, 0),
        contest_data.make_data(12, 0),
        contest_data.make_data(12, 1),
    )
    assert torch.equal(one.losses, again.losses)
    assert not torch.equal(one.losses, other.losses)
    assert one.X.shape == (12, 20)
    assert float(one.X.min()) >= 0.0
    assert float(one.X.max()) <= 1.0


@pytest.mark.parametrize(
    ("make", "entrants", "guards"),
    [
        (
            lambda: contests.Ask(14, 1, peers=False),
            ["gpbo-cold", "gpbo"],
            {"fit_gap", "variance_error", "acquisition_gap"},
        ),
        (lambda: contests.PendingPoint(30, 0), ["gpbo", "botorch"], {"variance_error"}),
        (lambda: contests.ColdFit(24, 0), ["gpbo", "botorch", "scipy"], {"fit_gap", "variance_error"}),
        (lambda: contests.ColdFit(24, 0, "cpu", peers=False), ["gpbo"], set()),
        (lambda: contests_cuda.Factor(600, 0, "cpu"), ["gpbo"], {"residual"}),
        (lambda: contests_cuda.ThompsonMany(30, 0, "cpu", q=3), ["gpbo"], {"variance_error"}),
    ],
    ids=["ask", "pending", "fit", "fit alone", "factor", "thompson"],
)
def test_contests_clock_their_entrants_and_hold_the_guards(make, entrants, guards):
    contest, clock = make(), contest_data.Clock("cpu")
    for entrant in contest.entrants.values():
        entrant(clock)
    assert list(clock.times) == entrants
    assert all(wall > 0 for wall, _ in clock.times.values())
    found = contest.guards(thorough=True)
    assert set(found) == guards
    assert all(value <= judge.LIMITS[name] for name, value in found.items())


def test_a_crash_is_a_line_and_the_others_are_measured(monkeypatch):
    class Mixed:
        def __init__(self, n, repeat):
            def broken(clock):
                raise RuntimeError("out of luck")

            def sound(clock):
                with clock("gpbo"):
                    pass

            self.entrants = {"gpbo": sound, "optuna": broken, "botorch": sound}

        def guards(self, *, thorough):
            raise AssertionError("not looked at when an entrant failed")

    monkeypatch.setattr(speed, "_makers", lambda device: {"ask-1000": Mixed})
    first = speed.measure("ask-1000", 0, "cpu")
    assert [r["entrant"] for r in first] == ["gpbo", "optuna", "gpbo"]
    assert "RuntimeError: out of luck" in first[1]["error"]
    second = speed.measure("ask-1000", 1, "cpu")  # the other way round, and botorch runs once only
    assert [r["entrant"] for r in second] == ["optuna", "gpbo"]


def test_guards_belong_to_gpbo_and_some_to_one_entrant():
    guards = {"variance_error": 1e-9, "gpbo-greedy:batch_gap": 0.1}
    assert speed._guards_of("gpbo-greedy", guards) == {"variance_error": 1e-9, "batch_gap": 0.1}
    assert speed._guards_of("gpbo-thompson", guards) == {"variance_error": 1e-9}
    assert speed._guards_of("botorch", guards) == speed._guards_of("gpbo-cold", guards) == {}


def test_the_table_pairs_repetitions_and_states_the_target():
    measured = [line(repeat=i, cpu=1.0 + i) for i in range(3)]
    measured += [line(entrant="optuna", repeat=i, cpu=8.0 * (1.0 + i), wall=4.0) for i in range(3)]
    row = row_of(measured, part="| optuna |")
    assert row[1:8] == ["2", "optuna", "16", "8x (8-8)", "4x (4-4)", "5x (15x)", "met"]


@pytest.mark.parametrize(
    ("ratio", "guards", "verdict"),
    [
        (20.0, {}, "aim met"),
        (4.0, {}, "**missed**"),
        (20.0, {"fit_gap": 0.02, "variance_error": 1e-9}, "guard failed"),
        (20.0, {"fit_gap": float("nan")}, "guard failed"),
    ],
)
def test_verdicts(ratio, guards, verdict):
    row = row_of([line(guards=guards), line(entrant="optuna", cpu=ratio)], part="| optuna |")
    assert row[7] == verdict
    assert ("fit_gap" in row[8] and "!" in row[8]) == (verdict == "guard failed")


def test_a_time_by_itself_is_held_against_seconds():
    assert row_of([line("fit-20000", wall=2.0)], part="20 000")[5:8] == ["2 s", "3 s (1.5 s)", "met"]
    assert row_of([line("fit-20000", wall=4.0)], part="20 000")[7] == "**missed**"


def test_the_short_table_has_a_line_for_each_entrant_of_gpbo():
    measured = [line(repeat=i, cpu=1.0 + i) for i in range(3)] + [line(entrant="gpbo-cold", cpu=4.0)]
    measured += [line(entrant="optuna", repeat=i, cpu=8.0 * (1.0 + i)) for i in range(3)]
    measured += [line(entrant="optuna-cold", cpu=1.0), line(entrant="botorch", cpu=19.0)]
    measured += [line("fit-20000", wall=2.0), line("pending-1000"), line("fit-200", "scipy")]
    text = speed_table.short([{**record, "revision": "abc", "versions": {"a": "1"}} for record in measured])
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines()]
    assert [row[1:] for row in rows[2:7]] == [
        ["2 s", "8x, met (5x)", "19x, **missed** (20x)", ""],
        ["4 s", "0.25x, slower", "", ""],
        ["1 s", "", "botorch failed (100x)", ""],
        ["failed", "", "gpbo failed", "gpbo failed"],
        ["1 s, 2 s of wall clock, met (3 s)", "", "", ""],
    ]
    assert [row[0] for row in rows[2:6]] == [
        "ask with refit, n = 200",
        "ask with refit, n = 200, gpbo-cold (first ask, nothing to start from)",
        "tell of a pending point, n = 1000 (condition_on_observations)",
        "cold fit, n = 200 (fit_gpytorch_mll, same kernel and priors; L-BFGS-B on gpbo's objective)",
    ]
    assert text.endswith("Medians of at most 3 repetitions; in brackets the target. Revision abc; a 1.")


def test_a_file_is_printed_without_measuring(tmp_path, capsys):
    path = tmp_path / "s.jsonl"
    path.write_text(
        "".join(json.dumps(record) + "\n" for record in [line(), line(entrant="optuna", cpu=20.0)])
    )
    assert speed.main(["--table", str(path)]) == 0
    assert "| optuna | 20 |" in capsys.readouterr().out
    assert speed.main(["--table", str(path), "--short"]) == 0
    assert "20x, aim met (5x)" in capsys.readouterr().out
    assert speed.main(["--table", str(tmp_path / "none.jsonl")]) == 2
    assert "there are no measurements at" in capsys.readouterr().err


def test_a_peer_that_failed_is_said():
    measured = [line(), line(entrant="optuna", wall=None, cpu=None, error="the process died")]
    assert row_of(measured, part="| optuna |")[7] == "optuna failed"


def test_cells_that_cannot_be_measured_here_are_named(capsys):
    chosen = speed.choose(None, "cpu", cuda=False)
    assert chosen == [name for name, cell in speed_table.CELLS.items() if cell.device == "cpu"]
    assert "fit-20000 is left out: it needs CUDA, and there is none here" in capsys.readouterr().err
    assert speed.choose("ask-200", "cuda", cuda=True) == []
    assert "ask-200 is left out: it is measured with --device cpu" in capsys.readouterr().err
    assert "factor-100000" in speed.choose(None, "cuda", cuda=True)
    with pytest.raises(SettingError, match="Did you mean 'ask-200'"):
        speed.choose("ask-20", "cpu", cuda=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeats", "0"], "`--repeats` must be >= 1, got 0"),
        (["--device", "tpu"], "`--device` must be cpu or cuda, got 'tpu'"),
    ],
)
def test_bad_arguments_are_told(arguments, message, tmp_path, capsys):
    assert speed.main([*arguments, "--out", str(tmp_path / "s.jsonl")]) == 2
    assert message in capsys.readouterr().err


def test_lines_that_are_no_measurements_are_refused(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps(line()) + "\n" + '{"a": 1}\n')
    with pytest.raises(SettingError, match=r"line 2 of .* is not a measurement"):
        speed.read(path)
    assert speed.read(tmp_path / "none.jsonl") == []


def test_a_run_writes_lines_with_versions_and_prints_the_table(tmp_path, capsys, monkeypatch):
    for variable in speed._THREADS:  # set by the run; given back afterwards
        monkeypatch.setenv(variable, "1")
    monkeypatch.setitem(speed_table.CELLS, "ask-10000", speed_table.Cell("small", 14))
    monkeypatch.setitem(speed_table.CELLS, "pending-1000", speed_table.Cell("small", 14, "cuda"))
    out = tmp_path / "s.jsonl"
    assert speed.main(["--cells", "pending-1000", "--out", str(out)]) == 0  # nothing to measure
    assert speed.read(out) == []
    capsys.readouterr()
    monkeypatch.setattr(speed, "ProcessPoolExecutor", InThisProcess)
    assert speed.main(["--cells", "ask-10000", "--repeats", "1", "--out", str(out)]) == 0
    found = speed.read(out)
    assert [r["entrant"] for r in found] == ["gpbo-cold", "gpbo"]
    assert all(r["versions"]["torch"] and r["revision"] and r["machine"]["cpus"] for r in found)
    assert "| small (peers hold" in capsys.readouterr().out


class InThisProcess:
    """A pool without a process: a spawned one would not know of the small cell."""

    def __init__(self, workers, **settings):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def submit(self, call, *arguments):
        from concurrent.futures import Future

        future = Future()
        future.set_result(call(*arguments))
        return future
