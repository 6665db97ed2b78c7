"""An objective for examples/study.yaml: a small network's validation loss on handwritten digits."""

import warnings
from typing import Any

from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier


def objective(config: dict[str, Any]) -> dict[str, float]:
    """The validation loss and accuracy of a config."""
    images, labels = load_digits(return_X_y=True)
    train, validation, y_train, y_validation = train_test_split(
        images / 16, labels, test_size=0.25, stratify=labels, random_state=0
    )
    network = MLPClassifier(
        hidden_layer_sizes=[config["width"]] * config["depth"],
        solver=config["solver"],
        learning_rate_init=config["lr"],
        momentum=config.get("momentum", 0.9),  # absent unless solver is sgd
        alpha=config["alpha"],
        early_stopping=True,
        max_iter=30,
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # max_iter is meant to end it
        network.fit(train, y_train)
    loss = log_loss(y_validation, network.predict_proba(validation))
    return {"loss": float(loss), "accuracy": float(network.score(validation, y_validation))}
