"""A notebook in a real JupyterLab: it runs, a slider moves a picture, the console has no error."""

import os

import nbformat
import pytest
from lessons import ROOT

pytest.importorskip("playwright", reason="NO PLAYWRIGHT: no notebook was opened in a browser")
import browser

pytestmark = pytest.mark.skipif(
    not browser.CHROMIUM,
    reason="NO CHROMIUM: no notebook was opened in a browser; on Debian: apt-get install chromium",
)
SCREENS = ROOT / "build" / "screens"

SETUP = """
import matplotlib.pyplot as plt
from ipywidgets import interact
from gencourse.plots import show
"""
SLIDER = """
@interact(n=(1, 9))
def draw(n=3):
    fig, ax = plt.subplots(figsize=(3, 2))
    ax.plot(range(n + 1))
    show(fig, f"a line of {n} steps")
"""


def write(path, *sources):
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source.strip()) for source in sources],
        metadata={"kernelspec": {"display_name": "Python 3", "name": "python3"}},
    )
    nbformat.write(notebook, path)
    return path


def keep_screens(page, name):
    if os.environ.get("GENCOURSE_SCREENS"):
        browser.screenshots(page, str(SCREENS / name))


def test_slider_changes_the_picture(tmp_path):
    with browser.open_lesson(write(tmp_path / "slider.ipynb", SETUP, SLIDER)) as page:
        browser.run_all(page)
        three = browser.picture(page)
        keep_screens(page, "slider_3")
        browser.move_slider(page, steps=1)
        four = browser.picture(page, other_than=three)
        keep_screens(page, "slider_4")
        browser.move_slider(page, steps=-1)
        assert browser.picture(page, other_than=four) == three
        assert not page.problems


def test_failing_cell_and_console_error_are_seen(tmp_path):
    with browser.open_lesson(write(tmp_path / "fails.ipynb", "1", "1 / 0", "2")) as page:
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            browser.run_all(page)
        page.evaluate("console.error('planted')")
        assert [problem.partition(" ")[0] for problem in page.problems] == ["planted"]


def test_lesson_03_runs_and_its_explorer_moves():
    """The whole lesson in the browser; then the depth and the probed pixel are moved."""
    with browser.open_lesson(ROOT / "notebooks/03_pixelcnn.ipynb") as page:
        browser.run_all(page)
        keep_screens(page, "03")
        seen = [browser.picture(page)]
        for slider in (0, 1, 2, 3):  # layers, kernel, row and column of the probed pixel
            browser.move_slider(page, slider, steps=1)
            seen.append(browser.picture(page, slider, other_than=seen[-1]))
        assert len(set(seen)) == len(seen), "a slider did not change the picture"
        assert not page.problems
