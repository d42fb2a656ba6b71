"""The command `gencourse`. What is heavy is imported by the command that needs it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Image generation: a course of notebooks that run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Recipe = Annotated[str, typer.Argument(help="One of `gencourse list`.")]


def main() -> None:
    """Run the command line; what the user can mend becomes one line and exit code 2."""
    try:
        app()
    except Exception as error:
        from gencourse.data import DataError

        if not isinstance(error, (ValueError, FileNotFoundError, DataError)):
            raise
        print(f"gencourse: {error}", file=sys.stderr)
        sys.exit(2)


@app.command()
def doctor() -> None:
    """Check Python, packages, data, Jupyter, widgets and disk, and say how to mend them."""
    from gencourse.doctor import report

    raise typer.Exit(0 if report() else 1)


@app.command()
def run(lesson: Annotated[str, typer.Argument(help="03, 03_pixelcnn or a path")]) -> None:
    """Execute a lesson here and write build/<lesson>.html, a page to look at."""
    from gencourse.run import run

    raise typer.Exit(0 if run(lesson) else 1)


@app.command("list")
def list_recipes() -> None:
    """The models that can be trained, and how good the trained ones are."""
    from gencourse import recipes

    for name in recipes.RECIPES:
        try:
            print(summary(name, recipes.metadata(name)))
        except FileNotFoundError:
            print(f"{name:16} not trained yet: gencourse train {name}")


def summary(name: str, metadata: dict) -> str:
    """One line: how good a checkpoint is on the test set, and what it took."""
    test, preview = metadata["test"], ", preview" if metadata["preview"] else ""
    return (
        f"{name:16} {test['nats']:6.2f} nats, {test['bits_per_dim']:.3f} bits/dim, "
        f"{metadata['parameters']:,} parameters, {metadata['steps']:,} steps in "
        f"{metadata['train_seconds']:,} s{preview}"
    )


@app.command()
def train(
    name: Recipe,
    steps: Annotated[int | None, typer.Option(help="Default: the recipe's.")] = None,
    threads: Annotated[int | None, typer.Option(help="Default: one for each core.")] = None,
) -> None:
    """Train a recipe and store its checkpoint in data/checkpoints."""
    import torch

    from gencourse import recipes

    if threads:
        torch.set_num_threads(threads)
    print(summary(name, recipes.train(name, steps=steps)))


@app.command()
def sample(
    name: Recipe,
    n: Annotated[int, typer.Option("-n", min=1, help="How many images.")] = 16,
    out: Annotated[Path | None, typer.Option(help="Default: build/NAME.png.")] = None,
    seed: int = 0,
    temperature: Annotated[float | None, typer.Option(help="Default: 1.")] = None,
) -> None:
    """Draw images from a trained model into one PNG; names are printed."""
    import torch
    from torchvision.utils import save_image

    from gencourse import recipes, text

    out = out or Path("build") / f"{name}.png"
    if out.suffix != ".png":
        raise ValueError(f"--out is to end in .png, not {out.suffix or 'in nothing'}: {out}")
    model = recipes.load(name)
    settings = {} if temperature is None else {"temperature": temperature}
    images = model.sample(n, generator=torch.Generator().manual_seed(seed), **settings)
    if recipes.RECIPES[name].images is text.names:
        print("\n".join(text.decode(images)))
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    save_image(images / (model.levels - 1), out, nrow=round(n**0.5), pad_value=0.5)
    print(f"{n} images in {out}")
