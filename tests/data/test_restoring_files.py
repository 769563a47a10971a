"""scripts/restore.py opens a file as training does, and overwrites nothing."""

from __future__ import annotations

import importlib
import io

import numpy as np
import pytest
import torch
from made_files import DEEP, REFUSED, TRANSPARENT
from PIL import Image

from models.gan import DenoisingUNet
from models.pipeline_denoiser import DenoiserPipeline
from triptych.data.decoding import decode, to_channels
from triptych.errors import UserError

# ---- restoring -------------------------------------------------------------------------------------------


@pytest.fixture
def restore(tmp_path):
    """scripts/restore.py with a saved denoiser that finds no noise: every image comes back as it was read."""
    denoiser = DenoisingUNet(3, (4, 4), layers_per_block=1)
    torch.nn.init.zeros_(denoiser.tail.weight)
    DenoiserPipeline(denoiser).save_pretrained(tmp_path / "pipeline")
    main = importlib.import_module("restore").main
    return lambda source, output, **more: main(str(tmp_path / "pipeline"), source, output, **more)


def test_restoring_sees_what_training_sees(restore, tmp_path, capsys):
    contents = {**DEEP, **TRANSPARENT}
    (tmp_path / "in").mkdir()
    for name, content in contents.items():
        kind = Image.open(io.BytesIO(content)).format.lower()
        (tmp_path / f"in/{name}.{ {'jpeg2000': 'jp2', 'ppm': 'pgm'}.get(kind, kind) }").write_bytes(content)
    Image.new("RGB", (2, 2), (9, 8, 7)).save(tmp_path / "in/a.avif", quality=100)
    (tmp_path / "in/._a.png").write_bytes(b"what macOS leaves")
    (tmp_path / "in/Thumbs.db").write_bytes(b"what Windows leaves")
    restore(tmp_path / "in", tmp_path / "out")
    for name, content in contents.items():
        assert np.array_equal(decode(tmp_path / f"out/{name}.png"), to_channels(decode(content), 3)), name
    said = capsys.readouterr()
    assert f"{len(contents) + 1} of {len(contents) + 1} images restored" in said.out
    assert "passed over: 1 .db, 1 hidden" in said.err and "left out" not in said.err


def test_restoring_refuses_what_it_cannot_scale_and_overwrites_nothing(restore, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.tif").write_bytes(REFUSED["32 bits"][0])
    with pytest.raises(UserError, match="None of 1 images"):
        restore(tmp_path / "in", tmp_path / "out")
    assert "a.tif cannot be read (it holds integers of more than 8 bits" in capsys.readouterr().err
    Image.new("L", (4, 4), 9).save(tmp_path / "in/b.png")
    with pytest.raises(UserError, match="one of the originals"):
        restore(tmp_path / "in", tmp_path / "in", overwrite=True)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="is no folder"):
        restore(tmp_path / "in", tmp_path / "file")
    with pytest.raises(UserError, match=r"file/out.*cannot be written"):
        restore(tmp_path / "in", tmp_path / "file/out")
