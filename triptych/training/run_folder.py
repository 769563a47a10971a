"""The folder of a training run: what may be written there, and the record of what wrote it."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from triptych.config.base import flatten, read_yaml, to_dict, write_yaml
from triptych.config.training import ExperimentConfig
from triptych.errors import UserError
from triptych.outputs import why_unwritable
from triptych.training import checkpoints

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None
# What says what a run is; every checkpoint holds a copy of both.
RECORDS = ("config.yaml", "run.json")
# What is learned must stay when a run is resumed; bookkeeping, and how a step's images are shared out, may change.
# The name is the folder's, which may be renamed.
FREE = {"name", "resume", "batch_size", "data.path", "data.num_workers", "data.memory_limit_mb"}
# A branch, which goes on from another run's checkpoint, may also learn more gently, end in another way and draw with
# other settings.
FREE_OF_A_BRANCH = {
    "num_updates",
    "optimizer.lr",
    "optimizer.muon_lr",
    "optimizer.max_grad_norm",
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
    is_run, trunk = holds_run(folder), trunk_of(folder, config.resume)
    if is_run and config.resume is None:
        raise UserError(
            f"{folder} already holds a run, and nothing of it is overwritten. Continue it with --resume latest, or "
            f"choose another --name."
        )
    if is_run:
        _refuse_unless_compatible(folder, config, FREE)
    elif folder.exists() and not (folder.is_dir() and {path.name for path in folder.iterdir()} <= {LOCK}):
        raise UserError(
            f"{folder} exists and is not a training run; nothing is written there. Choose another --name or "
            f"--run.output_dir."
        )
    elif trunk is not None:
        _refuse_unless_compatible(trunk, config, FREE | FREE_OF_A_BRANCH)
    elif config.resume not in (None, "latest"):
        raise UserError(
            f"--resume {config.resume}: {folder} holds no run to resume, and {config.resume} is no checkpoint of "
            f"another run to branch off from (there would be a config.yaml in it)."
        )


def holds_run(folder: Path) -> bool:
    """Whether there is a training run in `folder`, however torn."""
    return any((folder / name).exists() for name in RECORDS) or bool(checkpoints.listed(folder / "checkpoints"))


def refuse_unless_writable(folder: Path) -> None:
    """Find out before any work whether `folder`, or the folders that lead to it, can be made and written.

    Raises:
        UserError: they can't; the message names the place.
    """
    if fault := why_unwritable(folder):
        raise UserError(
            f"{folder} cannot be written: {fault}. Choose another --run.output_dir or --name, or mend that."
        )


# Held by this process, until it ends: the file of each run that it trains. The operating system lets go of a lock
# with the process, however that ends.
_locks: dict[Path, int] = {}
# This file is appended to and never replaced, so it can be held; in a folder of its own a lock would be left behind.
LOCK = "timing.jsonl"


def lock(folder: Path) -> None:
    """Let no other process train the run in `folder`, as long as this one lives or until :func:`unlock`.

    Raises:
        UserError: another process trains it.
    """
    if fcntl is None:
        print(f"note: no locks on this system; see to it that nothing else trains {folder}.", file=sys.stderr)
        return
    unlock(folder)  # of an earlier training in this process, a notebook's say
    held = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            os.close(held)
            raise UserError(
                f"{folder} is being trained by another process. Wait until that ends, or end it; then --resume latest "
                f"goes on. To train something else beside it, choose another --name."
            ) from None
        print(f"note: no locks at {folder} ({error.strerror}); see that nothing else trains it.", file=sys.stderr)
    _locks[folder.resolve()] = held


def unlock(folder: Path) -> None:
    """Let other processes train the run in `folder`."""
    held = _locks.pop(folder.resolve(), None)
    if held is not None:
        os.close(held)


def _forget_locks() -> None:
    """In a loader's process, which would keep them for as long as it outlives a killed training."""
    while _locks:
        os.close(_locks.popitem()[1])


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)


def trunk_of(folder: Path, resume: str | None) -> Path | None:
    """The run, other than `folder`, to which the checkpoint `resume` belongs, if there is one.

    Of a checkpoint that was copied out of its run it is the checkpoint itself, which holds a copy of the run's records.
    """
    if resume in (None, "latest"):
        return None
    checkpoint = Path(resume).resolve()
    run = checkpoint.parent.parent
    if run == folder.resolve():
        return None
    return next((at for at in (run, checkpoint) if (at / "config.yaml").exists()), None)


def begin_branch(folder: Path, trunk: Path, checkpoint: str) -> None:
    """Give a new run what its trunk logged, and a record of the checkpoint it goes on from."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {"kind": _read(trunk, "run.json", say=False)[1]["kind"], "sessions": []}
    _write_json(folder / "run.json", record | {"branched_from": str(Path(checkpoint).resolve())})
    if (trunk / "log.jsonl").exists():
        shutil.copyfile(trunk / "log.jsonl", folder / "log.jsonl")


def branched_from(folder: Path) -> str | None:
    """The checkpoint of another run that the run in `folder` began with, if it is a branch."""
    return _read(folder, "run.json", say=False)[1].get("branched_from")


def first_update(folder: Path) -> int:
    """The update at which the first session of the run in `folder` began: 0, but for a branch."""
    return _read(folder, "run.json", say=False)[1]["sessions"][0]["from_update"]


def _refuse_unless_compatible(folder: Path, config: ExperimentConfig, free: set[str]) -> None:
    kind = _read_record(folder, config, say=True)["kind"]
    path, saved = _read(folder, "config.yaml", say=True)
    if not saved:
        raise UserError(_how_to_mend(path, "is missing"))
    if kind != type(config).__name__:
        raise UserError(f"{folder} holds a run of {kind}, not of {type(config).__name__}. Choose another --name.")
    # What a setting was before there was one is what it is by default.
    old, new = _defaults(config) | flatten(saved), flatten(to_dict(config))
    free = free | {"run"} | ({"num_updates"} if config.optimizer.lr_schedule == "constant" else set())
    parts = tuple(f"{key}." for key in free)
    keys = [key for key in {*old, *new} - free if not key.startswith(parts) and old.get(key) != new.get(key)]
    if keys:
        rows = "; ".join(f"{key}: {old.get(key)} -> {new.get(key)}" for key in sorted(keys))
        raise UserError(
            f"{folder} was started with other settings ({rows}). Resume it with its own "
            f"(--config {path} --resume latest), or start another --name."
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


def keep_records(folder: Path, checkpoint: Path) -> None:
    """Copy into a checkpoint what says what the run is: of a torn file in `folder` that copy is taken."""
    for name in RECORDS:
        if (folder / name).exists():
            shutil.copyfile(folder / name, checkpoint / name)


def _read_record(folder: Path, config: ExperimentConfig, say: bool = False) -> dict[str, Any]:
    return _read(folder, "run.json", say)[1] or {"kind": type(config).__name__, "sessions": []}


def _read(folder: Path, name: str, say: bool) -> tuple[Path, dict[str, Any]]:
    """One of the records of the run in `folder`, {} if it is nowhere, and the path it was read from.

    A file that is emptied, torn or gone is replaced by the copy in the newest checkpoint that holds one; with `say`,
    that is told.

    Raises:
        UserError: it is torn and there is no copy.
    """
    path = folder / name
    copies = [c / name for c in reversed(checkpoints.listed(folder / "checkpoints")) if _parse(c / name)]
    found, copy = _parse(path), _parse(copies[0]) if copies else {}
    if found and flatten(copy).keys() <= flatten(found).keys():  # a file cut at the end of a line lacks keys
        return path, found
    if not copies:
        if path.exists() and not found:
            raise UserError(_how_to_mend(path, "is empty or torn"))
        return path, found
    if say:
        state = "empty or torn" if path.exists() else "missing"
        print(f"warning: {path} is {state}; its copy {copies[0]} is taken and put in its place.", file=sys.stderr)
    return copies[0], copy


def _parse(path: Path) -> dict[str, Any]:
    """A record, {} if it is no whole one."""
    try:
        content = json.loads(path.read_text()) if path.suffix == ".json" else read_yaml(path)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    is_record = isinstance(content, dict) and (path.suffix != ".json" or {"kind", "sessions"} <= content.keys())
    return content if is_record else {}


def _how_to_mend(path: Path, problem: str) -> str:
    mend = {
        "config.yaml": f"Write it again by giving the training script the flags the run was started with and "
        f"--print_config > {path}, then resume with --config {path}",
        "run.json": "Remove it: the run then goes on with a new record, which knows nothing of its earlier sessions",
    }
    return f"{path} {problem}, and no checkpoint holds a copy. {mend[path.name]}; or start another --name."
