"""Folders that are whole whatever happens."""

import pytest

from contraux.core.files import existing, whole_folder


def test_a_failed_write_leaves_the_folder_before(tmp_path):
    folder = tmp_path / "state"
    with whole_folder(folder) as place:
        (place / "x").write_text("1")
    with pytest.raises(RuntimeError), whole_folder(folder) as place:
        (place / "x").write_text("2")
        raise RuntimeError
    assert (existing(folder) / "x").read_text() == "1"
    with whole_folder(folder) as place:
        assert not list(place.iterdir())  # nothing of the failed write is left
        (place / "x").write_text("3")
    assert (existing(folder) / "x").read_text() == "3"
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
