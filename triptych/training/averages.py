"""Averages of the weights whose width can be chosen after training (Karras et al. 2024, "EDM2", section 3).

An average at update t with exponent gamma weighs the weights of update tau by tau^gamma: it forgets the beginning as
training goes on. Two of them, saved now and then, are enough to build any other by least squares. Their width is the
profile's standard deviation as a fraction of t, sigma_rel in the paper.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.optim.swa_utils import update_bn

from triptych.errors import UserError


def exponent(width: float) -> float:
    """gamma of the profile whose standard deviation is `width` times its length (EDM2, eq. 126), 0 < width < 0.28."""
    squared = width**-2
    return float(np.roots([1, 7, 16 - squared, 12 - squared]).real.max())


class PowerAverages:
    """Several averages of the same weights, one for each width, to be stepped once an update.

    Args:
        model: whose weights are averaged.
        widths: standard deviations of the profiles, as fractions of training.
    """

    def __init__(self, model: torch.nn.Module, widths: Sequence[float]):
        self._names = [name for name, _ in model.named_parameters()]
        self._averages = {width: [p.detach().clone().float() for p in model.parameters()] for width in widths}
        self._exponents = {width: exponent(width) for width in widths}
        self.update = 0

    @torch.no_grad()
    def step(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """average <- beta_t average + (1 - beta_t) parameters, beta_t = (1 - 1 / t)^(gamma + 1) (EDM2, eq. 127)."""
        parameters, self.update = list(parameters), self.update + 1
        for width, average in self._averages.items():
            beta = (1 - 1 / self.update) ** (self._exponents[width] + 1)
            torch._foreach_lerp_(average, parameters, 1 - beta)

    def save(self, folder: Path) -> Path:
        """Write a snapshot, in half precision, to ``folder/update_*.safetensors``; there whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            f"{width}/{name}": value.half().contiguous()
            for width, average in self._averages.items()
            for name, value in zip(self._names, average, strict=True)
        }
        path = folder / f"update_{self.update:08d}.safetensors"
        partial = path.with_suffix(".partial")
        save_file(tensors, partial, {"update": str(self.update), "widths": json.dumps(list(self._averages))})
        partial.replace(path)
        return path

    def state_dict(self) -> dict:
        return {"update": self.update, "averages": self._averages}

    def load_state_dict(self, state: dict) -> None:
        if list(state["averages"]) != list(self._averages):
            raise UserError(
                f"The checkpoint keeps averages of the widths {list(state['averages'])}; the config names "
                f"{list(self._averages)}."
            )
        self.update = state["update"]
        for width, average in self._averages.items():
            for ours, saved in zip(average, state["averages"][width], strict=True):
                ours.copy_(saved)


def profiles_overlap(t_a: np.ndarray, gamma_a: np.ndarray, t_b: np.ndarray, gamma_b: np.ndarray) -> np.ndarray:
    """Inner product of two profiles (EDM2, eq. 151): arrays that broadcast -> their shape.

    A profile is (gamma + 1) tau^gamma / t^(gamma + 1) on [0, t].
    """
    least = np.minimum(t_a, t_b)
    powers = (least / t_a) ** (gamma_a + 1) * (least / t_b) ** (gamma_b + 1) / least
    return (gamma_a + 1) * (gamma_b + 1) / (gamma_a + gamma_b + 1) * powers


def combine(snapshots: Sequence[tuple[int, float]], update: int, width: float) -> np.ndarray:
    """Factors by which averages add up to the one of `width` at `update`, by least squares (EDM2, section 3.2).

    Args:
        snapshots: (update, width) of each average there is.
        update, width: of the average wanted.

    Returns:
        (len(snapshots),), which sum to about 1.
    """
    t = np.array([each for each, _ in snapshots], dtype=float)
    gamma = np.array([exponent(each) for _, each in snapshots])
    gram = profiles_overlap(t[:, None], gamma[:, None], t[None], gamma[None])
    wanted = profiles_overlap(t, gamma, np.float64(update), np.float64(exponent(width)))
    return np.linalg.lstsq(gram, wanted, rcond=1e-12)[0]


def average_of(paths: Sequence[Path], width: float, update: int | None = None) -> dict[str, torch.Tensor]:
    """The average of `width` at `update`, by parameter name, out of saved snapshots.

    Args:
        paths: snapshots of :meth:`PowerAverages.save`, all of one training.
        width: as a fraction of training.
        update: the newest snapshot's if not given; later snapshots are left out.

    Raises:
        UserError: there is no snapshot of that update.
    """
    found: dict[tuple[int, float], Path] = {}
    for path in paths:
        with safe_open(path, "pt") as file:
            about = file.metadata()
        found |= {(int(about["update"]), each): path for each in json.loads(about["widths"])}
    updates = sorted({each for each, _ in found})
    update = updates[-1] if update is None and updates else update
    if update not in updates:
        raise UserError(f"There is no snapshot of update {update}; there are those of {updates or 'none'}.")
    used = [key for key in found if key[0] <= update]
    total: dict[str, torch.Tensor] = {}
    for key, factor in zip(used, combine(used, update, width), strict=True):
        with safe_open(found[key], "pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                kept, _, parameter = name.partition("/")
                if float(kept) == key[1]:
                    term = file.get_tensor(name).double() * float(factor)
                    total[parameter] = total[parameter] + term if parameter in total else term
    return {name: value.float() for name, value in total.items()}


@contextmanager
def averaged_weights(ema: Any, model: torch.nn.Module):
    """Lend `model` the weights of diffusers' ``EMAModel`` and give it its own back, whatever happens."""
    parameters = list(model.parameters())
    training = model.training
    ema.store(parameters)
    ema.copy_to(parameters)
    model.eval()
    try:
        yield model
    finally:
        ema.restore(parameters)
        model.train(training)


@torch.no_grad()
def averaged_copy(model: Any, ema: Any, batches: Iterable[torch.Tensor]) -> Any:
    """A network of the averaged weights, its batch-norm statistics measured with them on `batches` of what it is shown
    (Izmailov et al. 2018, section 3.2): the running ones belong to other weights.

    Args:
        model: one of transformers', whose class makes another from its ``config``.
        ema: the average of its weights, diffusers' ``EMAModel``.
        batches: inputs of the network, (B, C, H, W), on its device.
    """
    averaged = type(model)(model.config).to(model.device)
    ema.copy_to(averaged.parameters())
    update_bn(batches, averaged)
    return averaged.eval()
