"""What several tests of the page ask, send and look at."""

from __future__ import annotations

import io
import socket
from pathlib import Path

import numpy as np
from PIL import Image

import tabs

DEFAULT = ("horse", 25, 3, 0)

PHOTO = Path(tabs.skimage.__file__).parent / "data/chelsea.png"


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture)


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


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def told(page) -> str:
    """The message that pops up; it is closed again."""
    toast = page.locator(".toast-body").first
    text = toast.inner_text()
    toast.get_by_test_id("toast-close").click()
    toast.wait_for(state="detached")
    return text


def compared(page) -> list[np.ndarray]:
    """The pictures under the line, before and after, as they were sent."""
    shown = page.locator("#cleaned img")
    sources = [shown.nth(k).get_attribute("src") for k in (0, 1)]
    return [pixels(Image.open(io.BytesIO(page.request.get(source).body())).convert("RGB")) for source in sources]


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
