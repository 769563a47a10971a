"""Optimizers by config: AdamW or SGD for everything, or Muon for the matrices; and the average of what they learn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel

from triptych.config.training import EmaConfig, OptimizerConfig


class KernelMuon(torch.optim.Muon):
    """torch's Muon for convolution kernels too: a kernel (out, in, h, w) counts as a matrix (out, in * h * w).

    torch's takes matrices only, so it is given views of the kernels and of their gradients. The kernels must be on
    their device already.

    Args:
        kernels: weights of two dimensions or more.
        settings: those of ``torch.optim.Muon``.
    """

    def __init__(self, kernels: Iterable[torch.nn.Parameter], **settings: float):
        self._kernels = list(kernels)
        views = [torch.nn.Parameter(kernel.data.view(len(kernel), -1)) for kernel in self._kernels]
        for kernel, view in zip(self._kernels, views, strict=True):
            kernel.register_post_accumulate_grad_hook(
                lambda kernel, view=view: setattr(view, "grad", kernel.grad.view(view.shape))
            )
        super().__init__(views, **settings)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Also of the kernels, which no other optimizer holds."""
        super().zero_grad(set_to_none)
        if set_to_none:
            for kernel in self._kernels:
                kernel.grad = None


def make_optimizers(
    model: torch.nn.Module, config: OptimizerConfig, ends: Sequence[str] = ()
) -> list[torch.optim.Optimizer]:
    """The optimizers of `model`, to be stepped together.

    AdamW (Loshchilov & Hutter 2019) alone, or with ``config.name == "muon"`` also Muon (Jordan et al. 2024), which
    replaces the update of a weight matrix by its nearest orthogonal one. Muon is for hidden layers: what maps from
    or to data, classes and time (parameters whose names begin with one of `ends`), and everything that is no
    matrix, stays with AdamW; so do kernels within a channel, whose rows see nothing of each other. With ``"sgd"``,
    Nesterov's accelerated gradient (Sutskever et al. 2013) for everything.
    What is frozen (``requires_grad`` is false) belongs to none of them.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if config.name == "sgd":
        settings = {"lr": config.lr, "momentum": config.betas[0], "weight_decay": config.weight_decay}
        return [torch.optim.SGD(named.values(), nesterov=config.betas[0] > 0, fused=True, **settings)]
    convolutions = [layer for layer in model.modules() if isinstance(layer, torch.nn.Conv2d)]
    within_channels = {id(layer.weight) for layer in convolutions if layer.groups > 1}
    matrices = {name: p for name, p in named.items() if p.ndim >= 2 and id(p) not in within_channels}
    hidden = {name: p for name, p in matrices.items() if not name.startswith(tuple(ends))}
    if config.name == "adamw":
        hidden = {}
    rest = [p for name, p in named.items() if name not in hidden]
    optimizers: list[torch.optim.Optimizer] = []
    if rest:
        settings = {"lr": config.lr, "betas": config.betas, "eps": config.eps, "weight_decay": config.weight_decay}
        optimizers.append(torch.optim.AdamW(rest, fused=True, **settings))
    if hidden:
        settings = {"lr": config.muon_lr, "weight_decay": config.weight_decay, "momentum": config.muon_momentum}
        optimizers.append(KernelMuon(hidden.values(), **settings))
    return optimizers


def make_lr_schedulers(
    optimizers: Sequence[torch.optim.Optimizer], config: OptimizerConfig, num_updates: int
) -> list[torch.optim.lr_scheduler.LRScheduler]:
    """Warm-up and decay for each optimizer, to be stepped once an update.

    Shapes of ``diffusers.optimization``, and "warmup_stable_decay": constant after the warm-up, 1 - sqrt(done) of the
    last ``num_decay_updates`` (Haegele et al. 2024, section 3). Until the decay begins it does not depend on
    `num_updates`, so a checkpoint of one run can be finished by another.
    """
    if config.lr_schedule == "warmup_stable_decay":
        warmup, decay = config.num_warmup_updates, config.num_decay_updates

        def factor(update: int) -> float:
            left = max(0, num_updates - update)
            return min(1.0, (update + 1) / (warmup + 1), 1 - (1 - left / decay) ** 0.5 if left < decay else 1.0)

    else:
        name = "constant_with_warmup" if config.lr_schedule == "constant" else config.lr_schedule
        steps = {"num_warmup_steps": config.num_warmup_updates, "num_training_steps": num_updates}
        (factor, *_) = get_scheduler(name, optimizers[0], **steps).lr_lambdas
    return [Schedule(optimizer, factor) for optimizer in optimizers]


class Schedule(torch.optim.lr_scheduler.LambdaLR):
    """torch's ``LambdaLR``, whose highest rate is the config's also where it goes on from a checkpoint: a branch may
    have another than its trunk."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        highest = self.base_lrs
        super().load_state_dict(state_dict)
        self.base_lrs = highest
        for group, lr, factor in zip(self.optimizer.param_groups, highest, self.lr_lambdas, strict=True):
            group["initial_lr"], group["lr"] = lr, lr * factor(self.last_epoch)


class MovingAverage(EMAModel):
    """diffusers' ``EMAModel``, its update in one pass over the memory instead of three.

    On a CPU the passes are what it costs: 1.0 instead of 4.5 ms for 7.4 million weights, of a step of 130.
    """

    @torch.no_grad()
    def step(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """average <- decay * average + (1 - decay) * parameters."""
        self.optimization_step += 1
        self.cur_decay_value = self.get_decay(self.optimization_step)
        torch._foreach_lerp_(self.shadow_params, list(parameters), 1 - self.cur_decay_value)


def make_ema(model: torch.nn.Module, config: EmaConfig) -> MovingAverage:
    """The moving average of the weights of `model`, to be stepped once an update."""
    return MovingAverage(model.parameters(), decay=config.decay, use_ema_warmup=True, power=config.power, foreach=True)
