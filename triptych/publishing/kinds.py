"""The kinds of models that are published: what is said alike of every one of them."""

from __future__ import annotations

from dataclasses import dataclass

PLACE = "<this folder or repository>"  # where a card says what to load, until it is published


@dataclass(frozen=True)
class Kind:
    """What is said alike of every model of one kind.

    Attributes:
        task: the Hub's name for what it does (``pipeline_tag``).
        tags: what it is found by.
        script: what trains it.
        what: one sentence.
        usage: code that loads it and shows what it can do.
        intended: what it is for.
        limits: what it is not for, and where it fails.
        library: whose ``from_pretrained`` loads it.
    """

    task: str
    tags: tuple[str, ...]
    script: str
    what: str
    usage: str
    intended: str
    limits: str
    library: str = "diffusers"


LOAD = f"""from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained("{PLACE}", trust_remote_code=True)
"""
# by the class that is saved
KINDS = {
    "ClassConditionalPipeline": Kind(
        task="unconditional-image-generation",
        tags=("diffusion", "class-conditional"),
        script="train_diffusion.py",
        what="Draws images of named classes by diffusion (Ho et al. 2020) with classifier-free guidance "
        "(Ho & Salimans 2022).",
        usage=LOAD + "print(pipeline.class_names)\nimage = pipeline(pipeline.class_names[0]).images[0]",
        intended="Teaching and experiments: samplers, guidance, restoration by diffusion, and what a network of this "
        "size learns.",
        limits="It knows the classes it was trained on, at their resolution, and no text. What is rare or fine in the "
        "data comes out blurred or wrong; more guidance buys clearer classes with less variety. It has the biases of "
        "its data.",
    ),
    "VAEPipeline": Kind(
        task="unconditional-image-generation",
        tags=("vae", "variational-autoencoder"),
        script="train_vae.py",
        what="A variational autoencoder (Kingma & Welling 2014): draws images from the prior, and takes images apart "
        "into a few latent variables and together again.",
        usage=LOAD + 'drawn = pipeline(4, output_type="pt").images  # from the prior, (4, C, H, W) in [0, 1]\n'
        "mean, logvar = pipeline.encode(drawn)  # (4, latent_dim) twice\nagain = pipeline.reconstruct(drawn)",
        intended="Teaching and experiments with latent variables: likelihoods, interpolation, representation.",
        limits="It takes images like those it was trained on, of the same size. What it draws is the mean of "
        "p(x | z), smoother than real images, the more so the fewer the latent variables. It has the biases of its "
        "data.",
    ),
    "DenoiserPipeline": Kind(
        task="image-to-image",
        tags=("gan", "denoising", "image-restoration"),
        script="train_gan.py",
        what="Restores noisy images of any size: a residual U-Net trained by regression, alone or against a patch "
        "discriminator.",
        usage=LOAD.replace("\n", "\nfrom PIL import Image\n", 1)
        + 'restored = pipeline(Image.open("noisy.png")).images[0]\nrestored.save("restored.png")',
        intended="Teaching and experiments with restoration: distortion against perception, other noise, other data.",
        limits="It removes the noise it was trained on, within the levels stated, from images like its data. Trained "
        "against a discriminator it invents detail: what it restores is evidence of nothing. It has the biases of its "
        "data.",
    ),
    "ResNetForImageClassification": Kind(
        task="image-classification",
        tags=("resnet", "judge"),
        script="train_classifier.py",
        what="An image classifier (He et al. 2016) that judges generated images by its answers and its features.",
        usage=f'from transformers import pipeline\n\nclassify = pipeline("image-classification", model="{PLACE}")\n'
        'print(classify("image.png"))',
        intended="Judging generated images of the data it was trained on; its features stand in for Inception's, so "
        "distances on them are not FIDs, and compare only with distances by the same judge.",
        limits="It answers with one of its classes whatever it is shown, and errs: its own accuracy on real images "
        "bounds what it can say of generated ones. It has the biases of its data.",
        library="transformers",
    ),
}
