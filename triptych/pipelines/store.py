"""From a trained model to a folder that loads anywhere."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, __version__
from diffusers.utils import HF_MODULES_CACHE
from huggingface_hub.utils import WeakFileLock

from triptych.errors import UserError, plain

# what from_pretrained calls the precision: the old name makes the new ones warn
DTYPE = "dtype" if tuple(map(int, __version__.split(".")[:2])) >= (0, 40) else "torch_dtype"


def weights_hash(folder: str) -> str:
    """A hash of the weights of a saved pipeline; of a Hub id, its name."""
    files = sorted(Path(folder).rglob("*.safetensors"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest() if files else folder


def classes_of(model: Path) -> list[str] | None:
    """The names of a saved model's classes, in order; None where it has none."""
    for file in ("config.json", "model_index.json"):
        try:
            names = json.loads((model / file).read_text())["id2label"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        return [names[key] for key in sorted(names, key=int)]
    return None


def save_pipeline(pipeline: DiffusionPipeline, folder: Path, card: str) -> None:
    """Write `pipeline` and its model card to `folder`, whole or not at all."""
    save_parts([pipeline], folder, card)


def save_parts(parts: Sequence[Any], folder: Path, card: str) -> None:
    """Write all that has a ``save_pretrained``, and a model card, to one `folder`, whole or not at all.

    Raises:
        UserError: `folder` holds something else than a saved model, such as a training run; nothing of it is replaced.
    """
    saved = any((folder / name).exists() for name in ("model_index.json", "config.json"))
    if folder.exists() and not saved and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(
            f"{folder} holds something else than a saved model, and is not replaced. Choose another --output."
        )
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for part in parts:
            part.save_pretrained(partial)
        for path in partial.rglob("*config.json"):
            config = json.loads(path.read_text())
            if config.pop("_name_or_path", None) is not None:  # the folder it was loaded from concerns nobody else
                path.write_text(json.dumps(config, indent=2) + "\n")
        (partial / "README.md").write_text(card)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # an incomplete one, where something failed


def load_pipeline(folder: str, component: str | None = None, dtype: str = "float32") -> DiffusionPipeline:
    """``DiffusionPipeline.from_pretrained`` for one of our folders or a Hub id.

    The folder's own code is run, which diffusers wants to be told (``trust_remote_code=True``).

    Args:
        folder: a local folder or a Hub id.
        component: a part the caller needs, such as "vae" or "unet".
        dtype: the precision of its networks, whatever was saved: float32, bfloat16 or float16.

    Raises:
        UserError: there is no pipeline there, or it is one of another model.
    """
    path = Path(folder)
    if path.exists() and not (path / "model_index.json").exists():
        inside = path / "pipeline" / "model_index.json"
        hint = f" Did you mean {inside.parent}?" if inside.exists() else ""
        raise UserError(f"{folder} holds no pipeline (no model_index.json).{hint}")
    if not path.exists() and (folder.startswith((".", "/", "~")) or folder.count("/") != 1 or path.parent.exists()):
        raise UserError(f"{folder} does not exist. Give the folder of a saved pipeline, or a Hub id like 'user/name'.")
    try:
        # diffusers copies the folder's code to a cache and imports it there: another process must not see half a file
        modules = Path(HF_MODULES_CACHE)
        modules.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(modules / ".triptych.lock"):
            pipeline = DiffusionPipeline.from_pretrained(
                folder, trust_remote_code=True, **{DTYPE: getattr(torch, dtype)}
            )
    except Exception as error:  # diffusers raises many kinds of errors for files that are torn or something else
        raise UserError(f"{folder} could not be loaded ({type(error).__name__}): {plain(error)}") from error
    if component is not None and component not in pipeline.components:
        raise UserError(
            f"{folder} is a {type(pipeline).__name__} (parts: {', '.join(pipeline.components)}); this command needs "
            f"a pipeline with a {component}."
        )
    return pipeline


def start_from(model: Any, folder: str, component: str) -> DiffusionPipeline:
    """Give `model` the weights of the part `component` of a saved pipeline, which is returned.

    Raises:
        UserError: there is no such pipeline, or its part is of another architecture.
    """
    pipeline = load_pipeline(folder, component)
    saved = getattr(pipeline, component)

    def settings(part: Any) -> dict[str, Any]:
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in part.config.items()}  # as JSON has them
        return {key: value for key, value in plain.items() if not key.startswith("_")}

    there, here = settings(saved), settings(model)
    differ = [f"{key}: {there.get(key)} there, {here[key]} here" for key in here if there.get(key) != here[key]]
    if differ:
        raise UserError(f"{folder} has another architecture ({'; '.join(differ)}). Set these as it was trained.")
    model.load_state_dict(saved.state_dict())
    return pipeline
