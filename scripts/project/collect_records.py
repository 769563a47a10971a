"""Copy what finished studies wrote from the folder of runs to records/, which the report is built from.

    python scripts/project/collect_records.py
    python scripts/project/collect_records.py --studies sampling,denoising --runs /scratch/runs --overwrite

Files are copied as they are: settings, logs, measurements, charts; no weights and no checkpoints.
"""

from __future__ import annotations

from triptych.cli import command, listed

import shutil
from pathlib import Path

from triptych.errors import UserError
from triptych.studies.records import collect, known_studies


def main(
    runs: Path = Path("runs"), studies: str | None = None, output: Path = Path("records"), overwrite: bool = False
) -> None:
    """Copy records.

    Args:
        runs: the folder of runs; a study lies in the folder of its name.
        studies: names of the studies to copy, separated by commas; those that are there if not given. Where one lies
            elsewhere: name=folder.
        output: the folder of records.
        overwrite: replace the records of a study that has some already.
    """
    known, wanted = known_studies(), {}
    for part in listed(studies):
        name, _, folder = part.partition("=")
        wanted[name] = Path(folder) if folder else runs / name
    wanted = wanted or {name: runs / name for name in known if (runs / name).is_dir()}
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise UserError(f"studies: {', '.join(unknown)} is not among: {', '.join(known)}.")
    if not wanted:
        raise UserError(f"runs {runs}: no study is there; they lie in folders named {', '.join(known)}.")
    for name, folder in wanted.items():
        if not folder.is_dir():
            raise UserError(f"{folder} does not exist. The study is made by: {known[name].command}")
        if (output / name).exists() and not overwrite:
            raise UserError(f"{output / name} is there already. Say --overwrite to replace it.")
    for name, folder in wanted.items():
        shutil.rmtree(output / name, ignore_errors=True)
        copies = collect(name, folder, output)
        size = sum(path.stat().st_size for path in copies)
        print(f"{output / name}: {len(copies)} files, {size / 1000:,.0f} kB")


if __name__ == "__main__":
    command(main)
