"""What a job lets an objective do; the loop's side is in test_budgets.py."""

import functools
import math

import numpy as np
import pytest
import torch

from gpbo.checkpoint import Folder
from gpbo.errors import (
    CheckpointError,
    ObjectiveError,
    ResultError,
    SettingError,
    SignatureError,
    TrialStateError,
)
from gpbo.job import Job, Report, Restart, Run, check_signature, is_plain
from gpbo.trial import Observation, Trial

RUNGS = (1, 3, 9)


class Driver:
    """The other end: remembers what was sent, and says stop at `stop_at`."""

    def __init__(self, path, budget=9, told=(), stop_at=math.inf, run=None, rungs=RUNGS):
        seen = tuple(Observation((value,), at) for at, value in told)
        info = {} if run is None else {"run": run}
        self.trial = Trial(4, {"x": 0.5}, budget=budget, observations=seen, info=info)
        self.folder = Folder(path / "4", "study", 4, self.trial.config)
        self.rungs, self.stop_at, self.sent = rungs, stop_at, []

    def send(self, message):
        self.sent.append(message)
        return isinstance(message, Restart) or message.budget < self.stop_at

    def run(self, objective):
        given = {"trial": self.trial, "rungs": self.rungs, "stops": self.rungs, "folder": self.folder}
        return Run(objective)(given, self.send)

    def job(self):
        return Job(self.trial, self.rungs, self.folder, self.send)

    @property
    def budgets(self):
        return [message.budget for message in self.sent]


def counting(seen):
    """An objective that keeps its epoch in a checkpoint at every third; its loss is 1 / epoch."""

    def objective(job):
        epoch = int((job.last_checkpoint / "epoch").read_text()) if job.last_checkpoint else 0
        seen.append(epoch)
        while epoch < job.budget:
            epoch += 1
            if epoch % 3 == 0:
                (job.checkpoint_dir / "epoch").write_text(str(epoch))
            if not job.report(1 / epoch, epoch):
                break

    return objective


class TestReports:
    def test_go_to_the_driver_until_the_last_which_is_kept_for_the_end(self, tmp_path):
        driver = Driver(tmp_path)
        job = driver.job()
        assert [job.report(1 / k, k) for k in (1, 2)] == [True] * 2
        assert job.report(np.float32(0.25), 3)
        assert job.report(torch.tensor(0.5), 9) is False
        assert driver.budgets == [1, 2, 3]
        last = job._finish(None)
        assert (last.value, last.budget) == (0.5, 9)

    def test_a_returned_value_is_the_last_report(self, tmp_path):
        driver = Driver(tmp_path, budget=1)
        report = driver.run(lambda job: job.config["x"])
        assert (report.value, report.budget, report.trained) == (0.5, 1, 1)
        assert driver.sent == []

    def test_what_is_returned_after_the_end_is_ignored(self, tmp_path):
        assert Driver(tmp_path).run(lambda job: [job.report(k, k) for k in RUNGS]).value == 9
        driver = Driver(tmp_path, stop_at=3)
        assert driver.run(lambda job: [job.report(k, k) for k in (1, 3)]) is None

    def test_returning_nothing_too_early_names_the_budget(self, tmp_path):
        for n, last in ((0, "no report"), (2, "its report at 2")):
            with pytest.raises(
                ObjectiveError, match=f"report at budget 9, or return the value; .* None after {last}"
            ):
                Driver(tmp_path).run(lambda job, n=n: [job.report(0.0, k + 1) for k in range(n)].clear())

    def test_seconds_and_trained_are_those_since_the_last(self, tmp_path):
        driver = Driver(tmp_path)
        report = driver.run(lambda job: [job.report(0.0, k) for k in (1, 3, 4, 9)])
        assert [message.trained for message in [*driver.sent, report]] == [1, 2, 1, 5]
        assert all(0 <= message.seconds < 60 for message in [*driver.sent, report])

    def test_fractions_of_a_budget_are_exact_at_the_rungs(self, tmp_path):
        driver = Driver(tmp_path, budget=0.3, rungs=(0.1, 0.3))
        job = driver.job()
        assert job.report(0.0, 0.1 + 1e-12)
        assert not job.report(0.0, 0.1 + 0.2)
        assert driver.budgets == [0.1]
        assert job._finish(None).budget == 0.3

    @pytest.mark.parametrize(
        ("reports", "error", "message"),
        [
            ([(0.0, 10)], ResultError, "must be at most what trial 4 was given, 9, got 10"),
            ([(0.0, 0)], ResultError, "must be positive, got 0.0 for trial 4"),
            ([(0.0, -1)], ResultError, "must be positive, got -1.0 for trial 4"),
            ([(0.0, 1), (0.0, 1)], ResultError, "must rise from report to report, got 1 after 1 for trial 4"),
            ([(0.0, 1), (0.0, 3), (0.0, 2)], ResultError, "must rise from report to report, got 2 after 3"),
            ([(0.0, 3)], ResultError, "trial 4 must report at budget 1, where trials are compared, before 3"),
            ([(0.0, "1")], SettingError, "`budget` must be a finite number, got '1'"),
            ([(0.0, math.inf)], SettingError, "`budget` must be a finite number, got inf"),
            ([(0.0, None)], SettingError, "`budget` must be a finite number, got None"),
            ([("0.1", 1)], ResultError, "`value` must be a number, got '0.1' of type str"),
            ([(None, 1)], ResultError, "`value` must be a number, got None of type NoneType"),
            ([(True, 1)], ResultError, "`value` must be a number, got True of type bool"),
            ([(torch.zeros(2), 1)], ResultError, r"`value` must be a number, got tensor\(\[0., 0.\]\)"),
            (
                [(0.0, 1), (0.0, 3), (0.0, 9), (0.0, 9)],
                TrialStateError,
                "stop when it reported at 9, and .* at 9",
            ),
        ],
    )
    def test_that_break_a_rule(self, tmp_path, reports, error, message):
        job = Driver(tmp_path).job()
        for value, budget in reports[:-1]:
            job.report(value, budget)
        with pytest.raises(error, match=message):
            job.report(*reports[-1])

    def test_after_being_told_to_stop(self, tmp_path):
        job = Driver(tmp_path, stop_at=1).job()
        assert job.report(0.0, 1) is False
        with pytest.raises(
            TrialStateError, match=r"trial 4 was told to stop when it reported at 1, and reports again"
        ):
            job.report(0.0, 2)

    def test_an_error_of_the_study_is_raised_where_it_was_reported(self, tmp_path):
        driver = Driver(tmp_path)
        driver.send = lambda message: TrialStateError("trial 4 is failed")
        with pytest.raises(TrialStateError, match="trial 4 is failed"):
            driver.job().report(0.0, 1)

    def test_those_that_a_lost_run_made_may_be_made_again(self, tmp_path):
        driver = Driver(tmp_path, told=[(1, 0.5), (3, 0.4), (4, 0.3)])
        report = driver.run(lambda job: [job.report(1 / k, k) for k in (2, 4, 5, 9)])
        assert driver.budgets == [2, 4, 5]  # rung 1 and 3 were passed before
        assert [message.trained for message in [*driver.sent, report]] == [2, 2, 1, 4]


class TestCheckpoints:
    def test_belong_to_the_report_after_them_and_are_there_when_it_is_told(self, tmp_path):
        driver, there = Driver(tmp_path), []
        send = driver.send
        driver.send = lambda message: there.append(driver.folder.latest()) or send(message)
        report = driver.run(counting([]))
        found = [at and at[1].budget for at in there]
        assert found == [None, None, 3, 3, 3, 6, 6, 6]
        assert [m.has_checkpoint for m in driver.sent] == [k in (3, 6) for k in range(1, 9)]
        assert report.has_checkpoint

    def test_are_gone_on_from(self, tmp_path):
        seen = []
        Driver(tmp_path, budget=3).run(counting(seen))
        driver = Driver(tmp_path, budget=9, told=[(1, 1.0), (2, 1 / 2), (3, 1 / 3)], run={"checkpoint": 3})
        report = driver.run(counting(seen))
        assert seen == [0, 3]
        assert driver.budgets == [4, 5, 6, 7, 8]
        assert [m.trained for m in [*driver.sent, report]] == [1] * 6

    def test_a_save_after_the_last_report_counts(self, tmp_path):
        def objective(job):
            for k in RUNGS:
                job.report(0.0, k)
            (job.checkpoint_dir / "late").touch()

        driver = Driver(tmp_path)
        assert driver.run(objective).has_checkpoint
        assert driver.folder.latest()[1].budget == 9

    def test_a_report_that_was_not_told_is_told_when_the_trial_goes_on(self, tmp_path):
        seen = []
        Driver(tmp_path).run(counting(seen))  # its reports are lost; the checkpoint is of the last
        driver = Driver(tmp_path)
        report = driver.run(counting(seen))
        assert (report.value, report.budget, driver.sent) == (1 / 9, 9, [])
        assert seen == [0]  # there was nothing left to train
        Driver(tmp_path / "b", budget=9, stop_at=3).run(counting(seen))
        driver = Driver(tmp_path / "b", budget=9, told=[(1, 1.0), (2, 0.5)])
        driver.run(counting(seen))
        assert seen == [0, 0, 3]
        assert driver.budgets == [3, 4, 5, 6, 7, 8]
        assert driver.sent[0] == Report(1 / 3, 3, 0.0, 1, True)

    def test_one_of_an_untold_report_that_says_stop_ends_the_run(self, tmp_path):
        Driver(tmp_path, stop_at=3).run(counting([]))
        seen = []
        assert Driver(tmp_path, stop_at=3).run(counting(seen)) is None
        assert seen == []

    def test_a_value_that_is_not_finite_is_no_checkpoint(self, tmp_path):
        def objective(job):
            (job.checkpoint_dir / "epoch").touch()
            job.report(math.nan, 1)

        driver = Driver(tmp_path, stop_at=1)
        driver.run(objective)
        assert math.isnan(driver.sent[0].value)
        assert driver.folder.latest() is None

    @pytest.mark.parametrize(
        ("spoil", "why"),
        [
            (lambda at: (at / "3" / "files" / "epoch").write_text(""), "damaged: epoch has 0 of its 1 bytes"),
            (lambda at: (at / "3").rename(at.parent / "lost"), "there is no checkpoint .*, made at budget 9"),
        ],
    )
    def test_one_that_cannot_be_used_begins_the_trial_anew(self, tmp_path, spoil, why):
        told = [(k, 1 / k) for k in range(1, 10)]
        Driver(tmp_path).run(counting([]))
        spoil(tmp_path / "4")
        driver, seen = Driver(tmp_path, budget=27, told=told, run={"checkpoint": 9}, rungs=(*RUNGS, 27)), []
        report = driver.run(counting(seen))
        with pytest.raises(ResultError, match=why):
            raise ResultError(driver.sent[0].reason)
        assert isinstance(driver.sent[0], Restart)
        assert seen == [0]
        assert sum(m.trained for m in [*driver.sent[1:], report]) == 27  # all of it, again

    @pytest.mark.parametrize(
        ("driver", "why"),
        [
            (
                {"told": [(9, 0.7)], "budget": 27, "rungs": (1, 3, 9, 27)},
                r"another's: its value at budget 9 was 0\.1.*0\.7",
            ),
            ({"told": [(1, 1.0)], "budget": 3}, "is of budget 9, but the trial was given 3"),
            ({"run": {"checkpoint": 27}, "budget": 81}, "is of budget 9; the last one was made at 27"),
        ],
    )
    def test_one_that_does_not_fit_the_trial_is_not_gone_on_from(self, tmp_path, driver, why):
        Driver(tmp_path).run(counting([]))
        again, seen = Driver(tmp_path, **{"rungs": (1, 3, 9, 81), **driver}), []
        again.run(counting(seen))
        assert seen == [0]
        with pytest.raises(ResultError, match=why):
            raise ResultError(again.sent[0].reason)

    def test_tensors_are_saved_and_loaded(self, tmp_path):
        model = torch.nn.Linear(3, 2)
        optimizer = torch.optim.Adam(model.parameters())
        model(torch.ones(3)).sum().backward()
        optimizer.step()
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}

        def save(job):
            assert job.load() is None
            job.save(state)
            return 0.5

        def load(job):
            loaded.append(job.load())
            return 0.4

        loaded = []
        Driver(tmp_path, budget=1).run(save)
        Driver(tmp_path, budget=3, told=[(1, 0.5)]).run(load)
        assert loaded[0]["epoch"] == 3
        torch.testing.assert_close(loaded[0]["model"], state["model"], rtol=0, atol=0)
        torch.testing.assert_close(
            loaded[0]["optimizer"]["state"], state["optimizer"]["state"], rtol=0, atol=0
        )

    def test_a_state_that_could_not_be_loaded_is_refused_at_once(self, tmp_path):
        job = Driver(tmp_path).job()
        with pytest.raises(
            CheckpointError, match=r"`state` must be made of tensors.*write other things to files"
        ):
            job.save({"model": torch.nn.Linear(1, 1)})
        assert list(job.checkpoint_dir.iterdir()) == []

    def test_load_says_when_the_files_are_not_its_own(self, tmp_path):
        Driver(tmp_path, budget=3).run(counting([]))
        with pytest.raises(CheckpointError, match="`load` reads what `save` wrote, but"):
            Driver(tmp_path, told=[(3, 1 / 3)]).run(lambda job: job.load())


class TestForms:
    def test_a_function_of_config_and_budget_is_called_for_every_rung(self, tmp_path):
        calls = []
        driver = Driver(tmp_path)
        report = driver.run(lambda config, budget: calls.append((config, budget)) or budget / 10)
        assert calls == [({"x": 0.5}, 1), ({"x": 0.5}, 3), ({"x": 0.5}, 9)]
        assert (report.value, report.budget) == (0.9, 9)
        assert [m.trained for m in [*driver.sent, report]] == [1, 3, 9]  # each from scratch

    def test_and_from_the_rung_it_was_paused_at_or_until_it_is_stopped(self, tmp_path):
        driver = Driver(tmp_path, told=[(1, 0.0), (3, 0.0)])
        assert driver.run(lambda config, budget: budget).value == 9
        assert driver.sent == []
        assert Driver(tmp_path, stop_at=3).run(lambda config, budget: budget) is None

    def test_it_cannot_change_the_config_of_its_next_call(self, tmp_path):
        assert Driver(tmp_path).run(lambda config, budget: config.pop("x")).value == 0.5

    def test_which_form_it_is(self):
        class Callable:
            def __call__(self, config, budget):
                pass

            def method(self, job):
                pass

        plain = [lambda config, budget: 0, lambda c, b, d=1: 0, lambda c, budget=1: 0, Callable(), math.fmod]
        jobs = [
            lambda job: 0,
            lambda job, seed=3: 0,
            lambda *args: 0,
            Callable().method,
            lambda job, *, budget=0: 0,
            max,
        ]
        assert [is_plain(one) for one in plain] == [True] * 5
        assert [is_plain(one) for one in jobs] == [False] * 6

    def test_an_objective_that_takes_the_job_for_a_config_is_told(self, tmp_path):
        with pytest.raises(
            ObjectiveError, match=r"is given a job: write job\.config\['x'\], or take `config, budget`"
        ):
            Driver(tmp_path).run(lambda config: config["x"])


class Called:
    def __call__(self, config):
        pass


@pytest.mark.parametrize(
    ("objective", "has_budgets"),
    [
        (lambda config: 0, False),
        (lambda config, seed=0, *, more=1: 0, False),
        (lambda *args: 0, False),
        (Called(), False),
        (functools.partial(lambda data, config: 0, [1]), False),
        (dict, False),
        (max, False),  # which does not tell its signature
        (lambda job: job["x"], False),  # a name says nothing of what is done with the argument
        (lambda config: config.config["x"], True),
        (lambda config, budget=1: 0, False),
        (Called(), True),
        (lambda job: 0, True),
        (lambda config, budget: 0, True),
        (lambda config, budget=1: 0, True),
        (lambda c, b, d=1: 0, True),
        (lambda *args: 0, True),
        (max, True),
    ],
)
def test_an_objective_that_can_be_called_goes_through(objective, has_budgets):
    check_signature(objective, has_budgets=has_budgets)


@pytest.mark.parametrize(
    ("objective", "has_budgets", "message"),
    [
        (lambda: 0, False, r"must be f\(config\), got <lambda>\(\)\.$"),
        (lambda a, b, c: 0, False, r"must be f\(config\), got <lambda>\(a, b, c\)\.$"),
        (lambda config, *, lr: 0, False, r"got <lambda>\(config, \*, lr\)"),
        (lambda **config: 0, False, r"got <lambda>\(\*\*config\)"),
        (lambda job, more: 0, False, r"got <lambda>\(job, more\)\. Jobs and budgets come with a scheduler"),
        (lambda config, budget: 0, False, "Jobs and budgets come with a scheduler: Study"),
        (lambda: 0, True, r"must be f\(job\) or f\(config, budget\), got <lambda>\(\)\.$"),
        (lambda a, b, c: 0, True, r"got <lambda>\(a, b, c\)"),
        (lambda job, *, more: 0, True, r"got <lambda>\(job, \*, more\)\.$"),
    ],
)
def test_an_objective_that_cannot_be_called_is_refused(objective, has_budgets, message):
    with pytest.raises(SignatureError, match=message) as caught:
        check_signature(objective, has_budgets=has_budgets)
    assert isinstance(caught.value, TypeError)
