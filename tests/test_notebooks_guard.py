"""Every lesson keeps the rules of the course; every rule is shown to refuse a planted violation."""

import ast
import builtins
import copy
import re
import symtable
from pathlib import Path

import nbformat
import pytest
from lessons import (
    IGNORE,
    MEASURED,
    NOTEBOOKS,
    budget,
    code_cells,
    declared,
    python_of,
    tags,
    undeclared_imports,
)

# ---- the rules: each returns the problems it finds ----------------------------------------------


def executed_in_order(notebook, path):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"execution counts are {counts}: run tools/refresh"


def stored_by_refresh(notebook, path):
    if set(notebook.metadata) != {"kernelspec", "language_info"}:
        yield f"notebook metadata {sorted(notebook.metadata)}: run tools/refresh"
    for cell in notebook.cells:
        if extra := set(cell.metadata) - {"tags", "nbgrader", MEASURED}:
            yield f"{first_line(cell)}: cell metadata {sorted(extra)}: run tools/refresh"


def no_error_output(notebook, path):
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"{first_line(cell)}: stored with {output.ename}"


def no_trailing_semicolon(notebook, path):
    for cell in code_cells(notebook):
        if any(line.rstrip().endswith(";") for line in cell.source.splitlines()):
            yield f"{first_line(cell)}: a line ends with `;`"


def known_tags(notebook, path):
    for cell in notebook.cells:
        if unknown := tags(cell) - {IGNORE, MEASURED}:
            yield f"{first_line(cell)}: unknown tags {sorted(unknown)}"
        if MEASURED in tags(cell) and IGNORE not in tags(cell):
            yield f"{first_line(cell)}: {MEASURED} without {IGNORE}"


def small_file(notebook, path):
    megabytes = len(nbformat.writes(notebook).encode()) / 1e6
    if megabytes > 1.5:
        yield f"{megabytes:.1f} MB, at most 1.5"


def budget_stated(notebook, path):
    """Stated and within bounds; that it is true, tools/refresh checks as it stores a lesson."""
    try:
        seconds = budget(notebook).seconds
    except ValueError as error:
        yield str(error)
    else:
        if seconds > 120:
            yield f"budget of {seconds:.0f} s, at most 120"


def graded_cells_have_points(notebook, path):
    for cell in notebook.cells:
        if grader(cell).get("grade") and not grader(cell).get("points", 0) > 0:
            yield f"{first_line(cell)}: graded, without points"


def three_graded_exercises(notebook, path):
    """An exercise: a cell with a solution, and at least one graded test cell before the next."""
    if path.name.startswith("00"):
        return
    kinds = ["S" if grader(cell).get("solution") else "T" for cell in exercise_cells(notebook)]
    exercises = len(re.findall("ST+", "".join(kinds)))
    if exercises < 3:
        yield f"{exercises} graded exercises, at least 3"


def imports_declared(notebook, path):
    for cell in code_cells(notebook):
        if missing := undeclared_imports(python_of(cell), declared()):
            yield f"{first_line(cell)}: imports {sorted(missing)}, not in pyproject.toml"


def figures_have_alt_text(notebook, path):
    for cell in code_cells(notebook):
        for output in cell.outputs:
            for mime in output.get("data", {}):
                if mime.startswith("image/") and not alt_text(output, mime):
                    yield f"{first_line(cell)}: figure without alt text: gencourse.plots.show"
    for cell in markdown_cells(notebook):
        if re.search(r"!\[\s*\]\(", cell.source) or re.search(r"<img(?![^>]*alt=)", cell.source):
            yield f"{first_line(cell)}: picture without alt text"


def links_lead_somewhere(notebook, path):
    for cell in markdown_cells(notebook):
        for target in re.findall(r"\]\(([^)\s]+)\)", cell.source):
            file = target.partition("#")[0]
            if file and ":" not in file and not (path.parent / file).exists():
                yield f"{first_line(cell)}: link to {file}, which is not there"


def short_cells(notebook, path):
    for cell in code_cells(notebook):
        lines = [line for line in cell.source.splitlines() if not line.startswith("###")]
        if len(lines) > 25:
            yield f"{first_line(cell)}: {len(lines)} lines, at most 25"


def exercises_stand_alone(notebook, path):
    """Exercise and test cells use names of the set-up cell and earlier such cells alone."""
    known = set(dir(builtins)) | {"display", "get_ipython"}
    for cell in [*code_cells(notebook)[:1], *exercise_cells(notebook)]:
        if cell.cell_type != "code":
            continue
        defined, used = names(symtable.symtable(python_of(cell), "cell", "exec"))
        known |= defined
        if missing := used - known:
            yield f"{first_line(cell)}: {sorted(missing)} from a cell that grading does not run"


def functions_defined_once(notebooks):
    """Over all lessons, {path: notebook}: what two lessons need belongs in the package."""
    where = {}
    for path, notebook in notebooks.items():
        for cell in code_cells(notebook):
            for node in ast.parse(python_of(cell)).body:
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    where.setdefault(node.name, set()).add(path.name)
    for name, files in where.items():
        if len(files) > 1:
            yield f"{name} is defined in {sorted(files)}"


# ---- what the rules are made of -----------------------------------------------------------------


def first_line(cell):
    return repr(cell.source.partition("\n")[0][:60])


def markdown_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "markdown"]


def grader(cell):
    return cell.metadata.get("nbgrader", {})


def exercise_cells(notebook):
    """All that grading runs besides the set-up cell."""
    return [cell for cell in notebook.cells if grader(cell).get("solution") or is_test(cell)]


def is_test(cell):
    return bool(grader(cell).get("grade"))


def alt_text(output, mime):
    return output.metadata.get(mime, {}).get("alt", "").strip()


def names(table):
    """Names that a module scope defines, and global names that it or a scope inside it uses."""
    symbols = table.get_symbols()
    defined = {s.get_name() for s in symbols if s.is_assigned() or s.is_imported()}
    used = {s.get_name() for s in symbols if s.is_referenced()}
    for inner in map(all_symbols, table.get_children()):
        used |= {s.get_name() for s in inner if s.is_global() and s.is_referenced()}
        defined |= {s.get_name() for s in inner if s.is_declared_global() and s.is_assigned()}
    return defined, used


def all_symbols(table):
    return [
        *table.get_symbols(),
        *(s for child in table.get_children() for s in all_symbols(child)),
    ]


# ---- the lessons keep them ----------------------------------------------------------------------

RULES = [
    executed_in_order,
    stored_by_refresh,
    no_error_output,
    no_trailing_semicolon,
    known_tags,
    small_file,
    budget_stated,
    graded_cells_have_points,
    three_graded_exercises,
    imports_declared,
    figures_have_alt_text,
    links_lead_somewhere,
    short_cells,
    exercises_stand_alone,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_lesson(path, rule):
    problems = list(rule(nbformat.read(path, as_version=4), path))
    assert not problems, "\n".join(problems)


def test_functions_defined_once():
    problems = list(functions_defined_once({p: nbformat.read(p, as_version=4) for p in NOTEBOOKS}))
    assert not problems, "\n".join(problems)


# ---- and each rule refuses what it is for -------------------------------------------------------


def code(source, outputs=(), **metadata):
    return nbformat.v4.new_code_cell(source, outputs=list(outputs), metadata=metadata)


def graded(source, points=2):
    return code(source, nbgrader={"grade": True, "solution": False, "points": points})


def solution(source):
    return code(source, nbgrader={"grade": False, "solution": True})


def output(kind, **content):
    return nbformat.v4.new_output(kind, **content)


def picture(**metadata):
    return output("display_data", data={"image/png": "iVBORw0K"}, metadata=metadata)


@pytest.fixture
def good():
    text = "# Masks\nTime 75 s · memory 0.8 GB · 2 cores\n\n[here](test_notebooks_guard.py#rules)"
    exercises = [
        cell
        for n in range(3)
        for cell in (solution(f"def f{n}(x):\n    return x + OFFSET"), graded(f"assert f{n}(1)"))
    ]
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [
        nbformat.v4.new_markdown_cell(text),
        code("import torch\nfrom gencourse.plots import show\nOFFSET = 3"),
        code("%time\nshow(1)", [picture(**{"image/png": {"alt": "a line"}})]),
        code("clock()", tags=[MEASURED, IGNORE]),
        *exercises,
    ]
    return number(notebook)


def number(notebook):
    for count, cell in enumerate(code_cells(notebook), start=1):
        cell.execution_count = count
    notebook.metadata = {"kernelspec": {}, "language_info": {}}
    return notebook


def broken_by(rule, notebook):
    return bool(list(rule(notebook, Path(__file__).with_name("03_planted.ipynb"))))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_lets_a_good_lesson_pass(good, rule):
    assert not broken_by(rule, good)


def without_budget(notebook):
    notebook.cells[0].source = "# Masks"


def set_budget(seconds):
    def change(notebook):
        notebook.cells[0].source = f"Time {seconds} s · memory 0.8 GB · 2 cores"

    return change


def drop_count(notebook):
    notebook.cells[1].execution_count = None


def add(*cells):
    def change(notebook):
        notebook.cells += copy.deepcopy(cells)
        number(notebook)

    return change


def markdown(source):
    return nbformat.v4.new_markdown_cell(source)


PLANTED = {
    "no count": (executed_in_order, drop_count),
    "widget state": (stored_by_refresh, lambda nb: nb.metadata.update(widgets={})),
    "timing": (stored_by_refresh, add(code("1", execution={"start": "now"}))),
    "error": (no_error_output, add(code("1/0", [output("error", ename="E", evalue="")]))),
    "semicolon": (no_trailing_semicolon, add(code("plot(1);"))),
    "unknown tag": (known_tags, add(code("1", tags=["nbval-skip"]))),
    "measured alone": (known_tags, add(code("1", tags=[MEASURED]))),
    "large": (small_file, add(code("1", [output("stream", text="x" * 1_500_000)]))),
    "no budget": (budget_stated, without_budget),
    "budget too large": (budget_stated, set_budget(121)),
    "no points": (graded_cells_have_points, add(graded("assert f0(1)", points=0))),
    "two exercises": (three_graded_exercises, lambda nb: nb.cells.pop()),
    "undeclared import": (imports_declared, add(code("def f():\n    import keras.models as k"))),
    "undeclared from": (imports_declared, add(code("from keras import Model"))),
    "no alt": (figures_have_alt_text, add(code("1", [picture()]))),
    "blank alt": (figures_have_alt_text, add(code("1", [picture(**{"image/png": {"alt": " "}})]))),
    "markdown picture": (figures_have_alt_text, add(markdown("![](test_notebooks_guard.py)"))),
    "html picture": (figures_have_alt_text, add(markdown('<img src="a.png">'))),
    "broken link": (links_lead_somewhere, add(markdown("see [04](04_no_such.ipynb#top)"))),
    "long cell": (short_cells, add(code("x = 1\n" * 26))),
    "teaching cell's name": (exercises_stand_alone, add(code("y = 1"), graded("assert f0(y)"))),
    "name inside": (
        exercises_stand_alone,
        add(code("y = 1"), graded("t = lambda: [y for _ in 'a']")),
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_rule_refuses(name, good):
    rule, plant = PLANTED[name]
    plant(good)
    assert broken_by(rule, good)
    others = [other.__name__ for other in RULES if other is not rule and broken_by(other, good)]
    assert not others


def test_function_in_two_lessons_is_refused(good):
    again = {Path("01_a.ipynb"): good, Path("02_b.ipynb"): good}
    assert list(functions_defined_once(again))[0].startswith("f0 is defined in")
    assert not list(functions_defined_once({Path("01_a.ipynb"): good}))
