"""A model of branches, workers and constraints; with OptunaHub, load the sampler as in README.md."""

import optuna

from gpbo.integrations.optuna import GPBOSampler


def objective(trial: optuna.Trial) -> float:
    """A number to be minimised over two branches, of which the better is bounded by a constraint."""
    x = trial.suggest_float("x", -5, 5)
    if trial.suggest_categorical("branch", ["left", "right"]) == "left":
        return x**2 + 1
    y = trial.suggest_float("y", -5, 5)
    trial.set_constraint("sum", 1 - x - y)  # met where it is at most 0
    return x**2 + y**2


if __name__ == "__main__":
    study = optuna.create_study(sampler=GPBOSampler(seed=0))
    study.optimize(objective, n_trials=15)
    print(study.best_trial.params, study.best_value)
