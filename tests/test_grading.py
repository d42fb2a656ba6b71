"""Grades are right: the solution earns all points, and each kept wrong answer loses its own."""

import runpy

import nbformat
import pytest
import torch
from lessons import NOTEBOOKS, ROOT

from gencourse import grading

WITH_EXERCISES = [path for path in NOTEBOOKS if path.stem != "00_welcome"]


def wrong_answers(path):
    return runpy.run_path(str(ROOT / "tests" / "wrong_answers" / f"{path.stem}.py"))["WRONG"]


@pytest.fixture(scope="module", params=WITH_EXERCISES, ids=lambda path: path.stem)
def lesson(request):
    return request.param, grading.answer(request.param)


def exercises(path):
    """{grade_id of an exercise: grade_ids of the test cells that follow it}."""
    tests = {}
    for cell in grading.exercise_cells(nbformat.read(path, as_version=4))[1:]:
        info = cell.metadata.nbgrader
        if info.solution:
            tests[info.grade_id] = following = []
        else:
            following.append(info.grade_id)
    return tests


def test_the_solution_earns_all_points(lesson):
    path, solved = lesson
    assert {grade_id: a.error for grade_id, a in solved.items() if a.error} == {}
    assert all(a.records for a in solved.values()), "a test cell records nothing"
    again = grading.points(grading.answer(path), solved)
    assert again == {grade_id: a.points for grade_id, a in solved.items()}


def test_every_wrong_answer_loses_its_points(lesson):
    path, solved = lesson
    wrong, tests = wrong_answers(path), exercises(path)
    assert set(wrong) == set(tests), "each exercise needs a wrong answer that looks right"
    for exercise, sources in wrong.items():
        for i, source in enumerate(sources):
            earned = grading.points(grading.answer(path, {exercise: source}), solved)
            lost = [test for test in tests[exercise] if earned[test] == 0]
            assert lost, f"{exercise}, wrong answer {i}, earned all its points"


def test_the_empty_stub_earns_nothing(lesson):
    path, solved = lesson
    stubs = {exercise: "raise NotImplementedError()" for exercise in exercises(path)}
    assert set(grading.points(grading.answer(path, stubs), solved).values()) == {0}


def test_a_visible_test_says_what_is_wrong(lesson):
    """At least one kept wrong answer of each lesson is met by a test with words."""
    path, _ = lesson
    errors = [
        answer.error
        for exercise, sources in wrong_answers(path).items()
        for source in sources
        for answer in grading.answer(path, {exercise: source}).values()
        if answer.error
    ]
    assert any(len(error) > 40 for error in errors)


@pytest.mark.parametrize(
    "given, earns",
    [
        ([1.0, 2.0], True),
        ([1.0, 2.0 + 5e-4], True),
        ([1.0, 2.01], False),
        ([[1.0, 2.0]], False),
        ([1.0, float("nan")], False),
    ],
)
def test_records_are_compared_by_shape_and_tolerance(given, earns):
    def recorded(value, tolerance):
        grading.records.clear()
        grading.record("x", torch.tensor(value), tolerance)
        return {"q": grading.Answer(2, None, dict(grading.records))}

    solved = recorded([1.0, 2.0], 1e-3)
    # the student's own tolerance does not count
    assert grading.points(recorded(given, 1e9), solved) == {"q": 2 if earns else 0}


def test_a_missing_record_and_an_error_earn_nothing():
    solved = {"q": grading.Answer(2, None, {"x": (torch.zeros(1).numpy(), 0.1)})}
    assert grading.points({"q": grading.Answer(2, None, {})}, solved) == {"q": 0}
    failed = {"q": grading.Answer(2, "ValueError: no", solved["q"].records)}
    assert grading.points(failed, solved) == {"q": 0}


def test_only_numbers_can_be_recorded():
    with pytest.raises(ValueError, match="expected numbers or booleans"):
        grading.record("x", "the answer")
