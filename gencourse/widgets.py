"""Explorers: sliders and a picture that is drawn anew when one of them moves.

An explorer is an ipywidgets box. Its `draw(**values)` returns the figure for given values, so that
it can be called without a slider; an error in it is shown in place of the picture.
"""

import traceback

import ipywidgets
import matplotlib.pyplot as plt

from gencourse import plots


class Explorer(ipywidgets.VBox):
    """`draw(**values) -> figure`, with a control (a slider, a menu) for each of its arguments."""

    def __init__(self, draw, **controls):
        self.draw, self.controls = draw, controls
        self.picture = ipywidgets.Image(format="png", layout={"align_self": "flex-start"})
        self.problem = ipywidgets.HTML()
        super().__init__([*controls.values(), self.picture, self.problem])
        for control in controls.values():
            control.observe(self.redraw, names="value")
        self.redraw()

    def redraw(self, _=None):
        """Draws the picture for the present values of the controls."""
        try:
            values = {name: control.value for name, control in self.controls.items()}
            self.picture.value = plots.png(self.draw(**values))
            self.problem.value = ""
        except Exception:  # a widget's exception is lost otherwise: show it to the student
            self.problem.value = f"<pre style='color:#b00'>{traceback.format_exc()}</pre>"


def slider(description, low, high, value, step=None):
    """An integer slider, or one of floats where `step` is a float; drawn anew when let go."""
    kind = ipywidgets.FloatSlider if isinstance(step, float) else ipywidgets.IntSlider
    return kind(
        value,
        min=low,
        max=high,
        step=step or 1,
        description=description,
        continuous_update=False,
        style={"description_width": "110px"},
    )


class LossCurve(ipywidgets.Image):
    """A learning curve that grows while `fit(..., watch=LossCurve())` runs.

    Shows itself when the first point comes and goes away at the end, when
    `plots.loss_curve(history)` draws the same for good.
    """

    def __init__(self):
        super().__init__(format="png")
        self.shown = False

    def __call__(self, history):
        from IPython.display import display

        if not self.shown:
            display(self)
            self.shown = True
        self.value = plots.png(plots.loss_curve(history))
        if len(history.losses) == history.n_steps:
            self.close()


def normal_explorer(x):
    """Sliders for the covariance of a normal around the mean of points x (N, 2), and its NLL."""
    import torch
    from torch.distributions import MultivariateNormal

    mean = x.mean(0)

    def draw(sigma_1, sigma_2, correlation):
        across = correlation * sigma_1 * sigma_2
        entries = [[sigma_1**2, across], [across, sigma_2**2]]
        covariance = torch.tensor(entries, dtype=x.dtype)
        nats = -MultivariateNormal(mean, covariance).log_prob(x).mean().item()
        fig, axis = plt.subplots(figsize=(4.2, 3.4))
        plots.points(axis, x, mean=mean, covariance=covariance)
        axis.set(xlim=(3, 7), ylim=(1.8, 5), title=f"NLL {nats:.3f} nats a point")
        axis.legend(frameon=False, fontsize=8, loc="lower right")
        return fig

    return Explorer(
        draw,
        sigma_1=slider("sigma 1", 0.1, 1.0, 0.8, 0.05),
        sigma_2=slider("sigma 2", 0.1, 1.0, 0.8, 0.05),
        correlation=slider("correlation", -0.9, 0.9, 0.0, 0.05),
    )


def name_explorer(model, alphabet, decode, n=24):
    """A temperature slider for a language model of names; the seed gives other draws."""
    import torch

    with torch.no_grad():
        nothing = torch.zeros(1, *model.image_shape, dtype=torch.long)
        first = model(nothing)[0, 0, 0, 0]  # (levels,): reads no letter yet

    def draw(temperature, seed):
        generator = torch.Generator().manual_seed(seed)
        names = decode(model.sample(n, temperature=temperature, generator=generator))
        p = (first / temperature).softmax(dim=0)
        return plots.names_at(p, alphabet, names, f"temperature {temperature:.2f}")

    return Explorer(
        draw,
        temperature=slider("temperature", 0.05, 2.0, 1.0, 0.05),
        seed=slider("seed", 0, 20, 0),
    )


def writing_explorer(images, order, probabilities):
    """Images (N, C, H, W) written site by site: a play button and a slider for the step.

    probabilities: (N, T, levels), p of each site given those before it, in generation order.
    """

    def draw(image, step):
        return plots.writing_step(images[image], order, step, probabilities[image, step])

    step = slider("step", 0, len(order) - 1, 0)
    play = ipywidgets.Play(min=0, max=len(order) - 1, interval=350, description="write")
    explorer = Explorer(draw, image=slider("sample", 0, len(images) - 1, 0), step=step)
    ipywidgets.jslink((play, "value"), (step, "value"))
    explorer.children = [play, *explorer.children]
    return explorer


def completion_explorer(model, images, n=8):
    """Completions of an image whose first rows are known, for a model that writes row by row."""
    import torch

    _, height, width = model.image_shape

    def draw(image, rows, seed):
        known = torch.zeros(model.image_shape, dtype=torch.bool)
        known[:, :rows] = True
        x = images[image : image + 1].long()
        generator = torch.Generator().manual_seed(seed)
        drawn = model.complete(x.expand(n, -1, -1, -1), known, generator=generator)
        given = torch.where(known, x[0], 0)[None]
        titles = ["true", f"{rows} rows known", *[f"completion {i + 1}" for i in range(n)]]
        return plots.image_grid(
            torch.cat([x, given, drawn]), model.levels, columns=(n + 2) // 2, titles=titles
        )

    return Explorer(
        draw,
        image=slider("test digit", 0, len(images) - 1, 0),
        rows=slider("known rows", 0, height - 1, height // 2),
        seed=slider("seed", 0, 20, 0),
    )


def emoji_explorer():
    """One emoji, chosen by name, as both hands draw it."""
    from gencourse import data

    hands = {}
    for hand in ("noto", "twemoji"):
        hands[hand] = {}
        for split in data.SPLITS:
            images = data.load(f"emoji-{hand}", split)
            hands[hand].update(zip(images.captions, images.pixels, strict=True))

    def draw(name):
        fig, axes = plt.subplots(1, 2, figsize=(4, 2.3))
        for axis, (hand, pictures) in zip(axes, hands.items(), strict=True):
            plots.draw_image(axis, pictures[name], 256)
            axis.set_title(hand, fontsize=9)
        fig.suptitle(name)
        return fig

    names = ipywidgets.Combobox(
        value="hot beverage",
        options=tuple(sorted(hands["noto"])),
        ensure_option=True,
        continuous_update=False,
        description="name",
    )
    return Explorer(draw, name=names)
