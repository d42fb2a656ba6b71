"""`gencourse doctor`: is everything here that the course needs, and if not, how to mend it."""

import os
import platform
import shutil
import sys
from importlib import metadata
from typing import NamedTuple

from packaging.requirements import Requirement

from gencourse.run import ROOT

INSTALL = "python -m pip install -c constraints.txt -e ."
DISK_GB = 2.0  # checkpoints, downloads and pages; the environment itself is already there


class Check(NamedTuple):
    name: str
    ok: bool
    message: str
    mend: str = ""


def check_python() -> Check:
    here = platform.python_version()
    ok = sys.version_info >= (3, 11)
    mend = "Install Python 3.11 or later, delete .venv and set up again."
    return Check("Python", ok, f"{here} ({sys.executable})", mend)


def check_packages() -> list[Check]:
    """Every dependency that pyproject.toml declares, at least at the version it declares."""
    checks = []
    for line in metadata.requires("gencourse"):
        need = Requirement(line)
        if need.marker and not need.marker.evaluate({"extra": ""}):
            continue  # belongs to an extra: test, ...
        try:
            here = metadata.version(need.name)
        except metadata.PackageNotFoundError:
            checks.append(Check(need.name, False, f"missing, {need} is needed", INSTALL))
            continue
        ok = need.specifier.contains(here, prereleases=True)
        message = here if ok else f"{here}, but {need} is needed"
        checks.append(Check(need.name, ok, message, INSTALL))
    return checks


def check_torch() -> Check:
    try:
        import torch
    except ImportError as error:
        return Check("torch computes", False, f"import torch: {error}", INSTALL)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU, none needed"
    message = f"{torch.get_num_threads()} threads on {os.cpu_count()} cores; {device}"
    return Check("torch computes", bool(torch.ones(2).sum() == 2), message, INSTALL)


def check_data() -> list[Check]:
    """The checksum of every file of the data packs."""
    try:
        from gencourse.data import verify
    except ImportError as error:
        return [Check("data", False, f"cannot be checked: {error}", INSTALL)]
    mend = "git checkout -- data"
    return [Check(f"data/{name}", ok, message, mend) for name, ok, message in verify()]


def check_widget_extension() -> Check:
    """JupyterLab draws widgets only with this extension; it comes with ipywidgets."""
    name, mend = "widgets in JupyterLab", f"{INSTALL} --force-reinstall jupyterlab-widgets"
    try:
        files = metadata.files("jupyterlab-widgets") or []
    except metadata.PackageNotFoundError:
        return Check(name, False, "package jupyterlab-widgets is missing", mend)
    manifest = [f for f in files if f.match("@jupyter-widgets/jupyterlab-manager/package.json")]
    ok = bool(manifest) and manifest[0].locate().exists()
    return Check(name, ok, "extension is there" if ok else "its files are missing", mend)


def check_disk() -> Check:
    free = shutil.disk_usage(ROOT).free / 1e9
    mend = f"Free {DISK_GB:.0f} GB on the disk of {ROOT}."
    return Check("free disk", free >= DISK_GB, f"{free:.0f} GB", mend)


def check() -> list[Check]:
    return [
        check_python(),
        *check_packages(),
        check_torch(),
        check_widget_extension(),
        *check_data(),
        check_disk(),
    ]


def report() -> bool:
    """Print every check, and for the broken ones how to mend them; True if nothing is broken."""
    checks = check()
    for one in checks:
        print(f"{'ok    ' if one.ok else 'BROKEN'}  {one.name:24} {one.message}")
    broken = [one for one in checks if not one.ok]
    if not broken:
        print("Everything is here.")
        return True
    print(f"\n{len(broken)} of {len(checks)} checks failed. To mend, in {ROOT}:")
    for mend in dict.fromkeys(one.mend for one in broken):
        print(f"  {mend}")
    return False
