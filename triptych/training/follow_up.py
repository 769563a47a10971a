"""What a training ends with: what it has made, and the commands that one would want next."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline

from triptych.config.base import DataConfig, read_yaml, to_dict
from triptych.config.training import ExperimentConfig
from triptych.data.image_set import ImageSet
from triptych.paths import is_checkout, project_path
from triptych.pipelines.store import classes_of
from triptych.publishing.kinds import KINDS
from triptych.training.run import Run

COUNT = 2  # commands that are told
# What another command's data need not say: what it splits, and how this machine reads it.
OF_THE_MACHINE = ("split", "memory_limit_mb", "num_workers")


def tell(run: Run, model: Path, kind: str, pipeline: DiffusionPipeline | None = None) -> None:
    """Print what `run` has made, and the first commands of its kind that are possible here.

    Args:
        run: all its updates done.
        model: the folder that was saved.
        kind: the class in it, one of :data:`triptych.publishing.kinds.KINDS`.
        pipeline: what was saved, if it is one.
    """
    made = {"samples": run.folder / "samples", "curves": run.folder / "curves.png"}
    beside = ", ".join(f"{name} in {path}" for name, path in made.items() if path.exists())
    minutes = f"{run.seconds / 60:.1f} minutes of training"
    print(f"Saved the {model.name} to {model} after {minutes}{'; ' if beside else ''}{beside}.")
    known = blanks(run.config, run.folder, model, run.images, pipeline)
    possible = [command for command in (fill(line, known) for line in KINDS[kind].next) if command is not None]
    print("\n".join(["What one may want next:", *(f"  {command}" for command in possible[:COUNT])]))


def fill(line: str, known: dict[str, str | list[str] | None]) -> str | None:
    """A command as it is typed here.

    Args:
        line: a script of ``scripts/`` and its arguments, with blanks such as {model}.
        known: what stands for them; a list for several arguments.

    Returns:
        None if something is not known.
    """
    script, *parts = shlex.split(line)
    arguments: list[str] = []
    for part in parts:
        asked = [name for name in known if f"{{{name}}}" in part]
        if any(known[name] is None for name in asked):
            return None
        several = known[asked[0]] if asked else None
        arguments += several if isinstance(several, list) else [part.format(**known)]
    return shlex.join([*start_of(script), *arguments])


def start_of(script: str) -> list[str]:
    """What starts a script from the working directory: ``python scripts/x.py``, or ``triptych x`` where installed."""
    if not is_checkout():
        installed = found_beside("triptych")
        words = script.removesuffix(".py").replace("_", "-").split("/")
        return [*([installed] if installed else [from_here(Path(sys.executable)), "-m", "triptych"]), *words]
    return [found_beside("python") or from_here(Path(sys.executable)), from_here(project_path("scripts", script))]


def found_beside(name: str) -> str | None:
    """`name`, if typing it starts what lies beside this interpreter."""
    found = shutil.which(name)
    return name if found and Path(found).parent == Path(sys.executable).parent else None


def from_here(path: Path) -> str:
    """`path` without what leads to the working directory."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def blanks(
    config: ExperimentConfig, folder: Path, model: Path, images: ImageSet, pipeline: DiffusionPipeline | None
) -> dict[str, str | list[str] | None]:
    """What the commands of ``publishing/templates`` may ask for, None where there is no such thing.

    ``run``, ``model``, ``name``; ``data``, the flags that lead to the data; ``seen``, to the split that was trained on;
    ``held_out``, to another, ``labelled`` if it has classes; ``split`` and ``test``, their names; ``noise`` of images
    of one size, ``any_noise`` of any; ``steps`` and ``scheduler`` of the pipeline; ``judge``, a classifier of this
    data, and ``judged``, a pipeline that draws such images.
    """
    default = to_dict(DataConfig())
    of_data = {key: value for key, value in to_dict(config.data).items() if key not in OF_THE_MACHINE}
    data = as_flags({f"data.{key}": value for key, value in of_data.items() if key == "path" or value != default[key]})
    test = next(
        (split for split in ("test", "validation") if split in images.splits and split != config.data.split), None
    )
    held_out = [*data, "--data.split", test] if test else None
    noise = noise_flags(config)
    settings = getattr(pipeline, "config", {})
    return {
        "run": str(folder),
        "model": str(model),
        "name": config.name,
        "data": data,
        "seen": [*data, "--data.split", config.data.split],
        "held_out": held_out,
        "labelled": held_out if images.has_labels else None,
        "split": config.data.split,
        "test": test,
        "noise": None if getattr(config, "crop_size", None) else noise,
        "any_noise": noise,
        "steps": str(settings["num_inference_steps"]) if "num_inference_steps" in settings else None,
        "scheduler": type(pipeline.scheduler).__name__ if hasattr(pipeline, "scheduler") else None,
        "judge": find_alike(config, images, "classifier", "judge"),
        "judged": find_alike(config, images, "pipeline", "class-conditional"),
    }


def as_flags(settings: dict[str, Any]) -> list[str]:
    """Settings as they are typed, lists in brackets: of an optional group such as ``noise`` nothing else is read."""

    def typed(value: Any) -> str:
        return f"[{','.join(map(typed, value))}]" if isinstance(value, list) else str(value)

    return [part for key, value in settings.items() for part in (f"--{key}", typed(value))]


def noise_flags(config: ExperimentConfig) -> list[str] | None:
    """Of the degradation that is undone; None for a training that undoes none."""
    if not hasattr(config, "noise") or not hasattr(config, "paired"):
        return None
    if config.paired:
        return ["--paired"]
    default = to_dict(type(config.noise)())
    chosen = {key: value for key, value in to_dict(config.noise).items() if key == "kinds" or value != default[key]}
    return as_flags({f"noise.{key}": value for key, value in chosen.items()}) + ["--any_size"] * bool(config.crop_size)


def find_alike(config: ExperimentConfig, images: ImageSet, part: str, shipped: str) -> str | None:
    """A model of these images, by name and class: of a run beside this one, the newest, or else one that is shipped.

    Args:
        config: what is trained here, and on what.
        images: these.
        part: the folder of such a model in a run.
        shipped: what the names of those in ``pretrained/`` say.
    """
    beside = Path(config.run.output_dir).glob(f"*/{part}")
    for model in sorted(beside, key=lambda folder: folder.stat().st_mtime, reverse=True):
        try:
            data = read_yaml(model.parent / "config.yaml")["data"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        alike = all(data.get(key) == getattr(config.data, key) for key in ("path", "image_size", "channels"))
        if alike and classes_of(model) == images.class_names:
            return str(model)
    name = Path(config.data.path).name.lower()
    for model in sorted(project_path("pretrained").glob(f"*{shipped}*")):
        if name in model.name.split("-") and classes_of(model) == images.class_names:
            return from_here(model)
    return None
