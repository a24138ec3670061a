"""What a run was made with: versions of the libraries, and the git revision of the code."""

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

LIBRARIES = (
    "contraux", "torch", "torchvision", "stable-baselines3", "sb3-contrib", "gymnasium", "ale-py", "numpy", "scipy",
    "hydra-core", "safetensors", "accelerate", "timm", "datasets", "huggingface_hub", "scikit-learn",
    "diffusers", "torch-fidelity", "torchmetrics",
)  # fmt: skip
PACKAGE = Path(__file__).resolve().parent.parent


def versions() -> dict[str, Any]:
    """Return the versions of Python and the libraries (None where one is not installed), and two git revisions.

    `git` has the revision of contraux itself, where it runs from a git checkout, and of the tree one works in.
    """
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "git": {"contraux": git_revision(PACKAGE, top=True), "working directory": git_revision(Path.cwd())},
    }


def git_revision(folder: Path, *, top: bool = False) -> dict[str, Any] | None:
    """Return the commit checked out at `folder` and whether files differ from it; None outside git.

    With `top`, only a folder that is itself the top of a checkout counts: a package installed below somebody else's
    repository does not have that repository's revision.
    """
    root = _git(folder, "rev-parse", "--show-toplevel")
    if root is None or (top and Path(root).resolve() != folder.resolve()):
        return None
    return {"revision": _git(folder, "rev-parse", "HEAD"), "dirty": bool(_git(folder, "status", "--porcelain"))}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
