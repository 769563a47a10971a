"""Class-conditional image diffusion: ask for a class, get its images.

Self-contained: this file is saved beside the weights and is what ``DiffusionPipeline.from_pretrained`` runs, here
or on the Hub.
"""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline, UNet2DModel
from diffusers.schedulers import SchedulerMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor


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


class ClassConditionalPipeline(DiffusionPipeline):
    """Draws images of named classes with a `UNet2DModel` and any diffusers scheduler.

    Args:
        unet ([`UNet2DModel`]):
            Denoiser with ``num_class_embeds`` = number of classes + 1; the last embedding is the null class that
            classifier-free guidance compares with.
        scheduler ([`SchedulerMixin`]):
            Any scheduler for variance-preserving diffusion: DDPM, DDIM, DPM-Solver++, UniPC, Euler, ...
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

    def __init__(
        self,
        unet: UNet2DModel,
        scheduler: SchedulerMixin,
        id2label: dict | None = None,
        pixel_unshuffle: int = 1,
        num_inference_steps: int = 50,
        guidance_scale: float = 1.0,
        data_std: float = 1.0,
        guidance_interval: tuple[float, float] | None = None,
        guide: UNet2DModel | None = None,
    ):
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler, guide=guide)
        num_classes = unet.config.num_class_embeds - 1
        id2label = {str(k): str(v) for k, v in (id2label or {i: i for i in range(num_classes)}).items()}
        if sorted(map(int, id2label)) != list(range(num_classes)):
            raise ValueError(
                f"id2label must name the classes 0..{num_classes - 1} (num_class_embeds - 1 = {num_classes}; the last "
                f"embedding is the null class), but it names {sorted(map(int, id2label))}."
            )
        self.register_to_config(
            id2label=id2label,  # JSON turns keys into strings, so they are strings from the start
            pixel_unshuffle=pixel_unshuffle,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            data_std=data_std,
            guidance_interval=None if guidance_interval is None else list(guidance_interval),
        )

    @property
    def class_names(self) -> list[str]:
        """Names by class id."""
        return [self.config.id2label[str(i)] for i in range(len(self.config.id2label))]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image."""
        p, side = self.config.pixel_unshuffle, self.unet.config.sample_size
        return self.unet.config.in_channels // p**2, side * p, side * p

    def class_ids(self, classes: str | int | Sequence[str | int | None] | torch.Tensor | None) -> list[int]:
        """Ids of classes given by name, by id, or as a list of either; None is the null class: none in particular.

        Raises:
            ValueError: a class doesn't exist; the message lists those that do.
        """
        if isinstance(classes, torch.Tensor):
            classes = classes.tolist()
        listed = [classes] if classes is None or isinstance(classes, (str, int)) else list(classes)
        if not listed:
            raise ValueError("No class was asked for.")
        names = self.class_names
        ids = []
        for item in listed:
            if item is None:
                ids.append(len(names))
            elif isinstance(item, str) and item in names:
                ids.append(names.index(item))
            elif isinstance(item, int) and not isinstance(item, bool) and 0 <= item < len(names):
                ids.append(item)
            else:
                known = ", ".join(f"{i} {name!r}" for i, name in enumerate(names))
                raise ValueError(f"There is no class {item!r}. The classes are: {known}.")
        return ids

    @torch.no_grad()
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
            ValueError: unknown class or output type, or generators or latents that don't fit the batch.
        """
        guidance_scale = self.config.guidance_scale if guidance_scale is None else guidance_scale
        num_inference_steps = self.config.num_inference_steps if num_inference_steps is None else num_inference_steps
        interval = self.config.guidance_interval if guidance_interval is None else guidance_interval
        low, high = (0, float("inf")) if interval is None else interval
        if not 0 <= low < high:
            raise ValueError(f"guidance_interval must be (low, high) with 0 <= low < high, not {interval}.")
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"output_type must be 'pil', 'np' or 'pt', not {output_type!r}.")
        if num_images_per_class < 1 or num_inference_steps < 1:
            raise ValueError("num_images_per_class and num_inference_steps must be at least 1.")
        wanted = list(callback_on_step_end_tensor_inputs)
        if set(wanted) - {"latents", "noisy_images", "predicted_images"}:
            raise ValueError(
                "callback_on_step_end_tensor_inputs can hold 'latents', 'noisy_images' and 'predicted_images' only."
            )
        if callback_on_step_end is None:
            wanted = []
        ids = [i for i in self.class_ids(classes) for _ in range(num_images_per_class)]
        shape = (len(ids), *self.image_shape)
        if isinstance(generator, (list, tuple)):
            generator = list(generator)
            if len(generator) != len(ids):
                raise ValueError(f"{len(generator)} generators were given for {len(ids)} images.")

        device, p = self._execution_device, self.config.pixel_unshuffle
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        elif tuple(latents.shape) != shape:
            raise ValueError(f"latents must have the shape {shape}, not {tuple(latents.shape)}.")
        if timesteps is None:
            self.scheduler.set_timesteps(num_inference_steps, device=device)
        else:
            self.scheduler.set_timesteps(timesteps=list(timesteps), device=device)

        # The sample stays in float32 whatever the network's precision: solvers lose small steps in half.
        x = latents.to(device, torch.float32) * self.scheduler.init_noise_sigma
        x = F.pixel_unshuffle(x, p) if p > 1 else x
        labels = torch.tensor(ids, device=device)
        null = torch.full_like(labels, self.unet.config.num_class_embeds - 1)
        extra = self._step_arguments(generator, eta)
        steps, noisy, predicted = [], [], []
        self._interrupt = False
        for i, t in enumerate(self.progress_bar(self.scheduler.timesteps)):
            x_in = self.scheduler.scale_model_input(x, t)
            scale = guidance_scale if low <= self._sigma(t) <= high else 1
            output = self._denoise(x_in, t, labels, null, scale)
            seen = {}
            if return_intermediates or "noisy_images" in wanted or "predicted_images" in wanted:
                x_0 = self._predicted_x0(output, x_in, t)
                seen = {
                    "noisy_images": self._unfold(x_in * self.config.data_std).cpu(),
                    "predicted_images": self._unfold(x_0 * self.config.data_std).cpu(),
                }
            if return_intermediates:
                steps.append(float(t))
                noisy.append(seen["noisy_images"])
                predicted.append(seen["predicted_images"])
            x = self.scheduler.step(output, t, x, **extra, return_dict=False)[0]
            if callback_on_step_end is not None:
                seen["latents"] = x
                changed = callback_on_step_end(self, i, t, {name: seen[name] for name in wanted}) or {}
                x = changed.get("latents", x)
            if self._interrupt:
                break

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

    def restore(
        self,
        images: torch.Tensor,
        sigma: float,
        classes: str | int | Sequence[str | int | None] | torch.Tensor | None = None,
        num_inference_steps: int = 25,
        **kwargs,
    ) -> ClassConditionalOutput | tuple:
        """Take Gaussian noise out of images: go the reverse process from the step whose noise is theirs.

        An image with noise of deviation s, scaled by sqrt(alpha_bar), is distributed as x_t where
        (1 - alpha_bar) / alpha_bar = s^2. From there an ancestral sampler (DDPM) draws from p(x_0 | the image); one
        step alone gives the network's E[x_0 | the image], which no other estimate beats in mean squared error.

        Args:
            images: (B, C, H, W) of :attr:`image_shape`, clean ones in [0, 1]; noise is not clipped.
            sigma: the noise's standard deviation on that scale, positive.
            classes: what they show, one for all or one for each; None = not known.
            num_inference_steps: steps back, at most; there are no more than the matching t has.
            kwargs: for the call: `generator`, `guidance_scale`, `output_type`, ...

        Returns:
            What the call returns.

        Raises:
            ValueError: sigma is not positive, or the images don't fit.
        """
        if sigma <= 0 or num_inference_steps < 1:
            raise ValueError(
                f"sigma must be positive, num_inference_steps 1 or more: {sigma:g}, {num_inference_steps}."
            )
        alphas = self.scheduler.alphas_cumprod
        noise_to_signal = ((1 - alphas) / alphas.clamp(min=1e-12)).log()
        t = int((noise_to_signal - torch.tensor(2 * sigma / self.config.data_std).square().log()).abs().argmin())
        steps = torch.linspace(t, 0, num_inference_steps + 1)[:-1].round().long().unique().flip(0).tolist()
        ids = self.class_ids(classes)
        x_t = alphas[t].sqrt() * (images.float().cpu() * 2 - 1) / self.config.data_std
        names = [None if i == len(self.class_names) else i for i in (ids * len(images) if len(ids) == 1 else ids)]
        return self(names, timesteps=steps, latents=x_t, **kwargs)

    def _denoise(
        self,
        x_in: torch.Tensor,
        t: torch.Tensor,
        labels: torch.Tensor,
        null: torch.Tensor,
        guidance_scale: float,
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

    def _alpha_bar(self, t: torch.Tensor | float) -> torch.Tensor:
        """alpha_bar of the training step nearest to t."""
        alphas = self.scheduler.alphas_cumprod
        return alphas[int(torch.as_tensor(t).round().clamp(0, len(alphas) - 1))]

    def _sigma(self, t: torch.Tensor | float) -> float:
        """Standard deviation of the noise at t, on images in [-1, 1]."""
        a = self._alpha_bar(t)
        return self.config.data_std * float(((1 - a) / a.clamp(min=1e-12)).sqrt())

    def _predicted_x0(self, output: torch.Tensor, x_in: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The clean image a prediction stands for (Ho et al. 2020, eq. 4; Salimans & Ho 2022, appendix D)."""
        a = self._alpha_bar(t).to(x_in)
        kind = self.scheduler.config.prediction_type
        if kind == "epsilon":
            return (x_in - (1 - a).sqrt() * output) / a.sqrt().clamp(min=1e-4)
        if kind == "v_prediction":
            return a.sqrt() * x_in - (1 - a).sqrt() * output
        return output

    def _unfold(self, x: torch.Tensor) -> torch.Tensor:
        p = self.config.pixel_unshuffle
        return F.pixel_shuffle(x, p) if p > 1 else x

    def _step_arguments(self, generator: object, eta: float | None) -> dict:
        """What this scheduler's ``step`` takes of `generator` and `eta`; schedulers differ."""
        accepted = inspect.signature(self.scheduler.step).parameters
        given = {"generator": generator} if "generator" in accepted else {}
        if eta is not None:
            if "eta" not in accepted:
                raise ValueError(f"{type(self.scheduler).__name__} takes no eta; it belongs to DDIMScheduler.")
            given["eta"] = eta
        return given

    # ---- saving: a custom pipeline carries its code ----------------------------------------------------

    def save_pretrained(
        self,
        save_directory: str | Path,
        safe_serialization: bool = True,
        variant: str | None = None,
        push_to_hub: bool = False,
        **kwargs,
    ) -> None:
        """Save weights, configs and this file, so that ``from_pretrained(..., trust_remote_code=True)`` works anywhere.

        Args as in [`DiffusionPipeline.save_pretrained`]; plain diffusers writes no code for a custom pipeline, and
        the folder would not load.
        """
        hub = {k: kwargs.pop(k) for k in ("repo_id", "commit_message", "private", "create_pr", "token") if k in kwargs}
        super().save_pretrained(save_directory, safe_serialization=safe_serialization, variant=variant, **kwargs)
        folder, own = Path(save_directory), Path(inspect.getfile(type(self)))
        target = folder / "pipeline.py"
        if own.resolve() != target.resolve():
            shutil.copyfile(own, target)
        index_path = folder / "model_index.json"
        index = json.loads(index_path.read_text())
        index["_class_name"] = ["pipeline", type(self).__name__]
        index.pop("_name_or_path", None)
        index_path.write_text(json.dumps(index, indent=2) + "\n")
        if push_to_hub:
            self.push_to_hub(hub.pop("repo_id", folder.name), variant=variant, **hub)
