"""A page to play with the three models: draw a class, walk over a latent plane, clean a picture.

    make space     (or: python space/app.py)

It looks for the models in the folder, or the Hub account, that TRIPTYCH_MODELS names; by default in ``pretrained``.
"""

from __future__ import annotations

import base64
import functools
import inspect
import io
import random
from collections.abc import Callable
from pathlib import Path

import gradio as gr
import skimage
import torch
from PIL import Image

import pipelines

FIGURES = """
<div class="figures">{{#each value}}
  <figure class="{{kind}}"><img class="pixels" src="{{src}}" alt="{{alt}}"><figcaption>{{caption}}</figcaption></figure>
{{/each}}</div>
"""
PLANE = """
<div class="plane"><img class="pixels" src="{{picture}}" alt="the latent plane, decoded" draggable="false">
<i style="left: ${100 * value[0]}%; top: ${100 * value[1]}%"></i></div>
"""
# Moving a mouse over the plane, or a finger, is enough; the server hears of the latest place only.
FOLLOW_POINTER = """
const follow = event => {
  const box = element.querySelector("img").getBoundingClientRect();
  const share = (at, from, length) => Math.min(1, Math.max(0, (at - from) / length));
  props.value = [share(event.clientX, box.left, box.width), share(event.clientY, box.top, box.height)];
  trigger("input");
};
element.addEventListener("pointermove", follow);
element.addEventListener("pointerdown", follow);
"""
# What was wrong pops up in words; the last picture stays where it was, and no "Error" covers it.
CSS = """
.gradio-container { max-width: 1080px !important; margin: 0 auto !important; }
[data-testid="status-tracker"]:has(.error) { display: none; }
.html-container:has(.pixels) { padding: 0 !important; }
.pixels { image-rendering: pixelated; width: 100%; display: block; border-radius: 4px; margin: 0 !important; }
.figures { display: grid; grid-template-columns: repeat(8, 1fr); gap: 16px 8px; }
.figures figure { margin: 0; text-align: center; }
.figures .large { grid-column: span 4; }
.figures .large:only-child { grid-column: span 8; max-width: 400px; }
.figures figcaption { font-size: 0.85rem; opacity: 0.75; margin-top: 4px; white-space: nowrap; }
.plane { position: relative; max-width: 560px; cursor: crosshair; touch-action: none; }
.plane i { position: absolute; width: 5%; height: 5%; transform: translate(-50%, -50%); pointer-events: none;
  border: 3px solid #f59e0b; border-radius: 4px; box-shadow: 0 0 0 1px white; }
"""
INTRO = """
# Triptych
Three ways to make images, each small enough to play with on a CPU: diffusion, a variational autoencoder, a GAN.
"""
ABOUT_DIFFUSION = """
A diffusion model starts from pure noise and takes some of it away step by step, led towards the class you ask for.
On the left is what it holds, on the right the image it expects to arrive at. It learned from CIFAR-10, on one CPU core
in two hours; its images have 32 x 32 pixels.
"""
ABOUT_VAE = """
A variational autoencoder that has two numbers to describe a handwritten digit, so that all it can draw lies in one
plane. **Move over the plane**: neighbours look alike, and between two digits lies what is half of each.
"""
ABOUT_GAN = """
Drop in a noisy picture, or take a clean one and let us add the noise. The network was trained against a critic that
tells clean pictures from restored ones, on Gaussian noise of any strength up to sigma 55 of 255. Drag the line to
compare.
"""


def spoken(function: Callable) -> Callable:
    """Whatever is wrong with what a visitor gave is told to them; a visitor's slip is no error of the server's."""

    @functools.wraps(function)
    def tell(*args):
        try:
            return function(*args)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from None

    @functools.wraps(function)
    def tell_each(*args):
        try:
            yield from function(*args)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from None

    return tell_each if inspect.isgeneratorfunction(function) else tell


def source(picture: Image.Image) -> str:
    """A picture as what an <img> shows: small ones travel inside the page, and no file is left behind."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def figure(picture: Image.Image, caption: str, kind: str = "large") -> dict[str, str]:
    """An entry of FIGURES."""
    return {"src": source(picture), "caption": caption, "alt": caption, "kind": kind}


def show_steps(name: str, steps: list[pipelines.Step]) -> list[dict[str, str]]:
    """The two pictures of the newest step, and below them up to eight of those before it."""
    newest = steps[-1]
    done = newest.index == newest.count
    left = f"step {min(newest.index + 1, newest.count)} of {newest.count}"
    right = f"{name}, finished" if done else "what it expects"
    marks = {round(k * (newest.count - 1) / 7) for k in range(8)}
    strip = []
    for step in steps:
        if step.index in marks and step.index < step.count:
            pair = Image.new("RGB", (step.noisy.width, 2 * step.noisy.height))
            pair.paste(step.noisy, (0, 0))
            pair.paste(step.predicted, (0, step.noisy.height))
            strip.append(figure(pair, f"{step.index + 1}", "small"))
    return [figure(newest.noisy, left), figure(newest.predicted, right), *strip]


def diffusion_tab(pipeline: pipelines.DiffusionPipeline) -> None:
    """Draw a class and watch it appear."""

    @spoken
    def draw(name, steps, guidance, seed):
        taken = []
        for step in pipelines.draw(pipeline, name, steps, guidance, seed):
            taken.append(step)
            yield show_steps(name, taken)

    names, config = pipeline.class_names, pipeline.config
    first = ["horse" if "horse" in names else names[0], config.num_inference_steps, config.guidance_scale, 0]
    gr.Markdown(ABOUT_DIFFUSION)
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            name = gr.Radio(names, value=first[0], label="Class")
            steps = gr.Slider(1, pipelines.MAX_STEPS, first[1], step=1, label="Steps")
            guidance = gr.Slider(0, pipelines.MAX_GUIDANCE, first[2], step=0.5, label="Guidance (1 = none)")
            seed = gr.Number(first[3], label="Seed", precision=0)
            with gr.Row():
                other = gr.Button("Another one", min_width=100)
                button = gr.Button("Draw", variant="primary", min_width=100)
        with gr.Column(scale=3, min_width=300):
            # drawn before the first visitor comes: nobody waits for a network that has never run
            figures = gr.HTML([*draw(*first)][-1], html_template=FIGURES)
    asked = {
        "inputs": [name, steps, guidance, seed],
        "outputs": figures,
        "preprocess": False,
        "show_progress": "minimal",
    }
    button.click(draw, **asked, api_name="draw")
    drawn = other.click(lambda: random.randrange(pipelines.MAX_SEED), outputs=seed, api_visibility="private")
    drawn.then(draw, **asked, api_visibility="private")


def vae_tab(pipeline: pipelines.DiffusionPipeline) -> None:
    """Walk over the latent plane and see the digit."""

    @spoken
    def decode(z1, z2):
        digit = pipelines.decode(pipeline, z1, z2)
        return pipelines.place_of(z1, z2), [figure(digit, f"z = ({z1:.2f}, {z2:.2f})")]

    @spoken
    def point_at(place):
        z1, z2 = (round(z, 2) for z in pipelines.latents_at(place))
        return z1, z2, decode(z1, z2)[1]

    start = (-0.5, 0.5)
    place, digit = decode(*start)
    gr.Markdown(ABOUT_VAE)
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            picture = source(pipelines.draw_plane(pipeline))
            plane = gr.HTML(place, html_template=PLANE, js_on_load=FOLLOW_POINTER, picture=picture)
        with gr.Column(scale=2, min_width=300):
            figures = gr.HTML(digit, html_template=FIGURES)
            z1 = gr.Slider(-3, 3, start[0], step=0.01, label="z1, to the right")
            z2 = gr.Slider(-3, 3, start[1], step=0.01, label="z2, upwards")
    quick = {"trigger_mode": "always_last", "show_progress": "hidden", "preprocess": False}
    plane.input(point_at, plane, [z1, z2, figures], **quick, api_name="point_at")
    gr.on([z1.input, z2.input], decode, [z1, z2], [plane, figures], **quick, api_name="decode")


def denoiser_tab(pipeline: pipelines.DiffusionPipeline) -> None:
    """Clean a picture, and compare before and after."""

    @spoken
    def clean(file, sigma):
        done = pipelines.clean(pipeline, file and file.get("path"), sigma)
        times = max(1, 384 // max(done.before.size))  # small ones are shown larger, pixel by pixel
        size = (done.before.width * times, done.before.height * times)
        return [picture.resize(size, Image.Resampling.NEAREST) for picture in (done.before, done.after)], done.note

    folder = Path(skimage.__file__).parent / "data"
    examples = [str(folder / f"{name}.png") for name in ("chelsea", "astronaut", "coffee")]
    pair, note = clean({"path": examples[0]}, 25)
    gr.Markdown(ABOUT_GAN)
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            file = gr.Image(examples[0], type="filepath", label="Picture", sources=["upload", "clipboard"], height=260)
            sigma = gr.Slider(0, pipelines.MAX_SIGMA, 25, step=1, label="Noise to add (0 if it is noisy already)")
            button = gr.Button("Clean", variant="primary")
            shelf = gr.Examples(examples, file, label="Clean pictures to try it on")
        with gr.Column(scale=3, min_width=300):
            compared = gr.ImageSlider(pair, label="Before | after", format="png", interactive=False)
            words = gr.Markdown(note)
    asked = {"inputs": [file, sigma], "outputs": [compared, words], "preprocess": False}
    button.click(clean, **asked, api_name="clean")
    # one's own picture is noisy already, most likely; an example is not
    own = file.upload(lambda: 0, outputs=sigma, api_visibility="private")
    shown = shelf.load_input_event.then(lambda sigma: sigma or 25, sigma, sigma, api_visibility="private")
    for event in (own.then, shown.then, sigma.release):
        event(clean, **asked, api_visibility="private")


def build() -> gr.Blocks:
    """The page, a tab for each model; where a model is missing its tab says so."""
    tabs = {
        "Draw": ("diffusion", diffusion_tab),
        "Walk": ("vae", vae_tab),
        "Clean": ("denoiser", denoiser_tab),
    }
    with gr.Blocks(title="Triptych", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown(INTRO)
        for title, (model, fill) in tabs.items():
            with gr.Tab(title):
                try:
                    fill(pipelines.load(model))
                except ValueError as error:
                    gr.Markdown(f"**This model can't be shown.** {error}")
    return page.queue(default_concurrency_limit=2, max_size=64)


def main() -> None:
    """Serve the page, at GRADIO_SERVER_NAME and GRADIO_SERVER_PORT."""
    # A core for each visitor: the networks are small, and two who share all cores wait for each other at every layer.
    torch.set_num_threads(1)
    build().launch(
        # The semi-bold faces that come with Gradio lack most letters; the bold one has them all.
        theme=gr.themes.Default(
            primary_hue="indigo", font=[gr.themes.LocalFont("Source Sans Pro", (400, 700)), "sans-serif"]
        ),
        css=CSS,
        max_file_size="20mb",
        footer_links=["api", "gradio"],
        run_history=False,
        enable_monitoring=False,
    )


if __name__ == "__main__":
    main()
