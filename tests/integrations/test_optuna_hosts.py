"""What takes an Optuna sampler takes ours: Ray's OptunaSearch, W&B's scheduler, the dashboard.

Ray comes with the test extra; the other two are large, and are tested where somebody has installed them.
"""

import io
import json
import sys
import textwrap

import optuna
import pytest

from gpbo.integrations.optuna import GPBOPruner, GPBOSampler

pytestmark = pytest.mark.filterwarnings("ignore")  # the hosts' own

optuna.logging.set_verbosity(optuna.logging.ERROR)


def branched(trial):
    """A loss over a space of which a part is asked for only here and there."""
    lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    return lr + (
        trial.suggest_float("momentum", 0, 1) if trial.suggest_categorical("o", ["a", "b"]) == "a" else 0
    )


def test_ray_searches_by_it(tmp_path):
    tune = pytest.importorskip("ray.tune", reason="needs gpbo[ray]")
    from ray.tune.search.optuna import OptunaSearch

    def search():
        return OptunaSearch(sampler=GPBOSampler(seed=1), metric="loss", mode="min")

    one = search()
    space = {
        "lr": tune.loguniform(1e-4, 1e-1),
        "net": {"n": tune.randint(1, 9), "act": tune.choice(["a", "b"])},
    }
    assert one.set_search_properties("loss", "min", space)
    for k in range(8):
        config = one.suggest(f"t{k}")
        assert 1 <= config["net"]["n"] < 9
        loss = config["lr"] + config["net"]["n"]
        one.on_trial_complete(
            f"t{k}", None if k == 3 else {"loss": loss, "training_iteration": 1}, error=k == 3
        )
    assert "gpbo" in one._ot_study.trials[7].system_attrs  # a proposal, not a random draw
    one.save(str(tmp_path / "search.pkl"))
    again = search()
    again.restore(str(tmp_path / "search.pkl"))
    assert again.suggest("next") == one.suggest("next")
    by_run = OptunaSearch(
        lambda trial: {"lr": branched(trial)}, sampler=GPBOSampler(), metric=["a", "b"], mode=["min", "max"]
    )
    for k in range(6):
        config = by_run.suggest(f"t{k}")
        by_run.on_trial_complete(f"t{k}", {"a": config["lr"], "b": 1.0, "training_iteration": 1})
    assert len({str(trial.params) for trial in by_run._ot_study.trials}) == 6


def test_a_wandb_sweep_is_scheduled_by_it(tmp_path):
    pytest.importorskip("wandb.sdk.sweeps.scheduler", reason="W&B is not installed; pip install wandb")
    from wandb.sdk.sweeps.run_state import RunState
    from wandb.sdk.sweeps.scheduler.optimizer import RunWithMetrics, make_optimizer
    from wandb.sdk.sweeps.sweep_info import SweepInfo

    source = tmp_path / "my_study.py"
    source.write_text(
        textwrap.dedent("""
            import optuna
            from gpbo.integrations.optuna import GPBOPruner, GPBOSampler

            def make_study(sweep):
                return optuna.create_study(sampler=GPBOSampler(seed=3), pruner=GPBOPruner(1, 9))
        """)
    )
    config = {
        "method": "custom",
        "metric": {"name": "loss", "goal": "minimize"},
        "parameters": {
            "x": {"min": -5.0, "max": 5.0},
            "lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1},
            "c": {"values": ["a", "b"]},
        },
        "scheduler": {"engine": "optuna", "source": str(source), "optimizer": "make_study"},
    }

    def scheduler():
        sweep = SweepInfo("id", "name", "entity", "project", config, "controller")
        made = make_optimizer(sweep)
        made.validate_sweep_objective()
        return made

    def run(suggestion, state=RunState.FINISHED):
        x = suggestion.config["x"].value
        history = [{"_step": step, "loss": x**2 + 1 / step} for step in (1, 3, 9)]
        return RunWithMetrics(suggestion.config, state, f"run{suggestion.run_id}", {"loss": x**2}, history)

    sweep = scheduler()
    finished = []
    for _ in range(4):
        for suggestion in sweep.ask_n_runs(2):
            data = run(suggestion, RunState.CRASHED if suggestion.run_id == "3" else RunState.FINISHED)
            sweep.tell_run(suggestion.run_id, data)
            finished.append(data)
    trials = sweep.study.trials
    assert [trial.state.name for trial in trials].count("FAIL") == 1
    assert len({tuple(trial.params.values()) for trial in trials}) == 8
    assert all("gpbo" in trial.system_attrs for trial in trials[1:])
    again = scheduler()  # as after a restart: the study is made anew, from the finished runs
    for data in finished:
        again.tell_existing_finished_run(data)
    known = [trial.params for trial in again.study.trials]
    [suggestion] = again.ask_n_runs(1)
    assert again.study.trials[-1].params not in known
    assert sorted(map(str, known)) == sorted(str(trial.params) for trial in trials)


def test_the_dashboard_shows_its_studies(tmp_path):
    dashboard = pytest.importorskip(
        "optuna_dashboard", reason="optuna-dashboard is not installed; pip install optuna-dashboard"
    )
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/study.db")

    def objective(trial):
        value = branched(trial)
        for step in (1, 3, 9):
            trial.report(value + 1 / step, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return value

    study = optuna.create_study(storage=storage, sampler=GPBOSampler(), pruner=GPBOPruner(1, 9))
    study.optimize(objective, 9)
    application = dashboard.wsgi(storage)

    def get(path):
        told = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "QUERY_STRING": "after=0", "SERVER_NAME": "x"}
        told |= {
            "SERVER_PORT": "80",
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": sys.stderr,
        }
        states = []
        body = b"".join(application(told, lambda state, headers, error=None: states.append(state)))
        assert states == ["200 OK"]
        return json.loads(body)

    [summary] = get("/api/studies")["study_summaries"]
    trials = get(f"/api/studies/{summary['study_id']}")["trials"]
    assert [trial["state"] for trial in trials] == [
        {"COMPLETE": "Complete", "PRUNED": "Pruned"}[trial.state.name] for trial in study.trials
    ]
    assert [{p["name"] for p in trial["params"]} for trial in trials] == [set(t.params) for t in study.trials]
