"""Figures of the lessons. Every figure is shown with `show`, which gives it alternative text."""

import io

import matplotlib.pyplot as plt
from IPython.display import display
from matplotlib import cycler
from matplotlib.figure import Figure

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
