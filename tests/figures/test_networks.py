"""Pictures of networks: the shapes and counts are the network's own."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from diffusers import UNet2DModel

from models.gan import PatchDiscriminator
from models.vae import VAE
from triptych.figures import networks
from triptych.figures.networks import Stage, save_networks, trace


def test_stages_are_what_flows_through_the_network():
    vae = VAE(latent_dim=4)
    stages = trace(vae, torch.zeros(1, 1, 28, 28), torch.zeros(1, 4))
    shapes = [stage.shape for stage in stages]
    assert shapes[0] == shapes[-1] == (1, 28, 28) and (8,) in shapes  # mean and log variance of four variables
    assert sum(stage.num_parameters for stage in stages) == sum(p.numel() for p in vae.parameters())

    judge = PatchDiscriminator(3, (8, 16))  # its weights are computed from others: spectral norm
    stages = trace(judge, *torch.zeros(2, 1, 3, 16, 16))
    assert [stage.shape for stage in stages] == [(3, 16, 16), (8, 16, 16), (16, 8, 8), (1, 8, 8)]
    assert sum(stage.num_parameters for stage in stages) == sum(p.numel() for p in judge.parameters())
    assert not any(module._forward_hooks for module in judge.modules())


def test_a_unet_with_attention_is_joined_at_equal_heights(monkeypatch):
    blocks = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    size = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 8}
    unet = UNet2DModel(sample_size=16, in_channels=3, out_channels=3, **blocks, **size)
    stages = trace(unet, torch.zeros(1, 3, 16, 16), 0, vectors=False)
    shapes = [(3, 16, 16), (8, 16, 16), (8, 8, 8), (16, 8, 8), (16, 16, 16), (8, 16, 16), (3, 16, 16)]
    assert [stage.shape for stage in stages] == shapes
    assert {stage.shape[1] for stage in stages if stage.attention} == {8}
    assert sum(stage.num_parameters for stage in stages) == sum(p.numel() for p in unet.parameters())

    drawn = []
    monkeypatch.setattr(networks, "save", lambda figure, path: drawn.append(figure) or path)
    save_networks({"U-Net": (stages, True), "vectors": ([Stage((1, 4, 4)), Stage((2,))], False)}, Path("x.png"))
    first, second = drawn[0].axes
    boxes = [patch for patch in first.patches if isinstance(patch, plt.Rectangle)]
    assert len(boxes) == len(stages) and first.get_xlim() == second.get_xlim()
    heights = [box.get_height() for box in boxes]
    assert heights[0] == max(heights) and heights[0] > heights[3]
    said = [text.get_text() for text in first.texts]
    assert said == [f"{s.shape[0]}\n{s.shape[1]} x {s.shape[2]}" for s in stages]
    assert len(first.patches) == 2 * len(stages) - 1 + 1  # boxes, arrows between them, one way around the bottom
    plt.close("all")


def test_the_way_around_leads_from_the_last_to_the_first_of_a_height():
    stages = [Stage((1, side, side)) for side in (32, 16, 16, 8, 4, 8, 8, 16, 32)]
    assert networks._joined(stages) == [(2, 7), (3, 5)]
