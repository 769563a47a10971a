"""Class-conditional image diffusion: ask for a class, get its images.

Saved beside the weights in one file with what it imports from here (saving.py), which is what
``DiffusionPipeline.from_pretrained`` runs, here or on the Hub.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, DiffusionPipeline, UNet2DModel
from diffusers.schedulers import SchedulerMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor

from .arguments import (
    also_called,
    at_least_1,
    check_floats,
    check_generators,
    check_output_type,
    ends,
    finite,
)
from .classes import NamedClasses
from .posterior import RestoresFromPosterior
from .saving import CarriesCode, carried
from .schedulers import FITTING, alpha_bar, check_fit, predicted_x0, set_timesteps, step_arguments


@dataclass
class ClassConditionalOutput(BaseOutput):
    """What the pipeline returns.

    Attributes:
        images: list of PIL images, or array (B, H, W, C) / tensor (B, C, H, W) in [0, 1].
        class_ids: the class of each image.
        timesteps: with ``return_intermediates``, the training step of each sampling step, noisiest first.
        noisy_images: likewise x_t, float (S, B, C, H, W), scaled so that signal and noise have unit variance (times
            data_std: so that it ends as an image in [-1, 1]).
        predicted_images: likewise the x_0 the network expects at that step, (S, B, C, H, W), in about [-1, 1].
    """

    images: object
    class_ids: list[int]
    timesteps: list[float] | None = None
    noisy_images: torch.Tensor | None = None
    predicted_images: torch.Tensor | None = None


class ClassConditionalPipeline(NamedClasses, CarriesCode, RestoresFromPosterior, DiffusionPipeline):
    """Draws images of named classes with a `UNet2DModel` and one of diffusers' schedulers.

    Args:
        unet ([`UNet2DModel`]):
            Denoiser with ``num_class_embeds`` = number of classes + 1; the last embedding is the null class that
            classifier-free guidance compares with.
        scheduler ([`SchedulerMixin`]):
            One for variance-preserving diffusion, with the noise levels that the network was trained on; what fits is
            listed in :attr:`fitting_schedulers`, and :meth:`check_scheduler` tells.
        id2label (`dict[int, str]`, *optional*):
            Class names by id. Default: the ids themselves.
        pixel_unshuffle (`int`, defaults to 1):
            The network works on images whose p x p pixels are folded into channels; folded and unfolded in here.
        data_std (`float`, defaults to 1.0):
            The network works on images / data_std, images being in [-1, 1]; scaled and scaled back in here.
        guide ([`UNet2DModel`], *optional*):
            A weaker network of the same data, such as a smaller or less trained one. Guidance then leads away from its
            answer for the same class instead of from the null class's (Karras et al. 2024, "autoguidance").
        num_inference_steps (`int`, defaults to 50), guidance_scale (`float`, defaults to 1.0), guidance_interval
            (`tuple[float, float]`, *optional*):
            What is used when a call doesn't say.
    """

    model_cpu_offload_seq = "guide->unet"
    _optional_components = ("guide",)
    fitting_schedulers = FITTING
    _code = carried("pipeline_class_conditional", __file__)

    def __init__(
        self,
        unet: UNet2DModel,
        scheduler: SchedulerMixin,
        id2label: dict | None = None,
        pixel_unshuffle: int = 1,
        num_inference_steps: int = 50,
        guidance_scale: float = 1.0,
        data_std: float = 1.0,
        guidance_interval: list | tuple | None = None,  # a list once it was saved, and diffusers compares types
        guide: UNet2DModel | None = None,
    ):
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler, guide=guide)
        self.register_to_config(
            id2label=self.checked_names(unet, id2label),
            pixel_unshuffle=pixel_unshuffle,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            data_std=data_std,
            guidance_interval=None if guidance_interval is None else list(guidance_interval),
        )
        # What the network was trained on: a scheduler put in later is held to it.
        self._trained = DDPMScheduler.from_config(scheduler.config) if hasattr(scheduler, "alphas_cumprod") else None
        self._fits: SchedulerMixin | None = None  # the last scheduler that was checked

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image."""
        p, side = self.config.pixel_unshuffle, self.unet.config.sample_size
        return self.unet.config.in_channels // p**2, side * p, side * p

    @torch.no_grad()
    @also_called(
        class_labels="classes",
        prompt="classes",
        num_images_per_prompt="num_images_per_class",
        num_images_per_label="num_images_per_class",
    )
    def __call__(
        self,
        classes: str | int | Sequence[str | int | None] | torch.Tensor | None,
        num_images_per_class: int = 1,
        guidance_scale: float | None = None,
        num_inference_steps: int | None = None,
        guidance_interval: Sequence[float] | None = None,
        timesteps: Sequence[int] | None = None,
        eta: float | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        return_intermediates: bool = False,
        callback_on_step_end: Callable[[DiffusionPipeline, int, int, dict], dict] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ClassConditionalOutput | tuple:
        """Draw images.

        Args:
            classes: one class or several, by name or id; a list gives its images in its order. None asks for no class
                in particular, and guidance then changes nothing.
            num_images_per_class: images for each entry of `classes`.
            guidance_scale: ``uncond + s * (cond - uncond)`` (Ho & Salimans 2022); 1 turns it off and halves the cost.
            num_inference_steps: steps of the scheduler.
            guidance_interval: guide only where the noise is within (low, high), its standard deviation on images in
                [-1, 1]: sigma = data_std sqrt((1 - alpha_bar) / alpha_bar) (Kynkaanniemi et al. 2024). ``(0,
                float("inf"))`` guides at every step.
            timesteps: training steps to visit instead, descending, for schedulers that take them.
            eta: noise of DDIM's steps in [0, 1], for schedulers that take it.
            generator: one for the batch, or a list with one per image; then an image doesn't depend on its batch.
            latents: starting noise, (B, C, H, W) of :attr:`image_shape`, unit variance; drawn if None.
            output_type: "pil", "np" (B, H, W, C) or "pt" (B, C, H, W), in [0, 1].
            return_dict: False returns ``(images,)``.
            return_intermediates: also return x_t and the predicted x_0 of every step.
            callback_on_step_end: called as ``f(pipeline, i, t, {"latents": x})`` after each step; may return a dict
                with a new "latents", and may set ``pipeline._interrupt = True`` to stop.
            callback_on_step_end_tensor_inputs: which tensors the callback gets: "latents", where the step led (folded,
                as the network sees it); "noisy_images" and "predicted_images", x_t and x_0 of this step as
                `return_intermediates` gives them, (B, C, H, W).

        Returns:
            [`ClassConditionalOutput`], or a tuple.

        Raises:
            ValueError: unknown class or output type; a scheduler that doesn't fit the network; steps that it cannot
                take; generators or latents that don't fit the batch; anything that is NaN or infinite.
        """
        guidance_scale = self.config.guidance_scale if guidance_scale is None else guidance_scale
        num_inference_steps = self.config.num_inference_steps if num_inference_steps is None else num_inference_steps
        interval = self.config.guidance_interval if guidance_interval is None else guidance_interval
        low, high = (0, math.inf) if interval is None else ends(interval)
        check_output_type(output_type)
        num_images_per_class = at_least_1("num_images_per_class", num_images_per_class)
        guidance_scale = finite("guidance_scale", guidance_scale)
        requested = list(callback_on_step_end_tensor_inputs)
        if set(requested) - {"latents", "noisy_images", "predicted_images"}:
            raise ValueError(
                "callback_on_step_end_tensor_inputs can hold 'latents', 'noisy_images' and 'predicted_images' only."
            )
        if callback_on_step_end is None:
            requested = []
        ids = [i for i in self.class_ids(classes) for _ in range(num_images_per_class)]
        shape = (len(ids), *self.image_shape)
        generator = check_generators(generator, len(ids))

        device, p = self._execution_device, self.config.pixel_unshuffle
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        else:
            check_floats("latents", latents, shape)
        self.check_scheduler()
        set_timesteps(self.scheduler, num_inference_steps, timesteps, device)

        # The sample stays in float32 whatever the network's precision: solvers lose small steps in half.
        x = latents.to(device, torch.float32) * self.scheduler.init_noise_sigma
        x = F.pixel_unshuffle(x, p) if p > 1 else x
        labels = torch.tensor(ids, device=device)
        null = torch.full_like(labels, self.unet.config.num_class_embeds - 1)
        extra = step_arguments(self.scheduler, generator, eta)
        steps, noisy, predicted = [], [], []
        self._interrupt = False
        for i, t in enumerate(self.progress_bar(self.scheduler.timesteps)):
            x_in = self.scheduler.scale_model_input(x, t)
            scale = guidance_scale if low <= self._sigma(t) <= high else 1
            output = self._denoise(x_in, t, labels, null, scale)
            of_step = {}
            if return_intermediates or "noisy_images" in requested or "predicted_images" in requested:
                x_0 = predicted_x0(self.scheduler, output, x_in, t)
                of_step = {
                    "noisy_images": self._unfold(x_in * self.config.data_std).cpu(),
                    "predicted_images": self._unfold(x_0 * self.config.data_std).cpu(),
                }
            if return_intermediates:
                steps.append(float(t))
                noisy.append(of_step["noisy_images"])
                predicted.append(of_step["predicted_images"])
            x = self.scheduler.step(output, t, x, **extra, return_dict=False)[0]
            if callback_on_step_end is not None:
                of_step["latents"] = x
                changed = callback_on_step_end(self, i, t, {name: of_step[name] for name in requested}) or {}
                x = changed.get("latents", x)
            if self._interrupt:
                break
        if not x.isfinite().all():
            raise ValueError(
                f"Sampling with {type(self.scheduler).__name__} gave NaN or infinite images. Try more steps, another "
                f"scheduler, or weights in float32."
            )

        images = (self._unfold(x) * self.config.data_std / 2 + 0.5).clamp(0, 1).cpu()  # (B, C, H, W) in [0, 1]
        if output_type != "pt":
            images = images.permute(0, 2, 3, 1).numpy()
        if output_type == "pil":
            images = self.numpy_to_pil(images)
        self.maybe_free_model_hooks()
        if not return_dict:
            return (images,)
        intermediates = (steps, torch.stack(noisy), torch.stack(predicted)) if return_intermediates else (None,) * 3
        return ClassConditionalOutput(images, ids, *intermediates)

    def check_scheduler(self) -> None:
        """Hold the scheduler to what the network was trained on.

        Raises:
            ValueError: its steps are none from x_t towards x_0 through the network's own noise levels; the message says
                why, and names those that fit.
        """
        check_fit(self.scheduler, self._trained, self._fits)
        self._fits = self.scheduler

    def _denoise(
        self, x_in: torch.Tensor, t: torch.Tensor, labels: torch.Tensor, null: torch.Tensor, guidance_scale: float
    ) -> torch.Tensor:
        """The network's answer under guidance: (B, C, H, W) -> (B, C, H, W), float32."""
        x_in = x_in.to(self.unet.dtype)
        if guidance_scale == 1:
            return self.unet(x_in, t, class_labels=labels).sample.float()
        if self.guide is not None:
            weak, strong = (net(x_in, t, class_labels=labels).sample.float() for net in (self.guide, self.unet))
            return weak + guidance_scale * (strong - weak)
        both = self.unet(torch.cat([x_in, x_in]), t, class_labels=torch.cat([labels, null])).sample.float()
        cond, uncond = both.chunk(2)
        return uncond + guidance_scale * (cond - uncond)

    def _sigma(self, t: torch.Tensor | float) -> float:
        """Standard deviation of the noise at t, on images in [-1, 1]."""
        a = alpha_bar(self.scheduler, t)
        return self.config.data_std * float(((1 - a) / a.clamp(min=1e-12)).sqrt())

    def _unfold(self, x: torch.Tensor) -> torch.Tensor:
        p = self.config.pixel_unshuffle
        return F.pixel_shuffle(x, p) if p > 1 else x
