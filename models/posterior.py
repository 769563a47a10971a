"""Taking noise out of images with a diffusion model: draws from the posterior p(x_0 | the noisy image).

Saved in the file of every pipeline that imports it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import DDPMScheduler
from diffusers.schedulers import SchedulerMixin
from diffusers.utils import BaseOutput

from .arguments import at_least_1, check_noisy, finite


class RestoresFromPosterior:
    """The ``restore`` of a class-conditional diffusion pipeline."""

    def restore(
        self,
        images: torch.Tensor,
        sigma: float,
        classes: str | int | Sequence[str | int | None] | torch.Tensor | None = None,
        num_inference_steps: int = 25,
        scheduler: SchedulerMixin | None = None,
        **kwargs,
    ) -> BaseOutput | tuple:
        """Take Gaussian noise out of images: go the reverse process from the step whose noise is theirs.

        An image with noise of deviation s, scaled by sqrt(alpha_bar), is distributed as x_t where
        (1 - alpha_bar) / alpha_bar = s^2. From there DDPM's ancestral steps draw from p(x_0 | the image): each seed
        gives another sample, whatever scheduler the pipeline was saved with. A deterministic scheduler gives all seeds
        one answer: where the model's own path through the image ends, neither a draw from the posterior nor its mean.
        One step alone gives the network's E[x_0 | the image] with either, which no other estimate beats in mean
        squared error.

        Args:
            images: (B, C, H, W) of :attr:`image_shape`, floats, clean ones in [0, 1]; noise is not clipped.
            sigma: the noise's standard deviation on that scale, positive.
            classes: what they show, one for all or one for each; None = not known.
            num_inference_steps: steps back, at most; there are no more than the matching t has.
            scheduler: what takes the steps, one that can be given timesteps; None = DDPM. ``pipeline.scheduler`` is the
                one that draws, if that can.
            kwargs: for the call: `generator`, `guidance_scale`, `output_type`, ...

        Returns:
            What the call returns.

        Raises:
            ValueError: sigma is not positive, the images don't fit, or the scheduler doesn't.
        """
        num_inference_steps = at_least_1("num_inference_steps", num_inference_steps)
        sigma = finite("sigma", sigma)
        check_noisy(images, sigma, self.image_shape)
        ids = self.class_ids(classes)
        ids = ids * len(images) if len(ids) == 1 else ids
        if len(ids) != len(images) or not ids:
            raise ValueError(
                f"{len(ids)} classes were given for {len(images)} images. Give one for all, or one for each."
            )
        own = self.scheduler
        if not isinstance(scheduler, (SchedulerMixin, type(None))):
            raise ValueError(f"scheduler must be one of diffusers' schedulers, or None, not {scheduler!r}.")
        self.check_scheduler()
        # The saved scheduler may have another variance; the one below is that of the posterior.
        ancestral = DDPMScheduler.from_config(own.config, variance_type="fixed_small")
        alphas = own.alphas_cumprod
        noise_to_signal = ((1 - alphas) / alphas.clamp(min=1e-12)).log()
        t = int((noise_to_signal - torch.tensor(2 * sigma / self.config.data_std).square().log()).abs().argmin())
        steps = torch.linspace(t, 0, num_inference_steps + 1)[:-1].round().long().unique().flip(0).tolist()
        x_t = alphas[t].sqrt() * (images.float().cpu() * 2 - 1) / self.config.data_std
        names = [None if i == len(self.class_names) else i for i in ids]
        try:
            self.scheduler = ancestral if scheduler is None else scheduler
            return self(names, timesteps=steps, latents=x_t, **kwargs)
        finally:
            self.scheduler = own
