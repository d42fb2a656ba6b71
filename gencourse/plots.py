"""Figures of the lessons. Every figure is shown with `show`, which gives it alternative text."""

import io

import matplotlib.pyplot as plt
import torch
from IPython.display import display
from matplotlib import cycler
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

# Okabe and Ito (2008): eight colours that colour-blind readers can tell apart.
COLOURS = [
    "#0072B2",  # blue
    "#E69F00",  # orange
    "#009E73",  # green
    "#CC79A7",  # pink
    "#56B4E9",  # sky
    "#D55E00",  # vermilion
    "#F0E442",  # yellow
    "#000000",
]


def set_style() -> None:
    """The look of every figure of the course: 90 dpi, colour-blind-safe, pixels drawn as pixels."""
    plt.rcParams.update(
        {
            "axes.prop_cycle": cycler(color=COLOURS),
            "axes.spines.right": False,
            "axes.spines.top": False,
            "figure.constrained_layout.use": True,
            "figure.dpi": 90,
            "image.cmap": "viridis",
            "image.interpolation": "nearest",
        }
    )


def show(fig: Figure, alt: str, dpi: int = 90) -> None:
    """Display `fig` as a PNG whose alternative text is `alt`, and close it.

    The text stands in the output twice: as `alt` metadata of the picture, which goes into the
    pages of `gencourse run`, and as text/plain, for whatever shows no pictures.
    """
    if not alt.strip():
        raise ValueError("show(fig, alt): alt is empty; say in words what the figure shows")
    png = io.BytesIO()
    fig.savefig(png, format="png", dpi=dpi, bbox_inches="tight", metadata={"Software": None})
    plt.close(fig)
    display(
        {"image/png": png.getvalue(), "text/plain": alt},
        metadata={"image/png": {"alt": alt}},
        raw=True,
    )


# ---------------------------------------------------------------- images


def image_grid(images, levels, *, columns=8, titles=None, size=1.1):
    """Images (N, C, H, W) of integers 0 .. levels-1 in a grid, one title each or none."""
    rows = -(-len(images) // columns)
    height = size * (1.25 if titles else 1.0)
    fig, axes = plt.subplots(rows, columns, figsize=(size * columns, height * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for i, (axis, image) in enumerate(zip(axes.flat, images, strict=False)):
        draw_image(axis, image, levels)
        if titles:
            axis.set_title(titles[i], fontsize=8)
    return fig


def draw_image(axis, image, levels):
    """One image (C, H, W) of integers 0 .. levels-1 on an axis: grey or RGB."""
    picture = (image.float() / (levels - 1)).movedim(0, -1).cpu().numpy()
    axis.imshow(picture, cmap="gray", vmin=0, vmax=1)
    axis.set(xticks=[], yticks=[])


# ---------------------------------------------------------------- training


def loss_curve(history, *, title=""):
    """The learning curve of a History: each batch's loss, and the validation loss where taken."""
    fig, axis = plt.subplots(figsize=(6, 2.6))
    axis.plot(history.steps, history.losses, lw=0.8, alpha=0.7, label="training batch")
    if history.valid:
        steps, values = zip(*history.valid, strict=True)
        axis.plot(steps, values, "o-", ms=3, label="validation")
    losses = sorted(history.losses)
    top = losses[int(0.98 * (len(losses) - 1))]  # the first steps would squeeze the rest
    axis.set_ylim(top=1.05 * max([top, *(value for _, value in history.valid)]))
    axis.set(xlabel="step", ylabel=f"loss ({history.unit})", title=title, xlim=(0, history.n_steps))
    axis.legend(frameon=False)
    return fig


# ---------------------------------------------------------------- masks and context


def masks(named):
    """Square masks {title: (k, k)} side by side: open taps blue, closed ones white, centre red."""
    fig, axes = plt.subplots(1, len(named), figsize=(2.1 * len(named), 2.3), squeeze=False)
    for axis, (title, mask) in zip(axes.flat, named.items(), strict=True):
        k = len(mask)
        axis.imshow(mask, cmap=ListedColormap(["white", COLOURS[4]]), vmin=0, vmax=1)
        for row in range(k):
            for column in range(k):
                axis.text(column, row, f"{mask[row][column]:.0f}", ha="center", va="center")
        _frame(axis, k // 2, k // 2)
        axis.set_xticks([i - 0.5 for i in range(1, k)], [])
        axis.set_yticks([i - 0.5 for i in range(1, k)], [])
        axis.grid(color="0.7", lw=0.5)
        axis.tick_params(length=0)
        axis.set_title(title, fontsize=10)
    return fig


def context(seen, row, column, *, title="", axis=None):
    """What a pixel sees: seen pixels blue, earlier ones that never arrive orange, later ones
    white, any later one that does arrive (a leak) black; the pixel itself has a red frame.

    seen: boolean (H, W), or strengths, of which the logarithm sets the shade.
    """
    if axis is None:
        _, axis = plt.subplots(figsize=(3.2, 3.4))
    height, width = seen.shape
    strength = seen.double()
    number = torch.arange(height * width).view(height, width)
    earlier = number < row * width + column
    reached = strength > 0
    colours = torch.ones(height, width, 3, dtype=torch.float64)
    colours[earlier & ~reached] = _rgb(COLOURS[1])
    colours[~earlier & reached] = 0.0
    if (earlier & reached).any():
        shade = strength[earlier & reached].log10()
        shade = 0.35 + 0.65 * (shade - shade.min()) / (shade.max() - shade.min()).clamp(min=1e-9)
        if shade.max() - shade.min() < 1e-9:  # yes or no: one shade
            shade = torch.full_like(shade, 0.8)
        blue = _rgb(COLOURS[0])
        colours[earlier & reached] = 1 - shade[:, None] * (1 - blue)
    axis.imshow(colours.numpy())
    _frame(axis, row, column)
    axis.set_xticks([i - 0.5 for i in range(1, width)], [])
    axis.set_yticks([i - 0.5 for i in range(1, height)], [])
    axis.grid(color="0.8", lw=0.4)
    axis.tick_params(length=0)
    axis.set_title(title, fontsize=10)
    return axis.figure


def _frame(axis, row, column):
    """A red frame around one cell of an image."""
    axis.add_patch(
        Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, color=COLOURS[5], lw=2.5, zorder=3)
    )


def _rgb(colour):
    return torch.tensor(to_rgb(colour), dtype=torch.float64)
