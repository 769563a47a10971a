"""Whoever chooses anew while an answer is on its way."""

from __future__ import annotations

import collections
import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import app
import pipelines
from space.visiting import compared, free_port, pixels, told


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
