"""The demo: a real network, tuned on real images, against random search with the same number of trials.

The images are scikit-learn's 1 797 handwritten digits. A config is trained on 60 % of them and judged by
its cross-entropy on 20 %, the validation set. The test set, the last 20 %, is looked at exactly once: with
the best config, trained anew with fresh seeds on training and validation set together. The result is kept
with the study, and a second run of the demo shows it rather than looking again.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, final

from gpbo.seeding import derive, generator
from gpbo.space import Categorical, Float, Int, SearchSpace
from gpbo.stores.open import open_store
from gpbo.study import Study
from gpbo.trial import State, Trial

if TYPE_CHECKING:
    from torch import Tensor

    from gpbo.job import Job
    from gpbo.suggesters.base import Suggester

STUDY, RANDOM_STUDY, BUDGETS_STUDY = "demo", "demo-random", "demo-multifidelity"
EPOCHS, SHORT_EPOCHS = 40, 3
SHORT_TRIALS = 4
TEST_SEEDS = (1, 2, 3)  # trials use 0
_KEY = "demo"  # where the store keeps the summary

SPACE = SearchSpace(
    lr=Float(1e-4, 0.3, log=True),
    weight_decay=Float(1e-6, 1e-1, log=True),
    batch_size=Categorical([16, 32, 64, 128, 256], ordered=True),
    depth=Int(1, 4),
    width=Int(16, 256, log=True),
    dropout=Float(0.0, 0.6),
    optimizer=Categorical(["sgd", "adam", "adamw"]),
    momentum=Float(0.0, 0.99, when={"optimizer": "sgd"}),
)


@dataclass(frozen=True, slots=True)
class Score:
    """How a trained network does on images it was not trained on."""

    loss: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Objective:
    """The validation loss of a config; the same config always gives the same loss."""

    epochs: int

    def __call__(self, config: Mapping[str, Any]) -> float:
        """The cross-entropy, in nats, on the validation set."""
        return self.score(config).loss

    def score(self, config: Mapping[str, Any]) -> Score:
        """The score on the validation set."""
        train, validation, _ = digits()
        return train_and_score(config, train, validation, epochs=self.epochs, seed=0)


@dataclass(frozen=True, slots=True)
class ObjectiveByEpochs:
    """The validation loss of a config after as many epochs as a job is given; paused, it goes on later."""

    epochs: int

    def __call__(self, job: Job) -> float:
        """The cross-entropy, in nats, on the validation set after ``job.budget`` epochs."""
        train, validation, _ = digits()
        training = Training(job.config, train, epochs=self.epochs, seed=0)
        state = job.load()
        if state is not None:
            training.load(state)
        while training.epoch < job.budget:
            training.run_epoch()
        job.save(training.state())
        return training.score(validation).loss


@dataclass(frozen=True, slots=True)
class Summary:
    """What the demo found, as it is kept with the study.

    Attributes:
        trials: After how many trials of each search.
        number: The best trial of gpbo's search.
        config: Its config.
        validation: Its score on the validation set.
        random_loss: The best validation loss that random search found.
        overtook: After how many trials gpbo's search was at least as good as that, or None if never.
        test_losses: On the test set, one for each seed.
        test_accuracies: The same.
    """

    trials: int
    number: int
    config: dict[str, Any]
    validation: Score
    random_loss: float
    overtook: int | None
    test_losses: tuple[float, ...]
    test_accuracies: tuple[float, ...]


def run_demo(
    *,
    trials: int,
    workers: int,
    store: str,
    seed: int,
    short: bool,
    say: Callable[[str], None],
    suggester: Suggester | None = None,
) -> None:
    """Nothing; runs or resumes the demo and tells its story line by line.

    Args:
        trials: How many trials each of the two searches gets.
        workers: How many trainings at the same time.
        store: The SQLite file both studies are kept in.
        seed: Decides all randomness of the searches.
        short: A few trials of a few epochs, to see that everything works.
        say: What to do with each line.
        suggester: How gpbo's search chooses; by default the Gaussian process.

    Raises:
        StoreError: if the store cannot be opened or written.
    """
    from gpbo.suggesters.quasirandom import RandomSuggester

    n_trials, epochs = (min(trials, SHORT_TRIALS), SHORT_EPOCHS) if short else (trials, EPOCHS)
    objective = Objective(epochs)
    say(
        f"Tuning a network on 1797 handwritten digits: {len(SPACE.parameters)} parameters, {n_trials} trials,"
    )
    say(f"{workers} at a time; then random search with as many. Trials are kept in {store}.")
    # Short trainings are another objective, so they are another study.
    ours, theirs = (f"{name}-short" if short else name for name in (STUDY, RANDOM_STUDY))
    memory = open_store(store, ours)
    study = Study(SPACE, suggester=suggester, store=memory, seed=seed, name=ours)
    rival = Study(SPACE, suggester=RandomSuggester(), store=store, seed=seed, name=theirs)
    for name, one in (("Bayesian optimization", study), ("random search", rival)):
        _search(name, one, objective, n_trials, workers, say)
    kept = memory.meta.get(_KEY)
    if kept is None:
        say("test set: training the best config anew, with fresh seeds, and looking once ...")
        summary = _summarise(study, rival, objective)
        memory.meta[_KEY] = asdict(summary)
    else:
        summary = _revived(kept)
        say("test set: it was looked at before and is not looked at again; this is what was found then.")
    _tell(summary, say)
    _what_next(store, ours, say)


def run_multifidelity(
    *, trials: int, workers: int, store: str, seed: int, short: bool, say: Callable[[str], None]
) -> None:
    """Nothing; as `run_demo`, but with budgets: most configs are trained for a few epochs only.

    Args:
        trials: How many configs are tried.
        workers: How many trainings at the same time.
        store: The SQLite file the study is kept in.
        seed: Decides all randomness of the search.
        short: A few trials of a few epochs, to see that everything works.
        say: What to do with each line.

    Raises:
        StoreError: if the store cannot be opened or written.
    """
    from gpbo.schedulers.asha import ASHA

    n_trials, epochs = (min(trials, SHORT_TRIALS), SHORT_EPOCHS) if short else (trials, EPOCHS)
    scheduler = ASHA(1, epochs)
    say(f"Tuning a network on 1797 handwritten digits: {n_trials} configs, {workers} at a time.")
    pauses = ", ".join(map(str, scheduler.rungs[:-1]))
    say(
        f"A config pauses after {pauses} of its {epochs} epochs, and the best third of those that came so far"
    )
    say(f"are resumed from their checkpoints. Trials are kept in {store}.")
    name = f"{BUDGETS_STUDY}-short" if short else BUDGETS_STUDY
    memory = open_store(store, name)
    study = Study(SPACE, scheduler=scheduler, store=memory, seed=seed, name=name)
    study.optimize(ObjectiveByEpochs(epochs), n_trials, workers=workers, gpus_per_trial=0)
    spent = round(sum(trial.info.get("run", {}).get("spent", 0.0) for trial in study.trials))
    full = epochs * len(study.trials)
    complete = [trial for trial in study.trials if trial.state is State.COMPLETE]
    say(f"\n{spent} epochs were trained; all {len(study.trials)} configs in full would have been {full},")
    say(f"{full / spent:.1f} times as many. Trained in full: {len(complete)}.")
    if not complete:
        say("That is too few to name the best; try more --trials.")
        return
    config = dict(study.best.config)
    say(f"\nbest config (trial {study.best.number}), validation loss {study.best.value:.4f}")
    for parameter, value in config.items():
        say(f"  {parameter:<13} {value}")
    kept = memory.meta.get(_KEY)
    if kept is None:
        say("test set: training the best config anew, with fresh seeds, and looking once ...")
        scores = _test(config, epochs)
        kept = memory.meta[_KEY] = {"config": config, "accuracies": [score.accuracy for score in scores]}
    elif kept["config"] != config:
        say("test set: it was looked at before, for another config, and is not looked at again.")
        return
    accuracies = kept["accuracies"]
    say(f"test          accuracy {statistics.mean(accuracies):.1%} ± {statistics.stdev(accuracies):.1%}")


@cache
def digits() -> tuple[tuple[Tensor, Tensor], ...]:
    """Images (n, 64) in [0, 1] and labels (n,) for training, validation and test; always the same split."""
    import torch
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    train, rest, y_train, y_rest = train_test_split(
        images, labels, train_size=0.6, stratify=labels, random_state=0
    )
    validation, test, y_validation, y_test = train_test_split(
        rest, y_rest, train_size=0.5, stratify=y_rest, random_state=0
    )
    parts = ((train, y_train), (validation, y_validation), (test, y_test))
    return tuple((torch.tensor(X / 16.0, dtype=torch.float32), torch.tensor(y)) for X, y in parts)


def train_and_score(
    config: Mapping[str, Any],
    train: tuple[Tensor, Tensor],
    judge: tuple[Tensor, Tensor],
    *,
    epochs: int,
    seed: int,
) -> Score:
    """The score on `judge` of a network trained on `train`; `seed` decides its start and its batches."""
    training = Training(config, train, epochs=epochs, seed=seed)
    for _ in range(epochs):
        training.run_epoch()
    return training.score(judge)


@final
class Training:
    """A network in training, epoch by epoch, that can be saved and gone on with, bit by bit the same.

    Args:
        config: One of `SPACE`.
        train: Images and labels.
        epochs: How long its learning rate takes to fall to nothing, wherever it pauses on the way.
        seed: Decides its start, its batches and what its dropout drops.
    """

    def __init__(
        self, config: Mapping[str, Any], train: tuple[Tensor, Tensor], *, epochs: int, seed: int
    ) -> None:
        import torch

        # One thread: the networks are small, workers do not starve each other, and sums have one order.
        torch.set_num_threads(1)
        self.epoch: int = 0
        self._train = train
        self._batch_size: int = config["batch_size"]
        self._order = generator(seed, "demo", "batches")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "demo", "weights"))
            self._network = _network(config)
            self._noise = torch.random.get_rng_state()
        self._optimizer = _optimizer(config, self._network)
        n_steps = epochs * -(-len(train[0]) // self._batch_size)
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimizer, n_steps)

    def run_epoch(self) -> None:
        """Train on every image once."""
        import torch
        from torch.nn import functional

        images, labels = self._train
        self._network.train()
        with torch.random.fork_rng(devices=[]):
            torch.random.set_rng_state(self._noise)
            for batch in torch.split(torch.randperm(len(images), generator=self._order), self._batch_size):
                self._optimizer.zero_grad()
                loss: Any = functional.cross_entropy(self._network(images[batch]), labels[batch])
                loss.backward()
                self._optimizer.step()
                self._schedule.step()
            self._noise = torch.random.get_rng_state()
        self.epoch += 1

    def score(self, judge: tuple[Tensor, Tensor]) -> Score:
        """How the network does on other images."""
        import torch
        from torch.nn import functional

        self._network.eval()
        with torch.no_grad():
            logits = self._network(judge[0])
            value = functional.cross_entropy(logits, judge[1]).item()
            accuracy = (logits.argmax(1) == judge[1]).double().mean().item()
        return Score(value, accuracy)

    def state(self) -> dict[str, Any]:
        """All that `load` needs to go on from here."""
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        return {**parts, "order": self._order.get_state(), "noise": self._noise, "epoch": self.epoch}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from another training's state."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self._order.set_state(state["order"])
        self._noise, self.epoch = state["noise"], state["epoch"]

    def _parts(self) -> dict[str, Any]:
        return {"network": self._network, "optimizer": self._optimizer, "schedule": self._schedule}


def _network(config: Mapping[str, Any]) -> Any:
    from torch import nn

    layers: list[nn.Module] = []
    n_inputs = 64
    for _ in range(config["depth"]):
        layers += [nn.Linear(n_inputs, config["width"]), nn.ReLU(), nn.Dropout(config["dropout"])]
        n_inputs = config["width"]
    return nn.Sequential(*layers, nn.Linear(n_inputs, 10))


def _optimizer(config: Mapping[str, Any], network: Any) -> Any:
    from torch import optim

    options = {"lr": config["lr"], "weight_decay": config["weight_decay"]}
    if config["optimizer"] == "sgd":
        return optim.SGD(network.parameters(), momentum=config["momentum"], **options)
    kinds = {"adam": optim.Adam, "adamw": optim.AdamW}
    return kinds[config["optimizer"]](network.parameters(), **options)


def _search(
    name: str, study: Study, objective: Objective, n_trials: int, workers: int, say: Callable[[str], None]
) -> None:
    before = sum(trial.state.is_final for trial in study.trials)
    if before >= n_trials:
        say(f"\n{name}: {before} trials, finished before.")
        return
    say(f"\n{name}: {f'going on after {before} of ' if before else ''}{n_trials} trials")
    started = time.monotonic()

    def show(study: Study, trial: Trial) -> None:
        finished = sum(one.state.is_final for one in study.trials)
        complete = any(one.state is State.COMPLETE for one in study.trials)
        best = f"best validation loss {study.best.value:.4f}" if complete else "no result yet"
        if finished % max(1, n_trials // 4) == 0 or finished == n_trials:
            say(f"  {finished:3d} trials, {time.monotonic() - started:3.0f} s, {best}")

    callbacks = [] if sys.stderr.isatty() else [show]  # a terminal shows the bar
    study.optimize(objective, n_trials, workers=workers, callbacks=callbacks, gpus_per_trial=0)


def _summarise(study: Study, rival: Study, objective: Objective) -> Summary:
    """The summary of two finished searches; this is the one look at the test set."""
    best, target = study.best, rival.best.observations[-1].value
    config = dict(best.config)
    validation = Score(best.observations[-1].value, objective.score(config).accuracy)
    scores = _test(config, objective.epochs)
    reached = [k for k, t in enumerate(study.trials, 1) if t.value is not None and t.value <= target]
    return Summary(
        trials=len(study.trials),
        number=best.number,
        config=config,
        validation=validation,
        random_loss=target,
        overtook=reached[0] if reached else None,
        test_losses=tuple(score.loss for score in scores),
        test_accuracies=tuple(score.accuracy for score in scores),
    )


def _test(config: Mapping[str, Any], epochs: int) -> list[Score]:
    """The scores on the test set of the config trained anew with fresh seeds."""
    import torch

    train, held_out, test = digits()
    everything = (torch.cat([train[0], held_out[0]]), torch.cat([train[1], held_out[1]]))
    return [train_and_score(config, everything, test, epochs=epochs, seed=seed) for seed in TEST_SEEDS]


def _revived(kept: Mapping[str, Any]) -> Summary:
    return Summary(**{**kept, "validation": Score(**kept["validation"])})


def _tell(summary: Summary, say: Callable[[str], None]) -> None:
    accuracies, losses = summary.test_accuracies, summary.test_losses
    say(f"\nbest config after {summary.trials} trials (trial {summary.number})")
    for name, value in summary.config.items():
        say(f"  {name:<13} {value}")
    say(f"validation    loss {summary.validation.loss:.4f}, accuracy {summary.validation.accuracy:.1%}")
    say(
        f"test          loss {statistics.mean(losses):.4f} ± {statistics.stdev(losses):.4f}, "
        f"accuracy {statistics.mean(accuracies):.1%} ± {statistics.stdev(accuracies):.1%}"
    )
    say(
        f"              (mean ± standard deviation of {len(losses)} fresh seeds, trained on training and "
        "validation set;\n              the test set was looked at once, for this)"
    )
    ours, theirs = summary.validation.loss, summary.random_loss
    verdict = (
        "equal"
        if ours == theirs
        else f"{abs(theirs - ours) / theirs:.0%} {'lower' if ours < theirs else 'higher'}"
    )
    say(f"random search loss {theirs:.4f} in as many trials: gpbo's best validation loss is {verdict}")
    if summary.overtook is not None:
        say(f"              gpbo was as good as that after {summary.overtook} of {summary.trials} trials")


def _what_next(store: str, name: str, say: Callable[[str], None]) -> None:
    say("\nnext")
    say(f"  gpbo status {store}")
    say(f"  gpbo best {store} --name {name}")
    say(f"  gpbo export {store} --name {name} -o trials.csv")
    say("or tune your own function, in Python:")
    say("  import gpbo")
    say("  space = gpbo.SearchSpace(lr=gpbo.Float(1e-5, 1e-1, log=True), depth=gpbo.Int(1, 8))")
    say('  study = gpbo.Study(space, store="study.db")')
    say("  study.optimize(my_function, n_trials=40, workers=2)  # my_function(config) -> a number")
    say("  print(study.best.config)")
