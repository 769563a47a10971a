"""The page to play with: its functions, its server under several visitors, and the page in a real browser."""

from __future__ import annotations

import base64
import collections
import io
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, environment
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from huggingface_hub import SpaceCard
from PIL import Image

sys.path.insert(0, str(ROOT / "space"))  # as running space/app.py does
import app
import pipelines
import tabs

DEFAULT = ("horse", 25, 3, 0)
PHOTO = Path(tabs.skimage.__file__).parent / "data/chelsea.png"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def loaded():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TRIPTYCH_MODELS", raising=False)
        return {name: pipelines.load(name) for name in pipelines.NAMES}


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture)


# ---- what the page asks of the pipelines --------------------------------------------------------------------------


def test_drawing_yields_every_step_and_ends_with_the_pipelines_own_image(loaded):
    steps = list(pipelines.draw(loaded["diffusion"], "ship", 4, 2.0, 5))
    assert [(step.index, step.count) for step in steps] == [(i, 4) for i in range(5)]
    image = loaded["diffusion"](
        "ship", num_inference_steps=4, guidance_scale=2.0, generator=torch.Generator().manual_seed(5)
    ).images[0]
    assert np.array_equal(pixels(steps[-1].predicted), pixels(image))
    noisy = [pixels(step.noisy).std() for step in steps]
    assert noisy[0] > 80 > noisy[-1], "it starts from noise"


def test_an_image_is_its_seeds_alone_whoever_else_draws(loaded):
    """Two visitors whose steps take turns, and a third who left in the middle, against each on their own."""
    asked = [("cat", 5, 3, 1), ("truck", 5, 1.5, 2)]
    alone = [[pixels(s.predicted) for s in pipelines.draw(loaded["diffusion"], *one)] for one in asked]
    leaver = pipelines.draw(loaded["diffusion"], "dog", 100, 3, 3)
    next(leaver)
    leaver.close()
    turns = zip(*(pipelines.draw(loaded["diffusion"], *one) for one in asked), strict=True)
    together = [[pixels(s.predicted) for s in one] for one in zip(*turns, strict=True)]
    assert all(
        np.array_equal(*frames) for pair in zip(alone, together, strict=True) for frames in zip(*pair, strict=True)
    )
    other = list(pipelines.draw(loaded["diffusion"], "cat", 5, 3, 2))[-1]
    assert not np.array_equal(pixels(other.predicted), alone[0][-1]), "the seed must matter"


def test_several_images_are_what_their_seeds_give_alone(loaded):
    together = [*pipelines.draw(loaded["diffusion"], "frog", 3, 2.0, 7, 3)][-1]
    for k, image in enumerate(together.images):
        alone = [*pipelines.draw(loaded["diffusion"], "frog", 3, 2.0, 7 + k)][-1].predicted
        assert np.abs(pixels(image).astype(int) - pixels(alone)).max() <= 1
    assert len(together.images) == 3 and np.array_equal(pixels(together.predicted), pixels(together.images[0]))
    for count in (0, 9, 1.5, None, "all"):
        with pytest.raises(ValueError, match="Images must be a whole number from 1 to 8"):
            next(pipelines.draw(loaded["diffusion"], "frog", 3, 2.0, 7, count))


SILLY = [
    ({"name": "unicorn"}, "Choose a class: airplane"),
    ({"name": None}, "Choose a class"),
    ({"name": ["cat", "dog"]}, "Choose a class"),
    ({"steps": 0}, "Steps must be a whole number from 1 to 100"),
    ({"steps": 10**9}, "Steps must be"),
    ({"steps": 2.5}, "Steps must be"),
    ({"steps": None}, "Steps must be"),
    ({"steps": True}, "Steps must be"),
    ({"steps": "many"}, "Steps must be"),
    ({"guidance": -5}, "Guidance must be a number from 0 to 15"),
    ({"guidance": float("nan")}, "Guidance must be"),
    ({"guidance": float("inf")}, "Guidance must be"),
    ({"guidance": None}, "Guidance must be"),
    ({"seed": None}, "Seed must be a whole number from 0 to 2,147,483,647"),
    ({"seed": "lucky"}, "Seed must be"),
    ({"seed": -1}, "Seed must be"),
    ({"seed": 1.5}, "Seed must be"),
    ({"seed": 2**40}, "Seed must be"),
]


def silly(change: dict) -> tuple:
    return tuple({**dict(zip(("name", "steps", "guidance", "seed"), DEFAULT, strict=True)), **change}.values())


@pytest.mark.parametrize(("change", "message"), SILLY, ids=lambda value: str(value)[:30])
def test_silly_numbers_are_refused_in_words(loaded, change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        next(pipelines.draw(loaded["diffusion"], *silly(change)))


def test_the_plane_and_the_place_in_it(loaded):
    for place in ((0.5, 0.5), (0.1, 0.9), (0.73, 0.2)):
        assert pipelines.place_of(*pipelines.latents_at(place)) == pytest.approx(place, abs=1e-5)
    z1, z2 = pipelines.latents_at((1, 0))
    assert 2.9 < z1 <= 3.01 and 2.9 < z2 <= 3.01, "z1 grows to the right, z2 upwards; the sliders reach the corner"
    plane = pixels(pipelines.draw_plane(loaded["vae"]))
    cell = plane[3 * 28 : 4 * 28, 12 * 28 : 13 * 28].astype(int)
    digit = pixels(pipelines.decode(loaded["vae"], *pipelines.latents_at((12.5 / 20, 3.5 / 20)))).astype(int)
    assert plane.shape == (560, 560) and digit.max() > 128 and np.abs(cell - digit).max() <= 1


@pytest.mark.parametrize("place", [None, "here", [0.5], [0.5, "x"], [0.5, 1.5], [float("nan"), 0.5]])
def test_places_outside_the_plane_are_refused(place):
    with pytest.raises(ValueError, match="must be a number from 0 to 1"):
        pipelines.latents_at(place)


@pytest.mark.parametrize("z", [(None, 0.0), ("x", 0.0), (0.0, 5.0), (0.0, float("nan"))])
def test_points_outside_the_plane_are_refused(loaded, z):
    with pytest.raises(ValueError, match=r"z[12] must be a number from -4 to 4"):
        pipelines.decode(loaded["vae"], *z)


def test_noise_is_added_and_taken_out(loaded, tmp_path):
    photo = Image.open(PHOTO).crop((100, 40, 260, 160))
    photo.save(path := tmp_path / "photo.png")
    done = pipelines.clean(loaded["denoiser"], str(path), 25)
    assert done.before.size == done.after.size == photo.size
    noise = pixels(done.before) - pixels(photo).astype(float)
    assert np.square(noise).mean() ** 0.5 == pytest.approx(25, rel=0.05)
    before, after = map(float, re.findall(r"([\d.]+) dB", done.note))
    assert before == pytest.approx(20.2, abs=0.2) and after > before + 6
    again = pipelines.clean(loaded["denoiser"], str(path), 25)
    assert np.array_equal(pixels(again.before), pixels(done.before))
    assert np.array_equal(pixels(again.after), pixels(done.after))
    own = pipelines.clean(loaded["denoiser"], str(path), 0)
    assert np.array_equal(pixels(own.before), pixels(photo)) and own.note == ""


def test_pictures_of_every_kind_are_taken(loaded, tmp_path):
    rng = np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    for mode in ("L", "P", "RGBA", "CMYK", "1"):
        path = tmp_path / f"{mode}.{'tif' if mode == 'CMYK' else 'png'}"
        colours.convert(mode).save(path)
        assert pipelines.clean(loaded["denoiser"], str(path), 0).after.size == (40, 30), mode
    exif = colours.getexif()
    exif[274] = 6  # the camera was turned
    colours.save(tmp_path / "turned.jpg", exif=exif)
    assert pipelines.clean(loaded["denoiser"], str(tmp_path / "turned.jpg"), 0).after.size == (30, 40)
    Image.new("RGB", (1, 1), "red").save(tmp_path / "dot.png")
    assert pipelines.clean(loaded["denoiser"], str(tmp_path / "dot.png"), 10).after.size == (1, 1)


@pytest.mark.parametrize("size", [(12, 8), (1, 1), (700, 3)])
def test_a_picture_is_what_its_file_says(loaded, tmp_path, size):
    """16 bits, floats, transparency, a turned camera, frames: never white, black or another picture's colours."""
    width, height = size
    grey = np.random.default_rng(1).integers(0, 256, (height, width), dtype=np.uint8)
    colour = np.random.default_rng(2).integers(0, 256, (height, width, 3), dtype=np.uint8)
    hidden = np.dstack([colour, np.full_like(grey, 255)])
    hidden[0, 0] = (200, 10, 10, 0)  # a colour that nobody sees
    on_white = colour.copy()
    on_white[0, 0] = 255
    exif = Image.Exif()
    exif[274] = 6
    first, second = Image.fromarray(colour), Image.fromarray(255 - colour)
    files = {
        "deep.png": (Image.fromarray(grey.astype(np.uint16) * 257), {}, grey, "more than 8 bits"),
        "deep.tif": (Image.fromarray(grey.astype(np.uint16) * 257), {}, grey, "more than 8 bits"),
        "floats.tif": (Image.fromarray(grey.astype(np.float32) / 255), {}, grey, "more than 8 bits"),
        "clear.png": (Image.fromarray(hidden), {}, on_white, "laid on white"),
        "clear.webp": (Image.fromarray(hidden), {"lossless": True}, on_white, "laid on white"),
        "moving.png": (first, {"save_all": True, "append_images": [second]}, colour, "the first"),
        "turned.png": (first, {"exif": exif}, np.rot90(colour, -1), ""),
        "print.tif": (
            Image.merge("CMYK", [*Image.fromarray(255 - colour).split(), Image.new("L", size)]),
            {},
            colour,
            "",
        ),
        "plain.bmp": (first, {}, colour, ""),
    }
    for name, (image, options, right, note) in files.items():
        image.save(tmp_path / name, **options)
        done = pipelines.clean(loaded["denoiser"], str(tmp_path / name), 0)
        right = right if right.ndim == 3 else np.repeat(right[..., None], 3, axis=2)
        assert np.abs(pixels(done.before).astype(int) - right).max() <= 1, name
        assert done.after.size == done.before.size and note in done.note, name
        assert note or not done.note, name


def test_of_a_large_picture_the_middle_is_taken(loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(pipelines, "MAX_SIDE", 64)
    large = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 200, 3), dtype=np.uint8))
    large.save(tmp_path / "large.png")
    done = pipelines.clean(loaded["denoiser"], str(tmp_path / "large.png"), 0)
    assert np.array_equal(pixels(done.before), pixels(large)[:, 68:132])
    assert done.note == "Your picture has 200 x 50 pixels; this is its middle, 64 x 50."


def bad_picture(kind: str, folder: Path) -> str | None:
    path = folder / f"{kind}.png"
    if kind == "none":
        return None
    if kind in ("huge", "monstrous"):  # small files, of 64 and 196 million pixels
        side = 8_000 if kind == "huge" else 14_000
        Image.MAX_IMAGE_PIXELS, limit = None, Image.MAX_IMAGE_PIXELS
        Image.new("1", (side, side)).save(path)
        Image.MAX_IMAGE_PIXELS = limit
    elif kind == "text":
        path.write_text("not a picture at all")
    elif kind == "drawing":
        path.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>')
    elif kind == "torn":
        path.write_bytes(PHOTO.read_bytes()[:9000])
    elif kind == "measured":  # floats of no known white
        path = path.with_suffix(".tif")
        Image.fromarray(np.linspace(-3, 900, 81, dtype=np.float32).reshape(9, 9)).save(path)
    elif kind == "empty":
        path.touch()
    return str(path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("none", "Give a picture first"),
        ("missing", "can't be read as a picture"),
        ("empty", "can't be read as a picture"),
        ("text", "can't be read as a picture"),
        ("drawing", "can't be read as a picture"),
        ("torn", "can't be read as a picture"),
        ("huge", "more than 50 million pixels"),
        ("monstrous", "more than 50 million pixels"),
        ("measured", "can't be read as a picture: measured.tif .* floats from -3 to 900"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_is_no_picture_is_refused_in_words(loaded, tmp_path, kind, message):
    with pytest.raises(ValueError, match=message):
        pipelines.clean(loaded["denoiser"], bad_picture(kind, tmp_path), 0)


@pytest.mark.parametrize("sigma", [-1, 56, None, "much", float("nan")])
def test_silly_noise_is_refused(loaded, sigma):
    with pytest.raises(ValueError, match="Noise to add must be a number from 0 to 55"):
        pipelines.clean(loaded["denoiser"], str(PHOTO), sigma)


def test_where_the_models_are_looked_for(tmp_path, monkeypatch):
    asked = []
    shutil.copytree(ROOT / "pretrained/vae-mnist-z2", tmp_path / "vae-mnist-z2")
    monkeypatch.setattr(
        pipelines.DiffusionPipeline, "from_pretrained", lambda *args, **kwargs: asked.append((args[0], kwargs)) or 1 / 0
    )
    for where, found in (
        ("an-account", "an-account/vae-mnist-z2"),
        (str(tmp_path), f"{tmp_path}/vae-mnist-z2"),
        ("", f"{ROOT}/pretrained/vae-mnist-z2"),
    ):
        monkeypatch.setenv("TRIPTYCH_MODELS", where)
        with pytest.raises(ValueError, match="could not be loaded: division by zero"):
            pipelines.load("vae")
        assert asked.pop() == (found, {"trust_remote_code": True})
    for where in (str(tmp_path / "vae-mnist-z2"), str(tmp_path / "nowhere"), "some/where"):
        monkeypatch.setenv("TRIPTYCH_MODELS", where)
        with pytest.raises(ValueError, match=r"no pipeline in `.*vae-mnist-z2`.*TRIPTYCH_MODELS"):
            pipelines.load("vae")
    assert asked == []


def test_the_card_is_a_spaces(tmp_path):
    card = SpaceCard.load(ROOT / "space/README.md")
    assert card.data.sdk == "gradio" and card.data.license == "apache-2.0"
    assert (ROOT / "space" / card.data.app_file).is_file() and len(card.data.short_description) <= 60
    extras = re.findall(r'"gradio>=([\d.]+),<(\d+)"', (ROOT / "pyproject.toml").read_text())
    version = tuple(map(int, card.data.sdk_version.split(".")))
    assert extras
    for floor, ceiling in extras:
        assert tuple(map(int, floor.split("."))) <= version < (int(ceiling),)


# ---- the server ---------------------------------------------------------------------------------------------------

WATCH = """
import sys
def note(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        address = arguments[1] if event == "socket.connect" else arguments[0]
        with open({path!r}, "a") as file:
            print(event, address, file=file)
sys.addaudithook(note)
"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


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


def picture(source: str) -> np.ndarray:
    return pixels(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))))


def pictures(answer: dict) -> list[np.ndarray]:
    return [picture(figure["src"]) for figure in answer["figures"]]


def test_two_at_once_are_both_served_and_get_what_they_would_alone(server, client):
    asked = [("cat", 20, 3, 7), ("ship", 20, 2, 8)]
    alone = [client.predict(*one, api_name="/draw") for one in asked]
    assert alone[0]["figures"][1]["caption"] == "cat, finished" and pictures(alone[0])[1].shape == (32, 32, 3)
    visitors = [Client(server.url, verbose=False) for _ in asked]
    jobs = [visitor.submit(*one, api_name="/draw") for visitor, one in zip(visitors, asked, strict=True)]
    seen = [[] for _ in jobs]
    while not all(job.done() for job in jobs):
        for job, counts in zip(jobs, seen, strict=True):
            counts.append(len(job.outputs()))
        time.sleep(0.01)
    assert [job.result() for job in jobs] == alone
    both = [one for one in zip(*seen, strict=True) if all(0 < count < 20 for count in one)]
    assert both, "one did not wait for the other to finish"


def test_the_server_draws_what_the_pipeline_draws(client, loaded):
    drawn = pictures(client.predict(*DEFAULT, api_name="/draw"))[1]
    here = pixels([*pipelines.draw(loaded["diffusion"], *DEFAULT)][-1].predicted)
    assert np.abs(drawn.astype(int) - here.astype(int)).max() <= 2, "another process may have other threads"
    digit = client.predict([0.9, 0.5], api_name="/point_at")
    assert digit["z"] == [1.28, 0.0] and digit["figures"][0]["caption"] == "z = (1.28, 0.00)"
    assert np.abs(pictures(digit)[0].astype(int) - pixels(pipelines.decode(loaded["vae"], 1.28, 0))).max() <= 1
    again = client.predict(1.28, 0, api_name="/decode")
    assert again["place"] == pytest.approx([0.9, 0.5], abs=0.01) and again["figures"] == digit["figures"]


def test_of_fifty_requests_in_a_row_none_is_lost_or_wrong(client, loaded):
    points = np.random.default_rng(0).uniform(-3, 3, (50, 2)).round(2).tolist()
    jobs = [client.submit(*point, api_name="/decode") for point in points]
    for (z1, z2), job in zip(points, jobs, strict=True):
        answer = job.result(120)
        assert answer["z"] == [z1, z2]
        assert np.abs(pictures(answer)[0].astype(int) - pixels(pipelines.decode(loaded["vae"], z1, z2))).max() <= 1


def test_several_at_once_come_with_a_sheet_to_save(client):
    last = client.predict("ship", 2, 2, 5, 4, api_name="/draw")
    assert [figure["caption"] for figure in last["figures"]] == ["seed 5", "seed 6", "seed 7", "seed 8"]
    assert last["heading"] == "step 2 of 2: ship, finished" and last["strip"] == []
    assert np.array_equal(picture(last["save"]), np.concatenate(pictures(last), axis=1))


def test_the_server_says_what_is_wrong(client, tmp_path):
    for change, message in SILLY:
        if json.dumps(change).find("NaN") < 0 and json.dumps(change).find("Infinity") < 0:  # JSON has neither
            with pytest.raises(AppError, match=re.escape(message)):
                client.predict(*silly(change), api_name="/draw")
    for kind, message in (("none", "Give a picture first"), ("text", "can't be read"), ("huge", "50 million pixels")):
        path = bad_picture(kind, tmp_path)
        with pytest.raises(AppError, match=message):
            client.predict(path and handle_file(path), 0, api_name="/clean")
    with pytest.raises(AppError, match="must be a number from 0 to 1"):
        client.predict("nowhere", api_name="/point_at")


# ---- the page in a browser ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
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


def shot(page, folder: Path, name: str) -> None:
    path = folder / f"{name}.png"
    page.screenshot(path=path, full_page=True)
    assert path.stat().st_size > 10_000


def told(page) -> str:
    """The message that pops up; it is closed again."""
    toast = page.locator(".toast-body").first
    text = toast.inner_text()
    toast.get_by_test_id("toast-close").click()
    toast.wait_for(state="detached")
    return text


def test_a_class_appears_step_by_step(page, tmp_path):
    page.locator(".figures").first.wait_for()
    page.evaluate(
        """() => {
          window.captions = [];
          const figures = document.querySelector('.figures');
          new MutationObserver(() => window.captions.push(figures.querySelector('figcaption').innerText))
            .observe(figures, {subtree: true, childList: true, characterData: true, attributes: true});
        }"""
    )
    page.get_by_label("Seed").fill("11")
    page.get_by_role("radio", name="ship").click()  # choosing a class draws it
    page.get_by_text("ship, finished").wait_for()
    shown = [caption for caption, _ in itertools.groupby(page.evaluate("window.captions"))]
    # The page began with another picture, at step 25.
    shown = shown["25 of 25" in shown[0] :]
    numbers = [int(re.match(r"step (\d+) of 25", caption).group(1)) for caption in shown]
    assert numbers == sorted(numbers) and len(set(numbers)) > 5, "it was seen to appear"
    assert page.locator("#drawn .strip figure:visible").count() == 8
    assert page.locator(".figures .large img").first.evaluate("i => getComputedStyle(i).imageRendering") == "pixelated"
    counters = [number for number, caption in enumerate(shown) if "25 of 25" in caption]
    assert counters == [len(shown) - 1], "the counter is full when the image is finished, and not before"
    assert page.locator("#drawn .heading").inner_text().startswith("On the way: what it held above")
    shot(page, tmp_path, "draw")
    before = page.locator(".figures .large img").nth(1).get_attribute("src")
    page.get_by_role("button", name="Another one").click()
    page.wait_for_function("old => document.querySelectorAll('.figures .large img')[1].src != old", arg=before)
    assert page.get_by_label("Seed").input_value() != "11"


def test_moving_over_the_plane_shows_the_digit(page, tmp_path, request):
    page.get_by_role("tab", name="Walk").click()
    plane = page.locator(".plane img")
    plane.wait_for()
    digit = page.locator(".figures:visible .large img")
    start = digit.get_attribute("src")
    touch = plane.tap if "phone" in request.node.name else plane.hover
    touch(position={"x": 20, "y": plane.bounding_box()["height"] - 5})
    page.wait_for_function("old => [...document.querySelectorAll('.figures img')].every(i => i.src != old)", arg=start)
    caption = page.locator(".figures:visible figcaption")
    z1, z2 = map(float, re.findall(r"-?\d\.\d\d", caption.inner_text()))
    assert z1 < -1 and z2 < -1, "left and down"
    assert float(page.get_by_label("number input for z1, to the right").input_value()) == z1
    shot(page, tmp_path, "walk")
    field = page.get_by_label("number input for z1, to the right")
    field.fill("1.5")
    field.press("Enter")
    page.get_by_text(f"z = (1.50, {z2:.2f})").wait_for()
    left = page.locator(".plane i").evaluate("i => parseFloat(i.style.left)")
    assert left == pytest.approx(93.3, abs=0.1), "the mark is where the sliders say"


def compared(page) -> list[np.ndarray]:
    """The pictures under the line, before and after, as they were sent."""
    shown = page.locator("#cleaned img")
    sources = [shown.nth(k).get_attribute("src") for k in (0, 1)]
    return [pixels(Image.open(io.BytesIO(page.request.get(source).body())).convert("RGB")) for source in sources]


def test_a_noisy_picture_comes_back_clean(page, tmp_path, loaded):
    page.get_by_role("tab", name="Clean").click()
    after = page.locator("#cleaned img.after")
    example = after.get_attribute("src")
    noisy = pixels(Image.open(PHOTO))[:200, 100:400] + np.random.default_rng(1).normal(0, 20, (200, 300, 3))
    noisy = noisy.clip(0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(tmp_path / "noisy.png")
    page.get_by_label("Remove Image").click()
    page.get_by_test_id("file-upload").set_input_files(tmp_path / "noisy.png")
    changed = "old => document.querySelector('#cleaned img.after').getAttribute('src') != old"
    page.wait_for_function(changed, arg=example)
    assert page.get_by_label("number input for Noise to add").input_value() == "0", "one's own is noisy already"
    before, cleaned = compared(page)
    assert np.array_equal(before, noisy)
    here = pixels(loaded["denoiser"](Image.fromarray(noisy)).images[0])
    assert np.abs(cleaned.astype(int) - here.astype(int)).max() <= 2
    after.scroll_into_view_if_needed()  # the page may stand further down
    box = after.bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    covered = float(re.search(r"([\d.]+)%", after.evaluate("i => getComputedStyle(i).clipPath")).group(1))
    assert covered == pytest.approx(10, abs=3), "the line was dragged"
    page.get_by_label("Line between").press("ArrowRight")
    moved = float(re.search(r"([\d.]+)%", after.evaluate("i => getComputedStyle(i).clipPath")).group(1))
    assert moved == pytest.approx(covered + 1), "the line follows the keys"
    with page.expect_download() as download:
        page.get_by_role("link", name="Save as PNG").locator("visible=true").click()
    assert download.value.suggested_filename == "noisy cleaned.png"
    assert np.array_equal(pixels(Image.open(download.value.path()).convert("RGB")), cleaned)
    shot(page, tmp_path, "clean")
    own = after.get_attribute("src")
    page.locator("button.gallery-item").nth(1).click()
    page.wait_for_function(changed, arg=own)
    page.get_by_text("PSNR against the picture without noise").wait_for()
    assert page.get_by_label("number input for Noise to add").input_value() == "25", "to an example noise is added"


@pytest.mark.parametrize("page", ["desktop"], indirect=True)
def test_a_slip_is_answered_in_words(page, tmp_path):
    steps = page.get_by_label("number input for Steps")
    steps.fill("1000000000")
    steps.press("Tab")
    page.wait_for_function("field => field.value == '100'", arg=steps.element_handle())  # the page itself says no
    steps.fill("5")
    page.get_by_label("Seed").fill("-3")
    page.get_by_role("button", name="Draw").click()
    assert "Seed must be a whole number from 0 to 2,147,483,647." in told(page)
    page.get_by_label("Seed").fill("")
    page.get_by_role("button", name="Draw").click()
    assert "Seed must be a whole number from 0 to 2,147,483,647." in told(page)
    page.get_by_role("tab", name="Clean").click()
    page.get_by_label("Remove Image").click()
    page.get_by_role("button", name="Clean", exact=True).click()
    assert "Give a picture first" in told(page)
    (tmp_path / "letter.txt").write_text("not a picture")
    page.get_by_test_id("file-upload").set_input_files(tmp_path / "letter.txt")
    assert "letter.txt" in told(page)
    page.get_by_test_id("file-upload").set_input_files(bad_picture("text", tmp_path))
    page.locator(".toast-body").wait_for()
    shot(page, tmp_path, "slip")
    assert "can't be read as a picture" in told(page)
    assert page.locator("#cleaned img").first.is_visible()
    assert page.locator("#cleaned").get_attribute("aria-busy") == "true", "it is marked as another picture's"
    assert "Traceback" not in page.content()


CONTRASTS = r"""() => {
  const parse = text => {
    const numbers = text.match(/[\d.]+/g).map(Number);
    const scale = text.startsWith("color(srgb") ? 255 : 1;
    return [...numbers.slice(0, 3).map(value => value * scale), numbers[3] ?? 1];
  };
  const over = (top, below) => [0, 1, 2].map(k => top[k] * top[3] + below[k] * (1 - top[3])).concat(1);
  const linear = value => value <= 0.03928 * 255 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4;
  const luminance = colour => 0.2126 * linear(colour[0]) + 0.7152 * linear(colour[1]) + 0.0722 * linear(colour[2]);
  const ratio = (one, other) => {
    const [bright, dark] = [luminance(one), luminance(other)].sort((x, y) => y - x);
    return (bright + 0.05) / (dark + 0.05);
  };
  const behind = element => {
    const layers = [];
    for (; element; element = element.parentElement) layers.push(parse(getComputedStyle(element).backgroundColor));
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255, 1]);
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, text = walker.currentNode.textContent.trim();
    if (!text || ["STYLE", "SCRIPT"].includes(element.tagName) || !element.getBoundingClientRect().width ||
        !element.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
    let [...colour] = parse(getComputedStyle(element).color);
    for (let at = element; at; at = at.parentElement) colour[3] *= Number(getComputedStyle(at).opacity);
    const found = ratio(over(colour, behind(element)), behind(element));
    if (found < 4.5) poor.push([text, found]);
  }
  return poor;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(390, 844), (1440, 900)], ids=["phone", "desktop"])
def test_everybody_can_use_it(browser, server, size, scheme, tmp_path):
    """The result in sight, without scrolling aside; words that can be read; pictures that are told; names for all."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(server.url)
    page.get_by_text("horse, finished").wait_for()
    for tab, result in (("Draw", "#drawn .save"), ("Walk", "#walked figcaption"), ("Clean", "#cleaned .save")):
        page.get_by_role("tab", name=tab).click()
        page.locator(result).wait_for()
        page.wait_for_timeout(500)  # the tab's colours fade
        box = page.locator(result).bounding_box()
        assert box["y"] + box["height"] <= size[1], "the result is above the fold"
        first = page.locator("input[type=range]:visible, input[type=radio]:visible").last.bounding_box()
        assert size[0] > 600 or first["y"] > box["y"], "and above what it is asked with"
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        assert page.evaluate(CONTRASTS) == [], f"{tab}, {scheme}"
        untold = page.evaluate("[...document.images].filter(image => image.checkVisibility() && !image.alt).length")
        assert untold == 0
        unnamed = page.evaluate(
            """[...document.querySelectorAll('button, input, a')].filter(e => e.checkVisibility() && !(
              e.getAttribute('aria-label') || e.innerText || e.labels?.length || e.title)).map(e => e.outerHTML)"""
        )
        assert unnamed == []
        shot(page, tmp_path, f"{tab}-{size[0]}-{scheme}")
    context.close()


@pytest.mark.parametrize("page", ["desktop"], indirect=True)
def test_the_keyboard_alone_suffices(page, tmp_path):
    def tab_to(name: str, key: str = "Tab") -> None:
        for _ in range(60):
            page.keyboard.press(key)
            label = page.evaluate(
                """(e => e.getAttribute('aria-label') || e.innerText || e.labels?.[0]?.innerText || '')
                   (document.activeElement)"""
            )
            if name in label:
                outline = page.evaluate(
                    """(e => [e, e.closest('label'), e.parentElement].filter(x => x).map(x => getComputedStyle(x))
                        .some(style => style.outlineStyle == 'solid' && parseFloat(style.outlineWidth) >= 2))
                       (document.activeElement)"""
                )
                assert outline, f"one sees that {name} is next"
                return
        pytest.fail(f"the keyboard does not reach {name}")

    tab_to("ship")
    page.keyboard.press("Space")
    page.get_by_text("ship, finished").wait_for()
    tab_to("Another one")
    first = page.locator("a.save:visible").get_attribute("href")
    page.keyboard.press("Enter")
    page.wait_for_function("seed => seed.value != '0'", arg=page.get_by_label("Seed").element_handle())
    # the first drawing stays until the next one's first step is there, and that has nothing to save yet
    page.wait_for_function(
        "first => ![null, undefined, first].includes(document.querySelector('a.save')?.href)", arg=first
    )
    page.get_by_text("ship, finished").wait_for()
    tab_to("Save as PNG", "Shift+Tab")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert Image.open(download.value.path()).size == (32, 32)
    tab_to("Draw: diffusion", "Shift+Tab")
    tab_to("Clean: GAN")
    page.keyboard.press("Enter")
    tab_to("Line between")
    page.keyboard.press("ArrowLeft")
    assert "49%" in page.locator("#cleaned img.after").evaluate("i => getComputedStyle(i).clipPath")
    tab_to("coffee")
    page.keyboard.press("Enter")
    page.locator("#cleaned b", has_text="coffee").wait_for()
    tab_to("range slider for Noise")
    page.keyboard.press("Home")
    page.wait_for_function("!document.querySelector('#cleaned .heading').innerText.includes('PSNR')")


# ---- whoever chooses anew while an answer is on its way ------------------------------------------------------------


class Gate:
    """A function that waits at the door, by what `key` makes of its arguments, until it is let through."""

    def __init__(self, function, key):
        self.function, self.key = function, key
        self.doors: dict[object, threading.Event] = collections.defaultdict(threading.Event)
        self.came: list[object] = []
        self.closed = False

    def __call__(self, *args):
        name = self.key(*args)
        self.came.append(name)
        if self.closed:
            assert self.doors[name].wait(60), name
        return self.function(*args)

    def wait_for(self, name: object) -> None:
        until = time.monotonic() + 30
        while name not in self.came:
            assert time.monotonic() < until, f"{name} was not asked for, only {self.came}"
            time.sleep(0.01)


@pytest.fixture
def gates(monkeypatch):
    """The page's own functions, each of which can be held up."""
    made = {
        "clean": Gate(pipelines.clean, lambda pipeline, path, sigma: (Path(path or "none").stem, sigma)),
        "decode": Gate(pipelines.decode, lambda pipeline, z1, z2: (z1, z2)),
    }
    for name, gate in made.items():
        monkeypatch.setattr(pipelines, name, gate)
    return made


@pytest.fixture(scope="module")
def address(loaded):
    """Where this process serves the page, so that a test can hold up what it calls."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipelines, "load", lambda model: loaded[model])
        _, url, _ = (blocks := app.build()).launch(prevent_thread_lock=True, quiet=True, server_port=free_port())
    yield url
    blocks.close()


@pytest.fixture
def visit(browser, address, gates):
    """Opens the page; every visitor has a browser of their own."""
    contexts = []

    def open_page(tab: str):
        contexts.append(browser.new_context(viewport={"width": 1280, "height": 900}))
        page = contexts[-1].new_page()
        page.set_default_timeout(30_000)
        page.goto(address)
        page.get_by_role("tab", name=tab).click()
        page.locator(".save:visible, #walked img:visible").first.wait_for()
        page.evaluate(
            """() => {
              window.seen = [];
              const note = () => document.querySelectorAll('#cleaned b, #drawn figcaption, #walked figcaption')
                .forEach(e => e.innerText && window.seen.push(e.innerText));
              new MutationObserver(note).observe(document.body, {subtree: true, childList: true, characterData: true});
            }"""
        )
        return page

    yield open_page
    for gate in gates.values():
        gate.closed = False
        for door in list(gate.doors.values()):
            door.set()
    for context in contexts:
        context.close()


def settled(page, part: str) -> None:
    page.locator(f"#{part}[aria-busy=false]").wait_for()


@pytest.fixture
def photos(tmp_path):
    """Small pictures, each of one grey, and a file that is none."""
    for k, name in enumerate(("first", "second", "third")):
        Image.new("RGB", (24, 16), (60 * k + 40,) * 3).save(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_text("not a picture")
    return {path.stem: path for path in tmp_path.glob("*.png")}


def upload(page, path: Path) -> None:
    if page.get_by_label("Remove Image").count():
        page.get_by_label("Remove Image").click()
    page.get_by_test_id("file-upload").set_input_files(path)


def test_a_second_picture_chosen_while_the_first_runs_is_the_one_shown(visit, gates, photos):
    page, clean = visit("Clean"), gates["clean"]
    clean.closed = True
    upload(page, photos["first"])
    clean.wait_for(("first", 0))
    upload(page, photos["second"])
    upload(page, photos["third"])
    page.wait_for_timeout(500)
    clean.closed = False
    clean.doors["first", 0].set()
    page.locator("#cleaned b", has_text="third").wait_for()
    settled(page, "cleaned")
    before, _ = compared(page)
    assert np.array_equal(before, pixels(Image.open(photos["third"])))
    seen = page.evaluate("window.seen")
    assert "first" not in seen and "second" not in seen, "no picture's result is shown beside another picture"


def test_a_broken_file_that_is_slow_to_fail_does_not_take_the_next_one_with_it(visit, gates, photos):
    page, clean = visit("Clean"), gates["clean"]
    clean.closed = True
    upload(page, photos["broken"])
    clean.wait_for(("broken", 0))
    upload(page, photos["second"])
    page.wait_for_timeout(500)
    clean.closed = False
    clean.doors["broken", 0].set()
    assert "can't be read as a picture" in told(page)
    page.locator("#cleaned b", has_text="second").wait_for()
    settled(page, "cleaned")


def test_a_picture_taken_away_while_it_runs_is_not_shown(visit, gates, photos):
    page, clean = visit("Clean"), gates["clean"]
    clean.closed = True
    upload(page, photos["first"])
    clean.wait_for(("first", 0))
    page.get_by_label("Remove Image").click()
    clean.doors["first", 0].set()
    page.wait_for_timeout(1500)
    assert page.locator("#cleaned[aria-busy=true]").count() == 1 and "first" not in page.evaluate("window.seen")
    clean.closed = False
    upload(page, photos["first"])
    page.locator("#cleaned b", has_text="first").wait_for()
    settled(page, "cleaned")


def test_the_noise_moved_while_one_runs_and_an_example_in_between(visit, gates, photos):
    page, clean = visit("Clean"), gates["clean"]
    upload(page, photos["first"])
    page.locator("#cleaned b", has_text="first").wait_for()
    clean.closed = True
    noise = page.get_by_label("range slider for Noise")
    noise.press("ArrowRight")
    clean.wait_for(("first", 1))
    for _ in range(9):
        noise.press("ArrowRight")
    page.wait_for_timeout(300)
    clean.closed = False
    clean.doors["first", 1].set()
    until = time.monotonic() + 30
    while clean.came[-1] != ("first", 10) and time.monotonic() < until:
        page.wait_for_timeout(20)
    settled(page, "cleaned")
    before, _ = compared(page)
    assert before.astype(int).std() == pytest.approx(10, rel=0.2), "the noise that the slider says"
    assert clean.came.count(("first", 10)) == 1 and len(clean.came) <= 6, "nine moves that waited were one"
    clean.closed = True
    noise.press("ArrowRight")
    clean.wait_for(("first", 11))
    page.locator("button.gallery-item").nth(2).click()
    page.get_by_role("img", name="the picture that was chosen").wait_for()
    clean.wait_for(("coffee", 11))
    clean.doors["coffee", 11].set()
    page.locator("#cleaned b", has_text="coffee").wait_for()
    clean.doors["first", 11].set()  # the older answer comes last
    page.wait_for_timeout(1000)
    assert page.locator("#cleaned b").inner_text() == "coffee"


def test_two_visitors_get_their_own(visit, gates, photos):
    one, other = visit("Clean"), visit("Clean")
    clean = gates["clean"]
    clean.closed = True
    upload(one, photos["first"])
    upload(other, photos["second"])
    clean.wait_for(("first", 0))
    clean.wait_for(("second", 0))
    clean.doors["second", 0].set()
    other.locator("#cleaned b", has_text="second").wait_for()
    upload(other, photos["third"])
    clean.wait_for(("third", 0))
    for door in (("first", 0), ("third", 0)):
        clean.doors[door].set()
    one.locator("#cleaned b", has_text="first").wait_for()
    other.locator("#cleaned b", has_text="third").wait_for()
    assert {"second", "third"}.isdisjoint(one.evaluate("window.seen"))
    assert "first" not in other.evaluate("window.seen")


def test_a_class_chosen_while_another_is_drawn_stops_it(visit):
    page, neighbour = visit("Draw"), visit("Draw")
    for visitor in (page, neighbour):
        steps = visitor.get_by_label("number input for Steps")
        steps.fill("100")
        steps.press("Tab")
    neighbour.get_by_role("radio", name="truck").click()
    classes = ("ship", "cat", "dog", "frog", "bird")
    for name in classes:
        page.get_by_role("radio", name=name).click()
        page.wait_for_timeout(150)
    page.get_by_text("bird, finished").wait_for()
    neighbour.get_by_text("truck, finished").wait_for()
    page.wait_for_timeout(500)
    assert page.locator("#drawn figcaption").nth(1).inner_text() == "bird, finished"
    seen = page.evaluate("window.seen")
    finished = {caption for caption in seen if "finished" in caption}
    assert finished <= {"horse, finished", "bird, finished"}, "what nobody waits for is not drawn to its end"


def test_fifty_choices_in_a_row_end_with_the_last(visit):
    page = visit("Walk")
    slider = page.get_by_label("range slider for z1")
    for _ in range(50):
        slider.press("ArrowRight")
    page.get_by_text("z = (0.00, 0.50)").wait_for()
    settled(page, "walked")
    assert page.get_by_label("number input for z1").input_value() == "0"
    seen = [float(re.search(r"-?\d\.\d\d", caption)[0]) for caption in page.evaluate("window.seen") if "z" in caption]
    assert seen == sorted(seen), "never back to an older one"


def test_a_slider_moved_after_the_pointer_stays_where_it_was_put(visit, gates):
    page, decode = visit("Walk"), gates["decode"]
    decode.closed = True
    plane = page.locator(".plane img")
    plane.hover(position={"x": 20, "y": 20})
    page.wait_for_timeout(500)
    (pointed,) = set(decode.came)
    field = page.get_by_label("number input for z1")
    field.fill("1.5")
    decode.wait_for((1.5, 0.5))
    decode.doors[1.5, 0.5].set()
    page.get_by_text("z = (1.50, 0.50)").wait_for()
    decode.doors[pointed].set()
    page.wait_for_timeout(1000)
    assert page.locator("#walked figcaption").inner_text() == "z = (1.50, 0.50)" and field.input_value() == "1.5"
    decode.closed = False
    field.fill("")
    assert "z1 must be a number" in told(page)
    plane.hover(position={"x": 200, "y": 200})
    settled(page, "walked")
    caption = page.locator("#walked figcaption").inner_text()
    assert caption != "z = (1.50, 0.50)" and f"({float(field.input_value()):.2f}," in caption


def test_a_missing_model_leaves_the_others_alone(browser, loaded, monkeypatch, tmp_path):
    def load(model: str):
        if model == "vae":
            return loaded[model]
        raise ValueError(f"There is no {model}.")

    monkeypatch.setattr(pipelines, "load", load)
    _, url, _ = (blocks := app.build()).launch(prevent_thread_lock=True, quiet=True, server_port=free_port())
    page = browser.new_page()
    try:
        page.goto(url)
        page.get_by_text("This model can't be shown. There is no diffusion.").wait_for()
        page.get_by_role("tab", name="Walk").click()
        page.locator(".plane img").wait_for()
        page.get_by_role("tab", name="Clean").click()
        page.get_by_text("This model can't be shown. There is no denoiser.").wait_for()
    finally:
        page.close()
        blocks.close()


def test_the_server_met_no_surprise_and_spoke_with_nobody(server):
    """The last test here: through all of the above."""
    assert "Traceback" not in server.log.read_text(), server.log.read_text()
    addresses = server.addresses.read_text()
    elsewhere = [line for line in addresses.splitlines() if "127.0.0.1" not in line and "localhost" not in line]
    assert "127.0.0.1" in addresses and elsewhere == []
