"""Recipes: a checkpoint says what made it, and is refused when that has changed."""

import dataclasses
import json
from functools import partial

import pytest
import torch
from safetensors import safe_open

import gencourse
from gencourse import data, recipes
from gencourse.metrics import bits_per_dim
from gencourse.models.pixelcnn import PixelCNN

TINY = recipes.Recipe(
    PixelCNN,
    recipes.DIGITS | {"features": 8, "layers": 1, "first_kernel_size": 3},
    "digits",
    partial(data.load, "digits"),
    n_steps=6,
)


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A recipe of six steps, whose checkpoint goes to a temporary folder."""
    monkeypatch.setattr(data, "DATA", tmp_path / "data")
    monkeypatch.setitem(recipes.RECIPES, "tiny", TINY)
    return "tiny"


def test_train_then_load(tiny):
    metadata = recipes.train(tiny, progress=False)
    model = gencourse.load(tiny)
    assert not model.training and metadata == recipes.metadata(tiny)
    assert metadata["steps"] == 6 and metadata["preview"] is False
    test = data.load("digits", "test")
    nats = recipes.evaluate(model, test)
    assert metadata["test"]["nats"] == pytest.approx(nats, abs=1e-3)
    bits = bits_per_dim(nats, test.pixels)
    assert metadata["test"]["bits_per_dim"] == pytest.approx(bits, abs=1e-4)
    path = recipes.checkpoint(tiny)
    assert [p.name for p in path.parent.iterdir()] == [path.name], "a temporary file was left"
    with safe_open(path, "pt") as file:
        assert all(file.get_tensor(key).dtype == torch.float16 for key in file.keys())


def test_fewer_steps_are_a_preview(tiny):
    assert recipes.train(tiny, steps=3, progress=False)["preview"] is True


def test_a_shorter_run_does_not_replace_a_longer_one(tiny):
    recipes.train(tiny, progress=False)
    with pytest.raises(ValueError, match="steps: expected at least the 6 .* got 3"):
        recipes.train(tiny, steps=3, progress=False)
    assert recipes.metadata(tiny)["steps"] == 6


def test_a_stopped_training_goes_on(tiny, monkeypatch):
    whole = recipes.train(tiny, progress=False)
    weights = gencourse.load(tiny).state_dict()
    recipes.checkpoint(tiny).unlink()
    step, calls = recipes.minimise.__call__, []

    def stops(self, batch, done):
        calls.append(done)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return step(self, batch, done)

    with monkeypatch.context() as patch:
        patch.setattr(recipes.minimise, "__call__", stops)
        with pytest.raises(KeyboardInterrupt):
            recipes.train(tiny, progress=False)
    assert not recipes.checkpoint(tiny).exists()
    assert recipes.train(tiny, progress=False)["test"] == whole["test"]
    again = gencourse.load(tiny).state_dict()
    assert all(torch.equal(weights[key], again[key]) for key in weights)


@pytest.mark.parametrize(
    "change, named",
    [
        ({"settings": TINY.settings | {"layers": 2}}, "expected settings"),
        ({"lr": 1.0}, "expected lr 1.0, got 0.002"),
        ({"seed": 5}, "expected seed 5, got 0"),
    ],
)
def test_a_changed_recipe_is_refused(tiny, monkeypatch, change, named):
    recipes.train(tiny, progress=False)
    monkeypatch.setitem(recipes.RECIPES, "tiny", dataclasses.replace(TINY, **change))
    with pytest.raises(ValueError, match=named):
        gencourse.load(tiny)


def test_other_data_are_refused(tiny, monkeypatch):
    recipes.train(tiny, progress=False)
    monkeypatch.setattr(data, "checksum", lambda name: "0" * 64)
    with pytest.raises(ValueError, match="expected data 000"):
        gencourse.load(tiny)


def test_wrong_names_are_explained(tiny):
    with pytest.raises(ValueError, match="name: expected one of .*pixelcnn-mnist.* got 'nothing'"):
        gencourse.load("nothing")
    with pytest.raises(FileNotFoundError, match="gencourse train tiny"):
        gencourse.load(tiny)


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_shipped_checkpoint_is_what_it_says(name):
    """It loads, is small, and reaches on 100 test images what its metadata say of all, roughly."""
    model, metadata = gencourse.load(name), recipes.metadata(name)
    assert recipes.checkpoint(name).stat().st_size < 4_000_000
    some = recipes.RECIPES[name].images("test")[:100]
    nats = recipes.evaluate(model, some)
    assert nats == pytest.approx(metadata["test"]["nats"], rel=0.1)
    assert json.dumps(metadata) and metadata["parameters"] > 0
