"""How the page looks and behaves in the browser: templates, scripts, styles, texts."""

from __future__ import annotations

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
On the left is what it holds, on the right the image it expects to arrive at. It learned from CIFAR-10, in seven
minutes of a GPU; its images have 32 x 32 pixels. Several images at once have the seeds that follow.
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
