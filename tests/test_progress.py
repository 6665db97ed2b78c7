import io

import pytest

import gpbo
from gpbo.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def study():
    study = gpbo.Study({"x": gpbo.Float(0, 1)}, name="digits")
    study.add({"x": 0.9}, 0.05)
    for k in range(4):
        study.enqueue({"x": k / 10})
    study.tell(study.ask(), 0.25)
    return study


def test_shows_the_best_value_the_rate_what_runs_and_what_failed(study, monkeypatch):
    monkeypatch.setattr("sys.stderr", Terminal())
    bar = Progress(study, 4, shown=True)
    study.fail(study.ask(), "no memory")
    bar.show(2)
    bar.close()
    shown = stderr_lines()[-1]
    assert shown.startswith("digits:  50%")
    assert "2/4" in shown
    assert ", best 0.05, " in shown
    assert "/min, 2 running, 1 failed]" in shown


def stderr_lines():
    import sys

    return [line for line in sys.stderr.getvalue().replace("\n", "\r").split("\r") if line.strip()]


def test_an_open_end_and_no_value_yet(monkeypatch):
    monkeypatch.setattr("sys.stderr", Terminal())
    bar = Progress(gpbo.Study({"x": gpbo.Float(0, 1)}), None, shown=True)
    bar.show(1)
    bar.close()
    assert stderr_lines()[-1].startswith("0 trials [")
    assert ", no value yet, 0/min, 1 running]" in stderr_lines()[-1]


def test_several_objectives_have_no_best(monkeypatch):
    monkeypatch.setattr("sys.stderr", Terminal())
    study = gpbo.Study({"x": gpbo.Float(0, 1)}, direction=["minimize", "maximize"])
    study.add({"x": 0.5}, [1.0, 1.0])
    study.add({"x": 0.6}, [2.0, 3.0])
    bar = Progress(study, 3, shown=True)
    bar.show(0)
    bar.close()
    assert "front of 2" in stderr_lines()[-1]


def test_the_front_is_sought_only_when_a_trial_has_finished(monkeypatch):
    monkeypatch.setattr("sys.stderr", Terminal())
    study = gpbo.Study({"x": gpbo.Float(0, 1)}, direction=["minimize", "maximize"])
    study.add({"x": 0.5}, [1.0, 1.0])
    sought = []
    front = gpbo.Study.pareto_front.fget
    monkeypatch.setattr(gpbo.Study, "pareto_front", property(lambda self: sought.append(1) or front(self)))
    bar = Progress(study, 3, shown=True)
    for running in (1, 2, 2):
        bar.show(running)
    assert len(sought) == 1
    study.tell(study.ask(), [2.0, 3.0])
    bar.show(1)
    bar.close()
    assert len(sought) == 2
    assert "front of 2" in stderr_lines()[-1]
    assert "1 running" in stderr_lines()[-1]


@pytest.mark.parametrize("shown", [True, False])
def test_is_silent_in_a_log(study, shown, capsys):
    bar = Progress(study, 4, shown=shown)
    bar.show(2)
    bar.close()
    assert capsys.readouterr() == ("", "")


def test_hidden_even_in_a_terminal(study, monkeypatch):
    monkeypatch.setattr("sys.stderr", Terminal())
    bar = Progress(study, 4, shown=False)
    bar.show(2)
    bar.close()
    assert stderr_lines() == []


def test_budgets(monkeypatch):
    """Of 9 trials begun, 3 went on to 3 and the best of these to 9: 6 + 2 * 3 + 9 of 9 * 9."""
    monkeypatch.setattr("sys.stderr", Terminal())
    study = gpbo.Study({"x": gpbo.Float(0, 1)}, scheduler=gpbo.SuccessiveHalving(1, 9), device="cpu")
    begun = Progress(study, None, shown=True)
    begun.show(0)
    begun.close()
    assert "none trained in full yet" in stderr_lines()[-1]
    bar = Progress(study, None, shown=True)
    for k in range(9):
        study.enqueue({"x": k / 10})
    for _ in range(13):
        trial = study.ask()
        study.tell(trial, trial.config["x"])
    bar.show(2)
    bar.close()
    shown = stderr_lines()[-1]
    assert shown.startswith("9 trials [")
    assert ", best 0 of 1 trained in full, 26% of all training, " in shown
    assert shown.rstrip().endswith("/min, 2 running]")


def test_a_budget_that_misleads_is_told_and_looked_for_once_in_a_while(monkeypatch):
    """The order at budget 1 is no better than chance; audits show it."""
    monkeypatch.setattr("sys.stderr", Terminal())
    study = gpbo.simulate(
        gpbo.SearchSpace(x=gpbo.Float(0, 1), y=gpbo.Float(0, 1)),
        lambda config, budget: (config["x"] if budget == 1 else config["y"], budget),
        scheduler=gpbo.ASHA(1, 9, audit=0.3),
        suggester=gpbo.RandomSuggester(),
        n_trials=150,
        device="cpu",
    ).study
    assert study.diagnose().rungs[0].misleads
    looks, diagnose = [], study.diagnose
    monkeypatch.setattr(study, "diagnose", lambda: looks.append(1) or diagnose())
    bar = Progress(study, None, shown=True)
    for running in range(3):
        bar.show(running)
    bar.close()
    assert "budget 1 misleads, see study.diagnose()]" in stderr_lines()[-1]
    assert looks == [1]
