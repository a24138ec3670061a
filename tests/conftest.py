"""One thread: the tests are small, and the same arithmetic order on every machine makes bit comparisons meaningful."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded, and for the commands that tests run

import pytest
import torch
from launcher import Launcher

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _in_a_scratch_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def contraux(tmp_path_factory):
    """What starts the command line: `contraux.run(*words, cwd=folder)`."""
    with Launcher(tmp_path_factory.mktemp("streams"), "contraux.core.pretraining.job") as launcher:
        yield launcher


@pytest.fixture(scope="session")
def contraux_rl(tmp_path_factory):
    """The same for jobs with agents, whose imports take longer than what most of their tests then do."""
    with Launcher(tmp_path_factory.mktemp("streams"), "contraux.agents.job", "sb3_contrib", "ale_py") as launcher:
        yield launcher
