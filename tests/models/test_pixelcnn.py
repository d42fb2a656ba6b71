"""PixelCNN beyond the contract: what it is made of, and that it learns."""

import pytest
import torch
from contract import pixelcnn_context

from gencourse import data
from gencourse.audit import audit, randomised
from gencourse.models.pixelcnn import PixelCNN
from gencourse.train import Batches, fit, minimise


def test_the_blind_spot_stays_however_deep():
    """Right of the cone that climbs a column a row, no depth helps; left of it, depth does."""

    def missing(layers):
        model = PixelCNN(
            image_shape=(1, 6, 6), levels=2, features=16, layers=layers, first_kernel_size=3
        )
        return set(audit(randomised(model), (1, 6, 6), 2).missing)

    shallow, deep, deeper = missing(1), missing(6), missing(8)
    assert deep < shallow and deep == deeper
    assert deep == {
        ((0, h, w), (0, h2, w2))
        for h in range(6)
        for w in range(6)
        for h2 in range(h)
        for w2 in range(6)
        if w2 - w > h - h2
    }


def test_context_is_worked_out_from_the_windows():
    model = PixelCNN(image_shape=(1, 3, 3), levels=2, features=8, layers=0, first_kernel_size=3)
    assert pixelcnn_context(model)[4].tolist() == [True] * 4 + [False] * 5


def test_features_must_fit_the_channels():
    with pytest.raises(ValueError, match="features: expected a multiple of 2 x 3 .* got 64"):
        PixelCNN(image_shape=(3, 4, 4), levels=2, features=64)


def test_dropout_acts_in_training_alone():
    model = PixelCNN(image_shape=(1, 4, 4), levels=2, features=8, layers=2, dropout=0.5)
    x = torch.zeros(1, 1, 4, 4, dtype=torch.long)
    assert not torch.equal(model.train()(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


def test_it_learns_digits_in_a_few_steps():
    """30 steps bring it well below log2 17 = 4.09 bits, which is knowing nothing."""
    torch.manual_seed(0)
    digits, valid = data.load("digits"), data.load("digits", "valid")
    model = PixelCNN(image_shape=(1, 8, 8), levels=17, features=16, layers=1, first_kernel_size=5)
    fit(minimise(model, 1e-2), Batches(digits.pixels, batch_size=64), 30, progress=False)
    assert model.loss(valid.pixels) < 3.2
