import math

import pytest

from benchmarks.peers import PEERS, Task, create, missing
from benchmarks.peers.base import in_order, tidy
from benchmarks.peers.configspace import from_values, to_configspace, to_values
from gpbo import Categorical, Float, Int, SearchSpace
from gpbo.errors import MissingExtraError, SettingError

PLAIN = SearchSpace(x=Float(-5, 10), y=Float(1e-4, 1, log=True))
RICH = SearchSpace(
    momentum=Float(0, 0.9, step=0.1, when={"kind": ["a", None]}),
    kind=Categorical(["a", True, None, 3]),
    size=Categorical([8, 16, 32], ordered=True),
    layers=Int(1, 3),
    width=Int(4, 400, log=True, when={"layers": [2, 3]}),
    deep=Int(0, 8, step=4, when={"layers": 3, "kind": "a"}),
    lr=Float(1e-5, 1, log=True),
    constraints=["layers * size <= 64"],
)


def loss_of(config):
    base = math.log10(config["lr"] / 1e-3) ** 2 if "lr" in config else (config["x"] - 2) ** 2 + config["y"]
    return base + 0.1 * config.get("layers", 0) - 0.2 * config.get("momentum", 0)


def needs(name):
    lacking = missing(name)
    if lacking:
        pytest.skip(f"{lacking[0]} is not installed")


def run(name, space, *, evaluations=12, seed=3, given=()):
    task = Task(space, seed, evaluations, n_given=len(given))
    peer = create(name, task)
    for config in given:
        peer.tell(config, loss_of(config))
    asked = []
    for _ in range(evaluations - len(given)):
        config = peer.ask()
        assert space.validate(config) == config
        peer.tell(config, loss_of(config))
        asked.append(config)
    return asked


SLOW = ["smac-rf", "smac-gp", "botorch", "ax", "gpbo"]
QUICK = [name for name in PEERS if name not in SLOW]


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("space", [PLAIN, RICH], ids=["plain", "rich"])
def test_a_peer_proposes_valid_configs_and_the_same_again(name, space):
    needs(name)
    once = run(name, space)
    assert once == run(name, space)
    assert once != run(name, space, seed=4)


@pytest.mark.parametrize("name", SLOW)
def test_a_slow_peer_proposes_valid_configs_after_its_initial_design(name):
    needs(name)
    assert len(run(name, PLAIN, evaluations=7)) == 7


@pytest.mark.parametrize("name", ["smac-rf", "botorch", "ax", "gpbo"])
def test_a_slow_peer_takes_results_and_proposes_valid_configs_in_a_rich_space(name):
    needs(name)
    assert len(run(name, RICH, evaluations=8, given=run("random", RICH, evaluations=7))) == 1


@pytest.mark.parametrize("name", [name for name in QUICK if not name.startswith("ray-")])
def test_a_peer_takes_results_that_it_did_not_ask_for(name):
    needs(name)
    given = run("random", RICH, evaluations=4)
    assert len(run(name, RICH, evaluations=7, given=given)) == 3


@pytest.mark.parametrize("name", ["ray-optuna", "ray-bohb", "ray-gpbo"])
def test_a_searcher_of_ray_is_told_of_its_own_results_alone(name):
    needs(name)
    with pytest.raises(SettingError, match="leave `--shared-initial` out"):
        create(name, Task(PLAIN, 0, 10, n_given=2))


@pytest.mark.parametrize("name", ["optuna-tpe", "bohb", "ray-optuna", "ray-bohb"])
def test_a_peer_learns(name):
    needs(name)
    assert min(map(loss_of, run(name, PLAIN, evaluations=60))) < min(
        map(loss_of, run("random", PLAIN, evaluations=10))
    )


def test_an_unknown_peer_is_an_error():
    with pytest.raises(SettingError, match=r"got 'optuna-tp'\. Did you mean 'optuna-tpe'"):
        create("optuna-tp", Task(PLAIN, 0, 10))


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert missing("smac-rf") == ["smac"]
    assert missing("random") == []
    with pytest.raises(MissingExtraError, match=r"smac is not installed; pip install 'gpbo\[bench\]'"):
        create("smac-rf", Task(PLAIN, 0, 10))


def test_an_exhausted_space_is_an_error():
    peer = create("gpbo-random", Task(SearchSpace(b=Categorical([True, False])), 0, 10))
    for _ in range(2):
        peer.tell(peer.ask(), 0.0)
    with pytest.raises(RuntimeError, match="nothing more to ask for"):
        peer.ask()


def test_order_and_tidy():
    order = in_order(RICH)
    assert order.index("kind") < order.index("momentum")
    assert max(order.index("kind"), order.index("layers")) < order.index("deep")
    given = {"momentum": 0.5, "kind": True, "size": 8, "layers": 1, "width": 9, "deep": 0, "lr": 1.0000000001}
    assert tidy(RICH, given) == {"kind": True, "size": 8, "layers": 1, "lr": 1.0}


def test_configspace_there_and_back_with_the_same_conditions():
    pytest.importorskip("ConfigSpace", reason="ConfigSpace is not installed")
    from ConfigSpace import Configuration

    given = to_configspace(RICH, seed=0)
    for config in run("random", RICH, evaluations=40):
        values = to_values(RICH, config)
        Configuration(given, values=values).check_valid_configuration()
        assert from_values(RICH, values) == config
    for sample in given.sample_configuration(40):
        config = tidy(RICH, from_values(RICH, dict(sample)))
        assert config.keys() == dict(sample).keys()


def test_ax_takes_every_config_and_gives_it_back():
    needs("ax")
    from benchmarks.peers.ax_client import from_values, to_values

    client = create("ax", Task(RICH, 0, 40))._client
    for config in run("random", RICH, evaluations=40):
        values = to_values(RICH, config)
        client.attach_trial(values)  # raises where Ax would have it otherwise
        assert tidy(RICH, from_values(RICH, values)) == config


def test_ax_knows_of_a_tree_of_parameters_and_of_no_other_conditions():
    needs("ax")
    from benchmarks.peers.ax_client import to_values

    space = SearchSpace(
        kind=Categorical(["a", "b"]),
        layers=Int(1, 2, when={"kind": "a"}),
        width=Int(4, 9, when={"layers": 2}),
        often=Float(0, 1, when={"kind": ["a", "b"], "layers": 1}),
    )
    client = create("ax", Task(space, 0, 9))._client
    for _ in range(6):  # the last by its model
        index, values = client.get_next_trials(1).popitem()
        client.complete_trial(index, {"loss": values["often"]})
        present = {"kind", "often"}
        present |= {"layers"} if values["kind"] == "0" else set()
        present |= {"width"} if values.get("layers") == 2 else set()
        assert values.keys() == present
    assert to_values(space, {"kind": "b"}) == {"kind": "1", "often": 0.0}
    assert to_values(space, {"kind": "a", "layers": 2, "width": 5}).keys() == space.parameters.keys()


def test_ax_is_told_which_configs_are_not_allowed():
    needs("ax")
    space = SearchSpace(x=Float(-5, 10), y=Float(1e-4, 1, log=True), constraints=["x <= 2"])
    task = Task(space, 0, 4)
    peer, rejections = create("ax", task), []
    for _ in range(4):
        config = peer.ask()
        assert space.validate(config) == config
        peer.tell(config, loss_of(config))
        rejections.append(task.counts.rejections)
    assert rejections[0] > 0  # the centre, of which no model is made yet
    found = peer._client.summarize()["feasible"].dropna().tolist()
    assert found.count(1.0) == 4
    assert found.count(0.0) == rejections[-1] - rejections[0] > 0


def test_bohb_does_not_turn_into_random_search_without_a_word():
    needs("bohb")
    import logging

    peer = create("bohb", Task(PLAIN, 0, 10))
    with pytest.raises(RuntimeError, match="Using random configuration"):
        peer._generator.logger.warning("Sampling based optimization failed\nUsing random configuration")
    peer._generator.logger.log(logging.DEBUG, "random configuration")
