"""The sequence model against the equations of an LSTM, written out."""

import pytest
import torch

from gencourse.audit import randomised
from gencourse.models.sequence import SequenceModel


def test_logits_are_those_of_the_equations():
    """Gates i, f, g, o; c = f c + i g; h = o tanh(c); in an order that is not row by row."""
    order = [(0, 1, 1), (0, 0, 1), (0, 1, 0), (0, 0, 0)]
    model = randomised(SequenceModel(image_shape=(1, 2, 2), levels=3, hidden=5, order=order))
    x = torch.tensor([[[[2, 0], [1, 2]]]])
    w, u = model.lstm.weight_ih_l0, model.lstm.weight_hh_l0
    bias = model.lstm.bias_ih_l0 + model.lstm.bias_hh_l0
    h = c = torch.zeros(5, dtype=torch.float64)
    read, logits = model.start, model(x)
    for t, (channel, row, column) in enumerate(order):
        i, f, g, o = (w @ (read + model.place[t]) + u @ h + bias).chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        expected = model.logits.weight @ h + model.logits.bias
        assert torch.allclose(logits[0, channel, row, column], expected, atol=1e-12)
        read = model.embed.weight[x[0, channel, row, column]]


def test_text_and_pixels_share_the_class():
    text = SequenceModel(image_shape=(1, 1, 6), levels=30, hidden=8)
    image = SequenceModel(image_shape=(3, 4, 4), levels=8, hidden=8)
    assert text.sample(2).shape == (2, 1, 1, 6) and image.sample(2).shape == (2, 3, 4, 4)


def test_states_come_in_generation_order():
    model = SequenceModel(image_shape=(1, 2, 3), levels=2, hidden=7).eval()
    x = torch.randint(2, (2, 1, 2, 3))
    states = model.states(model.embed(x))
    assert states.shape == (2, 6, 7)
    assert torch.allclose(model.logits(states[:, 4]), model(x)[:, 0, 1, 1], atol=1e-6)


@pytest.mark.parametrize(
    "order", [[(0, 0, 0)], [(0, 0, 0)] * 4, [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 2, 0)]]
)
def test_an_order_visits_each_site_once(order):
    with pytest.raises(ValueError, match="order: expected each of the 4 sites"):
        SequenceModel(image_shape=(1, 2, 2), levels=2, order=order)
