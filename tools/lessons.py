"""What the maintainers' tools and the tests know about the notebooks of the course."""

import ast
import functools
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

MEASURED = "measured"  # tag: this cell's output is a time or a memory
IGNORE = "nbval-ignore-output"  # tag: nbval does not compare this cell's output


class Budget(NamedTuple):
    seconds: float
    gigabytes: float


def budget(notebook: NotebookNode) -> Budget:
    """The line `Time 75 s · memory 0.8 GB · 2 cores` of the first Markdown cell."""
    text = next((cell.source for cell in notebook.cells if cell.cell_type == "markdown"), "")
    line = re.search(r"Time ([\d.]+) s · memory ([\d.]+) GB · 2 cores", text)
    if not line:
        raise ValueError(
            "the first Markdown cell has no budget line `Time 75 s · memory 0.8 GB · 2 cores`"
        )
    return Budget(float(line[1]), float(line[2]))


def tags(cell: NotebookNode) -> set[str]:
    return set(cell.metadata.get("tags", []))


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def python_of(cell: NotebookNode) -> str:
    """The source of a code cell with its %magics and !commands turned into Python."""
    return TransformerManager().transform_cell(cell.source)


def declared(*extras: str) -> set[str]:
    """Distributions that pyproject.toml declares, with those of `extras`."""
    lines = list(PROJECT["dependencies"])
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    return {canonicalize_name(Requirement(line).name) for line in lines}


packages_distributions = functools.cache(metadata.packages_distributions)  # takes a second


def undeclared_imports(source: str, allowed: set[str]) -> set[str]:
    """Third-party modules that `source` imports and that belong to none of the `allowed`."""
    modules = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules.add(node.module.partition(".")[0])
    ours = {"gencourse"} | {path.stem for path in ROOT.glob("t*/**/*.py")}  # tests, tools
    distributions = packages_distributions()
    return {
        module
        for module in modules - ours - sys.stdlib_module_names
        if not {canonicalize_name(name) for name in distributions.get(module, [])} & allowed
    }
