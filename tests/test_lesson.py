"""The set-up of the lessons and their bands."""

import pytest
import torch

import gencourse


def test_setup_makes_draws_repeatable_on_one_thread():
    gencourse.setup(seed=3)
    first = torch.rand(3)
    gencourse.setup(seed=3)
    assert torch.equal(first, torch.rand(3))
    assert torch.get_num_threads() == 1


def test_within_says_the_band_and_not_the_number(capsys):
    gencourse.within("nats", 81.234, 80, 84)
    assert capsys.readouterr().out == "nats: within 80 .. 84\n"


@pytest.mark.parametrize("value", [79.9, 84.1, float("nan")])
def test_within_raises_with_all_three_numbers(value):
    with pytest.raises(AssertionError, match=rf"nats: {value:.4g} is outside 80 .. 84"):
        gencourse.within("nats", value, 80, 84)


def test_models_and_data_import_without_jupyter():
    import subprocess
    import sys

    code = (
        "import sys; from gencourse import data, train, recipes, metrics, audit;"
        "bad = {'IPython', 'matplotlib', 'ipywidgets'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
