"""The statistics of a comparison, on numbers small enough to check by hand."""

import numpy as np
import pytest
from rich.console import Console

from contraux.agents.report import (
    as_markdown,
    as_values,
    findings,
    identical_weights,
    measures,
    rows,
    show,
    values,
)
from contraux.agents.result import completed, learning_curve, read_episodes, success_curve
from contraux.core.comparison.table import iqm
from contraux.core.paired import RULE, paired


def result(area, weights="w", status="completed", cpu=10.0):
    if status != "completed":
        return {"status": status, "error": "the sentence"}
    return {
        "status": status, "area": area, "final_return": 2 * area, "weights": weights, "cpu_seconds": cpu,
        "evaluation": {"mean": 3 * area, "sd": 1.0, "episodes": 4},
    }  # fmt: skip


RESULTS = {
    "base": {seed: result(float(seed), f"w{seed}") for seed in range(1, 7)},
    "weight_0": {seed: result(float(seed), f"w{seed}", cpu=15.0) for seed in range(1, 7)},
    "auxiliary": {seed: result(seed + 10.0 + seed % 2, f"x{seed}", cpu=12.0) for seed in range(1, 6)}
    | {6: result(0, status="failed")},
}


def test_iqm_leaves_out_the_lowest_and_highest_quarter():
    assert iqm([0, 1, 2, 3, 4, 5, 6, 100]) == (2 + 3 + 4 + 5) / 4
    assert iqm([1, 2, 6]) == 3  # of three, floor(3 / 4) = 0 are left out


def test_paired_difference_by_hand():
    found = paired({1: 5.0, 2: 7.0, 3: 1.0, 9: 100.0}, {1: 4.0, 2: 4.0, 3: 3.0})
    assert (found.mean, found.up, found.pairs) == (pytest.approx(2 / 3), 2, 3)  # +1, +3, -2; seed 9 has no partner
    assert -2 <= found.low < 2 / 3 < found.high <= 3
    assert found == paired({1: 5.0, 2: 7.0, 3: 1.0}, {1: 4.0, 2: 4.0, 3: 3.0})
    assert paired({1: 1.0}, {2: 1.0}) is None


def test_the_interval_covers_a_known_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        draws = rng.normal(1.0, 1.0, 30)
        found = paired(dict(enumerate(draws)), dict.fromkeys(range(30), 0.0))
        covered += found.low <= 1.0 <= found.high
    assert 86 <= covered <= 100


def test_failed_runs_are_counted_and_named_never_dropped():
    assert len(values(RESULTS, "auxiliary", "area")) == 5
    row = next(row for row in rows(RESULTS) if row[1] == "auxiliary")
    assert row[2] == "5/6"
    console = Console(record=True, width=140)
    show(RESULTS, console)
    text = console.export_text()
    assert "did not complete" in text and "the sentence" in text
    assert "the sentence" in as_markdown("x", RESULTS)
    assert as_values("x", RESULTS)["arms"]["auxiliary"]["planned"] == 6


def test_an_arm_is_compared_with_its_control_too():
    arms = {name: {seed: result(seed + add, f"{name}{seed}") for seed in range(1, 7)}
            for name, add in (("base", 0), ("views", 1), ("both", 3), ("last", 4))}  # fmt: skip
    said = findings(arms, {"both": "views", "last": "both", "gone": "views", "views": "base"})
    assert [one.split(":")[0] for one in said] == [
        "views − base", "both − base", "last − base", "last − views", "last − both", "both − views"
    ]  # fmt: skip
    assert "area +2.0 [2.0, 2.0], 6 of 6 seeds up: a gain" in said[-1]
    assert "both − views" in as_markdown("x", arms, {"both": "views"})


def test_weights_and_words():
    assert identical_weights(RESULTS, "weight_0") == (6, 6)
    assert identical_weights(RESULTS, "auxiliary") == (0, 5)
    words = "\n".join(findings(RESULTS))
    assert "auxiliary" in words and "a gain" in words
    losing = {"base": RESULTS["base"], "auxiliary": {seed: result(seed - 10.0) for seed in range(1, 7)}}
    assert "a loss" in "\n".join(findings(losing))
    even = {"base": RESULTS["base"], "auxiliary": {s: result(s + (-1.0) ** s) for s in range(1, 7)}}
    assert "no difference shown" in "\n".join(findings(even))
    # three of five seeds far up take the interval away from 0, and yet two of five went down
    mixed = {"base": {s: result(0.0, f"w{s}") for s in range(5)},
             "auxiliary": {s: result(v, f"x{s}") for s, v in enumerate((5.0, 5.0, 5.0, -0.1, -0.1))}}  # fmt: skip
    found = findings(mixed)[0]
    assert "3 of 5 seeds up: no difference shown, the seeds disagree" in found and "a gain" not in found
    assert RULE in as_markdown("x", mixed) and "80 % of at least 5 seeds" in RULE
    few = {"base": {1: result(1.0), 2: result(2.0)}, "auxiliary": {1: result(5.0, "x"), 2: result(6.0, "y")}}
    assert "too few seeds" in "\n".join(findings(few))


def test_learning_curve_by_hand(tmp_path):
    steps, returns = np.array([10.0, 20, 30, 40]), np.array([1.0, 3, 5, 7])
    np.testing.assert_allclose(learning_curve(steps, returns, np.array([5.0, 10, 25, 40])), [np.nan, 1, 2, 4])
    many = np.arange(150.0)
    assert learning_curve(many, many, np.array([149.0]))[0] == np.mean(np.arange(50, 150))
    numbers = completed(steps, returns, steps=50, evaluation=np.array([1.0, 3.0]))
    assert numbers["area"] == np.mean([1, 2, 3, 4, 4])  # at 10, 20, 30, 40, 50
    assert numbers["final_return"] == 4 and numbers["evaluation"]["sd"] == 1
    (tmp_path / "e.csv").write_text("step,return,length\n10,1.5,3\n20,2.5,4\n")
    found = read_episodes(tmp_path / "e.csv")
    np.testing.assert_array_equal(found[0], [10, 20])
    np.testing.assert_array_equal(found[1], [1.5, 2.5])


def test_no_episode_is_a_dash_and_no_crash():
    empty = completed(np.array([]), np.array([]), steps=10, evaluation=np.array([1.0]))
    assert empty["area"] is None and empty["final_return"] is None


def test_success_is_reported_where_the_environment_knows_it(tmp_path):
    assert "success" not in measures(RESULTS) and "success" not in as_markdown("x", RESULTS)
    reached = {
        arm: {seed: result(1.0, f"{arm}{seed}") | {"success": level + seed} for seed in range(1, 7)}
        for arm, level in (("base", 10.0), ("goal", 60.0))
    }
    table = as_markdown("x", reached)
    assert "| final success, % | base | 6/6 | 13.5 ± 1.9 |" in table and "+50.0 [50.0, 50.0] | 6/6 |" in table
    assert "final success +50.0 [50.0, 50.0], 6 of 6 seeds up: a gain" in findings(reached)[0]
    assert completed(np.array([1.0]), np.array([1.0]), steps=1, evaluation=np.array([1.0]),
                     successes=np.array([True, False, False, False]))["success"] == 25  # fmt: skip
    np.savez(tmp_path / "a.npz", timesteps=[10, 20, 20], successes=[[0, 0], [1, 0], [1, 1]])
    steps, shares = success_curve(tmp_path / "a.npz")
    assert steps.tolist() == [10, 20] and shares.tolist() == [0, 100]
    np.savez(tmp_path / "b.npz", timesteps=[10])
    assert all(len(found) == 0 for found in success_curve(tmp_path / "b.npz"))


def test_small_returns_have_three_decimals_and_an_inert_last_arm_is_not_compared_again():
    small = {
        arm: {seed: result(one.get("area", 0.0) / 100, one.get("weights"), one["status"]) for seed, one in runs.items()}
        for arm, runs in RESULTS.items()
    }
    assert rows(RESULTS)[0][3] == "3.5 ± 1.9" and rows(small)[0][3] == "0.035 ± 0.019"
    assert "area +0.106" in findings(small)[1]
    reordered = {arm: RESULTS[arm] for arm in ("base", "auxiliary", "weight_0")}
    assert [sentence.split(":")[0] for sentence in findings(reordered)] == ["auxiliary − base", "weight_0"]
