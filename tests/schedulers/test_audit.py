import pytest

from gpbo.errors import SettingError
from gpbo.schedulers.asha import ASHA
from gpbo.schedulers.audit import audit_chance, is_audited
from gpbo.trial import Observation, Resume, Start, State, Trial


def trial(number, state, budget, *seen):
    return Trial(number, {}, state, budget, observations=tuple(Observation((v,), b) for v, b in seen))


def test_the_chance_by_hand():
    """Of 300 trials at eta 3, 100 are sent on for their value, and 1 / 20 of all sent on are 100 / 19."""
    assert audit_chance(0.05, 3) * 200 == pytest.approx(100 / 19)
    assert audit_chance(0.5, 2) == 1


def test_draws_are_as_frequent_as_they_should_be_and_differ_between_rungs():
    drawn = [{i for i in range(20_000) if is_audited(i, k, 0.1)} for k in (0, 1)]
    for one in drawn:
        assert len(one) == pytest.approx(2000, abs=4 * (20_000 * 0.1 * 0.9) ** 0.5)
    assert len(drawn[0] & drawn[1]) == pytest.approx(200, abs=60)
    assert not any(is_audited(i, 0, 0.0) for i in range(100))
    assert all(is_audited(i, 0, 1.0) for i in range(100))


FIRST = next(i for i in range(999) if ASHA(audit=0.05).audits(i, 0))


def test_an_audit_follows_the_promotions_and_precedes_new_configs():
    scheduler = ASHA(1, 9, delay=False, audit=0.05)
    trials = [trial(i, State.PAUSED, 1, (float(i), 1)) for i in range(FIRST + 1)]
    n = len(trials) // 3
    done = [trial(i, State.COMPLETE, 9, (float(i), 1), (0.0, 3), (0.0, 9)) for i in range(n)]
    assert scheduler.next(trials) == Resume(0, 3)
    assert scheduler.next(done + trials[n:]) == Resume(FIRST, 3)
    assert ASHA(1, 9, delay=False).next(done + trials[n:]) == Start(1)
    sent = trial(FIRST, State.RUNNING, 3, (float(FIRST), 1))
    assert scheduler.next([*done, *trials[n:-1], sent]) == Start(1)


def test_the_share_of_audits(simulation):
    """Of those sent on, and of each rung; the order of values is the trials' own."""
    import random

    values = random.Random(1).sample(range(9999), 9999)
    for options in ({"delay": False}, {"delay": True}, {"stopping": True}):
        scheduler = ASHA(1, 9, 3, audit=0.2, **options)
        trials = simulation(scheduler, lambda i, _: float(values[i])).run(3000).trials
        at_low = [t for t in trials if any(o.budget == 1 for o in t.observations)]
        ranked = sorted(at_low, key=lambda t: values[t.number])
        sent = {t.number for t in trials if any(o.budget == 3 for o in t.observations)}
        bad = ranked[len(ranked) // 2 :]  # whoever is here was not sent on for its value, but for the first
        assert all(t.number in sent for t in bad if scheduler.audits(t.number, 0))
        assert sum(t.number in sent and not scheduler.audits(t.number, 0) for t in bad) < 0.03 * len(bad)
        extra = sum(scheduler.audits(t.number, 0) for t in ranked[len(ranked) // 3 :])
        assert extra / len(sent) == pytest.approx(0.2, abs=0.04)


def test_audits_take_no_place_from_the_best(simulation):
    scheduler = ASHA(1, 27, 3, delay=True, audit=0.2)
    trials = simulation(scheduler, lambda i, _: float(i * 7919 % 9973)).run(3000).trials
    at_low = sorted((t for t in trials if t.observations), key=lambda t: t.observations[0].value)
    best = at_low[: len(at_low) // 4]
    assert sum(len(t.observations) > 1 for t in best) > 0.97 * len(best)


def test_stopping_spares_the_audited_for_one_rung():
    scheduler = ASHA(1, 9, stopping=True, audit=0.05)
    others = [trial(i, State.STOPPED, 9, (0.0, 1)) for i in range(FIRST)]
    low = trial(FIRST, State.RUNNING, 9, (1.0, 1))
    assert scheduler.judge([*others, low], FIRST) is State.RUNNING
    assert ASHA(1, 9, stopping=True).judge([*others, low], FIRST) is State.STOPPED
    assert not scheduler.audits(FIRST, 1)
    next_rung = trial(FIRST, State.RUNNING, 9, (1.0, 1), (-1.0, 3))
    assert scheduler.judge([*others, next_rung], FIRST) is State.STOPPED  # by the rung before


@pytest.mark.parametrize("audit", [-0.1, 0.6, float("nan"), "some"])
def test_the_share_is_checked(audit):
    with pytest.raises(SettingError, match="`audit` must be"):
        ASHA(audit=audit)
