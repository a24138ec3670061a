"""What every job does with its folder and data."""

import pytest

from contraux.core.training.run_folder import in_turn


def test_data_are_loaded_once_by_one_process_and_may_be_none():
    calls = []
    assert in_turn(lambda: calls.append("loaded")) is None  # as where there is no test split
    assert calls == ["loaded"] and in_turn(lambda: 3) == 3


def test_what_loading_finds_wrong_is_raised():
    with pytest.raises(ValueError, match="no such data"):
        in_turn(lambda: (_ for _ in ()).throw(ValueError("no such data")))
