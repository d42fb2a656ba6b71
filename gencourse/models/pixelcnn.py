"""PixelCNN: the distribution of a pixel, from a stack of masked convolutions over those before it.

The first convolution (7x7, mask A) reads the pixels, residual blocks (3x3, mask B) widen the
context, and 1x1 convolutions end in one softmax for each channel. All sites are trained in
parallel; an image is written one site at a time.

The stack has a blind spot: a masked 3x3 window reaches one pixel to the right for each row that
it climbs, so pixels above and far enough to the right never arrive. Gated PixelCNN mends it.
"""

import torch.nn.functional as F
from torch import nn

from gencourse.models.autoregressive import Autoregressive
from gencourse.models.masked import Logits, MaskedConv2d, Pixels


class ResidualBlock(nn.Module):
    """ReLU, 1x1 to half the features, ReLU, masked k x k, ReLU, 1x1 back, added to the input."""

    def __init__(self, features, kernel_size, image_channels, condition_dim, dropout):
        super().__init__()
        half = features // 2
        self.down = MaskedConv2d("B", features, half, 1, image_channels)
        self.conv = MaskedConv2d("B", half, half, kernel_size, image_channels)
        self.up = MaskedConv2d("B", half, features, 1, image_channels)
        self.condition = nn.Linear(condition_dim, half, bias=False) if condition_dim else None
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x, condition=None, state=None):
        h = self.down(F.relu(x), state)
        h = self.conv(F.relu(h), state)
        if self.condition is not None:
            bias = self.condition(condition)  # (B, half), the same at every site
            h = h + (bias[:, None, None] if state is None else bias)
        return x + self.up(self.dropout(F.relu(h)), state)


class PixelCNN(Autoregressive):
    """PixelCNN with residual blocks; takes a condition vector (B, condition_dim).

    features: width of the residual stream, a multiple of twice the number of channels.
    layers: number of residual blocks.   kernel_size: of the blocks; the first one has
    first_kernel_size.   dropout: on the inner features of each block (the digits are few).

    Departures from the paper: the condition, which comes from Gated PixelCNN, and dropout.
    Reference: van den Oord, Kalchbrenner, Kavukcuoglu 2016, Pixel Recurrent Neural Networks,
    arXiv 1601.06759 (sections 3.3 to 3.5 and table 1).
    """

    def __init__(
        self,
        *,
        image_shape,
        levels,
        condition_dim=0,
        features=64,
        layers=8,
        kernel_size=3,
        first_kernel_size=7,
        dropout=0.0,
    ):
        super().__init__(image_shape=image_shape, levels=levels, condition_dim=condition_dim)
        channels = self.image_shape[0]
        if features < 2 * channels or features % (2 * channels):
            raise ValueError(
                f"features: expected a multiple of 2 x {channels} image channels, got {features}"
            )
        self.embed = Pixels(levels)
        self.first = MaskedConv2d("A", channels, features, first_kernel_size, channels)
        self.blocks = nn.ModuleList(
            ResidualBlock(features, kernel_size, channels, condition_dim, dropout)
            for _ in range(layers)
        )
        self.last = MaskedConv2d("B", features, features, 1, channels)
        self.logits = Logits(features, channels, levels)

    def network(self, embedded, condition=None, state=None):
        h = self.first(embedded, state)
        for block in self.blocks:
            h = block(h, condition, state)
        h = self.last(F.relu(h), state)
        return self.logits(F.relu(h), state)
