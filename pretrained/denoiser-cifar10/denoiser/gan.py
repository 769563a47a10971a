"""A residual U-Net that restores images, and the patch discriminator it is trained against.

Self-contained: this file is saved beside the weights and is what ``from_pretrained`` runs, here or on the Hub.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm


class DenoisingUNet(ModelMixin, ConfigMixin):
    """Noisy image in, clean image out: a U-Net of residual blocks without normalisation (Zhang et al. 2021, DRUNet).

    Takes any height and width: pads inside to what it can halve, and crops again. Without biases (the default) it is
    homogeneous, f(a x) = a f(x), and generalises to noise levels it was not trained on (Mohan et al. 2020).

    Args:
        in_channels: 1 or 3.
        block_out_channels: widths, a level each; every level below the first halves the resolution.
        layers_per_block: residual blocks of a level, each way.
        pixel_unshuffle: fold p x p pixels into channels at the entrance (Shi et al. 2016; Zhang et al. 2018, FFDNet).
        prediction_type: "noise", the network's answer is subtracted from the input (Zhang et al. 2017, DnCNN), or
            "sample", it is the clean image itself.
        bias: give the convolutions biases.
    """

    _code = ("gan", Path(__file__).read_text(encoding="utf-8"))  # what it is saved with

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        block_out_channels: tuple[int, ...] = (64, 128),
        layers_per_block: int = 2,
        pixel_unshuffle: int = 2,
        prediction_type: str = "noise",
        bias: bool = False,
    ):
        super().__init__()
        if prediction_type not in ("noise", "sample"):
            raise ValueError(f"prediction_type must be 'noise' or 'sample', not {prediction_type!r}.")
        folded = in_channels * pixel_unshuffle**2
        widths = list(block_out_channels)

        def blocks(width: int) -> nn.Sequential:
            return nn.Sequential(*(RestorationBlock(width, bias) for _ in range(layers_per_block)))

        self.head = nn.Conv2d(folded, widths[0], 3, padding=1, bias=bias)
        self.down_blocks = nn.ModuleList(blocks(width) for width in widths[:-1])
        self.downsamplers = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2, bias=bias) for a, b in pairwise(widths))
        self.mid_block = blocks(widths[-1])
        self.upsamplers = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2, bias=bias) for a, b in pairwise(widths))
        self.up_blocks = nn.ModuleList(blocks(width) for width in widths[:-1])
        self.tail = nn.Conv2d(widths[0], folded, 3, padding=1, bias=bias)

    @property
    def multiple(self) -> int:
        """Height and width are padded to a multiple of this."""
        return self.config.pixel_unshuffle * 2 ** (len(self.config.block_out_channels) - 1)

    def forward(self, noisy: torch.Tensor) -> torch.Tensor:
        """Restore: (B, C, H, W) around [-1, 1] -> (B, C, H, W), float32, not clipped."""
        height, width = noisy.shape[2:]
        bottom, right = -height % self.multiple, -width % self.multiple
        # Repeated pixels look like no new edge; reflection would need an image larger than its padding.
        x = F.pad(noisy, (0, right, 0, bottom), mode="replicate") if bottom or right else noisy
        x = self.head(F.pixel_unshuffle(x, self.config.pixel_unshuffle))
        skips = []
        for block, downsample in zip(self.down_blocks, self.downsamplers, strict=True):
            x = block(x)
            skips.append(x)
            x = downsample(x)
        x = self.mid_block(x)
        for level in reversed(range(len(skips))):
            x = self.up_blocks[level](self.upsamplers[level](x) + skips[level])
        x = F.pixel_shuffle(self.tail(x), self.config.pixel_unshuffle)[..., :height, :width].float()
        return noisy - x if self.config.prediction_type == "noise" else x


class RestorationBlock(nn.Module):
    """x + conv(relu(conv(x))) (Lim et al. 2017, EDSR), (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, bias: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=bias)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv2(F.relu(self.conv1(x)))


class PatchDiscriminator(ModelMixin, ConfigMixin):
    """Is this a clean image or a restored one? Answered for every patch.

    Isola et al. 2017 (patches, condition), Miyato et al. 2018 (spectral norm). The last layer's norm is free: clean and
    restored images differ so little that logits which change no faster than the image could not tell them apart.

    Args:
        in_channels: channels of an image.
        block_out_channels: widths; every level but the first halves the resolution.
        conditional: show the noisy image beside the one to be judged, so that what was removed is judged as well. The
            mean of all clean images that fit leaves part of the noise in; a generator hides that most easily by
            smoothing more. Without it only what clean images look like counts.
    """

    @register_to_config
    def __init__(
        self, in_channels: int = 3, block_out_channels: tuple[int, ...] = (64, 128, 256), conditional: bool = False
    ):
        super().__init__()
        widths = [in_channels * (2 if conditional else 1), *block_out_channels]
        self.blocks = nn.ModuleList(
            spectral_norm(nn.Conv2d(a, b, 3 if i == 0 else 4, stride=1 if i == 0 else 2, padding=1))
            for i, (a, b) in enumerate(pairwise(widths))
        )
        self.to_logits = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, images: torch.Tensor, noisy: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Judge images (B, C, H, W) that belong to noisy ones: logits (B, 1, h, w), high for clean, and features."""
        x, features = torch.cat([images, noisy], dim=1) if self.config.conditional else images, []
        for block in self.blocks:
            x = F.leaky_relu(block(x), 0.2)
            features.append(x)
        return self.to_logits(x).float(), features
