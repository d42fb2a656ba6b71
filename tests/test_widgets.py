"""Explorers redraw when a control moves, and show what goes wrong."""

import matplotlib.pyplot as plt
import pytest

from gencourse import plots, widgets
from gencourse.train import History


def line(n):
    fig, axis = plt.subplots(figsize=(2, 2))
    axis.plot(range(n + 1))
    return fig


def test_moving_a_control_draws_anew():
    explorer = widgets.Explorer(line, n=widgets.slider("n", 1, 9, 3))
    first = bytes(explorer.picture.value)
    assert first.startswith(b"\x89PNG")
    explorer.controls["n"].value = 4
    assert explorer.picture.value != first and not plt.get_fignums()


def test_an_error_is_shown_and_goes_away():
    def fails(n):
        if n == 2:
            raise RuntimeError("no picture for 2")
        return line(n)

    explorer = widgets.Explorer(fails, n=widgets.slider("n", 1, 9, 1))
    explorer.controls["n"].value = 2
    assert "no picture for 2" in explorer.problem.value
    explorer.controls["n"].value = 3
    assert explorer.problem.value == ""


def test_slider_steps_say_its_kind():
    assert widgets.slider("t", 0.1, 2.0, 1.0, step=0.1).value == 1.0
    assert isinstance(widgets.slider("n", 0, 5, 2).value, int)


def test_the_loss_curve_grows_and_goes(capsys):
    history = History(3, "bits/dim", losses=[3.0, 2.0])
    curve = widgets.LossCurve()
    curve(history)
    grown = bytes(curve.value)
    history.losses.append(1.0)
    history.valid.append((3, 1.5))
    curve(history)
    assert grown.startswith(b"\x89PNG") and curve.value != grown and curve.comm is None


@pytest.mark.parametrize("alt", ["", "  "])
def test_a_figure_without_words_is_refused(alt):
    with pytest.raises(ValueError, match="alt is empty"):
        plots.show(line(2), alt)
