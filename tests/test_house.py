"""The house itself: the package list is the folders, imports point one way, and the built wheel works elsewhere."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import contraux

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
NOT_SHIPPED = {"tests", "benchmarks", "docs", "examples", "build", "dist", "runs"}


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_package_list_is_the_folders_with_code():
    folders = {
        path.parent.relative_to(ROOT)
        for path in ROOT.glob("**/__init__.py")
        if not any(part.startswith(".") or part in NOT_SHIPPED for part in path.relative_to(ROOT).parts)
    }
    named = {".".join(("contraux", *folder.parts)) for folder in folders}
    assert sorted(named) == sorted(project()["tool"]["setuptools"]["packages"])


def test_no_folder_with_code_lacks_its_init():
    for path in ROOT.glob("**/*.py"):
        parts = path.relative_to(ROOT).parts
        if not any(part.startswith(".") or part in NOT_SHIPPED for part in parts):
            assert (path.parent / "__init__.py").exists(), path


def test_imports_point_one_way():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_core_refuses_to_be_imported_by_its_bare_name():
    done = subprocess.run([sys.executable, "-c", "import core"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "contraux.core" in done.stderr


def test_lower_bounds_admit_what_they_must():
    from packaging.requirements import Requirement

    bounds = {Requirement(one).name: Requirement(one).specifier for one in project()["project"]["dependencies"]}
    assert bounds["torch"].contains("2.11.0")
    assert bounds["torchvision"].contains("0.26.0")
    for asked_for in (
        "torch",
        "torchvision",
        "gymnasium",
        "stable-baselines3",
        "diffusers",
        "hydra-core",
        "accelerate",
    ):
        assert asked_for in bounds


def test_constraints_are_versions_only():
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):  # "name==version", perhaps with a marker
            assert "==" in line, line
            assert "://" not in line, line
            assert "@" not in line, line


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    leave_out = shutil.ignore_patterns(".*", "runs", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, folder / "source", ignore=leave_out)  # so that the build leaves nothing in the checkout
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, folder / "source"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("contraux-*.whl"))


def test_the_wheel_holds_code_and_configs_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"contraux", f"contraux-{contraux.__version__}.dist-info"}
    assert "contraux/configs/objective/curl.yaml" in names
    assert "contraux/py.typed" in names
    assert not [name for name in names if "tests/" in name or "benchmarks/" in name]
    shipped = {name.removeprefix("contraux/") for name in names if name.endswith((".py", ".yaml"))}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    if tracked:  # an unpacked source archive has no history to ask
        ours = {name for name in tracked if name.endswith((".py", ".yaml")) and name.split("/")[0] not in NOT_SHIPPED}
        assert {name for name in ours if not name.startswith(".")} <= shipped


def test_the_installed_wheel_imports_and_runs(wheel, tmp_path):
    """A new environment that sees the dependencies of this one, but of contraux only the wheel."""
    venv.create(tmp_path / "env", with_pip=True, symlinks=True)
    python = tmp_path / "env" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True, capture_output=True)
    site = next((tmp_path / "env" / "lib").glob("python*/site-packages"))
    here = [path for path in sys.path if path.endswith("site-packages")]
    clean = "import sys; sys.meta_path = [f for f in sys.meta_path if 'editable' not in getattr(f, '__module__', '')]"
    site.joinpath("dependencies.pth").write_text("\n".join([*here, clean]) + "\n")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    code = "import contraux, contraux.agents; print(contraux.__file__)"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert str(site) in done.stdout
    run = [
        tmp_path / "env" / "bin" / "contraux",
        "rl",
        "env=cartpole",
        "steps=256",
        "agent.n_steps=32",
        "evaluation.episodes=1",
    ]
    done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.glob("runs/rl/*/checkpoint/model.zip"))
