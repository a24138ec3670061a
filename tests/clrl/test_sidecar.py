"""The file beside a model: atomic, plain, and refused when it is something else."""

import pickle

import pytest
import torch
from safetensors.torch import save_file
from sb3_hosts import HOSTS

from contraux.clrl import ContrastiveAuxiliary, sidecar


def test_round_trip_and_name(tmp_path):
    path = sidecar.sidecar_path(tmp_path / "ppo.zip")
    assert path.name == "ppo.auxiliary.safetensors" == sidecar.sidecar_path(tmp_path / "ppo").name
    tensors = {
        "a": torch.arange(6).reshape(2, 3)[:, :2],
        "flag": torch.tensor([True]),
        "image": torch.ones(2, dtype=torch.uint8),
    }
    sidecar.write(path, tensors, {"weight": 1.0, "nested": {"list": [1, None]}})
    found, values = sidecar.read(path)
    assert values == {"weight": 1.0, "nested": {"list": [1, None]}}
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.auxiliary.safetensors"
    sidecar.write(path, {"a": torch.zeros(1)}, {})
    monkeypatch.setattr(sidecar.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        sidecar.write(path, {"a": torch.ones(1)}, {})
    assert sidecar.read(path)[0]["a"].item() == 0
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_what_is_no_sidecar_is_refused_and_never_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was run",))

    path = tmp_path / "x.auxiliary.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="must be a whole safetensors file"):
        ContrastiveAuxiliary.load(tmp_path / "x")
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="must be of format contraux-auxiliary-1, got None"):
        ContrastiveAuxiliary.load(tmp_path / "x")
    with pytest.raises(FileNotFoundError, match="no auxiliary was saved at"):
        ContrastiveAuxiliary.load(tmp_path / "y")


def test_a_config_from_a_file_runs_nothing_outside_the_package(tmp_path):
    auxiliary = ContrastiveAuxiliary("temporal")
    tensors, values = auxiliary.state()
    values["objective"]["module"]["loss"]["_target_"] = "os.system"
    sidecar.write(sidecar.sidecar_path(tmp_path / "m"), tensors, values)
    with pytest.raises(ValueError, match=r"a config is code, and this one would run 'os\.system'"):
        HOSTS["PPO"].make().learn(64, callback=ContrastiveAuxiliary.load(tmp_path / "m"))


def test_an_auxiliary_that_never_learnt_has_nothing_to_save(tmp_path):
    with pytest.raises(ValueError, match="can be saved once it was part of learn"):
        ContrastiveAuxiliary().save(tmp_path / "m")
