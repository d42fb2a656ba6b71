"""What every lesson uses: its set-up, and checks of numbers that differ between machines."""

import random

import numpy as np
import torch

from gencourse.plots import set_style


def setup(*, seed):
    """Seeds Python, numpy and torch, sets one thread (so that sums add up in one order, and the
    printed numbers are the same everywhere), and the style of the figures."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    torch.set_printoptions(precision=4, sci_mode=False)
    set_style()


def within(name, value, low, high):
    """Holds a number that depends on the machine to its published band, and says so in one line.

    Raises AssertionError with all three numbers when it is outside.
    """
    if not low <= value <= high:
        raise AssertionError(f"{name}: {value:.4g} is outside {low:g} .. {high:g}")
    print(f"{name}: within {low:g} .. {high:g}")
