"""pyproject.toml, constraints.txt, environment.yml, Makefile and README agree."""

import re
import subprocess

import pytest
from lessons import PROJECT, ROOT, declared, undeclared_imports
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

EXTRAS = tuple(PROJECT["optional-dependencies"])


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def pins():
    return [Requirement(line) for line in read("constraints.txt").splitlines()]


@pytest.fixture(scope="module")
def files():
    """What is in the repository, or would be with the next `git add --all`."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listing = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [
        path for path in (ROOT / name for name in listing.split("\0") if name) if path.is_file()
    ]


@pytest.fixture(scope="module")
def texts(files):
    contents = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in files}
    return {name: c.decode("utf-8") for name, c in contents.items() if is_text(c)}


def is_text(content):
    try:
        return "\0" not in content.decode("utf-8")
    except UnicodeDecodeError:
        return False


def test_constraints_pin_one_version_for_each_platform():
    for pin in pins():
        assert pin.url is None and re.fullmatch(r"==[\w.!+]+", str(pin.specifier)), str(pin)
    everywhere = [pin.name for pin in pins() if pin.marker is None]
    assert len(everywhere) == len(set(everywhere))


@pytest.mark.parametrize("extra", [None, *EXTRAS])
def test_constraints_satisfy_pyproject(extra):
    lines = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    for need in map(Requirement, lines):
        versions = [
            str(pin.specifier).removeprefix("==")
            for pin in pins()
            if canonicalize_name(pin.name) == canonicalize_name(need.name)
        ]
        assert versions, f"{need} has no pin in constraints.txt: make constraints"
        for version in versions:
            assert need.specifier.contains(version), f"{need}, but constraints.txt has {version}"


def test_environment_is_python_pip_and_this_package():
    lines = read("environment.yml").partition("dependencies:\n")[2].splitlines()
    extra = re.fullmatch(r"- -e \.\[(\w+)\]", lines[-1].strip())
    assert extra and extra[1] in EXTRAS, lines[-1]
    python = "- python" + PROJECT["requires-python"]
    assert [line.strip() for line in lines[:-1]] == [python, "- pip", "- pip:"]


@pytest.mark.parametrize(
    "folder, extras", [("gencourse", ()), ("tools", EXTRAS), ("tests", EXTRAS)]
)
def test_imports_are_declared(texts, folder, extras):
    for name, source in texts.items():
        if name.startswith(f"{folder}/") and (name.endswith(".py") or source.startswith("#!")):
            missing = undeclared_imports(source, declared(*extras))
            assert not missing, f"{name} imports {sorted(missing)}, which pyproject.toml lacks"


def test_undeclared_import_is_found():
    source = "import os, torch\ndef f():\n    from keras.layers import Dense\n    from . import run"
    assert undeclared_imports(source, declared()) == {"keras"}
    assert undeclared_imports("import pytest, sklearn, PIL", declared()) == {"pytest"}
    assert undeclared_imports("import pytest, sklearn, PIL", declared("test")) == set()


REGISTRY = re.compile(
    r"pypi\.org|pythonhosted\.org|registry\.npmjs|deb\.debian|download\.pytorch|--(?:extra-)?index-url"
)
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:work|root|home|Users)/\w")


@pytest.mark.parametrize("pattern", [REGISTRY, MACHINE_PATH], ids=["registry", "machine path"])
def test_no_address_of_a_registry_or_a_machine(texts, pattern):
    for name, text in texts.items():
        if name != "tests/test_packaging.py":
            found = pattern.search(text)
            assert not found, f"{name}: {text[max(0, found.start() - 30) : found.end() + 30]!r}"


def test_addresses_are_recognised():
    assert REGISTRY.search("pip install --index-url https://pypi.org/simple torch")
    assert MACHINE_PATH.search('File "/home/ada/course/x.py"')
    assert not MACHINE_PATH.search("https://example.org/home/page, ~/work/x, notebooks/work/x")


def test_repository_is_small(files):
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    assert megabytes < 80, f"{megabytes:.0f} MB, at most 80"


def make_targets():
    return set(re.findall(r"^([a-z-]+):", read("Makefile"), flags=re.MULTILINE))


def test_readme_names_commands_that_are_there():
    named = set(
        re.findall(r"\bmake ([a-z-]+)", " ".join(re.findall(r"`+[^`]*`+", read("README.md"))))
    )
    assert {"lab", "test"} <= named, f"README.md names of make's commands only {sorted(named)}"
    assert named <= make_targets(), f"no such target: {sorted(named - make_targets())}"


@pytest.mark.parametrize("target", ["lab", "test", "test-fast", "refresh", "clean"])
def test_makefile_documents_its_targets(target):
    assert target in make_targets()
    assert re.search(rf"^# make {target}\b", read("Makefile"), flags=re.MULTILINE)


def test_ci_runs_the_readmes_command():
    assert read(".ci/run").rstrip().endswith("\nmake test")
