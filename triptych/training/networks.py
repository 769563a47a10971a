"""What accelerate wraps around a network that is trained: given to one that is not, and taken off again."""

from __future__ import annotations

from typing import Any

import torch


def unwrapped(accelerator: Any, network: Any) -> Any:
    """`network` itself, of the same weights: not shared among processes and not compiled, which would begin anew with
    each other size of batch. Its precision stays that of training."""
    return accelerator.unwrap_model(network, keep_torch_compile=False)


def compiled_like_trained(accelerator: Any, network: torch.nn.Module) -> Any:
    """`network`, compiled if ``accelerate launch --dynamo_backend`` asks for that; it has no place in checkpoints."""
    plugin = accelerator.state.dynamo_plugin
    return network if plugin.backend.name == "NO" else torch.compile(network, **plugin.to_kwargs())
