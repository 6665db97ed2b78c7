import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmarks import compare, report
from gpbo.errors import SettingError


def a_run(problem, peer, seed, values, **more):
    n = len(values)
    return {
        "problem": problem, "peer": peer, "seed": seed, "evaluations": n, "initial": "own", "device": "cpu",
        "split": "dev", "direction": "minimize", "optimum": 0.0, "worst": None, "values": list(values),
        "error": None,
        "ask_seconds": [0.1] * n, "ask_cpu_seconds": [0.1] * n, "tell_seconds": [0.0] * n,
        "tell_cpu_seconds": [0.0] * n, "rejections": 0, **more,
    }  # fmt: skip


def test_regret_by_hand():
    run = a_run("g/a", "p", 0, [8, 9, 4, 6, 3, 7, 2, 5])
    # best after 2, 4 and 8 values: 8, 4, 2; with f* = 1 and f_ref = 11
    assert compare.regrets(run, 1.0, 11.0) == pytest.approx([0.7, 0.3, 0.1])


def test_regret_of_a_maximised_problem_by_hand():
    run = a_run("g/a", "p", 0, [1, 2, 6, 3], direction="maximize", optimum=10.0, worst=0.0)
    best, reference = compare.references([run])
    assert (best, reference) == (-10.0, 0.0)
    assert compare.regrets(run, best, reference) == pytest.approx([0.9, 0.8, 0.4])


def test_regret_is_cut_off_above_one_and_made_equal_below_a_millionth():
    assert compare.regrets(a_run("g/a", "p", 0, [50, 5, 1e-7, 4e-7]), 0.0, 10.0) == [1.0, 0.5, 0.0]


def test_the_reference_is_the_median_of_random_searchs_best_of_ten():
    runs = [a_run("g/a", "random", s, [20 + s] * 9 + [10 + s] + [0.5] * 10) for s in range(3)]
    runs.append(a_run("g/a", "other", 0, [3] * 20))
    assert compare.references(runs) == (0.0, 11.0)


def test_the_best_value_found_replaces_a_worse_best_known_one():
    assert compare.references([a_run("g/a", "random", 0, [5, 4], optimum=4.5)])[0] == 4.0
    assert compare.references([a_run("g/a", "random", 0, [5, 4], optimum=None)])[0] == 4.0


def test_without_a_reference_it_says_what_to_run():
    with pytest.raises(SettingError, match="g/a has no published worst value; run the peer 'random'"):
        compare.references([a_run("g/a", "p", 0, [1, 2])])


def table(n_seeds=8, problems=("g/a", "g/b"), shift=0.0):
    rng = np.random.default_rng(0)
    runs = []
    for problem in problems:
        for seed in range(n_seeds):
            common = rng.random()
            runs.append(a_run(problem, "random", seed, [10.0] * 20))
            runs.append(a_run(problem, "gpbo", seed, [9.0] * 10 + [2 + common] * 10, ask_seconds=[0.01] * 20))
            runs.append(a_run(problem, "rival", seed, [9.0] * 10 + [2 + common + shift] * 10))
    return runs


def test_means_ranks_and_ratios_by_hand():
    found = compare.tabulate(table(shift=1.0))
    problems = compare.groups(found)["g"]
    assert found.peers == ("random", "gpbo", "rival")
    mean = compare.mean_regret(found, problems)
    assert mean[0] == pytest.approx([1.0, 0.9, 0.9])
    assert mean[2, 2] - mean[2, 1] == pytest.approx(0.1)
    ranks = compare.mean_ranks(found, problems)
    assert ranks[0].tolist() == [3.0, 1.5, 1.5]
    assert ranks[2].tolist() == [3.0, 1.0, 2.0]
    last = compare.ratios(found, "gpbo", "rival", {"g": problems})[-1]
    assert last.value == pytest.approx(mean[2, 1] / mean[2, 2], rel=1e-4)
    assert last.low < last.value < last.high < 1
    assert compare.best_peer(found, "gpbo", {"g": problems}, ["random", "rival"]) == "rival"
    assert compare.time_ratio(found.spent, found, "gpbo", "rival") == pytest.approx(10)
    assert compare.time_ratio(found.ask, found, "gpbo", "rival") == pytest.approx(10)


def test_the_interval_of_two_equal_peers_is_a_point_because_it_is_paired():
    found = compare.tabulate(table())
    last = compare.ratios(found, "gpbo", "rival", compare.groups(found))[-1]
    assert (last.value, last.low, last.high) == pytest.approx((1.0, 1.0, 1.0))


def test_the_ratio_over_groups_is_the_geometric_mean():
    runs = table(problems=("g/a", "h/a"), shift=1.0)
    for run in runs:
        if run["problem"] == "h/a" and run["peer"] == "gpbo":
            run["values"] = [v * 2 for v in run["values"]]
    found = compare.tabulate(runs)
    by_group = compare.groups(found)
    each = [compare.ratios(found, "gpbo", "rival", {g: p})[-1].value for g, p in by_group.items()]
    both = compare.ratios(found, "gpbo", "rival", by_group)[-1].value
    assert both == pytest.approx((each[0] * each[1]) ** 0.5)
    assert each[1] > each[0]


def test_the_bootstrap_has_the_standard_error_of_the_mean_over_problems():
    rng = np.random.default_rng(1)
    values = rng.random(40)
    regret = {f"g/{i}": np.full((5, 3, 1), value) for i, value in enumerate(values)}
    found = compare.Table(("p",), regret, {}, {}, {})
    draws = compare.resampled(found, list(regret), np.random.default_rng(2))
    assert draws.shape == (compare.N_RESAMPLES, 3, 1)
    assert draws[:, 0, 0].mean() == pytest.approx(values.mean(), abs=0.01)
    assert draws[:, 0, 0].std() == pytest.approx(values.std() / np.sqrt(40), rel=0.05)


def test_pairs_are_counted_as_better_equal_and_worse():
    runs = table(n_seeds=4, problems=["g/a"], shift=0.5)
    for run in runs:
        if run["peer"] == "rival":  # 2 + common + 0.5: as gpbo's on seed 0, less on seed 1
            run["values"] = [value - {0: 0.5, 1: 0.7}.get(run["seed"], 0.0) for value in run["values"]]
    assert compare.pairs(compare.tabulate(runs), "gpbo", "rival") == (2, 1, 1)


def row_of(text, peer):
    (row,) = [line for line in text.splitlines() if line.startswith(f"| {peer} |")]
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_the_summary_and_the_ablations_by_hand():
    runs = table(n_seeds=4, problems=["g/a", "h/a"], shift=1.0)
    for run in list(runs):
        if run["peer"] == "gpbo":
            runs.append({**run, "peer": "gpbo-plain", "values": [min(v + 1.0, 9.5) for v in run["values"]]})
    found = compare.tabulate(runs)
    rivals, variants = report.summary(found, "gpbo"), report.summary(found, "gpbo", variants=True)
    ours, theirs = ([found.regret[p][:, -1, found.index(peer)].mean() for p in ("g/a", "h/a")]
                    for peer in ("gpbo", "rival"))  # fmt: skip
    means = [f"{mean:.3f}" for mean in (*ours, sum(ours) / 2)]
    assert row_of(rivals, "gpbo") == ["gpbo", *means, "", "", ""]
    share = (ours[0] / theirs[0] * ours[1] / theirs[1]) ** 0.5
    assert row_of(rivals, "rival")[4].startswith(f"{share:.3f} [")
    assert row_of(rivals, "rival")[5:] == ["8 / 0 / 0", "1x"]
    assert row_of(variants, "gpbo-plain")[1:6] == row_of(rivals, "rival")[1:6]
    assert row_of(variants, "gpbo-plain")[6] == "1x"
    assert "gpbo-plain" not in rivals
    assert "| rival |" not in variants
    assert "after 20 evaluations" in variants
    whole = report.report(found, "gpbo")
    assert "## Variants of gpbo\n\n" + variants in whole


def test_losses_name_the_problem_the_peer_and_the_p_value():
    found = compare.tabulate(table(n_seeds=10, shift=-1.0))
    losses = compare.losses(found, "gpbo", ["random", "rival"])
    assert [(loss.problem, loss.peer) for loss in losses] == [("g/a", "rival"), ("g/b", "rival")]
    # all ten differences have one sign: 1 / 2**10, twice that after Holm over two rivals
    assert losses[0].p == pytest.approx(2 / 2**10)
    assert losses[0].regret - losses[0].peer_regret == pytest.approx(0.1)


def test_equal_runs_are_no_loss():
    found = compare.tabulate(table())
    assert compare.losses(found, "gpbo", ["rival"]) == []
    assert compare.better(np.ones(5), np.ones(5)) == 1.0


def test_better_is_scipys_wilcoxon():
    rng = np.random.default_rng(0)
    one, two = rng.random(12), rng.random(12) + 0.2
    expected = stats.wilcoxon(one, two, alternative="less").pvalue
    assert compare.better(one, two) == pytest.approx(expected)


def test_holm_by_hand():
    assert compare.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p_values):
    corrected = compare.holm(p_values)
    assert all(c >= p and c <= 1 for c, p in zip(corrected, p_values, strict=True))
    assert [corrected[i] for i in np.argsort(p_values, kind="stable")] == sorted(corrected)


def test_blocks_that_not_all_finished_are_left_out_and_said_so():
    runs = table(n_seeds=3)
    runs[0]["error"] = "Traceback\nValueError: no"
    runs = [run for run in runs if not (run["problem"] == "g/b" and run["peer"] == "rival")]
    found = compare.tabulate(runs)
    assert len(found.regret["g/a"]) == 2
    assert "g/b" not in found.regret
    assert len(found.left_out) == 3
    text = report.report(found, "gpbo")
    assert "1 crashed: random: ValueError: no" in text
    assert "g/b: 3 of 3 seeds" in text


def test_a_problem_that_random_search_solves_is_left_out():
    runs = table(n_seeds=2)
    runs += [a_run("g/c", peer, s, [0.0] * 20) for peer in ("random", "gpbo", "rival") for s in range(2)]
    assert "g/c: the reference is no worse" in compare.tabulate(runs).left_out[0]


def test_what_cannot_be_compared_is_an_error():
    with pytest.raises(SettingError, match="runs of one length"):
        compare.tabulate([a_run("g/a", "random", 0, [1, 2]), a_run("g/a", "random", 1, [1, 2, 3])])
    with pytest.raises(SettingError, match="g/a random seed 0 is there twice"):
        compare.tabulate([a_run("g/a", "random", 0, [1, 2])] * 2)
    with pytest.raises(SettingError, match="no problem to compare the peers on"):
        compare.tabulate([a_run("g/a", "random", 0, [0.0, 0.0])])
    with pytest.raises(SettingError, match=r"`--subject` must be one of .* got 'x'"):
        report.report(compare.tabulate(table()), "x")
    with pytest.raises(SettingError, match=r"no variant of gpbo among \['random', 'gpbo', 'rival'\]"):
        report.summary(compare.tabulate(table()), "gpbo", variants=True)
    with pytest.raises(SettingError, match="no peer to compare random with"):
        report.summary(compare.tabulate([run for run in table() if run["peer"] == "random"]), "random")


def test_the_report_from_files(tmp_path, capsys):
    path = tmp_path / "runs.jsonl"
    path.write_text("".join(json.dumps(run) + "\n" for run in table(n_seeds=10, shift=-1.0)))
    assert report.main([str(path)]) == 0
    text = capsys.readouterr().out
    assert "**rival** (best peer)" in text
    assert "significantly better than gpbo on 2 of 2 problems (100 %" in text
    assert "2 problems, 20 blocks" in text
    kept = tmp_path / "new" / "table.jsonl"
    assert report.main([str(path), "--short", "--publish", str(kept)]) == 0
    short = capsys.readouterr().out
    assert report.main([str(kept), "--short"]) == 0
    assert capsys.readouterr().out == short
    assert report.main([str(path), "--ablations"]) == 2
    assert "no variant of gpbo" in capsys.readouterr().err
    assert report.main([str(path), "--problems", "g/a", "--split", "test"]) == 2
    assert "error:" in capsys.readouterr().err
