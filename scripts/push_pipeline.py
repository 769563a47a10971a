"""Upload a saved pipeline, code and model card included, to the Hugging Face Hub.

hf auth login
python scripts/push_pipeline.py runs/diffusion_cifar10/pipeline you/diffusion-cifar10
"""

from __future__ import annotations

from pathlib import Path

from triptych.config import command
from triptych.export import push_folder


def main(pipeline: Path, repo_id: str, private: bool = False) -> None:
    """Upload a pipeline.

    Args:
        pipeline: folder of a saved pipeline.
        repo_id: the repository, "user/name"; made if it doesn't exist.
        private: make it a private one.
    """
    print(push_folder(pipeline, repo_id, private))


if __name__ == "__main__":
    command(main)
