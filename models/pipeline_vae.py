"""A variational autoencoder as a pipeline: sample, encode, decode, reconstruct, interpolate.

Saved beside the weights in one file with what it imports from here (saving.py), which is what
``DiffusionPipeline.from_pretrained`` runs, here or on the Hub.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import DiffusionPipeline, ModelMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor

from .arguments import also_called, at_least_1, check_batch, check_generators, check_output_type
from .saving import CarriesCode, carried


@dataclass
class VAEOutput(BaseOutput):
    """What the pipeline returns.

    Attributes:
        images: list of PIL images, or array (B, H, W, C) / tensor (B, C, H, W) in [0, 1]: the mean of p(x | z).
        latents: the z they were decoded from, (B, latent_dim).
    """

    images: object
    latents: torch.Tensor


class VAEPipeline(CarriesCode, DiffusionPipeline):
    """Draws images from the prior, and takes images apart and together again.

    Args:
        vae: the ``VAE`` of ``models/vae.py``.
        likelihood: what p(x | z) was trained as: "bernoulli", "binarized_bernoulli" or "gaussian".
        sigma: standard deviation of the Gaussian, unless the network learned it.
    """

    _code = carried("pipeline_vae", __file__)

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
    @also_called(batch_size="num_images", num_images_per_prompt="num_images")
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

        Raises:
            ValueError: no image is asked for, another output type, or generators or latents that don't fit.
        """
        check_output_type(output_type)
        if latents is None:
            shape = (at_least_1("num_images", num_images), self.vae.config.latent_dim)
            generator = check_generators(generator, shape[0])
            latents = randn_tensor(shape, generator=generator, device=self._execution_device, dtype=torch.float32)
        images = self.decode(latents, output_type)
        return VAEOutput(images, latents) if return_dict else (images,)

    @torch.no_grad()
    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log-variance of q(z | x): (B, C, H, W) in [0, 1] -> (B, latent_dim) twice.

        Raises:
            ValueError: there are none, they have another shape than :attr:`image_shape`, are no floats, or lie outside
                [0, 1].
        """
        check_batch("images", images, self.image_shape)
        if not (images.min() >= 0 and images.max() <= 1):
            raise ValueError("images must lie in [0, 1].")
        x = (images * 2 - 1).to(self._execution_device, self.vae.dtype)
        posterior = self.vae.encode(x)
        return posterior.mean, posterior.logvar

    @torch.no_grad()
    def decode(self, latents: torch.Tensor, output_type: str = "pt") -> object:
        """Mean of p(x | z): (B, latent_dim) -> images in [0, 1], as `output_type` says.

        Raises:
            ValueError: the latents have another shape, or aren't finite floats; or the network's answer isn't.
        """
        check_output_type(output_type)
        check_batch("latents", latents, (self.vae.config.latent_dim,))
        images = self.vae.decode(latents.to(self._execution_device, self.vae.dtype)).sigmoid().cpu()
        if not images.isfinite().all():
            raise ValueError(
                "The network gave NaN or infinite values. Latents are about N(0, 1); or its weights are torn, or need "
                "float32."
            )
        if output_type == "pt":
            return images
        images = images.permute(0, 2, 3, 1).numpy()
        return self.numpy_to_pil(images) if output_type == "pil" else images

    def reconstruct(self, images: torch.Tensor, output_type: str = "pt") -> object:
        """Encode to the posterior mean and decode: (B, C, H, W) in [0, 1] -> the same, as `output_type` says."""
        return self.decode(self.encode(images)[0], output_type)

    def restore(
        self, images: torch.Tensor, sigma: float | None = None, output_type: str = "pil", return_dict: bool = True
    ) -> VAEOutput | tuple:
        """Restore images, with the signature all restoring pipelines share: decode the noisy image's posterior mean.

        A VAE knows nothing of noise: whatever its latents can't describe is lost, noise and fine detail alike.

        Args:
            images: (B, C, H, W) of :attr:`image_shape`, clean ones in [0, 1]; noise beyond is clipped.
            sigma: standard deviation of the noise; not needed, and not used.
            output_type: "pil", "np" or "pt".
            return_dict: False returns ``(images,)``.

        Raises:
            ValueError: the images don't fit, see :meth:`encode`.
        """
        check_batch("images", images, self.image_shape)
        latents = self.encode(images.clamp(0, 1))[0]
        restored = self.decode(latents, output_type)
        return VAEOutput(restored, latents) if return_dict else (restored,)

    def interpolate(self, first: torch.Tensor, last: torch.Tensor, num_steps: int = 8) -> torch.Tensor:
        """Images along the straight line between two images' means: (C, H, W) twice -> (num_steps, C, H, W).

        Raises:
            ValueError: an image doesn't fit, see :meth:`encode`, or there are no steps.
        """
        num_steps = at_least_1("num_steps", num_steps)
        for name, image in (("first", first), ("last", last)):
            check_batch(name, image[None] if torch.is_tensor(image) else image, self.image_shape)
        ends = self.encode(torch.stack([first, last]))[0]
        weights = torch.linspace(0, 1, num_steps, device=ends.device)[:, None]
        return self.decode(ends[:1] * (1 - weights) + ends[1:] * weights)
