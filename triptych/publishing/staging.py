"""A finished run, a saved model or a metric, as the folder that its Hub repository will be."""

from __future__ import annotations

import html
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, RepoCard

from triptych.errors import UserError
from triptych.publishing import cards, client
from triptych.publishing.kinds import KINDS
from triptych.publishing.provenance import is_hub_id, name_dataset, rows_of, stage_run, without_local_paths
from triptych.publishing.results import eval_results

PICKLES = {".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"}
LIBRARIES = {"diffusers", "transformers"}  # whose components need no code of their own


@dataclass(frozen=True)
class Source:
    """What is published.

    Attributes:
        folder: where the model or metric lies.
        kind: the class that is saved there, one of ``KINDS``, or "metric".
        run: the run it came from, if that is there.
    """

    folder: Path
    kind: str
    run: Path | None = None

    @property
    def repo_type(self) -> str:
        """What the Hub calls such a repository: ``evaluate`` looks for modules among its Spaces."""
        return "space" if self.kind == "metric" else "model"


def find(path: Path) -> Source:
    """The model in a run's folder, in its own folder, or the metric in a folder of ``metrics/``.

    Raises:
        UserError: there is none, it is not finished, or others could not load it.
    """
    for folder, run in ((path, None), (path / "pipeline", path), (path / "classifier", path)):
        for name in ("model_index.json", "config.json"):
            if (folder / name).exists():
                return Source(folder, kind_of(folder, name), run)
    if (path / f"{path.resolve().name}.py").exists() and (path / "README.md").exists():
        return Source(path, "metric")
    if (path / "config.yaml").exists():
        raise UserError(f"{path} is a run that is not finished: --config {path}/config.yaml --resume latest goes on.")
    raise UserError(
        f"{path} holds nothing to publish. Give a run (runs/<name>), the folder of a saved pipeline or classifier, or "
        f"a folder of metrics/."
    )


def kind_of(folder: Path, index_name: str) -> str:
    """The class saved in `folder`, once everything that loading it takes is there.

    Raises:
        UserError: it is none of ours, its code or its weights are missing, or there are pickled weights.
    """
    try:
        index = json.loads((folder / index_name).read_text())
    except (OSError, ValueError):
        index = None
    if not isinstance(index, dict):
        raise UserError(f"{folder / index_name} is torn: nobody could load the model. Save it again.")
    name = index.get("_class_name") or index.get("architectures") or ["model of no known class"]
    # [file, class] where a pipeline brings its code, a class of diffusers, or [class] of transformers
    code, kind = (None, name) if isinstance(name, str) else (name if len(name) == 2 else (None, name[0]))
    if kind not in KINDS:
        raise UserError(f"{folder} holds a {kind}; what can be published is {', '.join(KINDS)}.")
    needed = [f"{code}.py"] if code else []
    # [file or library, class]; an optional part that isn't there has nulls, and a setting may be a list of numbers
    parts = {key: value for key, value in index.items() if isinstance(value, list) and not key.startswith("_")}
    components = {key: value for key, value in parts.items() if all(isinstance(name, str) for name in value)}
    needed += [f"{key}/{value[0]}.py" for key, value in components.items() if code and value[0] not in LIBRARIES]
    missing = [file for file in needed if not (folder / file).exists()]
    if missing or (KINDS[kind].library == "diffusers" and not code):
        raise UserError(
            f"{folder} lacks the pipeline's code ({', '.join(missing) or 'model_index.json names none'}): nobody could "
            f"load it. Save it again with the pipeline's own save_pretrained."
        )
    pickled = [str(file.relative_to(folder)) for file in folder.rglob("*") if file.suffix in PICKLES]
    if pickled or not any(folder.rglob("*.safetensors")):
        found = f"pickled weights ({', '.join(pickled)})" if pickled else "no weights"
        raise UserError(f"{folder} has {found}; weights are published as safetensors alone. Save the model again.")
    return kind


def publish(
    source: Source,
    private: bool = False,
    tag: str | None = None,
    message: str | None = None,
    overwrite: bool = False,
    **about: Any,
) -> str:
    """Publish on the Hub: rights are checked before any work, and the repository changes in one commit or not at all.

    Args:
        source: what is published.
        private, tag, message, overwrite: as for :func:`triptych.publishing.client.upload`.
        about: as for :func:`stage`, ``repo_id`` among it.

    Returns:
        The address of what was published.

    Raises:
        UserError: see :func:`stage` and :func:`triptych.publishing.client.upload`.
    """
    repo_id, revision = about["repo_id"], about.get("revision")
    client.refuse_unless_writable(repo_id, source.repo_type, private)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "upload"
        stage(source, folder, **about)
        return client.upload(folder, repo_id, source.repo_type, private, revision, tag, message, overwrite)


def stage(
    source: Source,
    folder: Path,
    repo_id: str,
    revision: str | None = None,
    dataset: str | None = None,
    scores: Sequence[Path] = (),
    picture: Path | None = None,
) -> None:
    """Write `folder`, whole or not at all, as the repository will be; nothing else is touched.

    Args:
        source: what is published.
        folder: where; what it held is replaced.
        repo_id: the repository.
        revision: the branch, if not main.
        dataset: the Hub's id of the data, where a local copy was trained and measured on.
        scores: files that the scoring scripts wrote; ``scores.json`` of the run in addition, if there is one.
        picture: a sample grid; the run's last one if not given.

    Raises:
        UserError: a file is missing, scores are of other weights, or the repository's name doesn't fit.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        if source.kind == "metric":
            if dataset or scores or picture:
                raise UserError("dataset, scores and picture are a model's; a metric has none.")
            stage_metric(source.folder, partial, repo_id)
        else:
            stage_model(source, partial, repo_id, revision, dataset, scores, picture)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def stage_model(
    source: Source,
    folder: Path,
    repo_id: str,
    revision: str | None,
    dataset: str | None,
    scores: Sequence[Path],
    picture: Path | None,
) -> None:
    """A model: its files, its run's records, its scores, a sample grid, and the card that tells of all of them."""
    shutil.copytree(source.folder, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    config, run = {}, ""
    if source.run is not None:
        config, run = stage_run(source.run, folder / "training", KINDS[source.kind].script)
        grids = sorted((source.run / "samples").glob("*.png"))
        picture = picture or (grids[-1] if grids else None)
        own = source.run / "scores.json"
        scores = [*([own] if own.exists() else []), *scores]
    if picture is not None:
        if not picture.is_file():
            raise UserError(f"picture {picture} does not exist.")
        shutil.copyfile(picture, folder / "samples.png")

    trained_on = config.get("data", {}).get("path")
    dataset = dataset or (trained_on if is_hub_id(trained_on) else None)
    rows = [row for path in scores for row in rows_of(path, source.folder)]
    results: list[EvalResult] = []
    for row in rows:
        results += eval_results(row, source.kind, name_dataset(row["data"], trained_on, dataset))
    if rows:
        shown = without_local_paths(rows[0] if len(rows) == 1 else rows)
        (folder / "scores.json").write_text(json.dumps(shown, indent=2) + "\n")

    readme = source.folder / "README.md"
    name = repo_id.split("/")[1]
    card = ModelCard(readme.read_text() if readme.exists() else cards.model_card(source.kind, name, {}))
    if dataset is not None:
        card.data.datasets = [dataset]
    if without_local_paths(trained_on) != trained_on:
        card.text = card.text.replace(trained_on, name_dataset(trained_on, trained_on, dataset)[1])
    cards.publish(card, source.kind, repo_id, revision, picture and "samples.png", run, results)
    card.save(folder / "README.md")


def stage_metric(metric: Path, folder: Path, repo_id: str) -> None:
    """An `evaluate` module as the Space that ``evaluate.load(repo_id)`` looks for: static, which costs nobody anything.

    Raises:
        UserError: the repository is not called after the module, which `evaluate` needs.
    """
    name = metric.resolve().name
    if repo_id.split("/")[1] != name:
        raise UserError(f"{repo_id}: evaluate.load looks for a file of the repository's name. Call it .../{name}.")
    shutil.copyfile(metric / f"{name}.py", folder / f"{name}.py")
    card = RepoCard((metric / "README.md").read_text())
    card.data.sdk, card.data.license = "static", "apache-2.0"
    card.text = card.text.replace(f'evaluate.load("metrics/{name}")', f'evaluate.load("{repo_id}")')
    card.save(folder / "README.md")
    title, text = html.escape(card.data.title), html.escape(card.text.strip())
    page = f'<!doctype html><meta charset="utf-8"><title>{title}</title><pre style="white-space: pre-wrap">{text}</pre>'
    (folder / "index.html").write_text(page + "\n")
