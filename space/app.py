"""A page to play with the three models: draw a class, walk over a latent plane, clean a picture.

    make space     (or: python space/app.py)

It looks for the models in the folder, or the Hub account, that TRIPTYCH_MODELS names; by default in ``pretrained``.
"""

from __future__ import annotations

import gradio as gr
import torch

import pipelines
from looks import CSS, INTRO
from tabs import denoiser_tab, diffusion_tab, vae_tab


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
