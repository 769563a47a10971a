"""The folder of a training run: what may be written there, and the record of what wrote it."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from triptych.config import ExperimentConfig, UserError, flatten, read_yaml, to_dict, write_yaml

# What is learned must stay when a run is resumed; bookkeeping, and how a step's images are shared out, may change.
FREE = {"resume", "batch_size", "data.path", "data.num_workers", "data.memory_limit_mb"}


def refuse_unless_fits(folder: Path, config: ExperimentConfig) -> None:
    """Nothing is overwritten: a new run needs a new folder, a resumed one a folder that `config` fits.

    Raises:
        UserError: `folder` holds another run, one that was started with other settings, or something else; or nothing
            where there should be something to resume.
    """
    saved = folder / "config.yaml"
    if saved.exists() and config.resume is None:
        raise UserError(
            f"{folder} already holds a run, and nothing of it is overwritten. Continue it with --resume latest, or "
            f"choose another --name."
        )
    if saved.exists():
        _refuse_unless_compatible(folder, read_yaml(saved), config)
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(
            f"{folder} exists and is not a training run; nothing is written there. Choose another --name or "
            f"--run.output_dir."
        )
    elif config.resume not in (None, "latest"):
        raise UserError(f"--resume {config.resume}: {folder} holds no run to resume.")


def _refuse_unless_compatible(folder: Path, saved: dict[str, Any], config: ExperimentConfig) -> None:
    kind = _read_record(folder, config)["kind"]
    if kind != type(config).__name__:
        raise UserError(f"{folder} holds a run of {kind}, not of {type(config).__name__}. Choose another --name.")
    old, new = flatten(saved), flatten(to_dict(config))
    free = FREE | ({"num_updates"} if config.optimizer.lr_schedule == "constant" else set())
    keys = [key for key in {*old, *new} - free if not key.startswith("run.") and old.get(key) != new.get(key)]
    if keys:
        rows = "; ".join(f"{key}: {old.get(key)} -> {new.get(key)}" for key in sorted(keys))
        raise UserError(
            f"{folder} was started with other settings ({rows}). Resume it with its own "
            f"(--config {folder / 'config.yaml'} --resume latest), or start another --name."
        )


def begin_session(folder: Path, config: ExperimentConfig, data: dict[str, Any], session: dict[str, Any]) -> None:
    """Write ``config.yaml``, and enter a session in ``run.json``.

    Args:
        folder: made if it isn't there.
        config: the experiment.
        data: what the images are, which must be the same in all sessions.
        session: what this one runs on and from where it goes on; the time is added.

    Raises:
        UserError: the run was started on other data.
    """
    record = _read_record(folder, config)
    if record.get("data", data) != data:
        raise UserError(
            f"{folder} was started on other data ({record['data']}); data.path {config.data.path!r} gives {data}. "
            f"Point data.path at the same data."
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_yaml(dataclasses.replace(config, resume=None), folder / "config.yaml")
    record["data"] = data
    record["sessions"].append({"started": time.strftime("%Y-%m-%d %H:%M:%S%z")} | session)
    path = folder / "run.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=2) + "\n")
    partial.replace(path)


def _read_record(folder: Path, config: ExperimentConfig) -> dict[str, Any]:
    path = folder / "run.json"
    return json.loads(path.read_text()) if path.exists() else {"kind": type(config).__name__, "sessions": []}
