"""tools/refresh, `gencourse run` and `gencourse doctor`, on small notebooks and planted faults."""

import hashlib
import importlib.util
import shutil
import subprocess
import sys
from importlib.machinery import SourceFileLoader

import nbformat
import pytest
from lessons import IGNORE, MEASURED, ROOT
from typer.testing import CliRunner

from gencourse import cli, data, doctor, recipes
from gencourse.run import find_lesson, run

FIGURE = """
import matplotlib.pyplot as plt
from gencourse.plots import show
fig, ax = plt.subplots(figsize=(1, 1))
show(fig, "an empty pair of axes")
"""
TEXT = """
import sys
print("one")
print("note", file=sys.stderr)
print("two")
object()
"""
WIDGET = """
from ipywidgets import interact
@interact(n=3)
def double(n):
    print(2 * n)
"""
CLOCK = "import time\nprint(time.time())"


def write(path, *sources, seconds=5):
    """A notebook of code cells, each a source or (source, tags)."""
    budget = f"# Planted\nTime {seconds} s · memory 0.3 GB · 2 cores"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(budget)])
    for source, *tags in (s if isinstance(s, tuple) else (s,) for s in sources):
        metadata = {"tags": tags} if tags else {}
        notebook.cells.append(nbformat.v4.new_code_cell(source.strip(), metadata=metadata))
    nbformat.write(notebook, path)
    return path


def call(*command, timeout=300):
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def refresh(*arguments):
    return call("tools/refresh", *arguments)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def refresh_module():
    loader = SourceFileLoader("refresh", str(ROOT / "tools" / "refresh"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("refresh", loader))
    loader.exec_module(module)
    return module


def test_refresh_writes_the_same_bytes_twice(tmp_path):
    path = write(tmp_path / "a.ipynb", TEXT, FIGURE, (WIDGET, IGNORE), (CLOCK, MEASURED, IGNORE))
    fresh = digest(path)
    assert refresh("--check", path).returncode == 1
    assert digest(path) == fresh
    result = refresh(path)
    assert result.returncode == 0, result.stdout + result.stderr
    stored = digest(path)
    assert "unchanged" in refresh(path).stdout
    assert digest(path) == stored != fresh
    assert [file.name for file in tmp_path.iterdir()] == ["a.ipynb"]

    notebook = nbformat.read(path, as_version=4)
    text, figure, widget, clock = notebook.cells[1:]
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert [cell.execution_count for cell in notebook.cells[1:]] == [1, 2, 3, 4]
    assert [output.get("text") for output in text.outputs] == ["one\ntwo\n", "note\n", None]
    assert text.outputs[2].data["text/plain"] == "<object at 0x…>"
    assert figure.outputs[0].metadata["image/png"]["alt"] == "an empty pair of axes"
    assert widget.outputs == []
    assert set(clock.metadata) == {"tags", MEASURED}


def test_measured_output_is_kept_until_its_source_or_the_package_changes(refresh_module):
    def notebook(output, source=CLOCK, mark=None):
        metadata = {"tags": [MEASURED, IGNORE]} | ({MEASURED: mark} if mark else {})
        outputs = [nbformat.v4.new_output("stream", text=output)]
        cell = nbformat.v4.new_code_cell(source, metadata=metadata, outputs=outputs, id="clock")
        return nbformat.v4.new_notebook(cells=[cell])

    def tidied(new, stored):
        refresh_module.tidy(new, stored)
        return new.cells[0].outputs[0].text

    mark = refresh_module.fingerprint(CLOCK)
    assert tidied(notebook("new"), notebook("stored", mark=mark)) == "stored"
    assert tidied(notebook("new"), notebook("stored")) == "new"
    changed = notebook("new", source=CLOCK + " ")
    assert tidied(changed, notebook("stored", mark=mark)) == "new"
    other_package = notebook("stored", mark="0123456789abcdef")
    assert tidied(notebook("new"), other_package) == "new"


def test_fingerprint_follows_the_package(refresh_module, monkeypatch, tmp_path):
    before = refresh_module.fingerprint(CLOCK)
    shutil.copytree(ROOT / "gencourse", tmp_path / "gencourse")
    monkeypatch.setattr(refresh_module, "ROOT", tmp_path)
    assert refresh_module.fingerprint(CLOCK) == before
    with (tmp_path / "gencourse" / "models" / "__init__.py").open("a") as file:
        file.write("# changed\n")
    assert refresh_module.fingerprint(CLOCK) != before


@pytest.mark.parametrize(
    "source, message",
    [("1 / 0", "ZeroDivisionError"), (WIDGET.replace("2 * n", "n / 0"), "inside a widget")],
    ids=["cell", "widget"],
)
def test_refresh_refuses_an_error(tmp_path, source, message):
    path = write(tmp_path / "fails.ipynb", source)
    before = digest(path)
    result = refresh(path)
    assert result.returncode == 1 and message in result.stdout
    assert digest(path) == before


@pytest.mark.parametrize(
    "seconds, gigabytes, refused",
    [(20, 0.9, None), (39, 1.8, None), (4, 0.9, "seconds"), (50, 0.9, "seconds"), (20, 2.5, "GB")],
)
def test_refresh_holds_the_budget_within_a_factor_of_2(refresh_module, seconds, gigabytes, refused):
    line = "Time 20 s · memory 0.9 GB · 2 cores"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(line)])
    if refused:
        with pytest.raises(ValueError, match=refused):
            refresh_module.check_budget(notebook, seconds, gigabytes)
    else:
        refresh_module.check_budget(notebook, seconds, gigabytes)


def test_run_writes_a_page_with_pictures_and_their_text(tmp_path, capsys):
    assert run(str(write(tmp_path / "good.ipynb", TEXT, FIGURE)), build=tmp_path / "build")
    assert "cell  2 of 2  import matplotlib" in capsys.readouterr().out
    page = (tmp_path / "build" / "good.html").read_text(encoding="utf-8")
    assert 'src="data:image/png;base64,' in page and 'alt="an empty pair of axes"' in page


@pytest.mark.parametrize(
    "source", ["1 / 0", WIDGET.replace("2 * n", "n / 0")], ids=["cell", "widget"]
)
def test_run_reports_an_error_and_writes_the_page_up_to_it(tmp_path, capsys, source):
    path = write(tmp_path / "fails.ipynb", "print('before', 6 * 7)", source)
    assert not run(str(path), build=tmp_path)
    assert "ZeroDivisionError" in capsys.readouterr().out
    assert "before 42" in (tmp_path / "fails.html").read_text(encoding="utf-8")


def test_command_line_tells_user_errors_in_one_line():
    result = call("-c", "from gencourse.cli import main; main()", "run", "99")
    assert result.returncode == 2
    assert result.stderr.startswith("gencourse: There is no lesson '99'. Lessons:")
    assert "Traceback" not in result.stderr


def test_many_widgets_do_not_hang(tmp_path):
    path = write(tmp_path / "many.ipynb", *[WIDGET] * 100)
    source = "import sys; from gencourse.run import run; from pathlib import Path; "
    result = call("-c", source + "run(sys.argv[1], Path(sys.argv[2]))", path, tmp_path, timeout=120)
    assert result.returncode == 0 and "cell 100 of 100" in result.stdout


def test_list_names_every_recipe():
    result = CliRunner().invoke(cli.app, ["list"])
    assert [line.split()[0] for line in result.output.splitlines()] == list(recipes.RECIPES)


def test_sample_draws_the_same_images_from_the_same_seed(tmp_path):
    def draw(name, seed):
        arguments = [
            "sample",
            "pixelcnn-digits",
            "-n",
            "4",
            "--seed",
            seed,
            "--out",
            tmp_path / name,
        ]
        result = CliRunner().invoke(cli.app, list(map(str, arguments)), catch_exceptions=False)
        assert result.exit_code == 0
        return digest(tmp_path / name)

    assert draw("a.png", seed=1) == draw("b.png", seed=1) != draw("c.png", seed=2)


def test_sample_prints_names():
    result = CliRunner().invoke(cli.app, ["sample", "sequence-names", "-n", "3"])
    assert len(result.output.splitlines()) == 3


def test_sample_wants_a_png():
    with pytest.raises(ValueError, match="to end in .png, not .jpg"):
        arguments = ["sample", "pixelcnn-digits", "--out", "a.jpg"]
        CliRunner().invoke(cli.app, arguments, catch_exceptions=False)


def test_failing_lesson_makes_the_command_fail(tmp_path):
    path = write(tmp_path / "planted_failure.ipynb", "1 / 0")
    result = call("-c", "from gencourse.cli import main; main()", "run", path)
    (ROOT / "build" / "planted_failure.html").unlink()
    assert result.returncode == 1 and "ZeroDivisionError" in result.stdout


def test_find_lesson_by_number_name_and_path(tmp_path):
    lessons = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    for path in lessons:
        assert find_lesson(path.stem[:2]) == find_lesson(path.stem) == path
        assert find_lesson(str(int(path.stem[:2]))) == path
    with pytest.raises(FileNotFoundError, match="no_such.ipynb"):
        find_lesson(str(tmp_path / "no_such.ipynb"))


def test_doctor_finds_nothing_broken_here():
    assert [check for check in doctor.check() if not check.ok] == []


def test_doctor_reports_a_missing_and_an_altered_file(monkeypatch, tmp_path, capsys):
    shutil.copytree(data.DATA, tmp_path / "data")
    (tmp_path / "data" / "photos" / "cat.jpg").unlink()
    altered = tmp_path / "data" / "paintings" / "auvers.jpg"
    altered.chmod(0o644)
    altered.write_bytes(altered.read_bytes() + b"x")
    monkeypatch.setattr(data, "DATA", tmp_path / "data")
    assert not doctor.report()
    out = capsys.readouterr().out
    assert "cat.jpg" in out and "auvers.jpg" in out and "git checkout -- data" in out
    assert out.count("BROKEN") == 2


def test_doctor_reports_a_missing_and_an_old_package(monkeypatch):
    needs = ["no-such-package>=1", "numpy>=999", 'pytest>=999; extra == "test"', "packaging>=1"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: needs)
    missing, old, fine = doctor.check_packages()
    assert not missing.ok and "missing, no-such-package>=1 is needed" in missing.message
    assert not old.ok and "numpy>=999 is needed" in old.message
    assert fine.ok


def test_doctor_reports_missing_widget_files(monkeypatch):
    monkeypatch.setattr(doctor.metadata, "files", lambda name: [])
    assert not doctor.check_widget_extension().ok
