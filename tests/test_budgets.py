"""`Study.optimize` with schedulers: the decisions of ask and tell, and nothing lost in between."""

import gc
import math
import os
import signal
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

import gpbo
from gpbo.budgets import Budgets, open_shelf
from gpbo.errors import SettingError, StoreError
from gpbo.executors.interrupts import Interrupts
from gpbo.executors.owner import RELEASED
from gpbo.job import Report
from gpbo.seeding import derive
from gpbo.stores.memory import MemoryStore
from gpbo.suggesters.base import Suggestion
from gpbo.trial import State

SPACE = gpbo.SearchSpace(x=gpbo.Float(0, 1))
SCHEDULERS = {
    "promotion": gpbo.ASHA(1, 9),
    "delayed": gpbo.ASHA(1, 9, delay=True),
    "stopping": gpbo.ASHA(1, 9, stopping=True),
    "hyperband": gpbo.Hyperband(1, 9),
    "halving": gpbo.SuccessiveHalving(1, 9),
    "median": gpbo.MedianStopping(9, min_trials=3),
}


@pytest.fixture(autouse=True)
def default_interrupt():
    """The handler of a plain script, whatever runs the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Deciding:
    """Points that depend on everything a suggester is shown."""

    def suggest(self, data, cube, n, seed):
        told = f"{float(data.Y.nansum())!r} {len(data.pending)} {sorted(data.info.items())}"
        X = cube.snap(0 * cube.sobol(n, seed) + (derive(seed, data.number, told) % 10**6) / 10**6)
        return Suggestion(X, {"number": data.number} if data.number % 3 == 0 else {})


def make_study(scheduler="promotion", **options):
    return gpbo.Study(SPACE, suggester=Deciding(), scheduler=SCHEDULERS.get(scheduler, scheduler), **options)


def loss(config, epoch):
    return config["x"] + math.sin(5 * config["x"] * epoch) / epoch


def training(log=None, *, size=None, each=False):
    """An objective that trains by epochs, and pauses and goes on by its checkpoint.

    It saves at the end of its budget, or at each epoch, and as many bytes as `size` besides. It is nested,
    so that workers are sent it rather than import this file.
    """

    def train(job):
        last = job.last_checkpoint
        epoch = int((last / "epoch").read_text()) if last else 0
        while epoch < job.budget:
            epoch += 1
            if log is not None:
                with log.open("a") as file:
                    file.write(f"{job.number} {epoch}\n")
            if each or epoch == job.budget:
                (job.checkpoint_dir / "epoch").write_text(str(epoch))
                if size:
                    (job.checkpoint_dir / "weights").write_bytes(bytes(size))
            x = job.config["x"]
            if not job.report(x + math.sin(5 * x * epoch) / epoch, epoch):
                return

    return train


train = training()


def by_hand(study, n_trials):
    """What `optimize` does, without it."""
    while (trial := study._ask(None, n_trials)) is not None:
        spent = trial.observations[-1].budget if trial.observations else 0
        while trial.state is State.RUNNING:
            spent += 1
            trial = study.tell(trial, loss(trial.config, spent), budget=spent)
    return study


def history(study):
    return [
        (
            t.number,
            dict(t.config),
            t.state,
            t.budget,
            t.bracket,
            [(o.values, o.budget) for o in t.observations],
        )
        for t in study.trials
    ]


def checkpoints(folder):
    return sorted(int(path.name) for path in folder.glob("*/*"))


class TestDecisions:
    @pytest.mark.parametrize("direction", ["minimize", "maximize"])
    @pytest.mark.parametrize("scheduler", list(SCHEDULERS))
    def test_are_those_of_ask_and_tell(self, scheduler, direction, tmp_path):
        options = {"scheduler": scheduler, "direction": direction}
        hand = by_hand(make_study(**options), 25)
        study = make_study(**options).optimize(training(tmp_path / "log"), 25)
        assert history(study) == history(hand)
        assert len({t.state for t in study.trials}) > 1
        trained = (tmp_path / "log").read_text().splitlines()
        assert len(trained) == len(set(trained))  # resumed trials did not train an epoch twice
        assert sum(t.info["run"]["spent"] for t in study.trials) == len(trained)

    @pytest.mark.parametrize("scheduler", list(SCHEDULERS))
    def test_of_the_plain_form_are_those_of_ask_and_tell_at_the_rungs(self, scheduler):
        calls = []
        study = make_study(scheduler).optimize(
            lambda config, budget: calls.append(budget) or loss(config, budget), 25
        )
        hand, rungs = make_study(scheduler), SCHEDULERS[scheduler].rungs
        stops = getattr(SCHEDULERS[scheduler], "stops", rungs)
        while (trial := hand._ask(None, 25)) is not None:
            for stop in stops:
                seen = trial.observations[-1].budget if trial.observations else 0
                due = stop == trial.budget or trial.bracket is None
                if due and trial.state is State.RUNNING and seen < stop <= trial.budget:
                    trial = hand.tell(trial, loss(trial.config, stop), budget=stop)
        assert history(study) == history(hand)
        assert sum(t.info["run"]["spent"] for t in study.trials) == sum(calls)

    @pytest.mark.parametrize("scheduler", list(SCHEDULERS))
    def test_with_workers_no_epoch_is_trained_twice_or_left_out(self, scheduler, tmp_path):
        study = make_study(scheduler, store=tmp_path / "study.db")
        study.optimize(training(tmp_path / "log"), 15, workers=2)
        trained = sorted((tmp_path / "log").read_text().splitlines())
        told = sorted(f"{t.number} {int(o.budget)}" for t in study.trials for o in t.observations)
        assert trained == told
        for t in study.trials:
            assert [o.budget for o in t.observations] == list(range(1, len(t.observations) + 1))
            assert [o.value for o in t.observations] == [loss(t.config, o.budget) for o in t.observations]
            assert t.state is not State.RUNNING
        assert State.COMPLETE in {t.state for t in study.trials}

    def test_a_longer_study_goes_on_with_the_paused(self):
        study = make_study().optimize(train, 5)
        assert history(study.optimize(train, 25)) != history(make_study().optimize(train, 5))
        assert history(study) == history(by_hand(by_hand(make_study(), 5), 25))

    def test_too_few_trials_for_a_promotion_are_warned_of(self, caplog):
        study = make_study().optimize(train, 2)
        assert {t.state for t in study.trials} == {State.PAUSED}
        assert "no trial has reached the full budget, 9; with more trials" in caplog.text
        caplog.clear()
        study.optimize(train, 20)
        assert "full budget" not in caplog.text

    @pytest.mark.parametrize("scheduler", ["hyperband", "halving"])
    @pytest.mark.parametrize("n_trials", [1, 5, 8, 11])
    def test_a_bracket_that_is_not_full_is_brought_to_its_end(self, scheduler, n_trials, caplog):
        study = make_study(scheduler).optimize(train, n_trials)
        assert len(study.trials) == n_trials
        assert State.COMPLETE in {t.state for t in study.trials if t.bracket == study.trials[-1].bracket}
        assert study.ask() is not None  # a new one: nothing is left to go on with
        assert len(study.trials) == n_trials + 1
        assert "full budget" not in caplog.text
        assert history(make_study(scheduler).optimize(train, n_trials)) == history(
            by_hand(make_study(scheduler), n_trials)
        )

    def test_the_best_of_a_bracket_that_is_not_full_go_on(self):
        values = {0.1: 3.0, 0.2: 1.0, 0.3: 2.0, 0.4: 4.0, 0.5: 0.5}
        study = gpbo.Study({"x": gpbo.Categorical(list(values))}, scheduler=gpbo.SuccessiveHalving(1, 9))
        for x in values:
            study.enqueue({"x": x})
        study.optimize(lambda config, budget: values[config["x"]] + budget, 5)
        assert [t.budget for t in study.trials] == [1, 3, 3, 1, 9]  # 3 and then 1, as of a full one

    def test_a_bracket_that_was_brought_to_its_end_may_still_be_filled(self):
        study = make_study("halving").optimize(train, 5)
        study.optimize(train, 30)
        assert len(study.trials) == 30
        assert {t.state for t in study.trials} == {State.COMPLETE, State.PAUSED}
        assert max(t.bracket for t in study.trials) == 3  # nine each

    @pytest.mark.parametrize("scheduler", ["hyperband", "halving"])
    def test_a_finite_space_that_runs_out_ends_with_what_was_begun(self, scheduler):
        def study():
            return gpbo.Study({"x": gpbo.Int(1, 5)}, scheduler=SCHEDULERS[scheduler])

        endless = study().optimize(train)
        assert sorted(t.config["x"] for t in endless.trials) == [1, 2, 3, 4, 5]
        assert State.COMPLETE in {t.state for t in endless.trials}
        assert endless.ask() is None
        assert history(endless) == history(study().optimize(train, 20))
        assert history(endless) == history(by_hand(study(), None))

    def test_a_queued_config_and_rules_to_stop_hold(self):
        study = make_study()
        study.enqueue({"x": 0.0})
        study.optimize(train, 60, target=loss({"x": 0.0}, 9))
        assert study.trials[0].state is State.COMPLETE
        assert len(study.trials) < 60
        assert study.best.number == 0

    def test_callbacks_see_finished_trials_once(self):
        seen = []
        study = make_study("stopping").optimize(train, 12, callbacks=[lambda s, t: seen.append(t)])
        assert sorted(t.number for t in seen) == list(range(12))
        assert {t.state for t in seen} == {State.COMPLETE, State.STOPPED}
        assert [t for t in study.trials if t.state is State.STOPPED] == [
            t for t in sorted(seen, key=lambda t: t.number) if t.state is State.STOPPED
        ]

    def test_a_promoted_trial_waits_until_its_objective_has_returned(self, tmp_path):
        """Its last report is told only then, so that two workers never run one trial."""

        inner = training()

        def objective(job):
            lock = tmp_path / f"{job.number}.lock"
            lock.touch(exist_ok=False)
            inner(job)
            time.sleep(0.05)  # after the last report
            lock.unlink()

        study = make_study().optimize(objective, 9, workers=3)
        assert [t.error for t in study.trials if t.error] == []


class TestBadReports:
    CASES = (
        ([(0.1, 10)], "`budget` must be at most what trial 0 was given, 1, got 10.0"),
        ([(0.1, 0.5), (0.1, 0.5)], "`budget` must rise from report to report, got 0.5 after 0.5 for trial 1"),
        ([(0.1, 0.5), (0.1, 0.2)], "`budget` must rise from report to report, got 0.2 after 0.5 for trial 2"),
        ([(0.1, 1), (0.1, 1)], "trial 3 was told to stop when it reported at 1, and reports again at 1"),
        ([("low", 1)], "`value` must be a number, got 'low' of type str"),
        ([(math.nan, 0.5)], "the objective's value was nan at budget 0.5"),
        ([(0.1, 0.5), (math.inf, 1)], "the objective's value was inf at budget 1"),
        ([(0.1, 0.5)], "the objective must report at budget 1, or return the value; it returned None"),
    )

    @pytest.mark.parametrize("workers", [1, 2])
    def test_fail_the_trial_and_the_study_goes_on(self, workers):
        cases = [reports for reports, _ in self.CASES]

        def objective(job):
            if job.number == len(cases):
                return job.config["x"]
            for report in cases[job.number]:
                job.report(*report)
            return None

        study = make_study("halving").optimize(objective, 9, workers=workers)
        assert [t.state for t in study.trials[:-1]] == [State.FAILED] * 8
        assert study.trials[-1].state is not State.FAILED
        for trial, (_, message) in zip(study.trials[:-1], self.CASES, strict=True):
            assert message in trial.error

    def test_past_a_rung(self):
        study = make_study("stopping").optimize(lambda job: job.report(0.1, 2), 1)
        assert (
            "trial 0 must report at budget 1, where trials are compared, before 2.0" in study.trials[0].error
        )

    def test_nan_half_way_ends_the_objective(self):
        went_on = []

        def objective(job):
            for epoch in range(1, 10):
                if not job.report(math.nan if epoch == 2 else 0.5, epoch):
                    return
                went_on.append(epoch)

        study = make_study("stopping").optimize(objective, 1)
        assert went_on == [1]
        assert study.trials[0].state is State.FAILED
        assert [o.budget for o in study.trials[0].observations] == [1]

    @pytest.mark.parametrize("workers", [1, 2])
    def test_of_a_trial_that_was_ended_elsewhere(self, workers, caplog, tmp_path):
        def objective(job):
            (tmp_path / f"{job.number}").touch()
            while job.number == 0 and not (tmp_path / "failed").exists():
                time.sleep(0.01)
            try:
                inner(job)
            except gpbo.GpboError as error:
                (tmp_path / "error").write_text(str(error))
                raise

        inner = training()

        class Meddling(MemoryStore):
            def add(self, trials):
                super().add(trials)
                if trials[0].number == int(workers > 1):
                    self.swap(
                        self._trials[0],
                        replace(self._trials[0], state=State.FAILED, error="by hand", owner=None),
                    )
                    (tmp_path / "failed").touch()

        study = make_study("stopping", store=Meddling()).optimize(objective, 2, workers=workers)
        assert study.trials[0].error == "by hand"
        assert study.trials[0].observations == ()
        assert (
            "trial 0 is failed and not run by this loop any more; its report of"
            in (tmp_path / "error").read_text()
        )
        assert "a result came too late" in caplog.text
        assert study.trials[1].observations

    def test_of_a_worker_that_was_taken_for_dead(self, tmp_path):
        study = make_study()
        trial = study._ask("another/1/1/0")
        budgets = Budgets(study, open_shelf(study, tmp_path), "this/1/1/0", Interrupts())
        answer = budgets.hear(0, Report(0.5, 0.5, 1.0, 0.5))
        assert "trial 0 is running and not run by this loop any more" in str(answer)
        assert study.trials == [trial]

    @pytest.mark.parametrize("form", [lambda given: given["x"], lambda given: given.get("x")])
    def test_an_objective_that_takes_a_config_is_told_what_to_write(self, form):
        study = make_study().optimize(form, 1)
        assert "job" in study.trials[0].error.lower()


class TestStoreErrors:
    class Full(MemoryStore):
        def swap(self, old, new):
            if any(seen.budget == 2 for seen in new.observations) and self.full:
                raise StoreError("the disk is full")
            return super().swap(old, new)

    @pytest.mark.parametrize("workers", [1, 2])
    def test_name_the_value_and_fail_no_trial(self, workers):
        store = self.Full()
        store.full = True
        study = make_study("stopping", store=store)
        with pytest.raises(
            StoreError, match=r"value .* at budget 2.* of trial 0 could not be stored: the disk is"
        ):
            study.optimize(training(each=True), 1, workers=workers)
        assert (study.trials[0].state, study.trials[0].owner) == (State.RUNNING, RELEASED)
        store.full = False
        study.optimize(train, 1)
        assert [o.budget for o in study.trials[0].observations] == list(range(1, 10))
        assert study.trials[0].info["run"]["spent"] == 9  # the second epoch was in its checkpoint


class TestInterrupts:
    @pytest.mark.parametrize("where", ["train", "store"])
    def test_ctrl_c_leaves_a_study_that_goes_on_where_it_stopped(self, where, tmp_path):
        fuse = [10]

        def burn(what):
            fuse[0] -= what == where
            if what == where and fuse[0] == 0:
                os.kill(os.getpid(), signal.SIGINT)

        class Store(MemoryStore):
            def swap(self, old, new):
                done = super().swap(old, new)
                burn("store")
                return done

        inner = training(tmp_path / "log")

        def objective(job):
            burn("train")
            inner(job)

        study = make_study(store=Store())
        with pytest.raises(KeyboardInterrupt):
            study.optimize(objective, 12)
        assert {t.owner for t in study.trials if t.state is State.RUNNING} <= {RELEASED}
        study.optimize(objective, 12)
        whole = make_study().optimize(train, 12)
        assert history(study) == history(whole)
        trained = (tmp_path / "log").read_text().splitlines()
        assert len(trained) - len(set(trained)) <= 1

    @pytest.mark.parametrize("moment", range(1, 40, 4))
    def test_at_any_moment_of_the_end_changes_no_decision(self, moment, tmp_path):
        """Also not while a bracket that is not full is brought to its end."""
        inner, calls = training(), []

        def objective(job):
            calls.append(job.number)
            if len(calls) == moment:
                raise KeyboardInterrupt
            inner(job)

        study = make_study("hyperband")
        with suppress(KeyboardInterrupt):
            study.optimize(objective, 12)
        study.optimize(objective, 12)
        assert history(study) == history(make_study("hyperband").optimize(train, 12))

    def test_ctrl_c_during_the_write_of_a_report_waits_until_it_is_written(self):
        written = []

        class Store(MemoryStore):
            def swap(self, old, new):
                if not written and len(new.observations) == 2:
                    written.append(new)
                    os.kill(os.getpid(), signal.SIGINT)
                return super().swap(old, new)

        study = make_study("stopping", store=Store())
        with pytest.raises(KeyboardInterrupt):
            study.optimize(train, 1)
        assert study.trials[0].observations == written[0].observations


class TestLostWorkers:
    @pytest.mark.parametrize("moment", ["before", "saved", "reported", "last"])
    def test_the_trial_goes_on_from_its_checkpoint(self, moment, tmp_path, caplog):
        def die(now):
            if now == moment and not (tmp_path / "died").exists():
                (tmp_path / "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)

        def objective(job):
            last = job.last_checkpoint
            epoch = int((last / "epoch").read_text()) if last else 0
            while epoch < job.budget:
                epoch += 1
                with (tmp_path / "log").open("a") as file:
                    file.write(f"{job.number} {epoch}\n")
                if epoch == 3:
                    die("before")
                if epoch % 3 == 0:
                    (job.checkpoint_dir / "epoch").write_text(str(epoch))
                if epoch == 3:
                    die("saved")
                goes_on = job.report(job.config["x"] / epoch, epoch)
                if epoch == 3:
                    die("reported")
                if not goes_on:
                    die("last")
                    return

        study = make_study("stopping").optimize(objective, 1, workers=1, trial_timeout=60)
        (trial,) = study.trials
        assert trial.state is State.COMPLETE
        assert [(o.budget, o.value) for o in trial.observations] == [
            (k, trial.config["x"] / k) for k in range(1, 10)
        ]
        assert trial.info["run"]["lost"] == 1
        assert "trial 0 is resumed later: the worker process was killed by signal 9" in caplog.text
        trained = (tmp_path / "log").read_text().splitlines()
        assert len(trained) == (12 if moment in ("before", "saved") else 9)

    def test_one_that_loses_too_many_fails(self, tmp_path):
        def objective(job):
            with (tmp_path / "runs").open("a") as file:
                file.write("x")
            os.kill(os.getpid(), signal.SIGKILL)

        study = make_study().optimize(objective, 1, trial_timeout=60)
        assert study.trials[0].state is State.FAILED
        assert study.trials[0].error.startswith("the worker process was killed by signal 9 (SIGKILL)")
        assert study.trials[0].error.endswith("This trial has lost 3 workers.")
        assert (tmp_path / "runs").read_text() == "xxx"

    def test_one_over_its_time_fails_and_its_checkpoint_goes(self, tmp_path):
        def objective(job):
            (job.checkpoint_dir / "epoch").write_text("1")
            job.report(0.5, 1)
            time.sleep(60)

        study = make_study("median").optimize(objective, 1, trial_timeout=1, checkpoints=tmp_path)
        assert "over its limit of 1 seconds" in study.trials[0].error
        assert checkpoints(tmp_path) == []


class TestCheckpoints:
    def test_are_kept_beside_the_studys_file_while_they_are_needed(self, tmp_path):
        study = make_study(store=tmp_path / "study.db").optimize(train, 25)
        needed = [t.number for t in study.trials if t.state is State.PAUSED] + [study.best.number]
        assert checkpoints(tmp_path / "study.db.checkpoints") == sorted(needed)
        assert len([t for t in study.trials if t.state is State.COMPLETE]) > 1

    @pytest.mark.parametrize("direction", ["minimize", "maximize"])
    def test_of_the_best_complete_trials_are_kept(self, direction, tmp_path):
        study = make_study("stopping", direction=direction)
        study.optimize(train, 20, checkpoints=gpbo.Checkpoints(tmp_path, keep_best=2))
        complete = sorted((t for t in study.trials if t.state is State.COMPLETE), key=lambda t: t.value)
        best = complete[:2] if direction == "minimize" else complete[-2:]
        assert checkpoints(tmp_path) == sorted(t.number for t in best)

    def test_of_a_stopped_trial_stay_until_its_objective_has_returned(self, tmp_path):
        study = make_study("stopping")
        budgets = Budgets(study, open_shelf(study, tmp_path), "this/1/1/0", Interrupts())
        trial = study.ask()
        folder = budgets.shelf.folder(trial)
        (folder.writing() / "epoch").touch()
        folder.commit(1, 0.5)
        study.fail(trial, "by hand")
        budgets.tidy({0})
        assert checkpoints(tmp_path) == [0]
        budgets.tidy(())
        assert checkpoints(tmp_path) == []

    def test_of_failed_trials_are_deleted(self, tmp_path):
        def objective(job):
            train(job)
            raise ZeroDivisionError

        study = make_study().optimize(objective, 2, checkpoints=tmp_path)
        assert [t.state for t in study.trials] == [State.FAILED] * 2
        assert checkpoints(tmp_path) == []

    def test_without_a_file_they_go_with_the_study(self):
        study, seen = make_study(), []
        study.optimize(lambda job: seen.append(job.checkpoint_dir) or train(job), 2)
        root = seen[0].parents[3]
        assert root.exists()
        del study
        gc.collect()
        assert not root.exists()

    @pytest.mark.parametrize(("n_kept", "again"), [(4, False), (0, True)])
    def test_given_up_for_want_of_bytes(self, n_kept, again, tmp_path):
        """The three best of nine go on, from their checkpoints where four fit."""
        size, kept = 4000, tmp_path / "kept"
        settings = gpbo.Checkpoints(kept, max_bytes=n_kept * (size + 600) + 1)
        study = make_study("halving")
        study.optimize(training(tmp_path / "log", size=size), 9, checkpoints=settings)
        assert history(study) == history(make_study("halving").optimize(train, 9))
        paused = {t.number for t in study.trials if t.state is State.PAUSED}
        assert len(paused & set(checkpoints(kept))) == max(0, n_kept - 1)  # one belongs to the best
        anew = [t for t in study.trials if "restarted" in t.info["run"]]
        assert len(anew) == (3 if again else 0)
        assert all("there is no checkpoint" in t.info["run"]["restarted"] for t in anew)
        trained = (tmp_path / "log").read_text().splitlines()
        assert len(trained) == sum(t.info["run"]["spent"] for t in study.trials)
        assert (len(trained) > len(set(trained))) == again

    def test_that_were_lost_begin_the_trial_anew_and_it_is_noted(self, tmp_path, caplog):
        study = make_study("halving")

        def train_eight(job):
            train(job)
            if job.number == 7:
                study.stop()

        study.optimize(train_eight, 9, checkpoints=tmp_path)
        for path in tmp_path.glob("*/*/*/files/epoch"):
            path.write_text("")
        study.optimize(train, 9, checkpoints=tmp_path)
        assert history(study) == history(make_study("halving").optimize(train, 9))
        again = [t for t in study.trials if "restarted" in t.info["run"]]
        assert again
        for t in again:
            assert "epoch has 0 of its 1 bytes" in t.info["run"]["restarted"]
            assert t.info["run"]["spent"] == t.observations[-1].budget + 1
        assert "begins anew: the checkpoint" in caplog.text

    def test_of_two_studies_in_one_place_are_not_mixed_up(self, tmp_path):
        one = make_study(seed=1).optimize(train, 3, checkpoints=tmp_path)
        two = make_study(seed=1).optimize(train, 3, checkpoints=tmp_path)
        assert history(one) == history(two)
        assert len(list(tmp_path.iterdir())) == 2
        assert not any("restarted" in t.info["run"] for t in [*one.trials, *two.trials])

    @pytest.mark.parametrize("given", [3, ["a"]])
    def test_must_be_a_place(self, given):
        with pytest.raises(SettingError, match="`checkpoints` must be a directory or Checkpoints"):
            make_study().optimize(train, 1, checkpoints=given)

    def test_need_a_scheduler(self):
        with pytest.raises(SettingError, match="`checkpoints` needs a scheduler with budgets"):
            gpbo.Study(SPACE).optimize(lambda config: 0.0, 1, checkpoints="here")
        assert not Path("here").exists()
