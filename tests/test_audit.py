"""The audit on callables whose context is known by construction."""

import pytest
import torch
from contract import pixelcnn_context

from gencourse.audit import audit, randomised, receptive_field
from gencourse.models.pixelcnn import PixelCNN

SHAPE = (1, 3, 4)


def reads(matrix, levels=3, dtype=torch.float64):
    """A forward whose site i reads exactly the sites j with matrix[i, j], row by row."""

    def forward(x):
        seen = x.flatten(1).to(dtype) @ matrix.to(dtype).T  # (B, N)
        return torch.stack([level * seen for level in range(1, levels + 1)], -1).view(
            *x.shape, levels
        )

    return forward


def test_a_full_causal_context_has_nothing_to_report():
    report = audit(reads(torch.ones(12, 12).tril(-1)), SHAPE, 3)
    assert report.ok and not report.leaks and not report.missing
    assert "every context arrives" in str(report)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_random_dependence_is_found_exactly(dtype):
    matrix = torch.rand(12, 12, generator=torch.Generator().manual_seed(1)) < 0.4
    report = audit(reads(matrix, dtype=dtype), SHAPE, 3)
    assert torch.equal(report.arrives, matrix)


def test_leaks_and_missing_context_are_named():
    matrix = torch.ones(12, 12).tril(-1)
    matrix[5, 5] = 1  # site (0, 1, 1) sees itself
    matrix[2, 9] = 1  # site (0, 0, 2) sees (0, 2, 1), which comes later
    matrix[7, 3] = 0  # site (0, 1, 3) never sees (0, 0, 3)
    report = audit(reads(matrix), SHAPE, 3)
    assert report.leaks == [((0, 0, 2), (0, 2, 1)), ((0, 1, 1), (0, 1, 1))]
    assert report.missing == [((0, 1, 3), (0, 0, 3))]
    assert not report.ok
    assert "(0, 0, 2) sees (0, 2, 1)" in str(report) and "(0, 1, 3) never sees" in str(report)
    assert report.context((0, 1, 1)).tolist() == [True] * 6 + [False] * 6


def test_order_decides_what_is_a_leak():
    columns = [(0, h, w) for w in range(4) for h in range(3)]
    forward = reads(torch.ones(12, 12).tril(-1))
    assert audit(forward, SHAPE, 3).ok
    assert not audit(forward, SHAPE, 3, columns).ok


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"order": [(0, 0, 0)]}, "order: expected each of the 12 sites once, got 1"),
        ({"forward": lambda x: x.double()}, "forward: expected logits of shape"),
        (
            {"forward": lambda x: torch.zeros(*x.shape, 3)},
            "forward: expected logits that depend on x",
        ),
    ],
)
def test_wrong_input_is_named(arguments, message):
    good = {"forward": reads(torch.eye(12)), "image_shape": SHAPE, "levels": 3}
    with pytest.raises(ValueError, match=message):
        audit(**good | arguments)


def test_randomised_is_a_copy_without_zeros():
    model = PixelCNN(image_shape=SHAPE, levels=2, features=8, layers=1)
    torch.nn.init.zeros_(model.last.weight)
    other = randomised(model)
    assert model.last.weight.abs().max() == 0 and model.last.weight.dtype == torch.float32
    assert all(p.dtype == torch.float64 and (p != 0).all() for p in other.parameters())
    assert not other.training


@pytest.mark.parametrize("site", [(0, 0, 0), (0, 4, 2), (0, 6, 6)])
def test_gradients_and_windows_agree_on_the_receptive_field(site):
    shape = (1, 7, 7)
    model = randomised(
        PixelCNN(image_shape=shape, levels=2, features=16, layers=2, first_kernel_size=3)
    )
    seen = receptive_field(model, site) > 0
    assert torch.equal(seen.flatten(), pixelcnn_context(model)[model.sites().index(site)])
    with pytest.raises(ValueError, match="site: expected"):
        receptive_field(model, (0, 7, 0))
