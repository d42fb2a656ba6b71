"""What several autoregressive models share: masked convolution, and the state of cached sampling.

A layer of an autoregressive model is one equation that is evaluated in two ways. In training the
whole image is there, and the context of every site is the padded map. In sampling one site is
evaluated at a time, and its context is what the layer kept of the sites before it. A layer takes
an optional `state`; all that differs is where it finds its context:

    layer(x)          x: (B, H, W, D), the whole map         -> (B, H, W, out)
    layer(x, state)   x: (B, D), the features at one site    -> (B, out)

so that a model composes its layers once and is fast both ways.
"""

import torch
import torch.nn.functional as F
from torch import nn

MASK_TYPES = ("A", "B")


def channel_of(n_features, image_channels):
    """The image channel (R=0, G=1, B=2) that each of `n_features` features belongs to: (n,)."""
    return torch.arange(n_features) * image_channels // n_features


def causal_mask(mask_type, kernel_size, in_features=1, out_features=1, image_channels=1):
    """Which weights of a convolution may be used so that no pixel sees itself or a later one.

    Taps above the centre, and left of it in its own row, are always allowed. At the centre, mask A
    allows only features of earlier colour channels (G sees R, B sees R and G) and mask B also
    those of the same channel. Mask A belongs in the first layer, which reads the pixels; mask B in
    all others, which read features that are safe already.

    Returns a float tensor (out_features, in_features, kernel_size, kernel_size) of zeros and ones.
    Reference: van den Oord et al. 2016, Pixel Recurrent Neural Networks, arXiv 1601.06759.
    """
    if mask_type not in MASK_TYPES:
        raise ValueError(f"mask_type: expected 'A' or 'B', got {mask_type!r}")
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size: expected an odd number from 1, got {kernel_size}")
    if min(in_features, out_features) < image_channels:
        raise ValueError(
            f"in_features, out_features: expected at least image_channels={image_channels} each, "
            f"got {in_features} and {out_features}"
        )
    centre = kernel_size // 2
    mask = torch.zeros(out_features, in_features, kernel_size, kernel_size)
    mask[:, :, :centre] = 1  # the rows above
    mask[:, :, centre, :centre] = 1  # left of the centre
    out_channel = channel_of(out_features, image_channels)[:, None]
    in_channel = channel_of(in_features, image_channels)[None, :]
    seen = in_channel < out_channel if mask_type == "A" else in_channel <= out_channel
    mask[:, :, centre, centre] = seen.float()
    return mask


class MaskedConv2d(nn.Module):
    """A convolution in which no output sees its own pixel (mask A) or a later one (A and B).

    Whole map: (B, H, W, in) -> (B, H, W, out). With a state: (B, in) at one site, or the kept map
    (B, H*W + 1, in) of an input that is known already, -> (B, out).
    """

    def __init__(self, mask_type, in_features, out_features, kernel_size, image_channels=1):
        super().__init__()
        mask = causal_mask(mask_type, kernel_size, in_features, out_features, image_channels)
        self.register_buffer("mask", mask, persistent=False)
        like = nn.Conv2d(in_features, out_features, kernel_size)  # torch's usual initialisation
        self.weight, self.bias = like.weight, like.bias
        self.radius = kernel_size // 2

    def forward(self, x, state=None):
        if state is None:
            return self.everywhere(x)
        taps, weight, bias = state.once(self)
        window = x  # enough for a 1x1 convolution
        if taps is not None:
            kept = x
            if x.dim() == 2:
                kept = state.kept(self, x.shape[1])
                kept[:, state.pixel] = x
            window = kept.index_select(1, taps[state.pixel]).flatten(1)  # (B, T * in)
        return torch.addmm(bias, window, weight)

    def everywhere(self, x):
        r, weight = self.radius, self.masked_weight()
        if r == 0:  # faster than conv2d
            return F.linear(x, weight[:, :, 0, 0], self.bias)
        x = F.pad(x.movedim(-1, 1), (r, r, r, 0))  # (B, in, r + H, r + W + r)
        weight = weight[:, :, : r + 1]  # the rows below are masked: leave them out
        return F.conv2d(x, weight, self.bias).movedim(1, -1)

    def masked_weight(self):
        return self.mask * self.weight

    def constants(self, state):
        """For one window: where its T unmasked taps lie, a (T,) tensor for each pixel (None for a
        1x1 convolution), their weights (T * in, out), and the bias."""
        used = self.mask.amax(dim=(0, 1)).nonzero()  # (T, 2)
        weight = self.masked_weight()[:, :, used[:, 0], used[:, 1]]  # (out, in, T)
        weight = weight.permute(2, 1, 0).flatten(0, 1).contiguous()
        taps = state.neighbours((used - self.radius).tolist()) if self.radius else None
        return taps, weight, self.bias.detach()


class Pixels(nn.Module):
    """Integers 0 .. levels-1 as floats -1 .. 1: (B, C, H, W) -> (B, H, W, C)."""

    def __init__(self, levels):
        super().__init__()
        self.register_buffer("scale", torch.tensor(2 / (levels - 1)), persistent=False)

    def forward(self, x):
        return x.movedim(1, -1).to(self.scale.dtype) * self.scale - 1


class Logits(nn.Module):
    """The last layer: features to one logit for each level of each channel.

    Whole map: (B, H, W, D) -> (B, C, H, W, levels). With a state: (B, D) -> (B, levels), for the
    channel that is being written.
    """

    def __init__(self, features, image_channels, levels):
        super().__init__()
        self.shape = (image_channels, levels)
        self.conv = MaskedConv2d("B", features, image_channels * levels, 1, image_channels)

    def forward(self, x, state=None):
        logits = self.conv(x, state).unflatten(-1, self.shape)  # (B, [H, W,] C, levels)
        return logits.movedim(-2, 1) if state is None else logits[:, state.channel]


class State:
    """An image being written site by site, and what each layer keeps of the sites behind it.

    What a layer keeps is a map with a row a site and a row of zeros at the end, which stands for
    everything outside the image: (B, sites + 1, D). Rows are addressed by site, and writing one
    again overwrites it, so that R, G and B can evaluate one pixel three times.
    """

    def __init__(self, model, image, condition):
        self.model, self.image, self.condition = model, image, condition
        self.sites = model.sites()
        self.maps = {}  # layer -> (B, sites + 1, D)
        self.constants = {}  # layer -> what does not change while an image is written
        embedded = model.embed(image)  # (B, H, W, ..., D)
        self.per_pixel = embedded[0, 0, 0].numel() // embedded.shape[-1]
        self.embedded = F.pad(embedded.flatten(1, -2), (0, 0, 0, 1))

    def logits(self, step):
        """(B, levels): what the model says of site number `step`, given the sites before it."""
        self.step = step
        self.channel, h, w = self.sites[step]
        self.pixel = h * self.image.shape[-1] + w
        return self.model.network(self.embedded, self.condition, self)

    def write(self, step, values):
        """Puts `values` (B,) at site number `step`, for all later sites to see."""
        c, h, w = self.sites[step]
        self.image[:, c, h, w] = values
        at = (h * self.image.shape[-1] + w) * self.per_pixel
        pixel = self.model.embed(self.image[:, :, h : h + 1, w : w + 1]).flatten(1, -2)
        self.embedded[:, at : at + self.per_pixel] = pixel

    def select(self, indices):
        """Goes on with the images `indices` (N,) of the batch: beam search drops and doubles."""
        self.image, self.embedded = self.image[indices], self.embedded[indices]
        self.maps = {layer: kept[indices] for layer, kept in self.maps.items()}

    def once(self, layer):
        """layer.constants(state), computed the first time that `layer` asks for it."""
        if layer not in self.constants:
            self.constants[layer] = layer.constants(self)
        return self.constants[layer]

    def kept(self, layer, size):
        """The map that `layer` keeps, (B, sites + 1, size): zeros until the layer writes to it."""
        if layer not in self.maps:
            rows = self.embedded.shape[1]
            self.maps[layer] = self.embedded.new_zeros(len(self.image), rows, size)
        return self.maps[layer]

    def neighbours(self, offsets):
        """For each pixel, the rows (T,) of the pixels at `offsets` (dh, dw) from it."""
        height, width = self.image.shape[-2:]
        h, w = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        dh, dw = torch.tensor(offsets).T  # each (T,)
        h, w = h.reshape(-1, 1) + dh, w.reshape(-1, 1) + dw
        inside = (h >= 0) & (h < height) & (w >= 0) & (w < width)
        rows = torch.where(inside, h * width + w, height * width)  # (H*W, T)
        return rows.to(self.image.device).unbind()
