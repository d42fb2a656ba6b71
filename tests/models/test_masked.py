"""Masked convolution against torch's own convolution, and masks against their definition."""

import pytest
import torch
import torch.nn.functional as F

from gencourse.models.masked import MaskedConv2d, Pixels, causal_mask


def test_the_two_masks_of_the_paper():
    a, b = causal_mask("A", 3)[0, 0], causal_mask("B", 3)[0, 0]
    assert a.tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert b.tolist() == [[1, 1, 1], [1, 1, 0], [0, 0, 0]]


def test_colours_at_the_centre():
    """Row: output R, G, B; column: input R, G, B (section 3.4 of the paper)."""
    a = causal_mask("A", 1, 3, 3, image_channels=3)[..., 0, 0]
    b = causal_mask("B", 1, 6, 6, image_channels=3)[..., 0, 0]
    assert a.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0]]
    assert b[::2, ::2].tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert torch.equal(b[::2, ::2].repeat_interleave(2, 0).repeat_interleave(2, 1), b)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("C", 3), "mask_type: expected 'A' or 'B', got 'C'"),
        (("A", 4), "kernel_size: expected an odd number from 1, got 4"),
        (("A", 3, 2, 3, 3), "expected at least image_channels=3 each, got 2 and 3"),
    ],
)
def test_wrong_masks_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        causal_mask(*arguments)


@pytest.mark.parametrize("mask_type", ["A", "B"])
@pytest.mark.parametrize("kernel_size", [1, 3, 7])
def test_equals_a_convolution_with_masked_weights(mask_type, kernel_size):
    layer = MaskedConv2d(mask_type, 3, 6, kernel_size, image_channels=3).double()
    x = torch.randn(2, 5, 4, 3, dtype=torch.float64)
    mask = causal_mask(mask_type, kernel_size, 3, 6, 3)
    expected = F.conv2d(
        x.movedim(-1, 1), layer.weight * mask, layer.bias, padding=kernel_size // 2
    ).movedim(1, -1)
    assert torch.allclose(layer(x), expected, atol=1e-12)


def test_pixels_run_from_minus_one_to_one():
    x = torch.tensor([[[[0, 1, 2]]]], dtype=torch.uint8)
    assert Pixels(3)(x).tolist() == [[[[-1.0], [0.0], [1.0]]]]
