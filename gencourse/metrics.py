"""Measures of a generative model, each in one stated unit."""

import math


def bits_per_dim(nats, x):
    """Nats per image as bits per dimension: nats / (C * H * W * ln 2).

    nats: (B,) tensor or number, for images shaped like x, (B, C, H, W).
    """
    return nats / (x[0].numel() * math.log(2))
