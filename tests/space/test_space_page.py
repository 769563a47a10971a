"""The page's server, asked by several at once, and the page in a real browser."""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

import pipelines
from space.visiting import CONTRASTS, DEFAULT, PHOTO, SILLY, bad_picture, compared, pixels, silly, told


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


def shot(page, folder: Path, name: str) -> None:
    path = folder / f"{name}.png"
    page.screenshot(path=path, full_page=True)
    assert path.stat().st_size > 10_000


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


def test_the_server_met_no_surprise_and_spoke_with_nobody(server):
    """The last test here: through all of the above."""
    assert "Traceback" not in server.log.read_text(), server.log.read_text()
    addresses = server.addresses.read_text()
    elsewhere = [line for line in addresses.splitlines() if "127.0.0.1" not in line and "localhost" not in line]
    assert "127.0.0.1" in addresses and elsewhere == []
