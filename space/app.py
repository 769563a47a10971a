"""A page to play with the three models: draw a class, walk over a latent plane, clean a picture.

    make space     (or: python space/app.py)

It looks for the models in the folder, or the Hub account, that TRIPTYCH_MODELS names; by default in ``pretrained``.

A visitor may choose anew while an answer is on its way. So the browser numbers the choices, an answer carries the
number of the choice that it answers, and is shown only if there is no newer one. ``always_last`` makes one of all the
choices that wait.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import skimage
import torch
from gradio.processing_utils import save_pil_to_cache
from gradio.utils import get_upload_folder
from PIL import Image

import pipelines

FIGURES = """
{{#with shown}}
{{#if heading}}<p class="heading">{{{heading}}}</p>{{/if}}
<div class="figures">{{#each figures}}
  <figure class="{{kind}}"><img class="pixels" src="{{src}}" alt="{{{alt}}}"><figcaption>{{{caption}}}</figcaption>
  </figure>{{/each}}
</div>
{{#if strip}}<p class="heading">On the way: what it held above, what it expected below, by step</p>{{/if}}
<div class="figures strip">{{#each strip}}
  <figure><img class="pixels" src="{{src}}" alt="{{{alt}}}"><figcaption>{{{caption}}}</figcaption></figure>{{/each}}
</div>
{{#if save}}<a class="save" href="{{save}}" download="{{{file}}}">Save as PNG</a>{{/if}}
{{/with}}
"""
COMPARED = """
{{#with shown}}
<div class="pair">
  <img class="{{kind}}" src="{{before.url}}" alt="{{{name}}}, noisy">
  <img class="{{kind}} after" src="{{after.url}}" alt="{{{name}}}, cleaned">
  <input type="range" min="0" max="100" value="50" aria-label="Line between noisy and cleaned, in percent">
</div>
<p class="ends"><span>noisy</span><span>cleaned</span></p>
<p class="heading"><b>{{{name}}}</b>{{{note}}}</p>
<a class="save" href="{{after.url}}" download>Save as PNG</a>
{{/with}}
"""
PLANE = """
<div class="plane"><img class="pixels" src="{{picture}}" draggable="false"
  alt="All that the model can draw: digits in a plane. The two sliders reach every point of it.">
<i style="left: ${100 * value[0]}%; top: ${100 * value[1]}%"></i></div>
"""
# What arrives is in `value`; the template shows `shown`, which an answer to an older choice doesn't touch.
SHOW_NEWEST = """
const show = () => {
  const answer = props.value;
  if (answer.question !== (window.newestChoice?.[answer.of] ?? 0)) return;
  props.shown = answer;
  document.getElementById(answer.of)?.setAttribute("aria-busy", "false");
  trigger("change");
};
watch("value", show);
show();
"""
MOVE_LINE = """
element.addEventListener("input", event => element.style.setProperty("--line", event.target.value + "%"));
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
# What was wrong pops up in words; the last picture stays where it was, paler, and no "Error" covers it.
CSS = """
.gradio-container { max-width: 1080px !important; margin: 0 auto !important; }
[data-testid="status-tracker"]:has(.error) { display: none; }
[aria-busy="true"] :is(img, figcaption, .heading, .save) { opacity: 0.4; }
.html-container.pending { opacity: 1 !important; }
.html-container:has(.pixels, .photo) { padding: 0 !important; }
.pixels, .photo { width: 100%; display: block; border-radius: 4px; margin: 0 !important; }
.pixels { image-rendering: pixelated; }
.figures { display: grid; grid-template-columns: repeat(8, 1fr); gap: 12px 8px; }
.figures figure { margin: 0; text-align: center; }
.figures .large { grid-column: span 4; }
.figures .large:only-child { grid-column: span 8; max-width: 400px; }
.figures .several { grid-column: span 2; }
.figures figcaption, .heading, .ends { font-size: 0.9rem; margin: 4px 0 0 !important; }
.heading { margin: 8px 0 !important; }
.save { display: inline-block; margin-top: 10px; padding: 8px 14px; border-radius: 6px; border: 1px solid currentColor;
  color: var(--body-text-color) !important; text-decoration: none !important; }
.plane { position: relative; max-width: 560px; cursor: crosshair; touch-action: none; }
.plane i { position: absolute; width: 5%; height: 5%; transform: translate(-50%, -50%); pointer-events: none;
  border: 3px solid #f59e0b; border-radius: 4px; box-shadow: 0 0 0 1px white; }
.pair { position: relative; overflow: hidden; border-radius: 4px; }
.pair::after { content: ""; position: absolute; top: 0; bottom: 0; left: var(--line, 50%); border-left: 3px solid white;
  box-shadow: 0 0 0 1px black; transform: translateX(-50%); pointer-events: none; }
.pair .after { position: absolute; inset: 0; height: 100%; clip-path: inset(0 0 0 var(--line, 50%)); }
.pair input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: ew-resize;
  touch-action: pan-y; }
.ends { display: flex; justify-content: space-between; }
.min_value, .max_value, label span, [data-testid="block-info"], [data-testid="block-label"], .label, footer *,
[role="tab"].selected { color: var(--body-text-color) !important; }
.gradio-container :focus-visible, .gradio-container label:has(input:focus-visible),
.pair:has(input:focus-visible) { outline: 3px solid #4338ca !important; outline-offset: 2px; }
.dark .gradio-container :focus-visible, .dark .gradio-container label:has(input:focus-visible),
.dark .pair:has(input:focus-visible) { outline-color: #c7d2fe !important; }
@media (max-width: 600px) {
  .tab-container button { padding: 0 8px !important; }
  #walked .figures .large { width: 130px; margin: 0 auto; }
}
"""
INTRO = "# Triptych\nThree small image generators to play with."
ABOUT_DIFFUSION = """
A diffusion model starts from pure noise and takes some of it away step by step, led towards the class you ask for.
On the left is what it holds, on the right the image it expects to arrive at. It learned from CIFAR-10, on one CPU core
in two hours; its images have 32 x 32 pixels. Several images at once have the seeds that follow.
"""
ABOUT_VAE = """
A variational autoencoder that has two numbers to describe a handwritten digit, so that all it can draw lies in one
plane. **Move over the plane**: neighbours look alike, and between two digits lies what is half of each.
"""
ABOUT_GAN = """
Drop in a noisy picture, or take a clean one and let us add the noise. The network was trained against a critic that
tells clean pictures from restored ones, on Gaussian noise of any strength up to sigma 55 of 255. Move the line to
compare, with the mouse, a finger or the arrow keys.
"""
BEFOREHAND = f"""
Of a picture larger than {pipelines.MAX_SIDE} x {pipelines.MAX_SIDE} pixels the middle is cleaned. Transparent parts are
laid on white, more than 8 bits become 8, and of an animation the first frame is taken.
"""


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


def build() -> gr.Blocks:
    """The page, a tab for each model; where a model is missing its tab says so."""
    tabs = {
        "Draw: diffusion": ("diffusion", diffusion_tab),
        "Walk: VAE": ("vae", vae_tab),
        "Clean: GAN": ("denoiser", denoiser_tab),
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
        ).set(button_primary_background_fill="*primary_600", button_primary_background_fill_hover="*primary_700"),
        css=CSS,
        max_file_size="20mb",
        footer_links=["api", "gradio"],
        run_history=False,
        enable_monitoring=False,
    )


if __name__ == "__main__":
    main()
