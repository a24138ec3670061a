"""The saved encoder: what comes back, what is refused, and that nothing in a file can make loading run code."""

import json
import os
import pickle
import subprocess
import sys
import threading
from copy import deepcopy
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from torch import nn

from contraux.core.encoders import MLP, PretrainedEncoder, ResNet, SmallCNN, Timm, ViT, describe, load_encoder
from contraux.core.preset import build

CNN = partial(SmallCNN, width=8)


def make(factory=CNN, shape=(1, 8, 8), metadata=None, seed=0):
    torch.manual_seed(seed)
    mean, std = [0.3 + 0.1 * i for i in range(shape[0])], [0.2 + 0.1 * i for i in range(shape[0])]
    made = PretrainedEncoder(factory(shape), shape, mean, std, describe(factory), metadata)
    made(torch.rand(16, *shape))  # so that running statistics are not those of a new module
    return made.eval()


def saved(folder=Path("encoder"), **arguments):
    made = make(**arguments)
    made.save_pretrained(folder)
    return made, folder


def change(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    for key, value in values.items():
        config[key] = value
    (folder / "config.json").write_text(json.dumps(config))


# --- what it computes -------------------------------------------------------------------------------------------------


class Sum(nn.Module):
    out_features = 1

    def forward(self, x):
        return x.flatten(1).sum(1, keepdim=True)


def test_normalisation_by_hand():
    encoder = PretrainedEncoder(Sum(), (2, 1, 1), [0.2, 0.5], [0.1, 0.25])
    image = torch.tensor([51, 255], dtype=torch.uint8).reshape(1, 2, 1, 1)  # 0.2 and 1.0
    # (0.2 - 0.2) / 0.1 + (1 - 0.5) / 0.25
    assert encoder(image).item() == pytest.approx(2.0, abs=1e-6)
    assert encoder(image.float() / 255).item() == pytest.approx(2.0, abs=1e-6)
    vector = PretrainedEncoder(Sum(), (3,), [1.0, 2.0, 3.0], [1.0, 2.0, 4.0])
    # (2 - 1) / 1 + (6 - 2) / 2 + (-1 - 3) / 4
    assert vector(torch.tensor([[2.0, 6.0, -1.0]])).item() == pytest.approx(2.0)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 4), st.integers(4, 9), st.integers(4, 9), st.integers(0, 2**31))
def test_bytes_and_floats_of_the_same_image_have_the_same_features(channels, height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    encoder = make(shape=(channels, height, width))
    images = torch.randint(0, 256, (3, channels, height, width), generator=generator, dtype=torch.uint8)
    assert torch.equal(encoder(images), encoder(images.float() / 255))


def test_gradient_reaches_the_encoder_and_the_input_in_float64():
    encoder = make(partial(MLP, hidden=[4], out=2), (3,)).double()
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(encoder, x)
    encoder(x).sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_half_precision_stays():
    assert make().to(torch.bfloat16)(torch.rand(2, 1, 8, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16


# --- there and back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factory", "shape"),
    [
        (CNN, (2, 8, 9)),
        (partial(SmallCNN, norm="group"), (1, 8, 8)),
        (partial(ResNet, stem="cifar"), (1, 8, 8)),
        (partial(ViT, patch_size=4, dim=16, layers=1, heads=2, frozen_patches=True), (3, 8, 8)),
        (partial(Timm, name="convnext_atto"), (1, 32, 32)),
        (partial(MLP, hidden=[5, 6], out=3, activation="tanh"), (7,)),
    ],
)
def test_what_comes_back_is_what_was_saved(factory, shape):
    metadata = {"method": "simclr", "versions": {"torch": "2"}, "epochs": 3}
    made, folder = saved(factory=factory, shape=shape, metadata=metadata)
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    back = load_encoder(folder)
    assert type(back.encoder) is type(made.encoder) and not back.training
    assert back.config() == made.config() and back.metadata == metadata
    assert back.config()["mean"][0] == 0.3  # and not its neighbour in float32
    x = torch.rand(4, *shape)
    assert torch.equal(back(x), made(x)) and back.out_features == made.out_features
    assert [p.requires_grad for p in back.parameters()] == [p.requires_grad for p in made.parameters()]
    assert torch.equal(deepcopy(back)(x), made(x))


def test_a_pretraining_run_an_encoder_folder_and_an_older_state_of_one(tmp_path):
    made, _ = saved(tmp_path / "run" / "encoder")
    x = torch.rand(2, 1, 8, 8)
    for where in (tmp_path / "run", str(tmp_path / "run"), tmp_path / "run" / "encoder"):
        assert torch.equal(load_encoder(where)(x), made(x))
    (tmp_path / "run" / "encoder").rename(tmp_path / "run" / "encoder.previous")  # killed between two renames
    assert torch.equal(load_encoder(tmp_path / "run")(x), made(x))


def test_saving_again_replaces_weights_and_keeps_the_card():
    _, folder = saved()
    (folder / "README.md").write_text("mine")
    second, _ = saved(seed=1)
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(load_encoder(folder)(x), second(x)) and (folder / "README.md").read_text() == "mine"


def test_a_folder_with_other_files_is_left_alone():
    folder = Path("notes")
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"in a folder of its own, got .*notes with thesis.txt"):
        make().save_pretrained(folder)
    assert (folder / "thesis.txt").read_text() == "years of work"


def test_a_failed_save_leaves_what_was_there():
    made, folder = saved()
    broken = make(metadata={"method": object()})
    with pytest.raises(ValueError, match="values that JSON can hold"):
        broken.save_pretrained(folder)
    assert torch.equal(load_encoder(folder)(torch.ones(1, 1, 8, 8)), made(torch.ones(1, 1, 8, 8)))


def test_weights_that_share_memory_are_saved():
    class Tied(nn.Module):
        out_features = 3

        def __init__(self):
            super().__init__()
            self.one = nn.Linear(3, 3)
            self.other = nn.Linear(3, 3)
            self.other.weight = self.one.weight

        def forward(self, x):
            return self.other(self.one(x))

    made = PretrainedEncoder(Tied(), (3,), [0.0] * 3, [1.0] * 3)
    made.save_pretrained("tied")
    back = load_encoder("tied", encoder=Tied())
    x = torch.rand(2, 3)
    assert torch.equal(back(x), made(x))


# --- descriptions -----------------------------------------------------------------------------------------------------


def test_description_of_every_kind_of_factory():
    plain = {"_target_": "contraux.core.encoders.SmallCNN", "width": 16}
    config = {**plain, "_partial_": True}
    for factory in (partial(SmallCNN, width=16), build(config), config, OmegaConf.create(config)):
        assert describe(factory) == plain
    assert describe(SmallCNN) == {"_target_": "contraux.core.encoders.SmallCNN"}
    assert describe(lambda shape: SmallCNN(shape)) is None
    lists = build({"_target_": "contraux.core.encoders.MLP", "_partial_": True, "hidden": [3, 4], "out": 2})
    assert json.loads(json.dumps(describe(lists)))["hidden"] == [3, 4]
    with pytest.raises(ValueError, match="keyword arguments only"):
        describe(partial(SmallCNN, (1, 8, 8)))


def test_weights_of_a_library_are_not_asked_for_again(monkeypatch):
    asked = []
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *a, **k: asked.append(a))
    config = {"_target_": "contraux.core.encoders.ResNet", "weights": "IMAGENET1K_V1", "stem": "imagenet"}
    assert describe(config)["weights"] is None
    assert describe(partial(Timm, name="resnet18", pretrained=True))["pretrained"] is False
    _, folder = saved(factory=ResNet, shape=(3, 32, 32))
    change(folder, encoder=config)  # also where a file says so
    assert load_encoder(folder).encoder.out_features == 512 and not asked


# --- files of others --------------------------------------------------------------------------------------------------

EVIL = """
import os
from torch import nn

os.environ["CONTRAUX_RAN"] = "import"

class Net(nn.Module):
    out_features = 1
    def __init__(self, *_, **__):
        super().__init__()
        os.environ["CONTRAUX_RAN"] = "class"
"""


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "evil.Net",
        "builtins.eval",
        "torch.load",
        "torch.nn.Linear",
        "contraux.core.files.write_json",
        "contraux.core.encoders.load_encoder",
        "contraux.core.encoders.PretrainedEncoder.from_pretrained",
        "contraux.core.encoders.pretrained.load_file",
        "contraux.core.encoders.pretrained.nn.Linear",
        "contraux.core.encoders.weights.library_weights",
        "contraux.core.preset.build",
        "contraux.core.encoders",
        "contraux.core.encoders.Nothing",
        ["os.system"],
        None,
    ],
)
def test_a_config_runs_nothing_but_our_encoders(target, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text(EVIL)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("CONTRAUX_RAN", raising=False)
    _, folder = saved()
    for description in (
        {"_target_": target},
        {"_target_": target, "_partial_": True},
        {"_target_": "contraux.core.encoders.SmallCNN", "width": {"_target_": target}},
        {"_target_": "contraux.core.encoders.MLP", "hidden": [{"_target_": target}], "out": 1},
    ):
        # whatever else it says
        change(folder, encoder=description, trusted=True, strict=False, map_location="meta", _target_="evil.Net")
        with pytest.raises(ValueError, match="which is no encoder of contraux: if you trust it") as raised:
            load_encoder(folder)
        assert repr(target) in str(raised.value) and len(str(raised.value).splitlines()) == 1
    assert "CONTRAUX_RAN" not in os.environ


@pytest.mark.parametrize(
    ("description", "sentence"),
    [
        (None, "does not say which class the encoder is: build it yourself and pass it, encoder=module"),
        ("os.system", "does not say which class"),
        ({"width": 8}, "does not say which class"),
        ({"_target_": "contraux.core.encoders.SmallCNN", "_args_": [[1, 8, 8]]}, "must hold plain arguments"),
        ({"_target_": "contraux.core.encoders.SmallCNN", "norm": "${oc.env:HOME}"}, "must hold plain arguments"),
        ({"_target_": "contraux.core.encoders.SmallCNN", "wdith": 8}, "cannot be built: .*wdith"),
        ({"_target_": "contraux.core.encoders.SmallCNN", "width": 7}, "width must be a whole number >= 8, got 7"),
        ({"_target_": "contraux.core.encoders.Timm", "name": "hf-hub:a/b"}, "unknown model of timm"),
        ({"_target_": "contraux.core.encoders.MomentumEncoder", "online": 1}, "cannot be built"),
        ({"_target_": "contraux.core.encoders.ProjectionHead", "in_features": 3}, "cannot be built"),
    ],
)
def test_a_broken_description(description, sentence):
    _, folder = saved()
    change(folder, encoder=description)
    with pytest.raises(ValueError, match=sentence) as raised:
        load_encoder(folder)
    assert len(str(raised.value).splitlines()) == 1


def test_an_encoder_of_ones_own():
    class Own(nn.Module):
        out_features = 4

        def __init__(self, shape):
            super().__init__()
            self.linear = nn.Linear(shape[0], 4)

        def forward(self, x):
            return self.linear(x)

    factory = partial(Own)
    assert describe(factory) is None  # a class inside a function has no name
    made = PretrainedEncoder(Own((3,)), (3,), [0.0] * 3, [1.0] * 3, {"_target_": "mine.Own", "depth": 2})
    made.save_pretrained("own")
    with pytest.raises(ValueError, match=r"would run 'mine.Own'.*pass it, encoder=module"):
        load_encoder("own")
    back = load_encoder("own", encoder=Own((3,)))
    x = torch.rand(2, 3)
    assert torch.equal(back(x), made(x)) and back.description == made.description


class Bomb:
    def __reduce__(self):
        return os.putenv, ("CONTRAUX_RAN", "1")


def test_no_pickle_is_read(monkeypatch):
    _, folder = saved()
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    loads = []
    monkeypatch.setattr(torch, "load", lambda *a, **k: loads.append(a))
    with pytest.raises(ValueError, match=r"has no model.safetensors; weights in a pickle are not loaded"):
        load_encoder(folder)
    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb()))  # by another name
    with pytest.raises(ValueError, match="is not a whole safetensors file"):
        load_encoder(folder)
    assert not loads


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def without(path, name):
    state = load_file(path)
    del state[name]
    save_file(state, path)


def renamed(path):
    state = load_file(path)
    state["encoder.other"] = state.pop("encoder.layers.0.weight")
    save_file(state, path)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (cut, "is not a whole safetensors file"),
        (lambda path: path.write_bytes(b""), "is not a whole safetensors file"),
        (lambda path: without(path, "encoder.layers.1.running_mean"), "lacks encoder.layers.1.running_mean, compared"),
        (lambda path: save_file({}, path), "lacks encoder.layers.0.weight and 17 more, compared"),
        (renamed, "lacks encoder.layers.0.weight, compared"),
        (
            lambda path: save_file({**load_file(path), "encoder.more": torch.zeros(1)}, path),
            "has besides encoder.more, compared",
        ),
    ],
)
def test_spoilt_weights(spoil, sentence):
    _, folder = saved()
    spoil(folder / "model.safetensors")
    with pytest.raises(ValueError, match=sentence) as raised:
        load_encoder(folder)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"input_shape": [3, 8, 8], "mean": [0.1] * 3, "std": [1] * 3},
            r"is \(8, 1, 3, 3\) in .*but \(8, 3, 3, 3\) in",
        ),
        ({"input_shape": [3, 8, 8]}, r"mean must have one number for each of the 3 channels of inputs \(3, 8, 8\)"),
        ({"input_shape": 8}, "input_shape in .* must be a list of sizes, got 8"),
        ({"input_shape": [8, 8]}, r"must be \(C, H, W\) of images or \(D,\) of vectors, got \(8, 8\)|reads images"),
        ({"std": [0.0]}, "std must be a number > 0, got 0.0"),
        ({"mean": [float("nan")]}, "mean must be a finite number, got nan"),
        ({"mean": "a"}, "mean must be a number, got 'a'"),
        ({"mean": 0.5}, "mean must have one number for each of the 1 channels"),
        ({"metadata": [1]}, r"metadata must be a mapping or None, got \[1\]"),
    ],
)
def test_spoilt_config(values, sentence):
    _, folder = saved()
    change(folder, **values)
    with pytest.raises(ValueError, match=sentence):
        load_encoder(folder)


def test_config_that_is_none():
    _, folder = saved()
    for text, sentence in (
        ("{", "is no JSON"),
        ("[]", "must have the keys encoder, input_shape, mean, std, found no encoder"),
        ('{"encoder": null, "mean": [0]}', "found no input_shape, std"),
    ):
        (folder / "config.json").write_text(text)
        with pytest.raises(ValueError, match=sentence):
            load_encoder(folder)


def test_nothing_there(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "empty").mkdir()
    for where in ("runs/simclr", "./simclr", "a/b/c", tmp_path / "no"):
        with pytest.raises(
            ValueError, match=r"there is no folder .* \(a pretraining run, or an encoder with config.json"
        ):
            load_encoder(where)
    with pytest.raises(
        ValueError, match=r"config.json and model.safetensors, or a pretraining run's encoder/ with both, g"
    ):
        load_encoder("empty")


@pytest.mark.parametrize(
    ("make_it", "sentence"),
    [
        (lambda: make()(torch.rand(2, 3, 8, 8)), r"the encoder reads inputs \(N, 1, 8, 8\), got \(2, 3, 8, 8\)"),
        (lambda: make()(torch.rand(1, 8, 8)), r"the encoder reads inputs \(N, 1, 8, 8\), got \(1, 8, 8\)"),
        (
            lambda: make()(torch.zeros(2, 1, 8, 8, dtype=torch.long)),
            "inputs must be uint8 or floating, got torch.int64",
        ),
        (
            lambda: make(partial(MLP, hidden=[], out=2), (3,))(torch.zeros(2, 4)),
            r"the encoder reads inputs \(N, 3\), got \(2, 4\)",
        ),
        (
            lambda: make(partial(MLP, hidden=[], out=2), (3,))(torch.zeros(2, 3, dtype=torch.uint8)),
            "inputs must be floating, got torch.uint8",
        ),
        (
            lambda: PretrainedEncoder(nn.Flatten(), (3,), [0] * 3, [1] * 3),
            "with an integer `out_features`, got Flatten",
        ),
        (lambda: PretrainedEncoder(Sum(), (3, 4), [0] * 3, [1] * 3), r"must be \(C, H, W\) of images or \(D,\)"),
        (lambda: PretrainedEncoder(Sum(), (3,), [0], [1] * 3), "mean must have one number for each of the 3 entries"),
    ],
)
def test_sentences(make_it, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_it()


# --- the Hugging Face Hub, played by a server of our own --------------------------------------------------------------


class Hub(BaseHTTPRequestHandler):
    """Serves `/owner/name/resolve/main/file` from folders, as the Hub does."""

    protocol_version = "HTTP/1.1"

    def answer(self, body):
        path = self.server.root / self.path.split("?")[0].lstrip("/").replace("/resolve/main", "")
        repository = path.parent.is_dir()
        found = path.read_bytes() if path.is_file() else b"{}"
        self.send_response(200 if path.is_file() else 404)
        if path.is_file():
            self.send_header("ETag", f'"{abs(hash(found)):x}"')
            self.send_header("X-Repo-Commit", "0" * 40)
        else:
            self.send_header("X-Error-Code", "EntryNotFound" if repository else "RepoNotFound")
            self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(found)))
        self.end_headers()
        if body:
            self.wfile.write(found)

    def do_GET(self):
        self.answer(True)

    def do_HEAD(self):
        self.answer(False)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.root = tmp_path / "hub"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


LOAD = """
import sys, numpy as np, torch
from contraux.core.encoders import load_encoder
for name in sys.argv[1:]:
    try:
        np.save("features.npy", load_encoder(name)(torch.ones(1, 1, 8, 8)).detach().numpy())
    except ValueError as error:
        print(error)
"""


def test_from_the_hub(hub, tmp_path):
    made, _ = saved(hub.root / "someone" / "digits")
    _, folder = saved(hub.root / "someone" / "pickle")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    (hub.root / "someone" / "empty").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *(f"someone/{name}" for name in ("digits", "pickle", "empty", "nothing"))],
        env={**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load("features.npy"), made(torch.ones(1, 1, 8, 8)).detach().numpy())
    pickled, empty, nothing = done.stdout.splitlines()
    assert pickled.startswith("'someone/pickle' on the Hugging Face Hub has no model.safetensors; weights in a pickle")
    assert empty == "'someone/empty' on the Hugging Face Hub has no config.json, so it is no encoder"
    assert nothing.startswith("there is no folder 'someone/nothing', nor was it found on the Hugging Face Hub: ")


def test_to_the_hub(monkeypatch):
    uploaded = {}

    class Api:
        def __init__(self, **_):
            pass

        def create_repo(self, repo_id, **_):
            return type("Repository", (), {"repo_id": repo_id})

        def upload_folder(self, *, repo_id, folder_path, **_):
            uploaded[repo_id] = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}
            return "the commit"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
    made = make()
    assert made.push_to_hub("someone/digits") == "the commit"
    assert set(uploaded["someone/digits"]) == {"README.md", "config.json", "model.safetensors"}
    assert json.loads(uploaded["someone/digits"]["config.json"]) == made.config()
    made.save_pretrained("here", push_to_hub=True, repo_id="someone/again")
    assert uploaded["someone/again"] == {path.name: path.read_bytes() for path in Path("here").iterdir()}
    assert b"load_encoder" in uploaded["someone/again"]["README.md"]
