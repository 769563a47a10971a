"""Where a model comes from: its run's records and scores, and the data they were measured on."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from triptych.config.base import read_yaml
from triptych.errors import UserError
from triptych.jsonl import read_rows
from triptych.pipelines.store import weights_hash
from triptych.publishing import cards
from triptych.publishing.results import shown


def stage_run(run: Path, folder: Path, script: str) -> tuple[dict[str, Any], str]:
    """Copy a run's config, record and log; returns the config, and what the records say, as Markdown."""
    folder.mkdir(exist_ok=True)
    config = read_yaml(run / "config.yaml")
    config["run"] |= {"push_to": None, "push_private": False}  # who repeats it does not publish it here
    (folder / "config.yaml").write_text(yaml.safe_dump(without_local_paths(config), sort_keys=False))
    record = json.loads((run / "run.json").read_text())
    sessions = [{key: value for key, value in s.items() if key != "arguments"} for s in record["sessions"]]
    (folder / "run.json").write_text(json.dumps(record | {"sessions": sessions}, indent=2) + "\n")
    log, timing = (read_rows(run / f"{name}.jsonl") for name in ("log", "timing"))
    facts = {
        "started": sessions[0]["started"] + (f", in {len(sessions)} sessions" if len(sessions) > 1 else ""),
        "code": " ".join(dict.fromkeys(f"commit {s['commit']}" for s in sessions if s["commit"])) or "not recorded",
        "libraries": ", ".join(f"{name} {version}" for name, version in sessions[-1]["versions"].items()),
        "images": f"{record['data']['num_images']:,} of {record['data']['image_size']} pixels",
    }
    if log:
        shutil.copyfile(run / "log.jsonl", folder / "log.jsonl")
        facts["last logged"] = ", ".join(f"{key} {shown(value)}" for key, value in log[-1].items())
    if timing:
        facts["images a second, median"] = f"{median(row['images_per_second'] for row in timing):.0f}"
        facts["peak memory, MB"] = f"{max(row['peak_memory_mb'] for row in timing):.0f}"
    files = (
        f"Every setting stands in [training/config.yaml](training/config.yaml), the log in `training/`. To repeat it, "
        f"in Triptych's checkout:\n\n```bash\naccelerate launch --config_file accelerate_config.yaml scripts/{script} "
        f"--config training/config.yaml\n```"
    )
    return config, f"{cards.table(facts)}\n\n{files}"


def rows_of(path: Path, model: Path) -> list[dict[str, Any]]:
    """What a ``scores.json`` or ``rows.jsonl`` says of the weights in the folder `model`.

    Raises:
        UserError: the file is missing or was written by something else, or speaks of other weights only.
    """
    if not path.is_file():
        raise UserError(f"scores {path} does not exist.")
    try:
        rows = read_rows(path) if path.suffix == ".jsonl" else [json.loads(path.read_text())]
        rows = [row for row in rows if {"n", "data"} <= row.keys()]
    except (ValueError, AttributeError, UserError):
        rows = []
    if not rows:
        raise UserError(f"scores {path} is no file of scores (scores.json or rows.jsonl of the scoring scripts).")
    weights = weights_hash(str(model))
    # A run's own scores may not name the weights; among the rows of several models each names its own.
    ours = [row for row in rows if row.get("weights", None if path.suffix == ".jsonl" else weights) == weights]
    if not ours:
        raise UserError(
            f"scores {path} is of other weights than {model} holds: it says nothing of this model. Score that folder "
            f"itself."
        )
    return ours


def is_hub_id(path: str | None) -> bool:
    """Whether `path` names a dataset of the Hub and not a local folder."""
    return path is not None and bool(re.fullmatch(r"[\w.-]+/[\w.-]+", path)) and not Path(path).exists()


def name_dataset(measured: str, trained_on: str | None, dataset: str | None) -> tuple[str, str]:
    """A dataset's id on the Hub, or a name, and what people call it.

    Args:
        measured: the data's path as the scores have it.
        trained_on: the training data's path, if it is known.
        dataset: the Hub's id of the training data.
    """
    if measured == "digits":
        return "digits", "digits of scikit-learn"
    if is_hub_id(measured):
        return measured, measured
    name = Path(measured).name
    if dataset is not None and trained_on in (None, dataset, measured):
        return dataset, f"{dataset}, a local copy"
    return name, f"{name}, a local copy"


def without_local_paths(tree: Any) -> Any:
    """`tree` with the paths of this machine cut down to their last part: they concern nobody else."""
    if isinstance(tree, dict):
        return {key: without_local_paths(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [without_local_paths(value) for value in tree]
    if isinstance(tree, str) and "/" in tree and (tree.startswith(("/", "~", "..")) or Path(tree).exists()):
        return Path(tree).name
    return tree
