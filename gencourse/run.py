"""Execute a lesson in the terminal: `gencourse run 03`, for a machine with no browser."""

from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbclient.output_widget import OutputWidget
from nbconvert import HTMLExporter

ROOT = Path(__file__).resolve().parents[1]
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
PAGE = """{% extends 'lab/index.html.j2' %}
{% block data_png scoped %}
<div class="jp-RenderedImage jp-OutputArea-output">
<img src="data:image/png;base64,{{ output.data['image/png'] | escape_html }}"
  alt="{{ output | get_metadata('alt', 'image/png') | escape_html }}">
</div>
{% endblock %}
"""  # nbconvert's own page drops the alternative text of figures


class QuietOutputWidget(OutputWidget):
    """Keeps what a widget prints, without telling the kernel.

    nbclient's own tells it, while waiting for the kernel's reply on the same socket; the reply can
    then go unnoticed, and among some tens of widget cells one waits for ever.
    """

    def sync_state(self) -> None:
        pass


def find_lesson(name: str) -> Path:
    """The notebook of a lesson, from its number ("03", "3"), its name or its path."""
    if name.endswith(".ipynb"):
        if not Path(name).is_file():
            raise FileNotFoundError(f"There is no notebook {name}.")
        return Path(name)
    lessons = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    for path in lessons:
        if name == path.stem or name.zfill(2) == path.stem[:2]:
            return path
    there_are = ", ".join(path.stem for path in lessons) or f"none in {ROOT / 'notebooks'}"
    raise ValueError(f"There is no lesson {name!r}. Lessons: {there_are}.")


def execute(
    notebook: nbformat.NotebookNode,
    folder: Path,
    on_cell: Callable[[int, int, str], None] = lambda number, total, source: None,
) -> None:
    """Execute `notebook` in place, in `folder`, with the Python that runs this.

    `on_cell(number, total, source)` is called before each code cell. An error in a cell raises
    nbclient's CellExecutionError; the outputs up to there, and its traceback, are in the notebook.
    """
    code_cells = [
        (index, cell) for index, cell in enumerate(notebook.cells) if cell.cell_type == "code"
    ]
    for _, cell in code_cells:
        cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=None,
        record_timing=False,
        coalesce_streams=True,
        shutdown_kernel="immediate",
        extra_arguments=["--IPKernelApp.log_level=40"],  # errors alone, no start-up notices
        resources={"metadata": {"path": str(folder)}},
    )
    client.widget_registry["@jupyter-widgets/output"]["OutputModel"] = QuietOutputWidget
    with client.setup_kernel():
        try:
            for number, (index, cell) in enumerate(code_cells, start=1):
                on_cell(number, len(code_cells), cell.source)
                client.execute_cell(cell, index, execution_count=number)
        finally:
            client.set_widgets_metadata()


def widget_errors(notebook: nbformat.NotebookNode) -> list[str]:
    """Tracebacks of the errors inside widgets, which stop no cell."""
    models = notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {}).values()
    outputs = [output for model in models for output in model["state"].get("outputs", [])]
    return ["\n".join(o["traceback"]) for o in outputs if o["output_type"] == "error"]


def run(name: str, build: Path = ROOT / "build") -> bool:
    """Execute a lesson with progress by cell and write `build`/<lesson>.html; True if no error.

    Pictures and style are in the page; only formulas and widgets need the network to be drawn.
    """
    path = find_lesson(name)
    notebook = nbformat.read(path, as_version=4)
    start = perf_counter()

    def progress(number, total, source):
        first_line = source.strip().partition("\n")[0]
        print(f"{perf_counter() - start:6.1f} s  cell {number:2} of {total}  {first_line[:70]}")

    errors = []
    try:
        execute(notebook, path.parent, progress)
    except (CellExecutionError, DeadKernelError) as error:
        errors.append(str(error))
    errors += widget_errors(notebook)

    build.mkdir(parents=True, exist_ok=True)
    page = build / f"{path.stem}.html"
    exporter = HTMLExporter(template_name="lab", raw_template=PAGE, embed_images=True)
    html, _ = exporter.from_notebook_node(notebook)
    page.write_text(html, encoding="utf-8")

    for error in errors:
        print(error)
    verdict = "stopped by an error" if errors else "done"
    print(f"{perf_counter() - start:6.1f} s  {verdict}; page: {page}")
    return not errors
