"""The folder of a training run: what may be written there, and the record of what wrote it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from pathlib import Path
from typing import Any

from triptych.config import ExperimentConfig, UserError, flatten, read_yaml, to_dict, write_yaml

# What is learned must stay when a run is resumed; bookkeeping, and how a step's images are shared out, may change.
FREE = {"resume", "batch_size", "data.path", "data.num_workers", "data.memory_limit_mb"}
# A branch, which goes on from another run's checkpoint, may also end in another way and draw with other settings.
FREE_OF_A_BRANCH = {
    "name",
    "num_updates",
    "optimizer.lr_schedule",
    "optimizer.num_decay_updates",
    "power_averages.snapshot_every",
    "sampling",
}


def refuse_unless_fits(folder: Path, config: ExperimentConfig) -> None:
    """Nothing is overwritten: a new run needs a new folder, a resumed one a folder that `config` fits.

    Raises:
        UserError: `folder` holds another run, one that was started with other settings, or something else; or nothing
            where there should be something to resume; or the checkpoint is one of a run that `config` cannot branch
            from.
    """
    saved, trunk = folder / "config.yaml", trunk_of(folder, config.resume)
    if saved.exists() and config.resume is None:
        raise UserError(
            f"{folder} already holds a run, and nothing of it is overwritten. Continue it with --resume latest, or "
            f"choose another --name."
        )
    if saved.exists():
        _refuse_unless_compatible(folder, config, FREE)
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(
            f"{folder} exists and is not a training run; nothing is written there. Choose another --name or "
            f"--run.output_dir."
        )
    elif trunk is not None:
        _refuse_unless_compatible(trunk, config, FREE | FREE_OF_A_BRANCH)
    elif config.resume not in (None, "latest"):
        raise UserError(f"--resume {config.resume}: {folder} holds no run to resume.")


def trunk_of(folder: Path, resume: str | None) -> Path | None:
    """The run, other than `folder`, to which the checkpoint `resume` belongs, if there is one."""
    if resume in (None, "latest"):
        return None
    run = Path(resume).resolve().parent.parent
    return run if (run / "config.yaml").exists() and run != folder.resolve() else None


def begin_branch(folder: Path, trunk: Path, checkpoint: str) -> None:
    """Give a new run what its trunk logged, and a record of the checkpoint it goes on from."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {"kind": json.loads((trunk / "run.json").read_text())["kind"], "sessions": []}
    _write_json(folder / "run.json", record | {"branched_from": str(Path(checkpoint).resolve())})
    shutil.copyfile(trunk / "log.jsonl", folder / "log.jsonl")


def branched_from(folder: Path) -> str | None:
    """The checkpoint of another run that the run in `folder` began with, if it is a branch."""
    path = folder / "run.json"
    return json.loads(path.read_text()).get("branched_from") if path.exists() else None


def _refuse_unless_compatible(folder: Path, config: ExperimentConfig, free: set[str]) -> None:
    kind = _read_record(folder, config)["kind"]
    if kind != type(config).__name__:
        raise UserError(f"{folder} holds a run of {kind}, not of {type(config).__name__}. Choose another --name.")
    # What a setting was before there was one is what it is by default.
    old, new = _defaults(config) | flatten(read_yaml(folder / "config.yaml")), flatten(to_dict(config))
    free = free | {"run"} | ({"num_updates"} if config.optimizer.lr_schedule == "constant" else set())
    parts = tuple(f"{key}." for key in free)
    keys = [key for key in {*old, *new} - free if not key.startswith(parts) and old.get(key) != new.get(key)]
    if keys:
        rows = "; ".join(f"{key}: {old.get(key)} -> {new.get(key)}" for key in sorted(keys))
        raise UserError(
            f"{folder} was started with other settings ({rows}). Resume it with its own "
            f"(--config {folder / 'config.yaml'} --resume latest), or start another --name."
        )


def _defaults(config: ExperimentConfig) -> dict[str, Any]:
    values = {
        field.name: field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        for field in dataclasses.fields(config)
    }
    return flatten({key: to_dict(v) if dataclasses.is_dataclass(v) else v for key, v in values.items()})


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
    _write_json(folder / "run.json", record)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    partial.replace(path)


def _read_record(folder: Path, config: ExperimentConfig) -> dict[str, Any]:
    path = folder / "run.json"
    return json.loads(path.read_text()) if path.exists() else {"kind": type(config).__name__, "sessions": []}
