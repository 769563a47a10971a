"""What an answer to a visitor is made of: pictures as HTML, numbered choices, refusals."""

from __future__ import annotations

import base64
import io
import re

import gradio as gr
from PIL import Image

import pipelines


def choose(of: str, more: str = "") -> str:
    """JavaScript for a choice made in the part of the page called `of`: its number, then what `more` gives."""
    return f"""(...values) => {{
      const newest = (window.newestChoice ??= {{}});
      document.getElementById("{of}").setAttribute("aria-busy", "true");
      newest["{of}"] = (newest["{of}"] ?? 0) + 1;
      return [newest["{of}"]{more}];
    }}"""


def refuse(error: ValueError, question: int) -> dict:
    """Tell a visitor what is wrong with what they gave; it is no error of the server's.

    An error would end a page's event, and drop the choice that waits behind it; a program gets one all the same.
    """
    if not question:
        raise gr.Error(str(error), print_exception=False) from None
    gr.Warning(str(error))
    return gr.skip()


def as_html(text: str) -> str:
    """Text for a template, where neither HTML nor the templates' own signs mean anything."""
    return re.sub(r"[^\w .,:;=()-]", lambda sign: f"&#{ord(sign[0])};", text)


def source(picture: Image.Image) -> str:
    """A picture as what an <img> shows: small ones travel inside the page, and no file is left behind."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def figure(picture: Image.Image, caption: str, alt: str = "", kind: str = "large") -> dict[str, str]:
    """An entry of FIGURES."""
    return {"src": source(picture), "caption": as_html(caption), "alt": as_html(alt or caption), "kind": kind}


def show_steps(name: str, seed: int, steps: list[pipelines.Step]) -> dict:
    """One image's newest step, and below it up to eight of those before; of several images the newest step alone."""
    newest = steps[-1]
    done = newest.index == newest.count
    counter = f"step {min(newest.index + 1, newest.count)} of {newest.count}"
    title = f"{name}, {'finished' if done else 'what it expects'}"
    shown: dict = {"figures": [], "strip": []}
    if len(newest.images) > 1:
        shown["heading"] = as_html(f"{counter}: {title}")
        for k, image in enumerate(newest.images):
            shown["figures"].append(figure(image, f"seed {seed + k}", f"{title}, seed {seed + k}", "several"))
    else:
        right = title if done else "what it expects"
        shown["figures"] = [
            figure(newest.noisy, counter, f"{name}, what it held at {counter}"),
            figure(newest.predicted, right, f"{title}, {counter}"),
        ]
        marks = {round(k * (newest.count - 1) / 7) for k in range(8)}
        for step in steps:
            if step.index in marks and step.index < step.count:
                both = stack([step.noisy, step.predicted], columns=1)
                number = str(step.index + 1)
                shown["strip"].append(figure(both, number, f"step {number}: what it held, what it expected", "small"))
    if done:
        shown["save"] = source(stack(newest.images, columns=4))
        shown["file"] = as_html(f"{name} seed {seed}.png")
    return shown


def stack(pictures: list[Image.Image], columns: int) -> Image.Image:
    """Pictures of one size as a table without gaps."""
    columns = min(columns, len(pictures))
    width, height = pictures[0].size
    sheet = Image.new("RGB", (columns * width, -(-len(pictures) // columns) * height), "white")
    for k, picture in enumerate(pictures):
        sheet.paste(picture, (k % columns * width, k // columns * height))
    return sheet
