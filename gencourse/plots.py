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


def png(fig: Figure, dpi: int = 90) -> bytes:
    """The PNG bytes of a figure, which is closed."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", metadata={"Software": None})
    plt.close(fig)
    return buffer.getvalue()


def show(fig: Figure, alt: str, dpi: int = 90) -> None:
    """Display `fig` as a PNG whose alternative text is `alt`, and close it.

    The text stands in the output twice: as `alt` metadata of the picture, which goes into the
    pages of `gencourse run`, and as text/plain, for whatever shows no pictures.
    """
    if not alt.strip():
        raise ValueError("show(fig, alt): alt is empty; say in words what the figure shows")
    display(
        {"image/png": png(fig, dpi), "text/plain": alt},
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


def image_rows(named, *, columns=10, size=0.8):
    """{title: (images (N, C, H, W), levels)}: a row of the first images under each title."""
    fig, axes = plt.subplots(len(named), 1, figsize=(size * columns, 1.3 * size * len(named)))
    for axis, (title, (images, levels)) in zip(axes, named.items(), strict=True):
        axis.axis("off")
        axis.set_title(title, fontsize=9, loc="left")
        for i, image in enumerate(images[:columns]):
            draw_image(axis.inset_axes((i / columns, 0, 0.95 / columns, 1)), image, levels)
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
        _cells(axis, k, k, color="0.7", lw=0.5)
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
    _cells(axis, height, width, color="0.8", lw=0.4)
    axis.set_title(title, fontsize=10)
    return axis.figure


def _cells(axis, height, width, **line):
    """Thin lines between the pixels of an image, and no ticks."""
    axis.set_xticks([i - 0.5 for i in range(1, width)], [])
    axis.set_yticks([i - 0.5 for i in range(1, height)], [])
    axis.grid(**line)
    axis.tick_params(length=0)


def _frame(axis, row, column):
    """A red frame around one cell of an image."""
    axis.add_patch(
        Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, color=COLOURS[5], lw=2.5, zorder=3)
    )


def _rgb(colour):
    return torch.tensor(to_rgb(colour), dtype=torch.float64)


# ---------------------------------------------------------------- points in the plane


def points(axis, x, *, mean=None, covariance=None, samples=None):
    """Points (N, 2), and the ellipses of a normal at 1 and 2 standard deviations, on an axis."""
    axis.plot(*x.T, "o", ms=4, color=COLOURS[0], alpha=0.7, label="data")
    if samples is not None:
        axis.plot(*samples.T, "x", ms=4, color=COLOURS[5], label="samples")
    if covariance is not None:
        angle = torch.linspace(0, 2 * torch.pi, 200, dtype=covariance.dtype)
        circle = torch.stack([angle.cos(), angle.sin()])  # (2, 200)
        values, vectors = torch.linalg.eigh(covariance)
        root = vectors * values.clamp(min=0).sqrt()  # root @ root.T is the covariance
        for k, style in ((1, "-"), (2, "--")):
            ellipse = mean[:, None] + k * root @ circle
            axis.plot(*ellipse, style, color="#000000", lw=1.3, label=f"{k} σ")
    axis.set_aspect("equal")


def worlds(sets, probability):
    """Labelled points [(title, x (N, 2), labels (N,)), ...] on what a classifier says everywhere.

    probability: points (M, 2) -> p(class 1 given the point), (M,).
    """
    both = torch.cat([x for _, x, _ in sets])
    (left, low), (right, high) = both.amin(0) - 0.5, both.amax(0) + 0.5
    across, up = torch.linspace(left, right, 150), torch.linspace(low, high, 150)
    grid = torch.cartesian_prod(across, up)  # (22500, 2)
    p = torch.as_tensor(probability(grid)).view(150, 150).T
    fig, axes = plt.subplots(1, len(sets), figsize=(3.6 * len(sets), 3), sharex=True, sharey=True)
    for axis, (title, x, labels) in zip(axes, sets, strict=True):
        drawn = axis.contourf(across, up, p, levels=10, cmap="cividis", vmin=0, vmax=1)
        for k, mark in enumerate("os"):
            axis.plot(*x[labels == k].T, mark, ms=4, mfc=COLOURS[4 if k == 0 else 1], mec="black")
        axis.set_title(title, fontsize=10)
    fig.colorbar(drawn, ax=axes, label="p(class 1 | x)", ticks=[0, 0.5, 1])
    return fig


# ---------------------------------------------------------------- letters


def visible(letter):
    """A letter as it is drawn: the space and the end of a name get a sign."""
    return {" ": "\N{OPEN BOX}", "\n": "\N{RETURN SYMBOL}"}.get(letter, letter)


def letter_steps(probabilities, name, alphabet):
    """What a language model expected at each step of a name, and what came.

    probabilities: (T, len(alphabet)), a distribution for each letter of `name` (T letters).
    """
    fig, axis = plt.subplots(figsize=(8, 0.27 * len(name) + 0.9))
    drawn = axis.imshow(probabilities, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, letter in enumerate(name):
        column = alphabet.index(letter)
        axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, ec=COLOURS[5], lw=2))
    read = ["(start)", *(visible(letter) for letter in name[:-1])]
    axis.set_xticks(range(len(alphabet)), [visible(letter) for letter in alphabet])
    axis.set_yticks(range(len(name)), read)
    axis.set(xlabel="next letter", ylabel="letter just read")
    fig.colorbar(drawn, label="probability", pad=0.01)
    return fig


def letter_bits(rows, bits, *, highest=10.0):
    """Strings, a row each, every letter coloured by how many bits it cost (0 .. highest)."""
    longest = max(map(len, rows))
    fig, axis = plt.subplots(figsize=(0.36 * longest + 1.6, 0.5 * len(rows) + 0.5))
    grid = torch.full((len(rows), longest), torch.nan)
    for i, (row, costs) in enumerate(zip(rows, bits, strict=True)):
        grid[i, : len(row)] = torch.as_tensor(costs)[: len(row)]
        for j, letter in enumerate(row):
            dark = grid[i, j] < highest / 2
            axis.text(
                j,
                i,
                visible(letter),
                ha="center",
                va="center",
                family="monospace",
                color="white" if dark else "black",
            )
        axis.text(longest - 0.2, i, f"{grid[i, : len(row)].sum():.1f} bits", va="center")
    drawn = axis.imshow(grid, cmap="cividis", vmin=0, vmax=highest, aspect="auto")
    axis.axis("off")
    fig.colorbar(drawn, label="bits of a letter", pad=0.2, shrink=0.9)
    return fig


def names_at(first, alphabet, names, title=""):
    """Left, the probabilities (len(alphabet),) of a first letter; right, names in three columns."""
    fig, (axis, words) = plt.subplots(1, 2, figsize=(10, 3), width_ratios=[1, 1.9])
    axis.bar(range(len(alphabet)), first)
    axis.set_xticks(range(len(alphabet)), [visible(letter) for letter in alphabet], fontsize=7)
    axis.set(ylim=(0, 1), xlabel="first letter", ylabel="probability")
    words.axis("off")
    each = -(-len(names) // 3)
    for i, name in enumerate(names):
        words.text(i // each / 3, 0.92 - i % each / each, name, family="monospace", fontsize=8.5)
    fig.suptitle(title, fontsize=10)
    return fig


# ---------------------------------------------------------------- orders of generation


def generation(image, order, step, levels, *, title="", axis=None):
    """An image (C, H, W) being written: what is there in shades of blue (the darker, the higher
    its level), the pixel of `step` in red, what comes later grey.

    order: the sites [(c, h, w), ...] in generation order.
    """
    if axis is None:
        _, axis = plt.subplots(figsize=(2.6, 2.8))
    _, height, width = image.shape
    blue, later = _rgb(COLOURS[0]), torch.full((3,), 0.8, dtype=torch.float64)
    colours = later.expand(height, width, 3).clone()
    for c, h, w in order[:step]:
        colours[h, w] = 1 - (image[c, h, w].item() / (levels - 1)) * (1 - blue)
    if step < len(order):
        _, h, w = order[step]
        colours[h, w] = _rgb(COLOURS[5])
    axis.imshow(colours.numpy())
    axis.spines[:].set_visible(False)
    _cells(axis, height, width, color="0.7", lw=0.4)
    axis.set_title(title, fontsize=10)
    return axis.figure


def writing_step(image, order, step, p):
    """One step of writing an image: left the picture so far, right the distribution p (levels,)
    of the current pixel; the level that it took is red."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(7.6, 2.9), width_ratios=[1, 1.7])
    _, h, w = order[step]
    generation(image, order, step, len(p), axis=left, title=f"step {step + 1} of {len(order)}")
    bars = right.bar(range(len(p)), p.tolist())
    bars[int(image[order[step]])].set_color(COLOURS[5])
    right.set(ylim=(0, 1), xlabel="level", ylabel="probability")
    right.set_xticks(range(0, len(p), max(1, len(p) // 8)))
    right.set_title(f"the pixel in row {h + 1}, column {w + 1}, given the blue ones", fontsize=10)
    return fig


def orders(named, image_shape):
    """Orders of generation {title: [(c, h, w), ...]} of one-channel images: a number a pixel,
    the way from the first to the last, neighbours in time joined by a line."""
    fig, axes = plt.subplots(1, len(named), figsize=(2.5 * len(named), 2.8), squeeze=False)
    for axis, (title, order) in zip(axes.flat, named.items(), strict=True):
        number = torch.zeros(image_shape[1:])
        for step, (_, h, w) in enumerate(order):
            number[h, w] = step
            axis.text(w, h, step + 1, ha="center", va="center", fontsize=6.5, zorder=3)
        axis.imshow(number, cmap=ListedColormap(_shades(len(order))))
        rows, columns = [h for _, h, _ in order], [w for _, _, w in order]
        axis.plot(columns, rows, color=COLOURS[5], lw=0.8, alpha=0.7)
        axis.axis("off")
        axis.set_title(title, fontsize=10)
    return fig


def _shades(n):
    """n shades from white to blue."""
    blue = _rgb(COLOURS[0])
    return [(1 - 0.75 * i / max(1, n - 1) * (1 - blue)).tolist() for i in range(n)]
