"""The page to play with: its functions, its server under several visitors, and the page in a real browser."""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
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

DEFAULT = ("horse", 25, 3, 0)
PHOTO = Path(app.skimage.__file__).parent / "data/chelsea.png"
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
    elif kind == "deep":
        Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(path)
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
        ("deep", "more than 8 bits a channel"),
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


def pictures(figures: list[dict]) -> list[np.ndarray]:
    return [pixels(Image.open(io.BytesIO(base64.b64decode(figure["src"].split(",")[1])))) for figure in figures]


def test_two_at_once_are_both_served_and_get_what_they_would_alone(server, client):
    asked = [("cat", 20, 3, 7), ("ship", 20, 2, 8)]
    alone = [client.predict(*one, api_name="/draw") for one in asked]
    assert alone[0][1]["caption"] == "cat, finished" and pictures(alone[0])[1].shape == (32, 32, 3)
    visitors = [Client(server.url, verbose=False) for _ in asked]
    jobs = [visitor.submit(*one, api_name="/draw") for visitor, one in zip(visitors, asked, strict=True)]
    seen = [[] for _ in jobs]
    while not all(job.done() for job in jobs):
        for job, counts in zip(jobs, seen, strict=True):
            counts.append(len(job.outputs()))
        time.sleep(0.01)
    assert [job.result() for job in jobs] == alone
    both = [one for one in zip(*seen, strict=True) if all(0 < count < 21 for count in one)]
    assert both, "one did not wait for the other to finish"


def test_the_server_draws_what_the_pipeline_draws(client, loaded):
    drawn = pictures(client.predict(*DEFAULT, api_name="/draw"))[1]
    here = pixels([*pipelines.draw(loaded["diffusion"], *DEFAULT)][-1].predicted)
    assert np.abs(drawn.astype(int) - here.astype(int)).max() <= 2, "another process may have other threads"
    z1, z2, digit = client.predict([0.9, 0.5], api_name="/point_at")
    assert (z1, z2) == (1.28, 0.0) and digit[0]["caption"] == "z = (1.28, 0.00)"
    assert np.abs(pictures(digit)[0].astype(int) - pixels(pipelines.decode(loaded["vae"], 1.28, 0))).max() <= 1
    place, again = client.predict(1.28, 0, api_name="/decode")
    assert place == pytest.approx([0.9, 0.5], abs=0.01) and again == digit


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
    page.get_by_role("radio", name="ship").click()
    page.get_by_label("Seed").fill("11")
    page.get_by_role("button", name="Draw").click()
    page.get_by_text("ship, finished").wait_for()
    shown = [caption for caption, _ in itertools.groupby(page.evaluate("window.captions"))]
    numbers = [int(re.match(r"step (\d+) of 25", caption).group(1)) for caption in shown]
    # The page began with another picture, at step 25.
    numbers = numbers[numbers[0] == 25 :]
    assert numbers == sorted(numbers) and len(set(numbers)) > 5, "it was seen to appear"
    assert page.locator(".figures .small:visible").count() == 8
    assert page.locator(".figures .large img").first.evaluate("i => getComputedStyle(i).imageRendering") == "pixelated"
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
    shown = page.get_by_test_id("imageslider-image")
    sources = [shown.nth(k).get_attribute("src") for k in (0, 1)]
    return [pixels(Image.open(io.BytesIO(page.request.get(source).body())).convert("RGB")) for source in sources]


def test_a_noisy_picture_comes_back_clean(page, tmp_path, loaded):
    page.get_by_role("tab", name="Clean").click()
    after = page.get_by_test_id("imageslider-image").nth(1)
    example = after.get_attribute("src")
    noisy = pixels(Image.open(PHOTO))[:200, 100:400] + np.random.default_rng(1).normal(0, 20, (200, 300, 3))
    noisy = noisy.clip(0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(tmp_path / "noisy.png")
    page.get_by_label("Remove Image").click()
    page.get_by_test_id("file-upload").set_input_files(tmp_path / "noisy.png")
    changed = "old => document.querySelectorAll('[data-testid=imageslider-image]')[1].src != old"
    page.wait_for_function(changed, arg=example)
    assert page.get_by_label("number input for Noise to add").input_value() == "0", "one's own is noisy already"
    before, cleaned = compared(page)
    assert np.array_equal(before, noisy)
    here = pixels(loaded["denoiser"](Image.fromarray(noisy)).images[0])
    assert np.abs(cleaned.astype(int) - here.astype(int)).max() <= 2
    box = after.bounding_box()
    line = page.get_by_test_id("slider")
    line.hover()
    page.mouse.down()
    page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    covered = float(re.search(r"([\d.]+)%", after.evaluate("i => i.style.clipPath")).group(1))
    assert covered == pytest.approx(10, abs=3), "the line was dragged"
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
    assert page.get_by_test_id("imageslider-image").first.is_visible()
    assert "Traceback" not in page.content()


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
