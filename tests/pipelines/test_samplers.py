"""Every scheduler of diffusers put into the pipeline: it draws what the data are, or it is refused by name."""

from __future__ import annotations

import warnings

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, HeunDiscreteScheduler, SchedulerMixin
from stand_ins import make_diffusion

from models.pipeline_class_conditional import ClassConditionalPipeline
from triptych.config.diffusion import ScheduleConfig
from triptych.pipelines import schedulers
from triptych.pipelines.schedulers import make_noise_scheduler

EVERY = sorted(
    name
    for name in dir(diffusers)
    if isinstance(found := getattr(diffusers, name), type)
    and issubclass(found, SchedulerMixin)
    and found is not SchedulerMixin
)
MEAN, SPREAD = 0.2, 0.2  # the data: every pixel N(MEAN, SPREAD^2), in [-1, 1]


def make_toy(
    schedule: str = "squaredcos_cap_v2",
    zero: bool = False,
    kind: str = "DDIMScheduler",
    prediction_type: str = "v_prediction",
    **settings,
):
    """A pipeline whose network is the best there is for the data."""
    trained = make_noise_scheduler(
        ScheduleConfig(beta_schedule=schedule, prediction_type=prediction_type, zero_terminal_snr=zero)
    )
    pipeline = make_diffusion(channels=1, unshuffle=1)
    pipeline = ClassConditionalPipeline(pipeline.unet, trained)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = getattr(diffusers, kind).from_config(trained.config, **settings)
    logits = torch.logit(trained.alphas_cumprod.double().clamp(1e-12, 1 - 1e-12))

    def best(x_in, t, *_):
        low = int(t)  # between two steps of training alpha_bar is interpolated, as schedulers do
        between = torch.lerp(logits[low], logits[min(low + 1, 999)], float(t) - low)
        a, x = torch.sigmoid(between), x_in.double()
        x_0 = MEAN + a.sqrt() * SPREAD**2 / (a * SPREAD**2 + 1 - a) * (x - a.sqrt() * MEAN)  # E[x_0 | x_t]
        eps = (x - a.sqrt() * x_0) / (1 - a).sqrt()
        answers = {"sample": x_0, "epsilon": eps, "v_prediction": a.sqrt() * eps - (1 - a).sqrt() * x_0}
        return answers[prediction_type].float()

    pipeline._denoise = best
    return pipeline


def drawn(pipeline, num_inference_steps: int = 50, count: int = 300, **how) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    how |= {"generator": generator, "num_inference_steps": num_inference_steps, "output_type": "pt"}
    return pipeline([None] * count, guidance_scale=1.0, **how).images * 2 - 1


def is_the_data(images: torch.Tensor) -> bool:
    return abs(images.mean() - MEAN) < 0.02 and abs(images.std() / SPREAD - 1) < 0.2


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon", "sample"])
def test_every_scheduler_draws_the_data_or_is_refused(name, prediction_type):
    """DDIM and DDPM are among them; the tolerance is what their 50 steps need."""
    try:
        pipeline = make_toy(kind=name, prediction_type=prediction_type)
    except (TypeError, ImportError):  # needs arguments or libraries that no diffusion of ours has
        assert name not in schedulers.FITTING
        return
    limits = {("PNDMScheduler", "epsilon")}  # rounding, times sqrt((1 - alpha_bar) / alpha_bar) of 20,000
    limits |= {(f"{kind}Scheduler", "sample") for kind in ("PNDM", "EulerAncestralDiscrete")}
    limits |= {(f"{kind}Scheduler", "sample") for kind in ("KDPM2Discrete", "KDPM2AncestralDiscrete")}
    if name in (*schedulers.FITTING, "SASolverScheduler") and (name, prediction_type) not in limits:
        assert is_the_data(drawn(pipeline))
        return
    with pytest.raises(ValueError, match=f"{name} does not fit this network: .*DDIMScheduler.*UniPCMultistepScheduler"):
        drawn(pipeline)


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "sigmoid"])
@pytest.mark.parametrize("name", schedulers.FITTING)
def test_all_that_fit_draw_by_the_other_schedules(name, schedule):
    assert is_the_data(drawn(make_toy(schedule, kind=name, prediction_type="epsilon"), 100))


def test_one_list_of_those_that_fit():
    assert set(ClassConditionalPipeline.fitting_schedulers) == set(schedulers.FITTING)


@pytest.mark.parametrize("name", schedulers.FITTING)
def test_zero_terminal_snr_is_taken_over(name):
    pipeline = make_toy(schedule="linear", zero=True, kind=name)
    assert is_the_data(drawn(pipeline, 100))


@pytest.mark.parametrize("name", ["DPMSolverSinglestep", "HeunDiscrete", "LMSDiscrete", "DEISMultistep", "PNDM"])
def test_zero_terminal_snr_of_elsewhere_is_not_dropped(name):
    """A config that leaves the rescaling to the scheduler: those that don't know it would draw by another schedule."""
    pipeline = make_diffusion()
    trained = diffusers.DDPMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True)
    pipeline = ClassConditionalPipeline(pipeline.unet, trained, pixel_unshuffle=2)
    pipeline.scheduler = getattr(diffusers, f"{name}Scheduler").from_config(trained.config)
    with pytest.raises(ValueError, match=r"noise levels .* are not those that the network was trained on"):
        pipeline(0)


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (diffusers.EulerDiscreteScheduler(prediction_type="v_prediction"), "noise levels"),
        (DDIMScheduler(beta_schedule="squaredcos_cap_v2"), "the network's answer for 'epsilon'"),
        (DDIMScheduler(500, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction"), "noise levels"),
        (diffusers.FlowMatchEulerDiscreteScheduler(), "FlowMatchEulerDiscreteScheduler does not fit.*alphas_cumprod"),
    ],
)
def test_another_schedule_than_the_trained_one_is_refused(scheduler, message):
    pipeline = make_diffusion()
    trained = pipeline.scheduler
    pipeline.scheduler = scheduler
    for call in (lambda: pipeline("cat"), lambda: pipeline.restore(torch.rand(1, 3, 8, 8), 0.1)):
        with pytest.raises(ValueError, match=message):
            call()
    pipeline.scheduler = trained
    pipeline("cat")


def test_noisy_samplers_are_warned_of_and_what_helps_is_not():
    for name in ("HeunDiscrete", "KDPM2Discrete", "KDPM2AncestralDiscrete"):
        with pytest.warns(UserWarning, match="may leave noise.*use_karras_sigmas=True"):
            drawn(make_toy(kind=f"{name}Scheduler"), 10, count=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        drawn(make_toy(kind="HeunDiscreteScheduler", use_karras_sigmas=True), 10, count=2)
        drawn(make_toy("linear", kind="HeunDiscreteScheduler"), 10, count=2)
        drawn(make_toy(kind="DPMSolverMultistepScheduler"), 10, count=2)


def test_images_that_came_out_nan_are_refused():
    for name in ("KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"):  # diffusers' own, with Karras's sigmas
        with pytest.raises(ValueError, match=f"{name}.* NaN"):
            drawn(make_toy(kind=name, use_karras_sigmas=True), 10, count=2)


@pytest.mark.parametrize("schedule", ["squaredcos_cap_v2", "linear"])
@pytest.mark.parametrize("zero", [False, True])
def test_eta_of_one_draws_at_any_number_of_steps(schedule, zero):
    """Rounding under a root made it NaN; it is DDPM's own noise."""
    pipeline = make_toy(schedule, zero)
    for steps in (1, 2, 3, 5, 7, 10, 25):
        assert drawn(pipeline, steps, count=2, eta=1.0).isfinite().all()
    ancestral = drawn(make_toy(schedule, zero, "DDPMScheduler"), 50)
    assert drawn(pipeline, 50, eta=1.0).std() == pytest.approx(ancestral.std().item(), rel=0.05)


@pytest.mark.parametrize("kind", ["DPMSolverMultistepScheduler", "DDPMScheduler", "EulerDiscreteScheduler"])
def test_restoring_draws_from_the_posterior_whatever_scheduler_is_saved(kind):
    """Mean and variance of p(x_0 | y) over seeds, y = x_0 + noise, for data N(m, s^2)."""
    pipeline, sigma = make_toy(kind=kind), 0.3
    noisy = torch.linspace(-0.3, 0.7, 16).view(1, 1, 4, 4)  # in [-1, 1]
    how = {"num_inference_steps": 150, "output_type": "pt", "guidance_scale": 1.0}
    seeds = [torch.Generator().manual_seed(seed) for seed in range(600)]
    images = (noisy / 2 + 0.5).expand(600, 1, 4, 4)
    samples = pipeline.restore(images, sigma / 2, generator=seeds, **how).images * 2 - 1
    gain = SPREAD**2 / (SPREAD**2 + sigma**2)
    mean, variance = MEAN + gain * (noisy[0] - MEAN), SPREAD**2 * sigma**2 / (SPREAD**2 + sigma**2)
    torch.testing.assert_close(samples.mean(0), mean, atol=0.03, rtol=0)
    assert samples.var(0).mean() == pytest.approx(variance, rel=0.08)
    assert type(pipeline.scheduler).__name__ == kind, "the pipeline keeps its own"


def test_restoring_by_a_deterministic_scheduler_is_asked_for():
    pipeline = make_toy(kind="DPMSolverMultistepScheduler")
    image = torch.full((1, 1, 4, 4), 0.7)

    def restore(seed, **how):
        generator = torch.Generator().manual_seed(seed)
        return pipeline.restore(image, 0.1, generator=generator, output_type="pt", guidance_scale=1.0, **how).images

    own = {"scheduler": pipeline.scheduler}
    assert torch.equal(restore(0, **own), restore(1, **own)) and not torch.equal(restore(0), restore(1))
    other = {"scheduler": DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)}
    assert torch.equal(restore(0, **other), restore(0, **own))
    for wrong, message in (
        (HeunDiscreteScheduler(), "network's answer"),
        (DDIMScheduler.from_config(pipeline.scheduler.config), "DDIMScheduler takes no timesteps"),
    ):
        with pytest.raises(ValueError, match=message):
            restore(0, scheduler=wrong)
    assert pipeline.scheduler is own["scheduler"], "even where it fails"
