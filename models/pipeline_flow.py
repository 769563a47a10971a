"""Class-conditional rectified flow: ask for a class, and the ordinary differential equation leads noise to its images.

Saved beside the weights, with what it imports from here, as one file, which ``DiffusionPipeline.from_pretrained`` runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler, UNet2DModel
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor

from .arguments import at_least_1, check_generators, check_output_type, finite
from .classes import NamedClasses
from .saving import CarriesCode, carried


@dataclass
class FlowOutput(BaseOutput):
    """What the pipeline returns.

    Attributes:
        images: list of PIL images, or array (B, H, W, C) / tensor (B, C, H, W) in [0, 1].
        class_ids: the class of each image.
    """

    images: object
    class_ids: list[int]


class FlowPipeline(NamedClasses, CarriesCode, DiffusionPipeline):
    """Draws images of named classes with a `UNet2DModel` that tells the velocity of x_t = (1 - t) x_0 + t eps.

    Args:
        unet ([`UNet2DModel`]):
            Answers eps - x_0 for x_t, the time t times ``scheduler.config.num_train_timesteps``, and a class;
            ``num_class_embeds`` = number of classes + 1; the last embedding is the null class that classifier-free
            guidance compares with.
        scheduler ([`FlowMatchEulerDiscreteScheduler`]):
            Goes from t = 1, noise, to t = 0, image; its ``shift`` spreads the steps.
        id2label (`dict[int, str]`, *optional*):
            Class names by id. Default: the ids themselves.
        num_inference_steps (`int`, defaults to 50), guidance_scale (`float`, defaults to 1.0):
            What is used when a call doesn't say.
    """

    model_cpu_offload_seq = "unet"
    _code = carried("pipeline_flow", __file__)

    def __init__(
        self,
        unet: UNet2DModel,
        scheduler: FlowMatchEulerDiscreteScheduler,
        id2label: dict | None = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 1.0,
    ):
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)
        self.register_to_config(
            id2label=self.checked_names(unet, id2label),
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
        )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image."""
        side = self.unet.config.sample_size
        return self.unet.config.in_channels, side, side

    @torch.no_grad()
    def __call__(
        self,
        classes: str | int | Sequence[str | int | None] | torch.Tensor | None,
        num_images_per_class: int = 1,
        guidance_scale: float | None = None,
        num_inference_steps: int | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> FlowOutput | tuple:
        """Draw images.

        Args:
            classes: one class or several, by name or id; a list gives its images in its order. None asks for no class
                in particular, and guidance then changes nothing.
            num_images_per_class: images for each entry of `classes`.
            guidance_scale: ``uncond + s * (cond - uncond)`` of the velocities (Ho & Salimans 2022); 1 turns it off and
                halves the cost.
            num_inference_steps: Euler steps.
            generator: one for the batch, or a list with one per image; then an image doesn't depend on its batch.
            latents: starting noise, (B, C, H, W) of :attr:`image_shape`, unit variance; drawn if None.
            output_type: "pil", "np" (B, H, W, C) or "pt" (B, C, H, W), in [0, 1].
            return_dict: False returns ``(images,)``.

        Returns:
            [`FlowOutput`], or a tuple.

        Raises:
            ValueError: unknown class or output type; a scheduler of another kind; a number that is none; generators or
                latents that don't fit the batch; images that are NaN or infinite.
        """
        check_output_type(output_type)
        scale = finite("guidance_scale", self.config.guidance_scale if guidance_scale is None else guidance_scale)
        steps = self.config.num_inference_steps if num_inference_steps is None else num_inference_steps
        steps, count = (
            at_least_1("num_inference_steps", steps),
            at_least_1("num_images_per_class", num_images_per_class),
        )
        if not isinstance(self.scheduler, FlowMatchEulerDiscreteScheduler):
            raise ValueError(
                f"{type(self.scheduler).__name__} does not fit this network, which tells a velocity: "
                f"FlowMatchEulerDiscreteScheduler does."
            )
        ids = [i for i in self.class_ids(classes) for _ in range(count)]
        shape, device = (len(ids), *self.image_shape), self._execution_device
        generator = check_generators(generator, len(ids))
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        if tuple(latents.shape) != shape or not latents.is_floating_point() or not latents.isfinite().all():
            raise ValueError(f"latents must be finite floats of the shape {shape}, not {tuple(latents.shape)}.")

        # The scheduler's own steps end beside t = 0 and waste the last one; these are of one length until shifted.
        self.scheduler.set_timesteps(sigmas=[1 - k / steps for k in range(steps)], device=device)
        labels = torch.tensor(ids, device=device)
        x = latents.to(device, torch.float32)
        for t in self.progress_bar(self.scheduler.timesteps):
            x = self.scheduler.step(self._velocity(x, t, labels, scale), t, x, generator=generator).prev_sample
        if not x.isfinite().all():
            raise ValueError("Sampling gave NaN or infinite images. Try weights in float32.")

        images = (x / 2 + 0.5).clamp(0, 1).cpu()  # (B, C, H, W) in [0, 1]
        if output_type != "pt":
            images = images.permute(0, 2, 3, 1).numpy()
        if output_type == "pil":
            images = self.numpy_to_pil(images)
        self.maybe_free_model_hooks()
        return FlowOutput(images, ids) if return_dict else (images,)

    def _velocity(self, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor, scale: float) -> torch.Tensor:
        """The network's answer under guidance: (B, C, H, W) -> (B, C, H, W), float32."""
        x = x.to(self.unet.dtype)
        if scale == 1:
            return self.unet(x, t, class_labels=labels).sample.float()
        null = torch.full_like(labels, self.unet.config.num_class_embeds - 1)
        both = self.unet(torch.cat([x, x]), t, class_labels=torch.cat([labels, null])).sample.float()
        cond, uncond = both.chunk(2)
        return uncond + scale * (cond - uncond)
