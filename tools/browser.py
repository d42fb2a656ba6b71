"""A lesson in a real JupyterLab, in headless Chromium."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",  # Chromium as root
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
SETTINGS = {  # nothing asked over the page, every cell drawn, no empty screen below the last
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none", "scrollPastEnd": False},
}

# What the page is asked, in JavaScript.
PANEL = "window.jupyterapp.shell.currentWidget"
KERNEL_IDLE = f"() => {PANEL}?.sessionContext?.session?.kernel?.status === 'idle'"
LAST_COUNT = f"""() => {{
  const cells = {PANEL}.content.model.sharedModel.cells.filter(cell => cell.cell_type === 'code');
  return cells.length ? cells[cells.length - 1].execution_count : 0;
}}"""
ERRORS = f"""() => {PANEL}.content.model.sharedModel.cells.flatMap(cell =>
  (cell.toJSON().outputs || []).filter(output => output.output_type === 'error')
  .map(output => output.ename + ': ' + output.evalue))"""
PICTURE = """number => document.querySelectorAll('.noUi-handle')[number]
  ?.closest('.jp-Cell').querySelector('.jp-OutputArea-output img')?.src"""


@contextmanager
def open_lesson(notebook: Path, size: tuple[int, int] = (1200, 1000)) -> Iterator[Page]:
    """A page with a copy of `notebook` open and its kernel ready; `page.problems` collects errors.

    Nothing of the user's JupyterLab is read or written: its settings are in a temporary folder.
    """
    with tempfile.TemporaryDirectory(prefix="gencourse-lab-") as folder:
        shutil.copy(notebook, folder)
        with jupyterlab(Path(folder)) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=CHROMIUM, headless=True, args=FLAGS
            )
            page = browser.new_page(viewport=dict(zip(("width", "height"), size)))
            page.problems = []
            page.on("console", lambda message: note_error(page, message))
            page.on("pageerror", lambda error: page.problems.append(str(error)))
            page.goto(f"{address}/lab/tree/{notebook.name}")
            page.wait_for_function(KERNEL_IDLE, timeout=60_000)
            yield page
            browser.close()


@contextmanager
def jupyterlab(folder: Path) -> Iterator[str]:
    """JupyterLab on `folder`, on a free port of this machine; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    state = folder / ".jupyter"
    for name, settings in SETTINGS.items():
        file = state / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings))
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(state / "config"),
        "JUPYTERLAB_SETTINGS_DIR": str(state / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(state / "workspaces"),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--ServerApp.root_dir={folder}", "--ServerApp.ip=127.0.0.1"]
    command += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    command += ["--IdentityProvider.token=", "--LabApp.expose_app_in_browser=True"]
    with (folder / ".jupyter.log").open("w+") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for_answer(address, server, log)
            yield address
        finally:
            server.terminate()
            server.wait(timeout=20)


def wait_for_answer(address, server, log) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(f"{address}/api", timeout=2)
            return
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(0.2)
    log.seek(0)
    raise RuntimeError(f"JupyterLab does not answer at {address}:\n{log.read()}")


def note_error(page, message) -> None:
    if message.type == "error":
        page.problems.append(f"{message.text} ({message.location.get('url', '')})")


def run_all(page: Page, timeout: float = 300) -> None:
    """Restart nothing, clear all outputs, run every cell and wait for the last."""
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    wait_done(page, timeout)


def wait_done(page: Page, timeout: float = 300) -> None:
    """Until the last code cell has run; an error in a cell is raised."""
    end = time.monotonic() + timeout
    while not page.evaluate(LAST_COUNT):
        if errors := page.evaluate(ERRORS):
            raise RuntimeError(f"a cell failed: {errors}")
        if time.monotonic() > end:
            raise TimeoutError(f"the last cell did not run within {timeout:.0f} s")
        page.wait_for_timeout(200)
    page.wait_for_function(KERNEL_IDLE, timeout=timeout * 1000)


def move_slider(page: Page, number: int = 0, steps: int = 1) -> None:
    """Move the slider `number`, from the top, by `steps`, as the arrow keys do."""
    handle = page.locator(".noUi-handle").nth(number)
    handle.scroll_into_view_if_needed()
    handle.focus()
    for _ in range(abs(steps)):
        handle.press("ArrowRight" if steps > 0 else "ArrowLeft")
    page.wait_for_function(KERNEL_IDLE)


def picture(page: Page, number: int = 0, other_than: str = "") -> str:
    """Wait for a picture in the cell of slider `number` that is not `other_than`; return it."""
    page.wait_for_function(
        f"([number, old]) => {{ const now = ({PICTURE})(number); return now && now !== old }}",
        arg=[number, other_than],
    )
    return page.evaluate(PICTURE, number)


def screenshots(page: Page, prefix: str) -> list[Path]:
    """The whole notebook as PREFIX_01.png, PREFIX_02.png, ..., a screen each."""
    if page.locator("#jp-left-stack").is_visible():
        page.evaluate("() => window.jupyterapp.commands.execute('application:toggle-left-area')")
    Path(prefix).parent.mkdir(parents=True, exist_ok=True)
    scroll(page, "0")
    files = []
    while True:
        page.wait_for_timeout(500)  # cells that come into view are drawn now
        files.append(Path(f"{prefix}_{len(files) + 1:02}.png"))
        page.screenshot(path=files[-1])
        top = scroll(page, "pane.scrollTop")
        if scroll(page, "pane.scrollTop + pane.clientHeight - 60") <= top:
            return files


def scroll(page: Page, to: str) -> float:
    """Scroll the notebook to a JavaScript expression of its `pane`; return where it is now."""
    return page.evaluate(
        f"""() => {{
          const pane = {PANEL}.node.querySelector('.jp-WindowedPanel-outer');
          pane.scrollTop = {to};
          return pane.scrollTop;
        }}"""
    )
