import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, kendalltau, spearmanr

from gpbo import ASHA, Categorical, Float, Hyperband, RandomSuggester, SearchSpace, Study, simulate
from gpbo.diagnostics import (
    SlowStart,
    _discoveries,
    _drift,
    diagnose,
    kendall,
    proportion,
    spearman,
    weighted_midranks,
)
from gpbo.schedulers.base import RunToEnd
from gpbo.trial import Observation, State, Trial

SPACE = SearchSpace(x=Float(0, 1), z=Float(0, 1), c=Categorical(["a", "b", "d"]))

pairs = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 3)), min_size=3, max_size=30)


@given(pairs)
def test_weights_are_repetitions(rows):
    """Tau-b and rho with whole weights are scipy's of the repeated data."""
    x, y, w = (torch.tensor(column) for column in zip(*rows, strict=True))
    W = w.double()[None]
    many = [(a, b) for a, b, k in rows for _ in range(k)]
    if len({a for a, _ in many}) < 2 or len({b for _, b in many}) < 2:
        assert not kendall(x, y, W).isfinite().any()
        return
    a, b = zip(*many, strict=True)
    assert float(kendall(x, y, W)) == pytest.approx(kendalltau(a, b).statistic, abs=1e-12)
    assert float(spearman(x, y, W)) == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)


def test_each_row_of_weights_is_its_own():
    draws = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, 20, generator=draws)
    W = torch.randint(0, 4, (5, 20), generator=draws).double()
    for f in (kendall, spearman):
        torch.testing.assert_close(f(x, y, W), torch.cat([f(x, y, row[None]) for row in W]))


def test_midranks_by_hand():
    ranks = weighted_midranks(
        torch.tensor([3, 1, 3, 2]), torch.tensor([[1.0, 1, 1, 1], [2, 0, 1, 4]]).double()
    )
    assert ranks.tolist() == [[3.0, 0.5, 3.0, 1.5], [5.5, 0.0, 5.5, 2.0]]


@given(st.integers(0, 50), st.integers(1, 50))
def test_shares_have_wilsons_interval(hits, more):
    n = hits + more
    expected = binomtest(hits, n).proportion_ci(0.9, "wilson")
    found = proportion(hits, n)
    assert (found.value, found.low, found.high) == pytest.approx((hits / n, *expected), abs=1e-12)


def test_drift_is_judged_as_scipy_judges_it():
    """The permutation p-value against scipy's, from a t-distribution; rank changes have few ties here."""
    draws = torch.Generator().manual_seed(1)
    n, ones = 60, torch.ones(60, dtype=torch.float64)
    h, x, noise = torch.rand(3, n, dtype=torch.float64, generator=draws)
    for strength in (0.0, 0.15, 0.3):
        y = x + 0.3 * noise + strength * h
        rho, p = _drift(h, x, y, ones, 0, "")
        change = y.argsort().argsort() - x.argsort().argsort()
        expected = spearmanr(h, change)
        assert rho == pytest.approx(expected.statistic, abs=1e-12)
        assert p == pytest.approx(expected.pvalue, abs=0.03)


def test_false_discoveries_by_hand():
    """Benjamini and Hochberg (1995), their example's p-values: four of fifteen are kept at 5 %."""
    values = [
        *(0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719),
        *(0.6528, 0.7590, 1.0000),
    ]
    tests = [SlowStart("x", "large values", 1, 3, 0.5, p) for p in reversed(values)]
    assert [t.p for t in _discoveries(tests)] == values[:4]
    assert _discoveries([]) == ()


def study(values, scheduler, states=None):
    """Trials with values by budget, as a scheduler would leave them; nothing else is looked at."""
    return [
        Trial(
            i,
            {"x": (i * 37 % 101) / 101, "z": (i * 53 % 89) / 89, "c": "abd"[i * 7 % 3]},
            (states or {}).get(i, State.PAUSED),
            scheduler.rungs[len(seen) - 1],
            observations=tuple(Observation((v,), b) for v, b in zip(seen, scheduler.rungs, strict=False)),
        )
        for i, seen in enumerate(values)
    ]


def halved(scheduler, n, at, seed=0):
    """`n` trials, the best third at the lowest rung and the audited at the next, by their final ranks."""
    low = [at(i, 0) for i in range(n)]
    best = set(sorted(range(n), key=lambda i: (low[i], i))[: n // 3])
    return study(
        [(low[i], at(i, 1)) if i in best or scheduler.audits(i, 0) else (low[i],) for i in range(n)],
        scheduler,
    )


def noisy(spread, seed=0):
    """Values of which the lower rung's have noise of the given standard deviation on them."""
    draws = random.Random(seed)
    true = [draws.gauss(0, 1) for _ in range(4000)]
    seen = [v + draws.gauss(0, spread) for v in true]
    return lambda i, k: (seen if k == 0 else true)[i]


def test_audits_take_the_bias_away():
    """Averaged over draws, tau of all is found with audits; without, that of the best alone, far lower."""
    with_audits, without, truth = [], [], []
    for seed in range(12):
        at = noisy(0.7, seed)
        for scheduler, found in ((ASHA(1, 3, 3, audit=0.2), with_audits), (ASHA(1, 3, 3), without)):
            rung = diagnose(halved(scheduler, 400, at), SPACE, scheduler, [False], seed=seed).rungs[0]
            found.append(rung.kendall.value)
        truth.append(kendalltau(*([at(i, k) for i in range(400)] for k in (0, 1))).statistic)
    error = [a - b for a, b in zip(with_audits, truth, strict=True)]
    mean = sum(error) / len(error)
    deviation = (sum((e - mean) ** 2 for e in error) / (len(error) - 1)) ** 0.5
    assert abs(mean) < 3 * deviation / len(error) ** 0.5 + 0.02
    assert deviation < 0.12
    assert sum(without) / len(without) < sum(truth) / len(truth) - 0.15


def test_intervals_hold_the_truth_as_often_as_they_say():
    held = 0
    for seed in range(40):
        at, scheduler = noisy(0.7, seed + 100), ASHA(1, 3, 3, audit=0.3)
        rung = diagnose(halved(scheduler, 300, at), SPACE, scheduler, [False], seed=seed).rungs[0]
        truth = kendalltau(*([at(i, k) for i in range(300)] for k in (0, 1))).statistic
        held += rung.kendall.low <= truth <= rung.kendall.high
    assert held >= 31  # 36 expected; the finite population makes it more


def test_recall_and_false_stops_by_hand():
    """Sixty trials: the best third at the top are the first ten at the bottom and the last ten."""
    scheduler, n = ASHA(1, 3, 3, audit=0.5), 60
    top = [*range(10), *range(40, 80), *range(10, 20)]
    trials = halved(scheduler, n, lambda i, k: float(top[i] if k else i))
    rung = diagnose(trials, SPACE, scheduler, [False]).rungs[0]
    audited = [i for i in range(20, n) if scheduler.audits(i, 0)]
    weight = 40 / len(audited)  # each stands for so many of those that were stopped
    below, missed, found = 0.0, 0.0, 0.0
    for i in sorted([*range(20), *audited], key=lambda i: top[i]):
        w = 1.0 if i < 20 else weight
        if below + w / 2 < 20:
            missed, found = (missed + w, found) if i >= 20 else (missed, found + w)
        below += w
    assert below == pytest.approx(60)
    assert (rung.n, rung.n_audits, rung.n_low) == (20 + len(audited), len(audited), 60)
    assert missed > 0
    assert rung.false_stops.value == pytest.approx(missed / 40)
    assert rung.recall.value == pytest.approx(found / (found + missed))
    assert rung.false_stops.low < rung.false_stops.value < rung.false_stops.high


def test_a_rung_that_tells_nothing_misleads():
    scheduler = ASHA(1, 3, 3, audit=0.2)
    found = diagnose(halved(scheduler, 400, noisy(20.0)), SPACE, scheduler, [False])
    assert found.rungs[0].misleads
    assert found.rungs[0].false_stops.low <= 1 / 3 <= found.rungs[0].false_stops.high
    assert found.min_budget == 3
    assert "MISLEADS" in str(found)
    assert "Raise min_budget from 1 to 3" in str(found)


def test_a_rung_that_tells_all_does_not():
    scheduler = ASHA(1, 3, 3, audit=0.2)
    found = diagnose(halved(scheduler, 400, noisy(0.05)), SPACE, scheduler, [False])
    rung = found.rungs[0]
    assert rung.misleads is False
    assert (rung.kendall.low > 0.9, rung.recall.low > 0.8, rung.false_stops.high < 0.1) == (True,) * 3
    assert (rung.recall.value, rung.false_stops.value, rung.false_stops.low) == pytest.approx((1, 0, 0))
    assert "tells enough" in str(found)
    assert found.min_budget == pytest.approx(1 / 3)  # nearly half of all trials end at the lowest rung


def test_the_sign_of_values_is_the_users():
    scheduler = ASHA(1, 3, 3, audit=0.2)
    at = noisy(0.5)
    one = diagnose(halved(scheduler, 200, at), SPACE, scheduler, [False])
    trials = [
        Trial(
            t.number,
            t.config,
            t.state,
            t.budget,
            observations=tuple(Observation((-o.value,), o.budget) for o in t.observations),
        )
        for t in halved(scheduler, 200, at)
    ]
    assert diagnose(trials, SPACE, scheduler, [True]) == one


def test_without_audits_the_text_says_what_is_not_known():
    scheduler = ASHA(1, 3, 3)
    rung = (found := diagnose(halved(scheduler, 200, noisy(20.0)), SPACE, scheduler, [False])).rungs[0]
    assert (rung.is_biased, rung.misleads, rung.recall, rung.n_audits) == (True, None, None, 0)
    assert "among the trials that went on alone" in str(found)
    assert "fewer than 5 of those that would be stopped went on; with ASHA(audit=0.05)" in str(found)


def test_too_few_trials():
    scheduler = ASHA(1, 3, 3)
    found = diagnose(halved(scheduler, 12, noisy(0.1)), SPACE, scheduler, [False])
    assert (found.rungs[0].n, found.rungs[0].kendall, found.min_budget) == (4, None, None)
    assert str(found) == (
        "From budget 1 to 3 (4 of 12 trials): too few trials to tell; 12 are needed at both."
    )
    assert str(diagnose([], SPACE, RunToEnd(), [False])) == "This study compares trials at one budget alone."


def test_trials_that_fail_on_the_way_rank_last():
    scheduler = ASHA(1, 3, 3, audit=0.2)
    values = [(float(i), float(i)) for i in range(60)]
    full = study(values, scheduler)
    failing = study(
        [v if i >= 10 else v[:1] for i, v in enumerate(values)],
        scheduler,
        dict.fromkeys(range(10), State.FAILED),
    )
    failing = [Trial(t.number, t.config, t.state, 3, observations=t.observations) for t in failing]
    one, two = (diagnose(t, SPACE, scheduler, [False]).rungs[0] for t in (full, failing))
    assert one.n == two.n
    assert one.kendall.value == pytest.approx(1)
    assert two.kendall.value < 0.8


@pytest.mark.parametrize(
    ("slow", "values"), [("x", "large values"), ("z", "small values"), ("c", "`c` = 'b'")]
)
def test_slow_starters_are_found(slow, values):
    """They lose at the lower rung what they have in hand at the upper one."""
    scheduler, draws = ASHA(1, 3, 3, audit=0.2), random.Random(5)
    level = [draws.gauss(0, 0.5) for _ in range(400)]
    trials = halved(scheduler, 400, lambda i, k: level[i])
    delay = {"x": lambda c: c["x"], "z": lambda c: 1 - c["z"], "c": lambda c: c["c"] == "b"}[slow]
    late = [level[t.number] - 1.5 * delay(t.config) for t in trials]
    found = diagnose(
        halved(scheduler, 400, lambda i, k: late[i] if k else level[i]), SPACE, scheduler, [False]
    )
    assert [(s.parameter, s.values) for s in found.slow_starts] == [(slow, values)]
    assert "start slowly" in str(found)
    assert found.min_budget == 3


def test_false_alarms_of_slow_starters_are_rare():
    scheduler = ASHA(1, 3, 3, audit=0.2)
    alarms = sum(
        bool(diagnose(halved(scheduler, 120, noisy(0.7, seed)), SPACE, scheduler, [False]).slow_starts)
        for seed in range(40)
    )
    assert alarms <= 6  # two are expected


def test_it_is_the_same_every_time_and_leaves_the_study_as_it_is():
    scheduler = ASHA(1, 3, 3, audit=0.2)
    trials = halved(scheduler, 100, noisy(0.5))
    assert diagnose(trials, SPACE, scheduler, [False]) == diagnose(list(trials), SPACE, scheduler, [False])


@pytest.mark.parametrize(
    "scheduler", [ASHA(1, 9, 3, audit=0.1), ASHA(1, 9, 3, stopping=True), Hyperband(1, 9, 3)]
)
def test_a_real_study(scheduler):
    def curve(config, budget):
        return (config["x"] - 0.3) ** 2 + config["z"] / budget, budget

    found = simulate(
        SPACE, curve, scheduler=scheduler, suggester=RandomSuggester(), workers=4, n_trials=150, device="cpu"
    )
    told = found.study.diagnose()
    assert [(r.low, r.high) for r in told.rungs] == [(1, 3), (3, 9)]
    assert told.rungs[0].kendall is not None
    assert str(told)
    assert all(math.isfinite(r.kendall.value) for r in told.rungs if r.kendall)


def test_a_study_without_budgets():
    study = Study(SPACE, device="cpu")
    assert study.diagnose().rungs == ()
