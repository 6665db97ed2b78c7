import json

from gpbo.stores.rows import from_row, to_row
from gpbo.trial import Observation, State, Trial

TRIAL = Trial(
    0, {"x": 0.5}, State.COMPLETE, observations=(Observation((1.0,), 3.0, 0.25), Observation((2.0,)))
)


def test_a_row_of_before_there_were_outcomes_is_read_and_written_as_it_was():
    row = to_row(TRIAL)
    assert json.loads(row["observations"]) == [[[1.0], 3.0, 0.25], [[2.0], None, None]]
    assert from_row(row) == TRIAL


def test_outcomes_come_last():
    seen = Observation((1.0, 2.0), outcomes={"latency": 0.1 + 0.2, "val/acc": -0.0})
    trial = Trial(0, {"x": 0.5}, State.COMPLETE, observations=(seen,))
    row = to_row(trial)
    assert row["observations"] == (
        '[[[1.0, 2.0], null, null, {"latency": 0.30000000000000004, "val/acc": -0.0}]]'
    )
    assert from_row(row) == trial
