"""Muon on convolution kernels against torch's own Muon on the same matrices."""

from __future__ import annotations

import pytest
import torch
from diffusers.training_utils import EMAModel

from triptych.config.diffusion import DiffusionConfig
from triptych.config.training import EmaConfig, OptimizerConfig, RunConfig
from triptych.training.optimizers import make_ema, make_lr_schedulers, make_optimizers
from triptych.training.run import Run


def make_model() -> torch.nn.Module:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 6, 3), torch.nn.GroupNorm(2, 6))
    return torch.nn.ModuleDict({"first": model[0], "hidden": model[1], "norm": model[2]})


def backward(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    x, target = torch.randn(2, 3, 8, 8, generator=generator), torch.randn(2, 6, 4, 4, generator=generator)
    (model["norm"](model["hidden"](model["first"](x))) - target).square().mean().backward()


def step(model: torch.nn.Module, optimizers: list[torch.optim.Optimizer]) -> None:
    backward(model)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()


def test_adamw_has_everything():
    model = make_model()
    (optimizer,) = make_optimizers(model, OptimizerConfig(), ends=("first",))
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))


@pytest.mark.parametrize("name", ["adamw", "sgd", "muon"])
def test_what_is_frozen_belongs_to_none(name):
    model = make_model().requires_grad_(False)
    model["norm"].requires_grad_(True)
    (optimizer,) = make_optimizers(model, OptimizerConfig(name=name))
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2


def test_muon_moves_kernels_as_torchs_muon_moves_matrices():
    config = OptimizerConfig(name="muon", muon_lr=0.1, lr=1e-2)
    model, twin = make_model(), make_model()
    optimizers = make_optimizers(model, config, ends=("first",))
    adamw, muon = optimizers
    assert [tuple(p.shape) for p in muon.param_groups[0]["params"]] == [(6, 36)]
    assert len(adamw.param_groups[0]["params"]) == 5

    matrix = torch.nn.Parameter(twin["hidden"].weight.detach().clone().view(6, 36))
    theirs = torch.optim.Muon([matrix], lr=0.1, weight_decay=config.weight_decay, momentum=0.95)
    rest = [p for name, p in twin.named_parameters() if name != "hidden.weight"]
    theirs_adamw = torch.optim.AdamW(rest, lr=1e-2, weight_decay=config.weight_decay, fused=True)
    for _ in range(3):
        step(model, optimizers)
        backward(twin)
        matrix.grad = twin["hidden"].weight.grad.view(6, 36)
        theirs.step()
        theirs_adamw.step()
        with torch.no_grad():
            twin["hidden"].weight.copy_(matrix.view_as(twin["hidden"].weight))
        twin.zero_grad()
    for (name, ours), (_, expected) in zip(model.named_parameters(), twin.named_parameters(), strict=True):
        torch.testing.assert_close(ours, expected, msg=name)


def test_state_survives_saving():
    config = OptimizerConfig(name="muon")
    whole, broken = make_model(), make_model()
    optimizers, before = make_optimizers(whole, config), make_optimizers(broken, config)
    for _ in range(2):
        step(whole, optimizers)
    step(broken, before)
    after = make_model()
    resumed = make_optimizers(after, config)
    after.load_state_dict(broken.state_dict())
    for old, new in zip(before, resumed, strict=True):
        new.load_state_dict(old.state_dict())
    step(after, resumed)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), after.parameters(), strict=True))


def test_the_average_is_diffusers():
    """Our one pass and diffusers' three end at the same average, count the same, and load each other's states."""
    model, config = make_model(), EmaConfig(decay=0.9, power=0.75)
    ours = make_ema(model, config)
    theirs = EMAModel(model.parameters(), decay=0.9, use_ema_warmup=True, power=0.75, foreach=True)
    for k in range(8):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(k)))
        ours.step(model.parameters())
        theirs.step(model.parameters())
        assert ours.cur_decay_value == theirs.cur_decay_value
    for a, b in zip(ours.shadow_params, theirs.shadow_params, strict=True):
        torch.testing.assert_close(a, b)
    again = make_ema(model, config)
    again.load_state_dict(theirs.state_dict())
    assert again.optimization_step == 8 and all(map(torch.equal, again.shadow_params, theirs.shadow_params))


def test_sgd_has_everything_and_nesterovs_momentum():
    (optimizer,) = make_optimizers(make_model(), OptimizerConfig(name="sgd", lr=0.1, betas=(0.8, 0.9)), ends=("first",))
    (group,) = optimizer.param_groups
    assert type(optimizer) is torch.optim.SGD and len(group["params"]) == 6
    assert (group["lr"], group["momentum"], group["nesterov"]) == (0.1, 0.8, True)


def test_clipping_is_torchs(monkeypatch, tmp_path):
    """Gradients above the norm and below it, against torch's own clipping, to the bit."""
    monkeypatch.chdir(tmp_path)
    run = Run(DiffusionConfig(name="x", run=RunConfig(tracker=None)))
    for max_norm in (1e-3, 1e3):
        ours, theirs = make_model(), make_model()
        for model in (ours, theirs):
            backward(model)
        norm = run.clip_grad_norm(list(ours.parameters()), max_norm)
        assert torch.equal(norm, torch.nn.utils.clip_grad_norm_(theirs.parameters(), max_norm))
        assert all(torch.equal(a.grad, b.grad) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def rates(num_updates: int, **settings) -> list[float]:
    """The learning rate of every update."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    (scheduler,) = make_lr_schedulers([optimizer], OptimizerConfig(**settings), num_updates)
    found = []
    for _ in range(num_updates):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_warm_up_then_constant_then_decay():
    settings = {"lr_schedule": "warmup_stable_decay", "num_warmup_updates": 4, "num_decay_updates": 10}
    short, long = rates(30, **settings), rates(60, **settings)
    assert short[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0]) and set(short[5:21]) == {1.0}
    assert short[20:] == pytest.approx([1 - (k / 10) ** 0.5 for k in range(10)])
    assert long[:50] == pytest.approx(short[:20] + [1.0] * 30), "until the decay it doesn't depend on the end"
    assert rates(30, **settings | {"num_decay_updates": 0})[5:] == [1.0] * 25


def test_a_constant_rate_warms_up_too():
    assert rates(6, lr_schedule="constant", num_warmup_updates=4) == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1])
