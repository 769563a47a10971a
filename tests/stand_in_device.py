"""An accelerator that isn't there: what would fail on a real one for lying on two devices fails here too.

A tensor that is sent to ``cuda``, or made there, becomes a :class:`Far` one: its numbers stay in memory and are
computed with, but as on a real accelerator it meets no tensor of the CPU's with more than one number, and NumPy can't
read it. Only ``.cpu()`` and ``.to("cpu")`` bring it back. It knows nothing of kernels, of streams or of precision.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("cuda")  # a name that every library knows; no driver is asked
READS_MEMORY = ("numpy", "__array__", "untyped_storage", "storage", "data_ptr", "__dlpack__")
MAY_MIX = (
    "__getitem__",
    "__setitem__",
    "copy_",
    "set_data",
    "__set__",
    "_has_compatible_shallow_copy_type",
)  # real ones copy, or look up, across devices


class Far(torch.Tensor):
    """A tensor that counts as lying on the accelerator."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


def plain(value: Any) -> Any:
    return value.as_subclass(torch.Tensor) if isinstance(value, Far) else value


def far(value: Any) -> Any:
    return value.as_subclass(Far) if isinstance(value, torch.Tensor) and not isinstance(value, Far) else value


def is_far_device(value: Any) -> bool:
    return isinstance(value, (str, torch.device)) and torch.device(value).type == DEVICE.type


def run(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Call `func` on plain tensors, having refused what two devices would; the answer lies where its tensors do."""
    name = getattr(func, "__name__", "")
    with torch._C.DisableTorchFunction():
        tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]
        are_far = [isinstance(value, Far) for value in tensors]
        if any(are_far) and name in READS_MEMORY:
            raise TypeError(f"can't convert accelerator tensor to numpy ({name}): use .cpu() first.")
        if any(are_far) and name not in MAY_MIX:
            near = [value for value, is_far in zip(tensors, are_far, strict=True) if not is_far and value.dim()]
            if near:
                raise RuntimeError(f"{func}: expected all tensors to be on the same device.")
        if name == "__get__" and getattr(func, "__self__", None) is torch.Tensor.device:
            return DEVICE if are_far[0] else torch.device("cpu")
        moves = name in ("cpu", "to")
        targets = [*args[1:], kwargs.get("device")] if name == "to" else [kwargs.get("device")]
        sent = any(map(is_far_device, targets))
        brought = name == "cpu" or (name == "to" and any(is_cpu(value) for value in targets))
        like = [value for value in args[1:] if isinstance(value, torch.Tensor)] if name == "to" else []
        args, kwargs = tree_map(plain, (args, kwargs))
        if sent:
            args = tuple(torch.device("cpu") if is_far_device(value) else value for value in args)
            kwargs = {key: torch.device("cpu") if is_far_device(value) else value for key, value in kwargs.items()}
        result = func(*args, **kwargs)
        if brought or (like and not isinstance(like[0], Far)):
            return tree_map(plain, result)
        stays = any(are_far) and not (moves and like)
        return tree_map(far, result) if sent or stays or like else result


def is_cpu(value: Any) -> bool:
    return isinstance(value, (str, torch.device)) and torch.device(value).type == "cpu"


class StandIn(TorchFunctionMode):
    """Sees every call of torch, those on plain tensors too."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


@contextmanager
def stand_in_device() -> Iterator[torch.device]:
    """Within, ``cuda`` is an accelerator that computes."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # so that a module's weights become Far ones
    try:
        with StandIn():
            yield DEVICE
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
