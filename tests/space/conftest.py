"""The page's pipelines, its server in a process of its own, and a browser to visit it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from conftest import ROOT, environment
from gradio_client import Client

import pipelines
from space.visiting import free_port

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="package")
def loaded():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TRIPTYCH_MODELS", raising=False)
        return {name: pipelines.load(name) for name in pipelines.NAMES}


WATCH = """
import sys
def note(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        address = arguments[1] if event == "socket.connect" else arguments[0]
        with open({path!r}, "a") as file:
            print(event, address, file=file)
sys.addaudithook(note)
"""


class Server:
    """``python space/app.py`` in a process and a working directory of its own, and every address that it turned to."""

    def __init__(self, folder: Path):
        self.log, self.addresses = folder / "log.txt", folder / "addresses.txt"
        (folder / "sitecustomize.py").write_text(WATCH.format(path=str(self.addresses)))
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        settings = {
            "GRADIO_SERVER_PORT": str(port),
            "GRADIO_TEMP_DIR": str(folder / "files"),
            "HF_MODULES_CACHE": str(folder / "modules"),
            "PYTHONPATH": str(folder),  # and nothing of the repository: the page travels alone
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, ROOT / "space/app.py"],
                cwd=folder,
                env={**environment(), **settings},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        until = time.monotonic() + 300
        while self.process.poll() is None and time.monotonic() < until:
            try:
                urllib.request.urlopen(self.url, timeout=5).close()
                return
            except OSError:
                time.sleep(0.3)
        self.stop()
        pytest.fail("the page did not start:\n" + self.log.read_text())

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("server"))
    yield running
    running.stop()


@pytest.fixture
def client(server, tmp_path):
    return Client(server.url, verbose=False, download_files=str(tmp_path / "down"))


@pytest.fixture(scope="package")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield opened
        opened.close()


@pytest.fixture(params=["desktop", "phone"])
def page(request, browser, server):
    """The page as a visitor opens it; it may speak with nobody but its own server, and its console stays clean."""
    phone = request.param == "phone"
    size = {"width": 390, "height": 844} if phone else {"width": 1280, "height": 900}
    context = browser.new_context(viewport=size, has_touch=phone, color_scheme="light")
    opened = context.new_page()
    opened.set_default_timeout(60_000)
    addresses, complaints = [], []
    opened.on("request", lambda request: addresses.append(request.url))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    opened.goto(server.url)
    opened.get_by_role("button", name="Draw").wait_for()
    yield opened
    context.close()
    assert len(addresses) > 5 and all(url.startswith((server.url, "data:", "blob:")) for url in addresses)
    assert complaints == []
