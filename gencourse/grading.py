"""Exercises: what the student's code is asked for, and what an answer earns.

A lesson has exercise cells and test cells (nbgrader metadata). A visible test asserts, and helps.
A hidden test only records what the student's code gives for inputs that the student has not seen;
the verdict is a comparison with what the solved lesson recorded for the same inputs, so there is
no expected value to steal and no assert to patch.
"""

import contextlib
import io
from dataclasses import dataclass, field

import nbformat
import numpy as np
import torch

records = {}  # name -> (array, tolerance), of the cell that runs


def record(name, value, tolerance=1e-6):
    """Notes a number, array or tensor under a name, for the grader to compare.

    tolerance: how far each entry may be from the solved lesson's, whose tolerance counts.
    """
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"record({name!r}): expected numbers or booleans, got {type(value)}")
    records[name] = (array.astype(np.float64), tolerance)


@dataclass
class Answer:
    """What came of one test cell: its error in words, or None, and what it recorded."""

    points: float
    error: str | None = None
    records: dict = field(default_factory=dict)


def exercise_cells(notebook):
    """The cells that grading runs: the set-up cell, then exercise and test cells, in order."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    graded = [c for c in code[1:] if c.metadata.get("nbgrader", {}).get("grade_id")]
    return [code[0], *graded]


def answer(path, replaced=None):
    """Runs the exercises of a lesson: {grade_id of each test cell: Answer}.

    replaced: {grade_id of an exercise cell: source to run instead of the solution}.
    An error in a cell does not stop the next ones.
    """
    replaced = replaced or {}
    setup, *cells = exercise_cells(nbformat.read(path, as_version=4))
    known = [c.metadata.nbgrader.grade_id for c in cells if c.metadata.nbgrader.solution]
    if set(replaced) - set(known):
        raise ValueError(f"replaced: expected exercises of {known}, got {sorted(replaced)}")
    namespace = {"__name__": "__main__"}
    answers = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(setup.source, namespace)
        for cell in cells:
            info = cell.metadata.nbgrader
            records.clear()
            error = None
            try:
                exec(replaced.get(info.grade_id, cell.source), namespace)
            except Exception as problem:
                error = f"{type(problem).__name__}: {problem}"
            if info.grade:
                answers[info.grade_id] = Answer(info.points, error, dict(records))
    return answers


def points(answers, solved):
    """{grade_id: points earned}: all of them if nothing failed and every record agrees."""
    return {
        grade_id: right.points if _agrees(answers[grade_id], right) else 0
        for grade_id, right in solved.items()
    }


def _agrees(given, right):
    if given.error or right.error or set(given.records) != set(right.records):
        return False
    for name, (expected, tolerance) in right.records.items():
        value = given.records[name][0]
        if value.shape != expected.shape:
            return False
        if not np.allclose(value, expected, rtol=0, atol=tolerance, equal_nan=True):
            return False
    return True
