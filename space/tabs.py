"""The three tabs of the page: each model's controls, and what they do.

A visitor may choose anew while an answer is on its way. So the browser numbers the choices, an answer carries the
number of the choice that it answers, and is shown only if there is no newer one. ``always_last`` makes one of all the
choices that wait.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import skimage
from gradio.processing_utils import save_pil_to_cache
from gradio.utils import get_upload_folder
from PIL import Image

import pipelines
from answers import as_html, choose, figure, refuse, show_steps, source
from looks import (
    ABOUT_DIFFUSION,
    ABOUT_GAN,
    ABOUT_VAE,
    BEFOREHAND,
    COMPARED,
    FIGURES,
    FOLLOW_POINTER,
    MOVE_LINE,
    PLANE,
    SHOW_NEWEST,
)


def diffusion_tab(pipeline: pipelines.DiffusionPipeline) -> None:
    """Draw a class and watch it appear."""

    def draw(
        name: str, steps: int, guidance: float, seed: int, count: int, question: int, newest: list[int]
    ) -> Iterator[dict]:
        taken: list[pipelines.Step] = []
        try:
            for step in pipelines.draw(pipeline, name, steps, guidance, seed, count):
                if newest[0] > question:
                    return
                taken.append(step)
                if step.index != step.count - 1:  # the last step is shown with what comes of it
                    yield {"of": "drawn", "question": question, **show_steps(name, seed, taken)}
        except ValueError as error:
            yield refuse(error, question)

    def note(question: int, newest: list[int]) -> None:
        newest[0] = max(newest[0], question)  # what is being drawn for an older choice stops

    names, config = pipeline.class_names, pipeline.config
    first = ["horse" if "horse" in names else names[0], config.num_inference_steps, config.guidance_scale, 0, 1]
    question, newest = gr.Number(0, visible=False, label="Number of the choice"), gr.State([0])
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            # drawn before the first visitor comes: nobody waits for a network that has never run
            *_, answer = draw(*first, 0, [0])
            figures = gr.HTML(answer, html_template=FIGURES, js_on_load=SHOW_NEWEST, elem_id="drawn")
        with gr.Column(scale=2, min_width=300):
            name = gr.Radio(names, value=first[0], label="Class (choosing one draws it)")
            count = gr.Radio([1, 4, pipelines.MAX_IMAGES], value=1, label="Images at once")
            with gr.Row():
                other = gr.Button("Another one", min_width=100)
                button = gr.Button("Draw", variant="primary", min_width=100)
            steps = gr.Slider(1, pipelines.MAX_STEPS, first[1], step=1, label="Steps", buttons=[])
            guidance = gr.Slider(0, pipelines.MAX_GUIDANCE, first[2], step=0.5, label="Guidance (1 = none)", buttons=[])
            seed = gr.Number(first[3], label="Seed", precision=0)
    gr.Markdown(ABOUT_DIFFUSION)
    private = {"api_visibility": "private"}
    chosen = gr.on([name.input, count.input, button.click], None, outputs=[question], js=choose("drawn"), **private)
    random = f", Math.floor(Math.random() * {pipelines.MAX_SEED - pipelines.MAX_IMAGES})"
    moved = other.click(None, outputs=[question, seed], js=choose("drawn", random), **private)
    for event, visibility in ((chosen, {"api_name": "draw"}), (moved, private)):
        event.then(note, [question, newest], queue=False, show_progress="hidden", trigger_mode="multiple", **private)
        event.then(
            draw,
            [name, steps, guidance, seed, count, question, newest],
            figures,
            preprocess=False,
            trigger_mode="always_last",
            show_progress="minimal",
            **visibility,
        )


def vae_tab(pipeline: pipelines.DiffusionPipeline) -> None:
    """Walk over the latent plane and see the digit."""

    def decode(z1: float, z2: float, question: int) -> dict:
        try:
            digit = pipelines.decode(pipeline, z1, z2)
            point = f"z = ({z1:.2f}, {z2:.2f})"
            place = pipelines.place_of(z1, z2)
        except ValueError as error:
            return refuse(error, question)
        return {
            "of": "walked",
            "question": question,
            "z": [z1, z2],
            "place": place,
            "figures": [figure(digit, point, f"the digit at {point}")],
        }

    def point_at(place: list[float], question: int) -> dict:
        try:
            z1, z2 = (round(z, 2) for z in pipelines.latents_at(place))
        except ValueError as error:
            return refuse(error, question)
        return decode(z1, z2, question)

    start = (-0.5, 0.5)
    answer = decode(*start, 0)
    question = gr.Number(0, visible=False, label="Number of the choice")
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            picture = source(pipelines.draw_plane(pipeline))
            plane = gr.HTML(answer["place"], html_template=PLANE, js_on_load=FOLLOW_POINTER, picture=picture)
        with gr.Column(scale=2, min_width=300):
            figures = gr.HTML(answer, html_template=FIGURES, js_on_load=SHOW_NEWEST, elem_id="walked")
            z1 = gr.Slider(-3, 3, start[0], step=0.01, label="z1, to the right", buttons=[])
            z2 = gr.Slider(-3, 3, start[1], step=0.01, label="z2, upwards", buttons=[])
    gr.Markdown(ABOUT_VAE)
    private = {"api_visibility": "private"}
    quick = {"trigger_mode": "always_last", "show_progress": "hidden", "preprocess": False}
    ask = {"fn": None, "outputs": [question], "js": choose("walked"), **private}
    plane.input(**ask).then(point_at, [plane, question], figures, **quick, api_name="point_at")
    gr.on([z1.input, z2.input], **ask).then(decode, [z1, z2, question], figures, **quick, api_name="decode")
    # the mark and the sliders follow the digit that is shown
    follow = """(answer, ...now) => answer.question === (window.newestChoice?.walked ?? 0) && answer.question
      ? [...answer.z, answer.place] : now"""
    figures.change(None, [figures, z1, z2, plane], [z1, z2, plane], js=follow, trigger_mode="multiple", **private)


def denoiser_tab(pipeline: pipelines.DiffusionPipeline) -> None:
    """Clean a picture, and compare before and after."""

    def keep(picture: Image.Image, name: str) -> dict:
        """A picture as a file that Gradio serves, and throws away after a while."""
        path = save_pil_to_cache(picture, cache_dir=get_upload_folder(), name=name, format="png")
        return gr.FileData(path=path, orig_name=Path(path).name).model_dump()

    def clean(file: dict | None, sigma: float, question: int) -> dict:
        try:
            done = pipelines.clean(pipeline, file and file.get("path"), sigma)
        except ValueError as error:
            return refuse(error, question)
        name = re.sub(r"[^\w .()-]", "_", Path(file.get("orig_name") or file["path"]).stem)[:60]
        return {
            "of": "cleaned",
            "question": question,
            "before": keep(done.before, f"{name} noisy"),
            "after": keep(done.after, f"{name} cleaned"),
            "kind": "pixels" if max(done.before.size) < 384 else "photo",  # small ones are shown pixel by pixel
            "name": as_html(name),
            "note": as_html(f": {done.note}" if done.note else ""),
        }

    folder = Path(skimage.__file__).parent / "data"
    names = ("chelsea", "astronaut", "coffee")
    examples = [str(folder / f"{name}.png") for name in names]
    question = gr.Number(0, visible=False, label="Number of the choice")
    file = gr.Image(
        examples[0],
        type="filepath",
        label="Picture",
        alt_text="the picture that was chosen",
        sources=["upload", "clipboard"],
        height=220,
        render=False,
    )
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            answer = clean({"path": examples[0]}, 25, 0)
            compared = gr.HTML(answer, html_template=COMPARED, js_on_load=SHOW_NEWEST + MOVE_LINE, elem_id="cleaned")
        with gr.Column(scale=2, min_width=300):
            shelf = gr.Examples(examples, file, label="Clean pictures to try it on", example_labels=names)
            file.render()
            gr.Markdown(BEFOREHAND)
            sigma = gr.Slider(
                0, pipelines.MAX_SIGMA, 25, step=1, label="Noise to add (0 if it is noisy already)", buttons=[]
            )
            button = gr.Button("Clean", variant="primary")
    gr.Markdown(ABOUT_GAN)
    private = {"api_visibility": "private"}
    ask = {"fn": None, "outputs": [question], "js": choose("cleaned"), **private}
    asked = gr.on([button.click, sigma.input], **ask)
    # one's own picture is noisy already, most likely; an example is not
    both = {"fn": None, "outputs": [question, sigma], **private}
    own = file.upload(js=choose("cleaned", ", 0"), **both)
    shown = shelf.load_input_event.then(inputs=[sigma], js=choose("cleaned", ", values[0] || 25"), **both)
    file.clear(**ask)  # the answer that is on its way is to nothing any more
    for event, visibility in ((asked, {"api_name": "clean"}), (own, private), (shown, private)):
        event.then(
            clean,
            [file, sigma, question],
            compared,
            preprocess=False,
            trigger_mode="always_last",
            show_progress="minimal",
            **visibility,
        )
