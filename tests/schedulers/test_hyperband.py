import random
from dataclasses import replace

import pytest

import gpbo
from gpbo.errors import SettingError
from gpbo.schedulers.base import closing
from gpbo.schedulers.hyperband import Hyperband, SuccessiveHalving, hyperband_brackets
from gpbo.trial import Done, Observation, Resume, Start, State, Trial


def trial(number, bracket, state, budget, *seen):
    return Trial(number, {}, state, budget, bracket, tuple(Observation((v,), b) for v, b in seen))


def ranks(seed, n=2000):
    values = random.Random(seed).sample(range(n), n)
    return lambda number, budget: float(values[number])


def test_brackets_of_the_papers_table():
    brackets = Hyperband(1, 81, 3).brackets
    assert [bracket[0][0] for bracket in brackets] == [81, 27, 9, 6, 5]
    assert brackets[0] == ((81, 1), (27, 3), (9, 9), (3, 27), (1, 81))
    assert brackets[3] == ((6, 27), (2, 81))
    assert brackets[4] == ((5, 81),)


def test_brackets_with_a_fraction():
    assert hyperband_brackets((4, 11, 27), 2.5) == (
        ((7, 4), (2, 11), (1, 27)),
        ((3, 11), (1, 27)),
        ((3, 27),),
    )


def test_successive_halving_is_the_first_bracket():
    assert SuccessiveHalving(1, 81, 3).brackets == Hyperband(1, 81, 3).brackets[:1]
    assert SuccessiveHalving(1, 81, 3) != Hyperband(1, 81, 3)
    assert repr(SuccessiveHalving(1, 81, 3)).startswith("SuccessiveHalving(min_budget=1, ")


def test_one_worker_goes_through_the_brackets_in_order(simulation):
    found = simulation(Hyperband(1, 9, 3), ranks(0)).run(13 + 4 + 3 + 13)
    expected = [1] * 9 + [3] * 3 + [9] + [3] * 3 + [9] + [9] * 3
    assert found.jobs == expected + [1] * 9 + [3] * 3 + [9]
    assert [t.bracket for t in found.trials] == [0] * 9 + [1] * 3 + [2] * 3 + [3] * 9


def test_the_best_of_each_rung_go_on(simulation):
    values = ranks(3)
    found = simulation(SuccessiveHalving(1, 27, 3), values, workers=5).run(120)
    first = sorted((t for t in found.trials if t.bracket == 0), key=lambda t: values(t.number, 1))
    assert [t.observations[-1].budget for t in first] == [27] + [9] * 2 + [3] * 6 + [1] * 18


def test_a_blocked_bracket_gives_way_to_the_next():
    scheduler = Hyperband(1, 9, 3)
    trials = [trial(i, 0, State.PAUSED, 1, (float(i), 1)) for i in range(8)]
    assert scheduler.next(trials) == Start(1, 0)
    trials.append(trial(8, 0, State.RUNNING, 1))
    assert scheduler.next(trials) == Start(3, 1)
    trials[8] = trial(8, 0, State.PAUSED, 1, (0.5, 1))
    assert scheduler.next(trials) == Resume(0, 3)
    trials[0] = replace(trials[0], state=State.RUNNING, budget=3)
    assert scheduler.next(trials) == Resume(8, 3)


def test_the_failed_are_not_replaced():
    scheduler = SuccessiveHalving(1, 9, 3)
    trials = [trial(i, 0, State.FAILED, 1) for i in range(8)]
    trials.append(trial(8, 0, State.PAUSED, 3, (1.0, 1), (1.0, 3)))
    assert scheduler.next(trials) == Resume(8, 9)  # the only one left is the best of its rung
    trials[8] = trial(8, 0, State.FAILED, 1)
    assert scheduler.next(trials) == Start(1, 1)


def test_the_interrupted_are_resumed_first():
    for scheduler in (Hyperband(1, 9, 3), SuccessiveHalving(1, 9, 3)):
        assert scheduler.next([trial(0, 0, State.PAUSED, 1)]) == Resume(0, 1)


def test_trials_from_elsewhere_are_in_no_bracket():
    added = Trial(0, {}, State.COMPLETE, observations=(Observation((0.0,), 1),))
    assert Hyperband(1, 9, 3).next([added]) == Start(1, 0)


@pytest.mark.parametrize("kind", [Hyperband, SuccessiveHalving])
@pytest.mark.parametrize(
    ("told", "state"),
    [
        (trial(0, 0, State.RUNNING, 3, (1.0, 1), (1.0, 2)), State.RUNNING),
        (trial(0, 0, State.RUNNING, 3, (1.0, 1), (1.0, 3)), State.PAUSED),
        (trial(0, 0, State.RUNNING, 9, (1.0, 3), (1.0, 9)), State.COMPLETE),
    ],
)
def test_judge(kind, told, state):
    assert kind(1, 9, 3).judge([told], 0) is state


@pytest.mark.parametrize("kind", [Hyperband, SuccessiveHalving])
def test_settings_are_checked(kind):
    with pytest.raises(SettingError, match="`min_budget` must be below `max_budget`"):
        kind(9, 9, 3)
    with pytest.raises(SettingError, match=r"`reduction_factor` must be a finite number >= 2, got 1\.5"):
        kind(1, 9, 1.5)


def test_a_trial_of_a_later_bracket_reports_where_its_budget_ends_and_nowhere_before():
    study = gpbo.Study({"x": gpbo.Float(0, 1)}, scheduler=Hyperband(1, 9), suggester=gpbo.RandomSuggester())
    for _ in range(60):
        trial = study.ask()
        study.tell(trial, trial.config["x"])  # trained to trial.budget
    starts = {t.bracket % 3: t.observations[0].budget for t in study.trials}
    assert starts == {0: 1, 1: 3, 2: 9}


def test_a_function_of_config_and_budget_is_called_for_the_budgets_that_are_given_alone():
    calls = []

    def objective(config, budget):
        calls.append(budget)
        return config["x"] + 1 / budget

    study = gpbo.Study({"x": gpbo.Float(0, 1)}, scheduler=Hyperband(1, 9), suggester=gpbo.RandomSuggester())
    study.optimize(objective, n_trials=9 + 3 + 3, progress=False)
    assert sorted(calls) == [1] * 9 + [3] * (3 + 3) + [9] * (1 + 1 + 3)


def test_a_simulation_reports_where_budgets_end():
    found = gpbo.simulate(
        {"x": gpbo.Float(0, 1)}, lambda config, budget: (config["x"], budget), scheduler=Hyperband(1, 9),
        suggester=gpbo.RandomSuggester(), n_trials=15, device="cpu",
    )  # fmt: skip
    assert len(found.reports) == (9 + 3 + 1) + (3 + 1) + 3


def test_closing_lets_the_best_of_a_bracket_that_is_not_full_go_on():
    study = gpbo.Study({"x": gpbo.Float(0, 1)}, scheduler=Hyperband(1, 9), suggester=gpbo.RandomSuggester())
    assert closing(study._scheduler, study.trials) == Done()
    for _ in range(4):
        trial = study.ask()
        study.tell(trial, trial.config["x"])
    best = min(study.trials, key=lambda trial: trial.config["x"])
    assert closing(study._scheduler, study.trials) == Resume(best.number, 3)
    assert study._scheduler.next(study.trials) == Start(1, 0)


class TestRounds:
    """After the first rounds, trials that a Gaussian process chose get the full budget at once."""

    def drive(self, scheduler, n, by):
        trials = []
        while len(trials) < n:
            wish = scheduler.next(tuple(trials))
            if isinstance(wish, Start):
                info = {"source": by(len(trials))}
                trials.append(Trial(len(trials), {}, State.RUNNING, wish.budget, wish.bracket, info=info))
                number = len(trials) - 1
            else:
                number = wish.number
            old = trials[number]
            seen = (*old.observations, Observation((float(number % 7),), wish.budget))
            trials[number] = replace(old, budget=wish.budget, observations=seen)
            state = scheduler.judge(tuple(trials), number)
            trials[number] = replace(trials[number], state=state)
        return trials

    def starts(self, trials):
        return [t.observations[0].budget for t in trials]

    @pytest.mark.parametrize("rounds", [1, 2])
    def test_are_followed_by_full_budgets(self, rounds):
        trials = self.drive(Hyperband(1, 9, rounds=rounds), 60, lambda number: "gp")
        n = 15 * rounds  # nine, three and three trials
        assert self.starts(trials)[:n] == ([1] * 9 + [3] * 3 + [9] * 3) * rounds
        assert self.starts(trials)[n:] == [9] * (60 - n)
        assert [t.bracket % 3 for t in trials[n:]] == [2] * (60 - n)
        brackets = [t.bracket for t in trials]
        assert brackets == sorted(brackets)
        assert max(brackets.count(b) for b in brackets[n:]) == 3

    @pytest.mark.parametrize(
        ("rounds", "source"), [(None, "gp"), (1, "random"), (1, "bohb")], ids=["never", "random", "bohb"]
    )
    def test_go_on_for_ever_where_no_process_chooses_or_none_is_wanted(self, rounds, source):
        trials = self.drive(Hyperband(1, 9, rounds=rounds), 45, lambda number: source)
        assert self.starts(trials) == ([1] * 9 + [3] * 3 + [9] * 3) * 3

    def test_end_when_the_process_takes_over_and_begun_brackets_with_them(self):
        trials = self.drive(Hyperband(1, 9), 60, lambda number: "gp" if number >= 35 else "random")
        assert self.starts(trials)[30:39] == [1] * 9
        assert self.starts(trials)[39:] == [9] * 21

    def test_are_a_function_of_the_trials_alone(self):
        trials = self.drive(Hyperband(1, 9), 40, lambda number: "gp")
        used = Hyperband(1, 9)
        order = random.Random(0).choices(range(1, 40), k=60)
        for n in order:
            assert used.next(tuple(trials[:n])) == Hyperband(1, 9).next(tuple(trials[:n]))

    def test_must_be_a_whole_number(self):
        with pytest.raises(SettingError, match="`rounds` must be a whole number >= 1, got 0"):
            Hyperband(1, 9, rounds=0)
