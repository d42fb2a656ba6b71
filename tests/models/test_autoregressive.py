"""What the base class adds to a model: units, temperature, chance, modes."""

import math

import pytest
import torch

from gencourse.audit import randomised
from gencourse.models.pixelcnn import PixelCNN


@pytest.fixture
def model():
    return randomised(PixelCNN(image_shape=(1, 3, 3), levels=4, features=8, layers=1))


def uniform(shape=(1, 3, 3), levels=4):
    model = PixelCNN(image_shape=shape, levels=levels, features=6, layers=1)
    for parameter in model.logits.parameters():
        torch.nn.init.zeros_(parameter)
    return model


def test_units():
    """A uniform model over 4 levels: 2 bits a dimension, and 9 ln 4 nats an image."""
    x = torch.randint(4, (5, 1, 3, 3))
    assert uniform().log_prob(x).tolist() == pytest.approx([-9 * math.log(4)] * 5)
    assert uniform().loss(x).item() == pytest.approx(2.0)
    colour = torch.randint(4, (5, 3, 2, 2))
    assert uniform((3, 2, 2)).loss(colour).item() == pytest.approx(2.0)


def test_given_leaves_out_the_prefix(model):
    x = torch.randint(4, (3, 1, 3, 3))
    given = torch.zeros(1, 3, 3, dtype=torch.bool)
    given[:, 0] = True
    sites = model.site_log_probs(x)
    assert torch.allclose(model.log_prob(x, given=given), sites[:, :, 1:].sum((1, 2, 3)))


def test_temperature_sharpens_and_flattens(model):
    def typical(temperature):
        generator = torch.Generator().manual_seed(0)
        x = model.sample(500, temperature=temperature, generator=generator)
        return model.log_prob(x).mean().item()

    assert typical(0.3) > typical(1.0) > typical(3.0)


def test_the_generator_is_the_only_chance(model):
    draw = lambda seed: model.sample(8, generator=torch.Generator().manual_seed(seed))  # noqa: E731
    first = draw(0)
    torch.rand(7)  # what else is drawn makes no difference
    assert torch.equal(first, draw(0)) and not torch.equal(first, draw(1))


def test_sampling_ignores_dropout_and_leaves_the_mode_as_it_was():
    torch.manual_seed(0)
    model = PixelCNN(image_shape=(1, 4, 4), levels=4, features=8, layers=2, dropout=0.5).train()
    draw = lambda cached: model.sample(  # noqa: E731
        4, cached=cached, generator=torch.Generator().manual_seed(0)
    )
    assert torch.equal(draw(True), draw(False))
    assert model.training and model.blocks[0].training


def test_unknown_sites_of_x_are_not_used(model):
    x = torch.randint(4, (4, 1, 3, 3))
    known = torch.zeros(1, 3, 3, dtype=torch.bool)
    known[:, 0] = True
    other = torch.where(known, x, (x + 1) % 4)
    complete = lambda x: model.complete(  # noqa: E731
        x, known, generator=torch.Generator().manual_seed(0)
    )
    assert torch.equal(complete(x), complete(other))


def test_uint8_images_are_welcome(model):
    x = torch.randint(4, (2, 1, 3, 3))
    assert torch.equal(model.log_prob(x), model.log_prob(x.to(torch.uint8)))
    nothing = torch.zeros(1, 3, 3, dtype=torch.bool)
    assert model.complete(x.to(torch.uint8), nothing).dtype == torch.long


def test_progress_shows_the_sites(model, capsys):
    model.sample(1, progress=True)
    assert "9/9" in capsys.readouterr().err
