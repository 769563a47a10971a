"""The records that the report reads: how they are collected, and by which commands they are made."""

from __future__ import annotations

from triptych.cli import in_full

import importlib.util
import json
import re
import shlex
from pathlib import Path
from typing import get_type_hints

import jsonargparse
import pytest
from conftest import ROOT
from project.collect_records import main as collect_records
from report_text import (
    RECORDS,
)

from triptych.errors import UserError
from triptych.studies.records import known_studies


def test_collecting_copies_records_and_no_weights(tmp_path):
    run = tmp_path / "runs/noise_study/base"
    (run / "checkpoints").mkdir(parents=True)
    for name in ("scores.json", "config.yaml", "model.safetensors", "checkpoints/state.json"):
        (run / name).write_text("{}")
    (run.parent / "table.md").write_text("| a |")
    collect_records(tmp_path / "runs", output=tmp_path / "records")
    kept = sorted(str(path.relative_to(tmp_path / "records")) for path in (tmp_path / "records").rglob("*.*"))
    assert kept[:3] == ["noise_study/base/config.yaml", "noise_study/base/scores.json", "noise_study/table.md"]
    assert kept[3:] == ["studies.json"] and json.loads((tmp_path / "records/studies.json").read_text()) == [
        "noise_study"
    ]
    with pytest.raises(UserError, match="overwrite"):
        collect_records(tmp_path / "runs", output=tmp_path / "records")
    (run / "scores.json").unlink()
    elsewhere = f"noise_study={tmp_path / 'runs/noise_study'}"
    collect_records(Path("nowhere"), elsewhere, tmp_path / "records", overwrite=True)
    assert not (tmp_path / "records/noise_study/base/scores.json").exists()


def test_collecting_what_is_not_there(tmp_path):
    with pytest.raises(UserError, match="no study is there"):
        collect_records(tmp_path, output=tmp_path / "records")
    with pytest.raises(UserError, match=r"studies/sampling\.py"):
        collect_records(tmp_path, "sampling", tmp_path / "records")
    with pytest.raises(UserError, match="smapling"):
        collect_records(tmp_path, "smapling", tmp_path / "records")


@pytest.mark.parametrize("study", known_studies())
def test_the_command_of_a_study_is_understood_and_makes_its_folder(study, monkeypatch):
    """Every flag and value is one that the script knows, as it is copied from a message to a shell."""
    monkeypatch.chdir(ROOT)
    words = shlex.split(known_studies()[study].command)
    (at,) = (i for i, word in enumerate(words) if word.startswith("scripts/"))
    main = importlib.import_module(words[at].removeprefix("scripts/").removesuffix(".py").replace("/", ".")).main
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action=jsonargparse.ActionConfigFile)
    if words[at].startswith("scripts/train_"):
        parser.add_class_arguments(get_type_hints(main)["config"])
    else:
        parser.add_function_arguments(main, as_positional=True)
    given = parser.parse_args(in_full(parser, words[at + 1 :]))
    folder = Path(given.run.output_dir, given.name) if "run" in given else Path(given.output)
    assert Path("runs", study) in (folder, folder.parent)
    named = given.as_dict().get("experiment") or given.as_dict().get("pipeline")
    made = {f"runs/{study}/pipeline" for study in known_studies()}  # by another's command
    assert named is None or Path(named).exists() or named in made


@pytest.mark.parametrize("path", sorted(RECORDS.rglob("*.*")), ids=lambda path: str(path.relative_to(RECORDS)))
def test_records_are_small_and_name_no_machine(path):
    assert path.stat().st_size < 1_500_000
    if path.suffix in (".json", ".jsonl", ".yaml", ".md"):
        assert not re.search(r"(?<![\w.])/(?:home|root|work|tmp|mnt|Users)/", path.read_text("utf-8"))
