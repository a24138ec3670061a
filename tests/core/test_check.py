import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import contraux.core
from contraux.core.check import choice, number, whole


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (-1.0, "temperature must be a number > 0, got -1.0"),
        (0, "temperature must be a number > 0, got 0"),
        (math.inf, "temperature must be a finite number > 0, got inf"),
        (math.nan, "temperature must be a finite number > 0, got nan"),
        (True, "temperature must be a number > 0, got True"),
        ("hot", "temperature must be a number > 0, got 'hot'"),
    ],
)
def test_number_says_the_rule_and_the_value(value, sentence):
    with pytest.raises(ValueError) as error:
        number("temperature", value, 0.0, above=True)
    assert str(error.value) == sentence


def test_number_ranges():
    assert number("momentum", 0, 0.0, 1.0, below=True) == 0.0
    assert number("x", np.float32(0.5)) == 0.5
    with pytest.raises(ValueError, match=r"momentum must be a number in \[0, 1\), got 1.0"):
        number("momentum", 1.0, 0.0, 1.0, below=True)
    with pytest.raises(ValueError, match=r"x must be a number <= 3, got 4"):
        number("x", 4, high=3)
    with pytest.raises(ValueError, match=r"x must be a finite number, got inf"):
        number("x", math.inf)


def test_whole():
    assert whole("pad", np.int64(3), 1) == 3
    for wrong in (0, 1.0, True, None):
        with pytest.raises(ValueError, match=f"pad must be a whole number >= 1, got {wrong}"):
            whole("pad", wrong, 1)


def test_choice_names_the_nearest():
    with pytest.raises(ValueError, match=r"unknown preset 'crul': did you mean curl\? There are: atc, curl, temporal"):
        choice("preset", "crul", ["temporal", "curl", "atc"])


def test_the_folder_refuses_to_be_plain_core():
    root = Path(contraux.core.__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", "import core"], cwd=root, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "contraux.core" in run.stderr and "ImportError" in run.stderr


def test_importing_the_core_does_not_load_hydra():
    code = "import sys, contraux.core; sys.exit('hydra' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
