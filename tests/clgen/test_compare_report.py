"""What a comparison of generative runs says, on numbers small enough to check by hand."""

import pytest

from contraux.clgen.charts import Curve, draw_curves, draw_differences
from contraux.clgen.compare import curves_by_arm
from contraux.clgen.measures import compared, direction, metrics_of, values
from contraux.clgen.report import as_markdown, as_values, findings, header, notes, rows
from contraux.core.comparison import Run


def result(frechet, coverage, seconds=10.0, **more):
    metrics = {"digits": {"frechet": frechet, "coverage": coverage, "frechet_floor": 0.5}, "note": "text"}
    return {"status": "completed", "metrics": metrics, "seconds": seconds, "steps": 100, **more}


RESULTS = {
    "base": {seed: result(8.0 + seed, 0.30) for seed in range(5)},
    "diffaug": {seed: result(9.0 + seed, 0.30 + (-1) ** seed / 100, 11.0) for seed in range(5)},
    # lower frechet is better than base in each seed; coverage is lower, which is worse
    "contrad": {seed: result(6.0 + 0.5 * seed, 0.25, 15.0) for seed in range(5)},
}
METRICS = ["digits.frechet", "digits.coverage", "digits.frechet_floor"]
CONTROLS = {"contrad": "diffaug"}


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("digits.frechet", "lower"),
        ("random_kernel_distance", "lower"),
        ("steps_10_frechet/digits_cnn", "lower"),
        ("shifted_error_50", "lower"),
        ("missing_classes/digits_cnn", "lower"),
        ("class_variation/digits_cnn", "lower"),
        ("intra_class_frechet/random_cnn", "lower"),
        ("class_agreement/digits_cnn", "higher"),
        ("recall", "higher"),
        ("probe_0.6", "higher"),
        ("frechet_floor", None),
        ("effective_rank_0.3", None),
        ("classes", None),
    ],
)
def test_which_way_is_better_stands_in_the_name(name, better):
    assert direction(name) == better


def test_metrics_are_the_numbers_and_may_be_chosen():
    assert metrics_of(RESULTS) == METRICS
    assert metrics_of(RESULTS, ["*coverage", "digits.*", "nothing"]) == [METRICS[1], METRICS[0], METRICS[2]]
    broken = {"base": {0: result(float("nan"), 0.3), 1: {"status": "failed", "metrics": {"digits": {"frechet": 1.0}}}}}
    assert values(broken, "base", "digits.frechet") == {} and metrics_of(broken)[0] == "digits.coverage"


def test_seeds_better_follow_the_direction():
    frechet, coverage, floor = compared(RESULTS, METRICS, "contrad", "base")
    assert frechet.difference.mean == pytest.approx(-3.0)  # -2, -2.5, -3, -3.5, -4
    assert (frechet.better, frechet.finding) == (5, "a gain")
    assert (coverage.better, coverage.finding) == (0, "a loss")
    assert floor.finding == "no difference shown"
    assert compared_sign(RESULTS, "diffaug") == ["a loss", "no difference shown", "no difference shown"]


def compared_sign(results, arm):
    return [found.finding for found in compared(results, METRICS, arm, "base")]


def test_rows_by_hand():
    table = rows(RESULTS, METRICS, CONTROLS)
    assert all(len(row) == len(header(CONTROLS)) for row in table)
    first, second, third = table[:3]
    assert first == ("digits.frechet ↓", "base", "5/5", "10.0 ± 1.6", "10.0", "", "", "", "")
    assert second[5:] == ("+1.0 [1.0, 1.0]", "0/5", "", "")
    assert third[4:7] == ("7.0", "-3.0 [-3.6, -2.4]", "5/5") and third[8] == "5/5"
    assert third[7].startswith("-4.0 [")
    seconds = next(row for row in table if row[0] == "" and row[1] == "contrad" and row[3] == "15.0 ± 0.0")
    assert seconds[5] == "1.50 x" and seconds[7] == "1.36 x"
    assert len(rows(RESULTS, METRICS, {})[0]) == len(header({})) == 7


def test_findings_name_gains_losses_and_the_control():
    contrad = findings(RESULTS, METRICS, CONTROLS)
    assert contrad[1] == (
        "contrad − base: a gain: digits.frechet; a loss: digits.coverage; no difference shown: digits.frechet floor"
    )
    assert contrad[2].startswith("contrad − diffaug: a gain: digits.frechet; a loss: digits.coverage")
    few = {arm: {seed: runs[seed] for seed in range(3)} for arm, runs in RESULTS.items()}
    assert "too few seeds to tell" in findings(few, METRICS, {})[0]
    assert any(note.startswith("Fewer than 5 seeds, 3 in") for note in notes(few, METRICS, {}))
    assert not any(note.startswith("Fewer") for note in notes(RESULTS, METRICS, {}))
    assert notes(RESULTS, METRICS, CONTROLS)[-1].startswith("9 differences")


def test_runs_that_failed_are_counted_and_named():
    lost = {**RESULTS, "contrad": {**RESULTS["contrad"], 4: {"status": "failed", "error": "the sentence"}}}
    page = as_markdown("x", lost, METRICS, CONTROLS)
    assert "| contrad | 4/5 |" in page and "contrad seed 4: failed, the sentence" in page
    saved = as_values("x", lost, METRICS, CONTROLS)
    assert saved["arms"]["contrad"]["planned"] == 5 and saved["arms"]["contrad"]["digits.frechet"]["runs"] == 4
    assert saved["arms"]["contrad"]["digits.frechet"]["difference_to_control"]["pairs"] == 4
    assert saved["better"]["digits.frechet"] == "lower"
    nothing = {"base": {0: {"status": "never started"}}, "x": {0: {"status": "running"}}}
    assert "nothing to compare" in as_markdown("x", nothing, metrics_of(nothing), {})


def test_pictures(tmp_path):
    lost = {**RESULTS, "contrad": {**RESULTS["contrad"], 4: {"status": "failed"}}}
    assert draw_differences(RESULTS, METRICS, CONTROLS, "x", tmp_path / "d.png")
    assert not draw_differences({"base": RESULTS["base"]}, METRICS, {}, "x", tmp_path / "none.png")
    runs = [Run(arm, seed, tmp_path / arm / str(seed), []) for arm, found in lost.items() for seed in found]
    curves = curves_by_arm(lost, runs, lambda folder: {"probe": Curve([0.1, 0.5], [0.9, int(folder.name) / 10], "t")})
    assert list(curves) == ["probe"] and {arm: len(own) for arm, own in curves["probe"].items()} == {
        "base": 5, "diffaug": 5, "contrad": 4
    }  # fmt: skip
    assert curves["probe"]["contrad"][3].y == [0.9, 0.3]
    assert draw_curves(curves, "x", tmp_path / "c.png") and not draw_curves({}, "x", tmp_path / "none.png")
    assert {path.name for path in tmp_path.iterdir()} == {"d.png", "c.png"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())
