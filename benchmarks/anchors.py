"""Published regrets to hold ours against: YAHPO Gym's multi-fidelity study (Pfisterer et al. 2022).

Digitised from its figures, to 2 or 3 %: for the instances whose surrogates we have, the mean normalised
regret over 30 replications after 25, 50 and 100 % of the budget, of the best value at any budget. A regret
there is measured between the best and the worst value that any of its runs saw, which is not our scale; as
shares of random search's regret the two can be compared. Its SMAC is full-fidelity, and its optuna TPE with
the median pruner.
"""

from __future__ import annotations

from collections.abc import Mapping

_ORDER = ("Random", "SMAC", "HB", "BOHB", "DEHB", "SMAC-HB", "optuna")

ANCHORS: Mapping[str, Mapping[str, tuple[float, float, float]]] = {
    name: dict(zip(_ORDER, rows, strict=True))
    for name, rows in {
        "lcbench/167168": (
            (0.1616, 0.1363, 0.1216), (0.1429, 0.0351, 0.0125), (0.1333, 0.1057, 0.0881),
            (0.1082, 0.0635, 0.0398), (0.1340, 0.1122, 0.0771), (0.1127, 0.0509, 0.0217),
            (0.1216, 0.0862, 0.0577),
        ),
        "lcbench/189873": (
            (0.2593, 0.2028, 0.1652), (0.2069, 0.0690, 0.0251), (0.1629, 0.1405, 0.1222),
            (0.1645, 0.1033, 0.0614), (0.1968, 0.1600, 0.1145), (0.1586, 0.0538, 0.0210),
            (0.1190, 0.0711, 0.0576),
        ),
        "lcbench/189906": (
            (0.1055, 0.0865, 0.0788), (0.0933, 0.0262, 0.0072), (0.0883, 0.0737, 0.0648),
            (0.0641, 0.0482, 0.0335), (0.0823, 0.0707, 0.0547), (0.0724, 0.0305, 0.0102),
            (0.0637, 0.0386, 0.0257),
        ),
        "rbv2_rpart/14": (
            (0.0818, 0.0702, 0.0537), (0.0730, 0.0139, 0.0033), (0.0567, 0.0449, 0.0359),
            (0.0329, 0.0170, 0.0122), (0.0638, 0.0490, 0.0272), (0.0448, 0.0113, 0.0032),
            (0.0524, 0.0280, 0.0149),
        ),
        "rbv2_rpart/40499": (
            (0.0395, 0.0307, 0.0232), (0.0185, 0.0045, 0.0003), (0.0285, 0.0248, 0.0211),
            (0.0147, 0.0088, 0.0075), (0.0280, 0.0212, 0.0137), (0.0176, 0.0046, 0.0012),
            (0.0246, 0.0119, 0.0059),
        ),
    }.items()
}  # fmt: skip

ANCHORED: Mapping[str, str] = {
    "random": "Random",
    "hyperband": "HB",
    "hpbandster-hyperband": "HB",
    "bohb-reference": "BOHB",
    "hpbandster-bohb": "BOHB",
    "dehb": "DEHB",
    "smac-hyperband": "SMAC-HB",
    "optuna-tpe-median": "optuna",
}
"""What each entrant's kind is called there."""
