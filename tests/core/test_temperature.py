import math

import pytest
import torch

from contraux.core.losses import info_nce
from contraux.core.temperature import LearnedTemperature


def test_it_begins_where_it_is_told_and_is_a_scalar_with_a_gradient():
    temperature = LearnedTemperature()
    assert temperature().shape == ()
    assert temperature().item() == pytest.approx(0.07)
    assert [name for name, _ in temperature.named_parameters()] == ["log"]
    temperature().backward()
    assert temperature.log.grad.item() == pytest.approx(0.07)  # dt / d log t = t
    assert 1 / LearnedTemperature(0.01)().item() == pytest.approx(100, rel=1e-6)


def test_a_loss_trains_it():
    temperature = LearnedTemperature(0.5)
    similarity = torch.eye(4) + 0.1 * torch.randn(4, 4)
    before = info_nce(similarity, torch.arange(4), temperature=temperature())
    before.backward()
    with torch.no_grad():
        temperature.log -= 0.1 * temperature.log.grad.sign()
    assert temperature() < 0.5  # positives lead: sharper is better
    assert info_nce(similarity, torch.arange(4), temperature=temperature()) < before


@pytest.mark.parametrize(("bound", "outwards"), [(0.01, 1.0), (10.0, -1.0)])
@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam])
def test_it_stops_at_a_bound_and_leaves_it_again(bound, outwards, make):
    temperature = LearnedTemperature(bound * 1.1 if bound < 1 else bound / 1.1)
    optimizer = make(temperature.parameters(), lr=0.05)

    def step(direction):
        optimizer.zero_grad()
        (direction * temperature().log()).backward()
        optimizer.step()
        return temperature().item()

    values = [step(outwards) for _ in range(20)]
    assert values[-1] == pytest.approx(bound, rel=1e-6)
    low, high = (bound, 10.0) if bound < 1 else (0.01, bound)
    assert all(low * (1 - 1e-6) <= value <= high * (1 + 1e-6) for value in values)
    back = [step(-outwards) for _ in range(40)]
    assert abs(math.log(back[-1] / bound)) > 0.5


def test_at_the_bound_only_the_gradient_that_leads_out_is_cut():
    temperature = LearnedTemperature(0.01)
    for direction, expected in ((1.0, 0.0), (-1.0, -0.01)):
        gradient = torch.autograd.grad(direction * temperature(), temperature.log)[0]
        assert gradient.item() == pytest.approx(expected, rel=1e-5)
    with torch.no_grad():
        temperature.log -= 1.0
    assert temperature().item() == pytest.approx(0.01)
    assert torch.autograd.grad(-temperature(), temperature.log)[0].item() == pytest.approx(-0.01, rel=1e-5)


def test_it_is_saved():
    temperature, other = LearnedTemperature(0.2), LearnedTemperature()
    other.load_state_dict(temperature.state_dict())
    assert other().item() == pytest.approx(0.2)
    assert repr(other) == "LearnedTemperature(low=0.01, high=10)"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"low": 0.0}, "low must be a number > 0, got 0.0"),
        ({"low": 2.0, "high": 1.0}, "high must be a number > 2, got 1.0"),
        ({"initial": 0.001}, r"initial must be a number in \[0.01, 10\], got 0.001"),
        ({"initial": math.nan}, "initial must be a finite number"),
    ],
)
def test_wrong_numbers(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        LearnedTemperature(**change)
