import json
import sys

import pytest
import torch

import gpbo
from gpbo import cli, demo
from gpbo.stores.open import open_store

SHORT = f"{demo.STUDY}-short"
CONFIG = {
    "lr": 0.05, "weight_decay": 1e-5, "batch_size": 64, "depth": 1, "width": 32, "dropout": 0.1,
    "optimizer": "sgd", "momentum": 0.9,
}  # fmt: skip


@pytest.fixture(autouse=True)
def threads():
    """The objective sets how many threads torch uses."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_split_is_fixed_stratified_and_has_no_overlap():
    parts = demo.digits()
    assert [len(images) for images, _ in parts] == [1078, 359, 360]
    for _, labels in parts:
        shares = torch.bincount(labels) / len(labels)
        assert shares.min() > 0.09
        assert shares.max() < 0.11
    rows = [{tuple(row) for row in images.tolist()} for images, _ in parts]
    assert not rows[0] & rows[1] | rows[0] & rows[2] | rows[1] & rows[2]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_the_objective_learns_and_repeats_itself(optimizer):
    config = demo.SPACE.validate(
        {k: v for k, v in CONFIG.items() if k != "momentum" or optimizer == "sgd"} | {"optimizer": optimizer}
        | ({} if optimizer == "sgd" else {"lr": 0.01})
    )  # fmt: skip
    state = torch.random.get_rng_state()
    objective = demo.Objective(epochs=10)
    score = objective.score(config)
    assert score.accuracy > 0.9
    assert objective(config) == score.loss < 0.4
    assert torch.equal(torch.random.get_rng_state(), state)


def test_seeds_differ():
    train, validation, _ = demo.digits()
    scores = [demo.train_and_score(CONFIG, train, validation, epochs=1, seed=seed) for seed in (0, 1)]
    assert scores[0].loss != scores[1].loss


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_training_that_was_paused_goes_on_bit_by_bit_the_same(optimizer, tmp_path):
    config = {**CONFIG, "optimizer": optimizer, "dropout": 0.4}
    train, validation, _ = demo.digits()
    whole, first, second = (demo.Training(config, train, epochs=4, seed=0) for _ in range(3))
    for _ in range(4):
        whole.run_epoch()
    for _ in range(2):
        first.run_epoch()
    torch.save(first.state(), tmp_path / "state.pt")
    second.load(torch.load(tmp_path / "state.pt", weights_only=True))
    for _ in range(2):
        second.run_epoch()
    assert second.score(validation) == whole.score(validation)
    assert second.score(validation) != first.score(validation)


def test_the_demo_with_budgets_pauses_resumes_and_says_what_it_spent(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run():
        monkeypatch.setattr(sys, "argv", ["gpbo", "demo", "--short", "--multifidelity", "--workers", "1"])
        assert cli.main() == 0
        return capsys.readouterr().out

    first = run()
    study = gpbo.Study.load("gpbo-demo.db", f"{demo.BUDGETS_STUDY}-short")
    states = [trial.state for trial in study.trials]
    assert (states.count("complete"), states.count("paused")) == (1, 3)
    assert "A config pauses after 1 of its 3 epochs" in first
    assert "6 epochs were trained; all 4 configs in full would have been 12" in first
    assert f"validation loss {study.best.value:.4f}" in first
    # From its checkpoint after the first epoch, as if it had never paused.
    assert study.best.value == demo.Objective(demo.SHORT_EPOCHS)(study.best.config)
    assert run().splitlines()[:-1] == [line for line in first.splitlines()[:-1] if "looking once" not in line]

    store = open_store("gpbo-demo.db", f"{demo.BUDGETS_STUDY}-short", create=False)
    store.meta["demo"] = store.meta["demo"] | {"config": {}}
    store.close()
    assert "for another config, and is not looked at again" in run()


def test_the_demo_in_its_short_form_and_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run():
        monkeypatch.setattr(sys, "argv", ["gpbo", "demo", "--short", "--workers", "1"])
        assert cli.main() == 0
        return capsys.readouterr().out

    first = run()
    assert "training the best config anew" in first
    assert "random search loss" in first
    assert "gpbo status gpbo-demo.db" in first
    store = open_store("gpbo-demo.db", SHORT, create=False)
    kept = store.meta["demo"]
    study = gpbo.Study.load("gpbo-demo.db", SHORT)
    rival = gpbo.Study.load("gpbo-demo.db", f"{demo.RANDOM_STUDY}-short")
    assert len(study.trials) == len(rival.trials) == demo.SHORT_TRIALS
    assert kept["config"] == dict(study.best.config)
    assert (
        kept["validation"]["loss"] == study.best.value == demo.Objective(demo.SHORT_EPOCHS)(study.best.config)
    )
    assert kept["random_loss"] == rival.best.value
    assert len(set(kept["test_losses"])) == 3

    # Looked at exactly once: a second run shows what was kept, even where that is something else.
    store.meta["demo"] = kept | {"test_accuracies": [0.123, 0.123, 0.123]}
    store.close()
    again = run()
    assert "4 trials, finished before." in again
    assert "it was looked at before and is not looked at again" in again
    assert "12.3%" in again
    assert len(gpbo.Study.load("gpbo-demo.db", SHORT).trials) == demo.SHORT_TRIALS


def test_trials_that_failed_count_until_random_search_is_overtaken(monkeypatch):
    monkeypatch.setattr(demo, "TEST_SEEDS", (1, 2))
    study, rival = (gpbo.Study(demo.SPACE, suggester=gpbo.RandomSuggester()) for _ in range(2))
    rival.add(CONFIG, 0.5)
    study.add(CONFIG, 0.6)
    study.fail(study.ask(), "no memory")
    study.add(CONFIG, 0.5)
    summary = demo._summarise(study, rival, demo.Objective(epochs=1))
    assert (summary.trials, summary.number, summary.overtook) == (3, 2, 3)


def test_the_verdict_is_plain_either_way(tmp_path):
    kept = {
        "trials": 40, "number": 3, "config": {"lr": 0.1}, "validation": {"loss": 0.2, "accuracy": 0.9},
        "random_loss": 0.1, "overtook": None, "test_losses": [0.1, 0.2, 0.3],
        "test_accuracies": [0.9, 0.9, 0.9],
    }  # fmt: skip
    lines = []
    demo._tell(demo._revived(json.loads(json.dumps(kept))), lines.append)
    assert any("gpbo's best validation loss is 100% higher" in line for line in lines)
    assert any("loss 0.2000 ± 0.1000" in line for line in lines)
    lines.clear()
    demo._tell(demo._revived(kept | {"random_loss": 0.4, "overtook": 7}), lines.append)
    assert any("is 50% lower" in line for line in lines)
    assert any("after 7 of 40 trials" in line for line in lines)
