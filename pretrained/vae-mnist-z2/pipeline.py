"""A variational autoencoder as a pipeline: sample, encode, decode, reconstruct, interpolate.

Self-contained: this file is saved beside the weights and is what ``DiffusionPipeline.from_pretrained`` runs, here
or on the Hub.
"""

from __future__ import annotations

import inspect
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DiffusionPipeline, ModelMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor


@dataclass
class VAEOutput(BaseOutput):
    """What the pipeline returns.

    Attributes:
        images: list of PIL images, or array (B, H, W, C) / tensor (B, C, H, W) in [0, 1]: the mean of p(x | z).
        latents: the z they were decoded from, (B, latent_dim).
    """

    images: object
    latents: torch.Tensor


class VAEPipeline(DiffusionPipeline):
    """Draws images from the prior, and takes images apart and together again.

    Args:
        vae: the ``VAE`` of ``models/vae.py``.
        likelihood: what p(x | z) was trained as: "bernoulli", "binarized_bernoulli" or "gaussian".
        sigma: standard deviation of the Gaussian, unless the network learned it.
    """

    def __init__(self, vae: ModelMixin, likelihood: str = "bernoulli", sigma: float | None = None):
        super().__init__()
        self.register_modules(vae=vae)
        self.register_to_config(likelihood=likelihood, sigma=sigma)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image."""
        side = self.vae.config.image_size
        return self.vae.config.in_channels, side, side

    @torch.no_grad()
    def __call__(
        self,
        num_images: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> VAEOutput | tuple:
        """Draw images: z ~ N(0, I), then the mean of p(x | z).

        Args:
            num_images: how many.
            generator: one for the batch, or a list with one per image.
            latents: z to decode instead, (B, latent_dim).
            output_type: "pil", "np" or "pt".
            return_dict: False returns ``(images,)``.
        """
        if latents is None:
            shape = (num_images, self.vae.config.latent_dim)
            latents = randn_tensor(shape, generator=generator, device=self._execution_device, dtype=torch.float32)
        images = self.decode(latents, output_type)
        return VAEOutput(images, latents) if return_dict else (images,)

    @torch.no_grad()
    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log-variance of q(z | x): (B, C, H, W) in [0, 1] -> (B, latent_dim) twice.

        Raises:
            ValueError: the images have another shape than :attr:`image_shape`, or lie outside [0, 1].
        """
        if tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(f"images must be (B, {', '.join(map(str, self.image_shape))}), not {tuple(images.shape)}.")
        if images.min() < 0 or images.max() > 1:
            raise ValueError("images must lie in [0, 1].")
        x = (images * 2 - 1).to(self._execution_device, self.vae.dtype)
        posterior = self.vae.encode(x)
        return posterior.mean, posterior.logvar

    @torch.no_grad()
    def decode(self, latents: torch.Tensor, output_type: str = "pt") -> object:
        """Mean of p(x | z): (B, latent_dim) -> images in [0, 1], as `output_type` says."""
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"output_type must be 'pil', 'np' or 'pt', not {output_type!r}.")
        if latents.dim() != 2 or latents.shape[1] != self.vae.config.latent_dim:
            raise ValueError(f"latents must be (B, {self.vae.config.latent_dim}), not {tuple(latents.shape)}.")
        images = self.vae.decode(latents.to(self._execution_device, self.vae.dtype)).sigmoid().cpu()
        if output_type == "pt":
            return images
        images = images.permute(0, 2, 3, 1).numpy()
        return self.numpy_to_pil(images) if output_type == "pil" else images

    def reconstruct(self, images: torch.Tensor, output_type: str = "pt") -> object:
        """Encode to the posterior mean and decode: (B, C, H, W) in [0, 1] -> the same, as `output_type` says."""
        return self.decode(self.encode(images)[0], output_type)

    def interpolate(self, first: torch.Tensor, last: torch.Tensor, num_steps: int = 8) -> torch.Tensor:
        """Images along the straight line between two images' means: (C, H, W) twice -> (num_steps, C, H, W)."""
        ends = self.encode(torch.stack([first, last]))[0]
        weights = torch.linspace(0, 1, num_steps, device=ends.device)[:, None]
        return self.decode(ends[:1] * (1 - weights) + ends[1:] * weights)

    # ---- saving: a custom pipeline carries its code, and so do its custom components ----------------------

    def save_pretrained(
        self,
        save_directory: str | Path,
        safe_serialization: bool = True,
        variant: str | None = None,
        push_to_hub: bool = False,
        **kwargs,
    ) -> None:
        """Save weights, configs and code, so that ``from_pretrained(..., trust_remote_code=True)`` works anywhere.

        Args as in [`DiffusionPipeline.save_pretrained`]; plain diffusers writes no code for a custom pipeline, and
        the folder would not load.
        """
        hub = {k: kwargs.pop(k) for k in ("repo_id", "commit_message", "private", "create_pr", "token") if k in kwargs}
        super().save_pretrained(save_directory, safe_serialization=safe_serialization, variant=variant, **kwargs)
        folder = Path(save_directory)
        component = Path(inspect.getfile(type(self.vae)))
        for source, target in (
            (Path(inspect.getfile(type(self))), folder / "pipeline.py"),
            (component, folder / "vae" / component.name),
        ):
            if source.resolve() != target.resolve():
                shutil.copyfile(source, target)
        index_path = folder / "model_index.json"
        index = json.loads(index_path.read_text())
        index["_class_name"] = ["pipeline", type(self).__name__]
        index["vae"] = [component.stem, type(self.vae).__name__]
        index.pop("_name_or_path", None)
        index_path.write_text(json.dumps(index, indent=2) + "\n")
        if push_to_hub:
            self.push_to_hub(hub.pop("repo_id", folder.name), variant=variant, **hub)
