"""Recipes: a name stands for a model, its data and its settings; training it makes a checkpoint.

    gencourse train pixelcnn-mnist       ->  data/checkpoints/pixelcnn-mnist.safetensors
    model = gencourse.load("pixelcnn-mnist")

A checkpoint holds the weights in half precision and, as metadata, what made them and how good
they are. It is refused when the recipe or the data have changed since.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from gencourse import data, text
from gencourse.metrics import bits_per_dim
from gencourse.models.autoregressive import evaluation
from gencourse.models.pixelcnn import PixelCNN
from gencourse.models.sequence import SequenceModel
from gencourse.train import Batches, fit, minimise


def binarised_mnist(split):
    return data.binarise(data.load("mnist", split))


@dataclass(frozen=True)
class Recipe:
    """model(**settings) fitted to images(split), which come from the data set `source`."""

    model: type
    settings: dict
    source: str  # as in data.load: its checksum goes into the checkpoint
    images: Callable
    n_steps: int
    batch_size: int = 32
    lr: float = 2e-3
    step: dict = field(default_factory=dict)  # more settings of train.minimise
    seed: int = 0

    def describe(self):
        """Everything that makes two runs the same, as plain values."""
        fixed = {"model": self.model.__name__, "data": data.checksum(self.source)}
        names = ("settings", "source", "n_steps", "batch_size", "lr", "step", "seed")
        # through JSON, so that it compares equal to what a file gives back
        return json.loads(json.dumps(fixed | {name: getattr(self, name) for name in names}))


DIGITS = {"image_shape": (1, 8, 8), "levels": 17}
MNIST = {"image_shape": (1, 28, 28), "levels": 2}
NAMES = {"image_shape": (1, 1, 24), "levels": len(text.ALPHABET)}

RECIPES = {
    "sequence-names": Recipe(
        SequenceModel,
        NAMES | {"hidden": 128, "dropout": 0.4},
        "emoji",
        text.names,
        n_steps=1200,
        batch_size=64,
        lr=5e-3,
    ),
    "sequence-digits": Recipe(
        SequenceModel,
        DIGITS | {"hidden": 192, "dropout": 0.65},
        "digits",
        partial(data.load, "digits"),
        n_steps=1500,
        lr=6e-3,
        step={"weight_decay": 0.1},
    ),
    "pixelcnn-digits": Recipe(
        PixelCNN,
        DIGITS | {"features": 64, "layers": 5, "first_kernel_size": 5, "dropout": 0.5},
        "digits",
        partial(data.load, "digits"),
        n_steps=2000,
        lr=4e-3,
    ),
    "pixelcnn-mnist": Recipe(
        PixelCNN,
        MNIST | {"features": 64, "layers": 6, "kernel_size": 5},
        "mnist",
        binarised_mnist,
        n_steps=60_000,  # some 38 epochs: minutes on a GPU, hours on two cores
        lr=3e-3,
    ),
}


def checkpoint(name):
    """Where the checkpoint of a recipe lies."""
    if name not in RECIPES:
        raise ValueError(f"name: expected one of {', '.join(RECIPES)}, got {name!r}")
    return data.DATA / "checkpoints" / f"{name}.safetensors"


def build(name):
    """The model of a recipe, not trained."""
    checkpoint(name)  # refuses a wrong name
    recipe = RECIPES[name]
    torch.manual_seed(recipe.seed)
    return recipe.model(**recipe.settings)


def evaluate(model, images, batch_size=250):
    """Mean negative log-likelihood of a data set, in nats per image."""
    device = next(model.parameters()).device
    total = 0.0
    with evaluation(model):
        for x in images.pixels.split(batch_size):
            total -= model.log_prob(x.to(device)).sum().item()
    return total / len(images)


def train(name, steps=None, progress=True):
    """Trains a recipe and writes its checkpoint; returns the metadata.

    steps: fewer than the recipe says makes a `preview`, marked as such. A run that was stopped
    (Ctrl-C, or the machine) goes on where it was: its state lies in build/training.
    """
    recipe, path = RECIPES[checkpoint(name).stem], checkpoint(name)
    n_steps = recipe.n_steps if steps is None else steps
    if path.exists():
        there = metadata(name)
        if there.get("recipe") == recipe.describe() and there["steps"] > n_steps:
            raise ValueError(
                f"steps: expected at least the {there['steps']} that {path} was trained for, "
                f"got {n_steps}; move that file away to train a shorter one"
            )
    model = build(name)
    training, valid = recipe.images("train"), recipe.images("valid")
    state = data.DATA.parent / "build" / "training" / f"{name}-{n_steps}.pt"
    some = valid[:1000]
    history = fit(
        minimise(model, recipe.lr, **recipe.step),
        Batches(training.pixels, batch_size=recipe.batch_size, seed=recipe.seed),
        n_steps,
        validate=lambda m: bits_per_dim(evaluate(m, some), some.pixels),
        every=max(1, n_steps // 20),
        checkpoint=state,
        progress=progress,
    )
    if len(history.losses) < n_steps:
        raise SystemExit(f"{name} is not finished: run the same command again to go on")
    half = {key: value.half().contiguous() for key, value in model.cpu().state_dict().items()}
    model.load_state_dict(half)  # measured as it will be loaded
    made = {
        "recipe": recipe.describe(),
        "steps": n_steps,
        "preview": n_steps < recipe.n_steps,
        "parameters": sum(p.numel() for p in model.parameters()),
        "train_seconds": round(history.seconds),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    for split in ("valid", "test"):
        images = recipe.images(split)
        nats = evaluate(model, images)
        made[split] = {
            "images": len(images),
            "nats": round(nats, 4),
            "bits_per_dim": round(bits_per_dim(nats, images.pixels), 5),
        }
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    save_file(half, unfinished, {"gencourse": json.dumps(made)})
    unfinished.chmod(0o644)  # it is made for its owner alone
    os.replace(unfinished, path)
    state.unlink()
    return made


def metadata(name):
    """What the checkpoint of a recipe says of itself; FileNotFoundError where there is none."""
    path = checkpoint(name)
    if not path.exists():
        raise FileNotFoundError(f"{name} is not trained yet: no {path}; gencourse train {name}")
    with safe_open(path, "pt") as file:
        return json.loads((file.metadata() or {}).get("gencourse", "{}"))


def load(name):
    """The trained model of a recipe, in evaluation mode.

    Raises ValueError for an unknown name, and for a checkpoint that does not match the recipe;
    FileNotFoundError where it is not trained yet.
    """
    found, expected = metadata(name).get("recipe", {}), RECIPES[name].describe()
    for key, value in expected.items():
        if found.get(key) != value:
            raise ValueError(
                f"{checkpoint(name)}: expected {key} {value}, got {found.get(key)}; the recipe has "
                f"changed since: gencourse train {name}"
            )
    model = build(name)
    model.load_state_dict(load_file(checkpoint(name)))
    return model.eval()
