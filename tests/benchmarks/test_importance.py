import math

import pytest

from benchmarks.importance import main, truth


def test_the_truth_of_the_ishigami_function():
    first, total = truth("ishigami").reshape(2, 3).tolist()
    V1, V13 = 0.5 * (1.0 + math.pi**4 / 50.0) ** 2, 0.01 * math.pi**8 * (1.0 / 18.0 - 1.0 / 50.0)
    V = V1 + 49.0 / 8.0 + V13
    assert first == pytest.approx([V1 / V, 49.0 / 8.0 / V, 0.0], abs=0.01)
    assert total == pytest.approx([(V1 + V13) / V, 49.0 / 8.0 / V, V13 / V], abs=0.01)


def test_a_row_for_every_design(capsys):
    main(["--seeds", "1", "--functions", "training", "--designs", "sobol-8,search-6"])
    *_, first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("| training | 8, sobol | ")
    assert second.startswith("| training | 6, search | ")
