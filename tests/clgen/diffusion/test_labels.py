"""Labels are dropped once, outside the model: diffusers' DiT would drop them in every block for itself."""

import pytest
import torch

from contraux.clgen.diffusion.labels import NULL, dropped, keep_all_labels, predicted, takes_labels
from contraux.clgen.training_diffusion import dit, unet

SHAPE = (1, 8, 8)


def small_dit():
    torch.manual_seed(0)
    found = dit(SHAPE, True, layers=3, heads=2, head_dim=4)
    gates = [block.norm1.linear for block in found.transformer_blocks]  # a new one does nothing
    for layer in (*gates, found.proj_out_1, found.proj_out_2):
        torch.nn.init.normal_(layer.weight, std=0.5)
    return found


def tables(model):
    return [block.norm1.emb.class_embedder for block in model.transformer_blocks]


def test_a_share_is_dropped_and_unknown_labels_with_it():
    labels = torch.arange(4000) % 10
    labels[::100] = -1
    found = dropped(labels, 0.25, torch.Generator().manual_seed(0))
    assert (found[::100] == NULL).all()
    known = labels >= 0
    assert (found[known] == NULL).float().mean().item() == pytest.approx(0.25, abs=0.03)
    kept = found != NULL
    assert torch.equal(found[kept], labels[kept])
    assert torch.equal(dropped(labels[known], 0.0, torch.Generator()), labels[known])
    assert (dropped(labels, 1.0, torch.Generator()) == NULL).all()


def test_every_block_of_a_dit_sees_the_labels_it_was_given_while_training():
    model = small_dit().train()
    seen = []
    for table in tables(model):
        table.embedding_table.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    labels = dropped(torch.arange(64) % 10, 0.5, torch.Generator().manual_seed(0))
    predicted(model, torch.randn(64, *SHAPE), torch.full((64,), 5), labels)
    assert len(seen) >= 3
    assert all(torch.equal(one, labels) for one in seen)


def test_diffusers_own_blocks_do_not():
    model = small_dit().train()
    for table in tables(model):
        table.dropout_prob = 0.5  # as diffusers has it, at 0.1
    seen = []
    for table in tables(model):
        table.embedding_table.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    labels = torch.arange(64) % 10
    predicted(model, torch.randn(64, *SHAPE), torch.full((64,), 5), labels)
    assert not torch.equal(seen[0], seen[1])
    keep_all_labels(model)
    seen.clear()
    predicted(model, torch.randn(64, *SHAPE), torch.full((64,), 5), labels)
    assert all(torch.equal(one, labels) for one in seen)


def test_the_null_class_is_trained_in_every_block():
    model = small_dit().train()
    labels = torch.tensor([3, NULL, 3, NULL])
    predicted(model, torch.randn(4, *SHAPE), torch.full((4,), 5), labels).square().mean().backward()
    for table in tables(model):
        gradient = table.embedding_table.weight.grad.abs().sum(1)
        assert gradient.nonzero()[:, 0].tolist() == [3, NULL]


def test_a_unet_has_a_null_class_too():
    torch.manual_seed(0)
    model = unet(SHAPE, True, channels=(8, 8), layers=1, groups=4)
    assert (
        takes_labels(model)
        and takes_labels(small_dit())
        and not takes_labels(unet(SHAPE, False, channels=(8, 8), groups=4))
    )
    rows = torch.randn(2, *SHAPE)
    told, untold = (predicted(model, rows, torch.tensor([5, 5]), torch.tensor([k, k])) for k in (3, NULL))
    assert told.shape == rows.shape and (told - untold).abs().max() > 1e-3
