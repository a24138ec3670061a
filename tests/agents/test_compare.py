"""`contraux compare` for real: arms and seeds in parallel, killed and continued, with a run that fails."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("contraux")
SMALL = [
    "compare", "experiment=noisy_cartpole", "compare.seeds=2", "steps=2048", "agent.n_epochs=2",
    "evaluation.episodes=2",
    "~compare.arms.equal_compute", "~compare.arms.sham", "hydra.launcher.n_jobs=2",
]  # fmt: skip


def contraux(*words, cwd):
    return subprocess.run([PROGRAM, *words], cwd=cwd, capture_output=True, text=True, timeout=400)


def results(folder):
    return {path.parent: json.loads(path.read_text()) for path in folder.glob("runs/compare/*/*/seed_*/result.json")}


def test_killed_then_continued_with_a_failing_arm(tmp_path):
    words = [*SMALL, "+compare.arms.too_long=['auxiliary.k=600']"]
    process = subprocess.Popen([PROGRAM, *words], cwd=tmp_path, start_new_session=True, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)  # fmt: skip
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not any(r["status"] == "completed" for r in results(tmp_path).values()):
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = {run: (run / "result.json").stat().st_mtime_ns for run, found in results(tmp_path).items()
                if found["status"] == "completed"}  # fmt: skip
    assert finished

    done = contraux(*words, cwd=tmp_path)
    assert done.returncode == 1, done.stderr  # some runs failed, and the exit code says so
    assert "runs are done already" in done.stdout
    for run, written in finished.items():
        assert (run / "result.json").stat().st_mtime_ns == written
    statuses = {str(run.relative_to(tmp_path / "runs/compare/noisy_cartpole")): found["status"]
                for run, found in results(tmp_path).items()}  # fmt: skip
    assert statuses == {f"{arm}/seed_{seed}": "failed" if arm == "too_long" else "completed"
                        for arm in ("base", "weight_0", "auxiliary", "too_long") for seed in (0, 1)}  # fmt: skip
    assert "did not complete" in done.stdout and "k must be smaller" in done.stdout
    folder = tmp_path / "runs/compare/noisy_cartpole"
    values = json.loads((folder / "results.json").read_text())
    assert values["arms"]["weight_0"]["weights_identical_to_base"] == {"seeds": 2, "of": 2}
    assert values["arms"]["auxiliary"]["weights_identical_to_base"]["seeds"] == 0
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "k must be smaller" in (folder / "table.md").read_text()

    other = contraux(*SMALL, "agent.gamma=0.5", cwd=tmp_path)
    assert other.returncode == 2 and "was made with agent.gamma=0.99, now 0.5" in other.stderr
