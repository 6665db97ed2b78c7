"""The optimisers that gpbo is measured against, by name, each made by one small adapter."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.peers.base import Config, Peer, Task
from gpbo.errors import MissingExtraError, SettingError, did_you_mean

__all__ = ["PEERS", "Config", "Peer", "Spec", "Task", "create", "missing"]


@dataclass(frozen=True, slots=True)
class Spec:
    """Where an adapter is and what it needs.

    Attributes:
        module: The adapter's module in this package.
        kind: Which of the module's optimisers it is.
        packages: What must be installed.
    """

    module: str
    kind: str
    packages: tuple[str, ...] = ()


PEERS: dict[str, Spec] = {
    "random": Spec("uniform", "uniform"),
    "gpbo": Spec("gpbo_study", "default"),
    "gpbo-random": Spec("gpbo_study", "random"),
    "gpbo-sobol": Spec("gpbo_study", "sobol"),
    **{
        f"gpbo-{kind}": Spec("gpbo_study", kind)
        for kind in (
            "ten-initial",
            "matern-3/2",
            "no-warp",
            "no-exploring",
            "explore-by-bound",
            "explore-nearer",
            "low-noise",
            "free-noise",
            "zero-mean",
            "free-outputscale",
            "flat-lengthscales",
        )
    },
    "optuna-tpe": Spec("optuna_study", "tpe", ("optuna",)),
    "optuna-gp": Spec("optuna_study", "gp", ("optuna", "greenlet")),
    "optuna-gp-deterministic": Spec("optuna_study", "gp-deterministic", ("optuna", "greenlet")),
    "optuna-gpbo": Spec("optuna_study", "gpbo", ("optuna", "greenlet")),
    "ray-optuna": Spec("ray_search", "optuna", ("ray", "optuna")),
    "ray-bohb": Spec("ray_search", "bohb", ("ray", "hpbandster")),
    "ray-gpbo": Spec("ray_search", "gpbo", ("ray",)),
    "botorch": Spec("botorch_loop", "log-ei", ("botorch",)),
    "ax": Spec("ax_client", "default", ("ax",)),
    "smac-rf": Spec("smac_facade", "rf", ("smac",)),
    "smac-gp": Spec("smac_facade", "gp", ("smac",)),
    "bohb": Spec("hpbandster_bohb", "bohb", ("hpbandster",)),
}


def create(name: str, task: Task) -> Peer:
    """The peer of that name, ready for the task.

    Raises:
        SettingError: if there is no such peer.
        MissingExtraError: if what it needs is not installed.
    """
    lacking = missing(name)
    if lacking:
        raise MissingExtraError(f"{lacking[0]} is not installed; pip install 'gpbo[bench]'.")
    spec = PEERS[name]
    peer: Peer = importlib.import_module(f"benchmarks.peers.{spec.module}").create(spec.kind, task)
    return peer


def missing(name: str) -> Sequence[str]:
    """The packages that the peer needs and that are not installed.

    Raises:
        SettingError: if there is no such peer.
    """
    if name not in PEERS:
        hint = did_you_mean(name, PEERS)
        raise SettingError(f"`--peers` must be of {list(PEERS)}, got {name!r}.{hint}")
    return [package for package in PEERS[name].packages if importlib.util.find_spec(package) is None]
