import functools

import pytest
import torch
from omegaconf import OmegaConf
from preset_kinds import CONTRASTIVE, objective_of

from contraux.core import Contrastive, Pairs
from contraux.core.losses import info_nce, triplet
from contraux.core.preset import build, exchanged, preset, presets
from contraux.core.similarity import Bilinear, cosine
from contraux.core.views import RandomShift


@pytest.mark.parametrize("name", presets())
def test_every_preset_has_a_source_and_an_objective(name):
    config = preset(name)
    assert set(config) == {"source", "module"}
    assert {"_target_", "_partial_", "k", "views"} <= set(config.source)
    objective = objective_of(config, 20)
    assert objective.dim == 20
    objective.update()


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_every_contrastive_preset_builds_an_objective_that_learns(name):
    objective = build(preset(name).module)(20)
    assert isinstance(objective, Contrastive)
    query = torch.randn(8, 20, requires_grad=True)
    outcome = objective(Pairs(query, torch.randn(8, 20), torch.arange(8)))
    assert outcome.loss.isfinite()
    assert torch.autograd.grad(outcome.loss, query)[0].abs().max() > 0


def test_the_presets_are_what_their_papers_say():
    assert {"temporal", "curl", "atc"} <= set(presets())
    temporal, curl, atc = (build(preset(name).module)(32) for name in ("temporal", "curl", "atc"))
    assert temporal.momentum is None and temporal.temperature == 0.1 and temporal.similarity.func is cosine
    assert curl.momentum.momentum == 0.95 and isinstance(curl.similarity, Bilinear) and curl.temperature == 1.0
    assert [type(layer).__name__ for layer in curl.projection.layers] == ["Linear", "LayerNorm"]
    assert atc.momentum.momentum == 0.99 and atc.prediction.residual
    assert [preset(name).source.k for name in ("temporal", "curl", "atc")] == [1, 0, 3]
    assert build(preset("curl").source.views.image) == RandomShift(4)


def test_hydras_checked_partials_are_not_called_in_the_loop():
    objective = build(preset("temporal").module)(32)
    for part in (objective.similarity, objective.loss):
        assert type(part) is functools.partial


def test_overrides():
    config = preset("temporal", "source.k=5", "module.temperature=1e-2", "source.views={image: null, vector: null}")
    assert config.source.k == 5 and config.module.temperature == 0.01
    assert preset("temporal").source.k == 1  # the file and later presets are untouched
    # a mapping replaces, so that nothing of the old target stays behind
    config = preset("temporal", "module.similarity={_target_: contraux.core.similarity.Bilinear, dim: 16}")
    assert set(config.module.similarity) == {"_target_", "dim"}
    assert isinstance(build(config.module)(16).similarity, Bilinear)
    # an equals sign in the value stays in the value
    assert preset("temporal", "source._target_=a=b").source._target_ == "a=b"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("crul",), r"unknown preset 'crul': did you mean curl\? There are: .*atc, .*temporal"),
        (("../curl",), "unknown preset '../curl'"),
        (("curl", "source.kk=3"), r"unknown key 'source.kk' in preset 'curl': did you mean source.k "),
        (("curl", "module.temprature=3"), "did you mean module.temperature"),
        (("temporal", "module.prediction.hidden=3"), "unknown key 'module.prediction.hidden'.* module.pr"),
        (("curl", "source.k"), "an override must read dotted.key=value, got 'source.k'"),
        (("curl", "source.views={image: "), "the value of an override must be YAML"),
    ],
)
def test_wrong_names(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        preset(*arguments)


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "contrauxtra.steal",
        "contraux.core.gradient.torch.load",  # reachable through an import of ours, but not ours
        "contraux.core.preset.yaml.unsafe_load",
        "contraux.core.preset.build",
        "contraux.clgen.attach",  # builds a config of its own from strings
        "contraux.core.files.write_json",
        "sklearn.gaussian_process.GaussianProcessRegressor",  # used by a sampler, but no sampler
        7,
    ],
)
def test_a_config_runs_nothing_outside_contraux(target):
    config = preset("curl")
    config.source.views.vector = {"deep": [{"_target_": target}]}
    with pytest.raises(ValueError, match=r"a config is code.*trusted=True if you wrote it"):
        build(config.source)


def test_trusted_configs_may_name_anything():
    config = {"_target_": "fractions.Fraction", "_args_": [1, 2]}
    assert build(config, trusted=True) == 0.5
    with pytest.raises(ValueError, match="is nothing that contraux defines for configs"):
        build(OmegaConf.create(config))


def test_interpolated_targets_are_seen():
    config = OmegaConf.create({"name": "os.getcwd", "node": {"_target_": "${name}"}})
    with pytest.raises(ValueError, match=r"'os\.getcwd'"):
        build(config.node)


def test_the_constructors_own_sentence_comes_through():
    with pytest.raises(ValueError, match=r"^pad must be a whole number >= 1, got 0$"):
        build(preset("curl", "source.views.image.pad=0").source.views.image)
    with pytest.raises(ValueError, match="does not exist"):
        build({"_target_": "contraux.core.views.RandomShfit"})
    with pytest.raises(ValueError, match="must be a mapping with `_target_`"):
        build({"pad": 4})


def test_a_part_by_name_replaces_the_whole_part():
    config = preset("curl", "similarity=cosine", "sampler=hardest", "module.sampler.k=3")
    assert config.module.similarity == {"_target_": "contraux.core.similarity.cosine", "_partial_": True}
    assert config.module.sampler == {"_target_": "contraux.core.samplers.Hardest", "k": 3}
    objective = build(config.module)(10)
    assert objective.sampler.k == 3 and objective.loss.func is info_nce


def test_a_loss_without_temperature_takes_none_and_others_keep_it():
    assert preset("temporal", "loss=triplet").module.temperature is None
    assert preset("temporal", "loss=hard_negative_annealed").module.temperature == 0.1
    assert build(preset("temporal", "loss=triplet").module)(10).loss.func is triplet
    with pytest.raises(ValueError, match=r"triplet has no temperature: it must be None, got 0\.3"):
        build(preset("temporal", "loss=triplet", "module.temperature=0.3").module)(10)


def test_parts_come_before_values_in_any_order():
    config = preset("curl", "module.sampler.k=3", "module.similarity.dim=64", "sampler=hardest", "similarity=bilinear")
    assert config == preset(
        "curl", "similarity=bilinear", "sampler=hardest", "module.similarity.dim=64", "module.sampler.k=3"
    )
    assert config.module.sampler.k == 3 and config.module.similarity.dim == 64
    with pytest.raises(ValueError, match=r"triplet has no temperature: it must be None, got 0\.3"):
        build(preset("temporal", "module.temperature=0.3", "loss=triplet").module)(10)


def test_parts_in_a_config_run_nothing_outside_contraux():
    config = exchanged(preset("temporal"), {"sampler": {"_target_": "sklearn.base.clone"}})
    with pytest.raises(
        ValueError, match=r"would run 'sklearn\.base\.clone', which is nothing that contraux defines for configs"
    ):
        build(config.module)


def test_unknown_parts():
    with pytest.raises(ValueError, match="unknown loss 'infonce': did you mean info_nce"):
        preset("curl", "loss=infonce")
    with pytest.raises(ValueError, match=r"unknown key 'sampler.k' in preset 'curl': did you mean module.sampler.k"):
        preset("curl", "sampler=hardest", "sampler.k=3")
    with pytest.raises(ValueError, match=r"^'contraux\.core\.losses\.infonce' does not exist: .*$") as found:
        exchanged(preset("curl"), {"loss": {"_target_": "contraux.core.losses.infonce"}})
    assert "\n" not in str(found.value)
    with pytest.raises(ValueError, match="needs an objective that has a sampler, got no objective"):
        exchanged(OmegaConf.create({"source": None, "module": None}), {"sampler": {"_target_": "x"}})
    free = OmegaConf.create({"source": None, "module": {"_target_": "contraux.core.NegativeFree"}})
    with pytest.raises(ValueError, match="has a sampler, got contraux"):
        exchanged(free, {"sampler": {"_target_": "x"}})
