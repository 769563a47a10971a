"""Quality against what it costs: the rows of several studies of samplers, by how often the network is asked.

    python scripts/figures/few_steps.py \\
        --studies teacher=runs/sampling,student=runs/sampling_of_student --output runs/few_steps

Each study is an output of scripts/studies/sampling.py, of a teacher or of one of its students (Salimans & Ho 2022). A
guided step asks twice, a student once. All must have been measured alike: by one judge, on as many images.
"""

from __future__ import annotations

from triptych.cli import command, named_folders

from pathlib import Path

from triptych.errors import UserError
from triptych.jsonl import read_rows
from triptych.outputs import claim_folder
from triptych.studies.generation import cost_chart, cost_table, newest_of_each

ALIKE = ("judge", "data", "split", "n", "seed", "dtype")


def main(
    studies: str, most_evaluations: int = 100, output: Path = Path("runs/few_steps"), overwrite: bool = False
) -> None:
    """Draw the chart and write the table.

    Args:
        studies: name=folder of studies of samplers, separated by commas.
        most_evaluations: rows that ask the network more often are left out.
        output: folder of table.md and chart.png.
        overwrite: write into an output folder that holds something.
    """
    claim_folder(output, overwrite)
    found = {}
    for name, folder in named_folders(studies, "studies").items():
        path = Path(folder) / "rows.jsonl"
        if not path.is_file():
            raise UserError(f"{path} does not exist. It is written by scripts/studies/sampling.py --output {folder}.")
        rows = read_rows(path)
        if any("evaluations" not in row for row in rows):
            raise UserError(f"{path} was written before evaluations were counted. Measure it again into a new folder.")
        if len({row["weights"] for row in rows}) > 1:
            raise UserError(f"{path} holds rows of several networks. Give each a folder of its own.")
        found[name] = [row for row in newest_of_each(rows) if row["evaluations"] <= most_evaluations]
        if not found[name]:
            raise UserError(f"most_evaluations {most_evaluations}: {path} has no row of so few.")
    for key in ALIKE:
        if len(values := {str(row[key]) for rows in found.values() for row in rows}) > 1:
            raise UserError(f"studies: they differ in {key} ({', '.join(sorted(values))}), and can't be compared.")
    output.mkdir(parents=True, exist_ok=True)
    text = cost_table(found)
    (output / "table.md").write_text(text)
    print(text, output / "table.md", cost_chart(found, output / "chart.png"), sep="\n")


if __name__ == "__main__":
    command(main)
