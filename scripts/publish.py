"""Publish a finished run, a saved pipeline, a judge or a metric on the Hugging Face Hub, card and scores included.

    hf auth login
    python scripts/publish.py runs/vae_mnist_z2 you/vae-mnist-z2 --dataset ylecun/mnist

Add --dry_run to see the folder first. Interrupted, the command can be repeated.
"""

from __future__ import annotations

from triptych.cli import command, listed

from pathlib import Path

from triptych.outputs import claim_folder
from triptych.publishing import client, staging


def main(
    source: Path,
    repo_id: str,
    dataset: str | None = None,
    scores: str = "",
    picture: Path | None = None,
    private: bool = False,
    revision: str | None = None,
    tag: str | None = None,
    commit_message: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    output: Path = Path("runs/publish"),
) -> None:
    """Publish a model or a metric.

    Args:
        source: a run (runs/<name>), the folder of a saved pipeline or classifier, or a folder of metrics/.
        repo_id: the repository, "user/name"; made if it doesn't exist.
        dataset: the Hub's id of the data, where a local copy of it was used.
        scores: files that the scoring scripts wrote, separated by commas; the run's own scores.json is found.
        picture: a sample grid; the run's last one if not given.
        private: make the repository a private one.
        revision: a branch to publish on; main if not given.
        tag: a name for this version, such as v1.0; loading with revision=<tag> gives it for ever.
        commit_message: of the commit; a plain one if not given.
        overwrite: replace other files that the repository holds (its history keeps them), or the folder of a dry run.
        dry_run: only write the folder that would be uploaded; the Hub is not asked anything.
        output: where a dry run writes it, in a folder called after the repository.
    """
    client.refuse_bad_name(repo_id)
    found = staging.find(source)
    about = {
        "repo_id": repo_id,
        "revision": revision,
        "dataset": dataset,
        "scores": [Path(part) for part in listed(scores)],
        "picture": picture,
    }
    if not dry_run:
        print("Published:", staging.publish(found, private, tag, commit_message, overwrite, **about))
        return
    folder = output / repo_id.replace("/", "--")
    claim_folder(folder, overwrite)
    staging.stage(found, folder, **about)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        print(f"{file.stat().st_size:>12,}  {file.relative_to(folder)}")
    print(folder)


if __name__ == "__main__":
    command(main)
