"""The numbers of the README and of docs/: tables are written from records/, sentences are held to them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from textwrap import dedent

import pytest
import yaml
from conftest import ROOT
from project.write_tables import main

from triptych.errors import UserError
from triptych.studies.numbers import Numbers, fixed, interval, over, percent

ENTRIES = yaml.safe_load((ROOT / "docs/numbers.yaml").read_text("utf-8"))
ROWS = [
    {"level": "low", "method": "mean", "n": 2000, "psnr": 30.125, "psnr_interval": 0.06},
    {"level": "low", "method": "draw", "n": 2000, "psnr": 1.0},  # measured again below
    {"level": "high", "method": "mean", "n": 2000, "psnr": 20.0, "psnr_interval": 0.004},
    {"level": "low", "method": "draw", "n": 2000, "psnr": 29.5},
]


@pytest.fixture
def copy(tmp_path) -> Path:
    """The project's documents and records."""
    shutil.copy(ROOT / "README.md", tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("images"))
    shutil.copytree(ROOT / "records", tmp_path / "records", ignore=shutil.ignore_patterns("*.png"))
    return tmp_path


@pytest.fixture
def small(tmp_path) -> Path:
    """A project of one table and one sentence."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "records/study").mkdir(parents=True)
    (tmp_path / "records/study/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "records/study/table.md").write_text("| a |\n|---|\n| 1 |\n\nOf two.\n\n| c |\n|---|\n| 3 |\n")
    (tmp_path / "docs/numbers.yaml").write_text(
        dedent("""
            tables:
              restored:
                rows: {of: study/rows.jsonl, key: method, where: {level: low}}
                columns: {"": "{{ label }}", PSNR: "{{ this | interval('psnr', 2) }}"}
            sentences:
              README.md: ["of {{ the(rows('study/rows.jsonl'), 'n') | fixed }} images"]
        """)
    )
    (tmp_path / "README.md").write_text("above\n<!-- table: restored -->\nold\n<!-- end -->\nof 2,000\nimages\n")
    return tmp_path


def documents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in [folder / "README.md", *(folder / "docs").glob("*.md")]}


# ---- what is committed ---------------------------------------------------------------------------------------


def test_the_documents_say_what_the_records_hold(copy, capsys):
    """Every table as it would be written now, and every sentence."""
    before = documents(copy)
    main(copy)
    assert documents(copy) == before == documents(ROOT)
    assert re.search(r"\d\d tables and \d\d sentences", capsys.readouterr().out)


def test_sentences_take_their_numbers_from_records():
    for sentences in ENTRIES["sentences"].values():
        assert [said for said in sentences if not re.search(r"\b(row|rows|record|found)\(", said)] == []


def test_tables_show_the_intervals_that_records_have():
    """Where a table shows a score whose interval is in the record, the cell shows it too."""
    numbers = Numbers(ROOT / "records")
    checked = 0
    for name, table in ENTRIES["tables"].items():
        cells = [table["cell"]] if "cell" in table else [*table.get("columns", {}).values()]
        if not cells or isinstance(table["rows"], list):
            continue
        rows = numbers.rows(table["rows"]["of"], **table["rows"].get("where", {}))
        scores = {key.removesuffix("_interval") for row in rows for key in row if key.endswith("_interval")}
        for cell in cells:
            shown = set(re.findall(r"[a-z_]+", cell)) & (scores - {"nearer_than_most"})  # a count, not an estimate
            assert not shown or re.search(r"\| (interval|percent)\(", cell), (name, cell)
            checked += bool(shown)
    assert checked > 40


@pytest.mark.parametrize(
    ("document", "written", "falsified"),
    [
        ("README.md", "29.13 ± 0.06", "29.31 ± 0.06"),
        ("docs/vae.md", "| 6.77 ± 0.03 |", "| 6.77 ± 0.30 |"),
        ("docs/sampling.md", "| 9.91 ± 1.27 | 0.0743 |", "| 9.91 ± 1.27 | 0.0734 |"),
        ("docs/denoising.md", "71, 68 and 64 % lower", "71, 78 and 64 % lower"),
    ],
)
def test_a_falsified_number_of_a_table_is_put_right(copy, document, written, falsified):
    before = documents(copy)
    text = (copy / document).read_text("utf-8")
    assert text.count(written) == 1
    (copy / document).write_text(text.replace(written, falsified), "utf-8")
    main(copy)
    assert documents(copy) == before


@pytest.mark.parametrize(
    ("document", "written", "falsified"),
    [
        ("docs/denoising.md", "+0.81 ± 0.05,", "+0.91 ± 0.05,"),
        ("docs/judging.md", "99.6 % of MNIST", "99.7 % of MNIST"),
        ("docs/diffusion.md", "196.6 epochs", "195.6 epochs"),
    ],
)
def test_a_falsified_number_of_a_sentence_is_named(copy, document, written, falsified):
    text = (copy / document).read_text("utf-8")
    assert text.count(written) == 1
    (copy / document).write_text(text.replace(written, falsified), "utf-8")
    with pytest.raises(UserError) as refused:
        main(copy)
    should, says = re.split(r", and says ", str(refused.value))
    assert document in should and written in should and falsified in says
    assert falsified in (copy / document).read_text("utf-8"), "prose is left to its author"


def test_another_measurement_changes_tables_and_is_missed_in_sentences(copy):
    """A network restored better: its rows everywhere follow, and what is said of it is named."""
    path = copy / "records/denoising/rows.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    (gan,) = (row for row in rows if (row["method"], row["level"]) == ("GAN", "sigma 25"))
    with path.open("a") as file:
        file.write(json.dumps(gan | {"psnr": 29.205, "n": 1999, "seconds_per_image": 0.9}) + "\n")
    with pytest.raises(UserError, match=r"the networks .* milliseconds on one thread"):
        main(copy)
    assert "PSNR 29.21 ± 0.06 dB at sigma 25 (1,999)" in (copy / "README.md").read_text("utf-8")
    text = (copy / "docs/denoising.md").read_text("utf-8")
    assert "| GAN | 1,999 | 29.21 ± 0.06 |" in text and "0.21, 0.17 and 0.37 dB below it" in text


# ---- how it is written ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_what_is_outside_stays_byte_for_byte(small, ending):
    above, below = "  *a*\t \x0c  |odd|", "- of 2,000   images: ± 1\n\n\nno end of line"
    lines = [above, "", "  <!-- table: restored -->", "anything", "", "<!-- end --> ", *below.split("\n")]
    (small / "README.md").write_bytes(ending.join(lines).encode())
    main(small)
    table = ["|  | PSNR |", "|---|---|", "| mean | 30.13 ± 0.06 |", "| draw | 29.50 |"]
    assert (small / "README.md").read_bytes() == ending.join([*lines[:3], *table, *lines[5:]]).encode()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a\n<!-- table: restord -->\n<!-- end -->\n", r"README.md, line 2: table 'restord' .* mean restored\?"),
        ("a\n\n<!-- table: restored -->\nb\n", "README.md, line 3: table 'restored' is not closed"),
        (
            "<!-- table: restored -->\nb\n<!-- table: restored -->\n<!-- end -->\n",
            "README.md, line 1: table 'restored' is not closed before .*README.md, line 3",
        ),
        ("a\nb\nc\n<!-- end -->\n", "README.md, line 4: '<!-- end -->' closes no table"),
        ("a\n", "numbers.yaml: no document shows restored"),
    ],
)
def test_marks_that_do_not_fit_are_refused_with_file_and_line(small, text, said):
    (small / "README.md").write_text(text)
    with pytest.raises(UserError, match=said):
        main(small)
    assert (small / "README.md").read_text() == text


def test_a_missing_record_is_refused_with_the_place_and_what_makes_it(copy):
    (copy / "records/memorising/rows.jsonl").unlink()
    before = documents(copy)
    place = r"sampling.md, line \d+: table 'memorising': .*memorising/rows.jsonl is not there. It is made by: python "
    with pytest.raises(UserError, match=place + "scripts/studies/memorising.py"):
        main(copy)
    assert documents(copy) == before


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"rows": []}, "it has rows; a table has rows and columns; rows and cell; lines and head; of and number"),
        ({"of": "study/table.md", "number": 3}, "it has 2 tables, and none is number 3"),
        ({"head": ["a"], "lines": [["{{ row('study/rows.jsonl', level='none').n }}"]]}, "no row has level 'none'"),
        ({"head": ["a"], "lines": [["{{ record('study/rows.jsonl')[0].x }}"]]}, "no attribute 'x'"),
        ({"head": ["a"], "lines": [["{{ row('study/rows.jsonl') | interval('x', 1) }}"]]}, "a row has no 'x'"),
        ({"head": ["a"], "lines": [["{{ the(rows('study/rows.jsonl'), 'psnr') }}"]]}, "several values of 'psnr'"),
        ({"head": ["a"], "lines": [["{{ found('study/rows.jsonl', 'no such') }}"]]}, "nothing there fits 'no such'"),
        ({"head": ["a"], "lines": [["{{ 1 / 0 }}"]]}, "can't be filled in: division by zero"),
        ({"head": ["a"], "lines": [["{{ 1"]]}, "can't be filled in"),
        ({"rows": {"of": "study/rows.jsonl", "key": "method", "shown": {"GAN": "GAN"}}, "cell": ""}, "has method GAN"),
        ({"rows": {"of": "study/rows.jsonl", "key": "metod"}, "columns": {}}, "a row has no 'metod'"),
        ({"rows": {"off": "study/rows.jsonl", "key": "method"}, "columns": {}}, "its rows have off, key; they have of"),
        (
            {"rows": {"of": "study/rows.jsonl", "key": "method"}, "cell": ""},
            "its key is 'method'; with a cell it has two",
        ),
    ],
)
def test_entries_that_ask_for_what_is_not_there(small, entry, said):
    with pytest.raises(UserError, match=re.escape(said)):
        Numbers(small / "records").table(entry)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (None, "numbers.yaml is not there; --folder must name a clone"),
        ("tables: [", "numbers.yaml can't be read: while parsing"),
        ("tables: {a: {}}", "must have tables and sentences"),
    ],
)
def test_settings_that_cannot_be_used(small, settings, said):
    path = small / "docs/numbers.yaml"
    path.unlink() if settings is None else path.write_text(settings)
    with pytest.raises(UserError, match=said):
        main(small)


def test_a_sentence_of_no_document_is_refused(small):
    path = small / "docs/numbers.yaml"
    path.write_text(path.read_text().replace("README.md:", "docs/gone.md:"))
    with pytest.raises(UserError, match=r"gone\.md is not there"):
        main(small)


def test_tables_by_two_keys_by_cell_and_from_folders(small):
    """Of equal keys the row measured last counts, wherever it stands; a pair without a row is empty."""
    for name, value in (("b", 0.25), ("a", 0.9625)):
        (small / "records/study" / name).mkdir()
        (small / "records/study" / name / "scores.json").write_text(json.dumps({"share": value, "share_interval": 0.1}))
    numbers = Numbers(small / "records")
    by_two = {"rows": {"of": "study/rows.jsonl", "key": ["method", "level"]}, "cell": "{{ psnr | fixed(1) }}"}
    assert numbers.table(by_two).splitlines() == [
        "|  | high | low |",
        "|---|---|---|",
        "| mean | 20.0 | 30.1 |",
        "| draw |  | 29.5 |",
    ]
    folders = {"of": "study/*/scores.json", "key": "folder", "shown": {"b": "second", "a": "first"}}
    columns = {"": "{{ label }}", "share": "{{ this | percent('share', 1) }}"}
    assert numbers.table({"rows": folders, "columns": columns}).splitlines()[2:] == [
        "| second | 25.0 ± 10.0 % |",
        "| first | 96.3 ± 10.0 % |",
    ]
    assert numbers.table({"of": "study/table.md", "number": 2}) == "| c |\n|---|\n| 3 |"
    by_cell = {"head": ["a", "b"], "lines": [["{{ 2 *\n 3 }}\n", "x"]]}
    assert numbers.table(by_cell) == "| a | b |\n|---|---|\n| 6 | x |"


def test_rows_of_two_judges_are_not_put_into_one_table(small):
    """Unless the table says which of them, or has a row for each."""
    path = small / "records/study/rows.jsonl"
    path.write_text("".join(json.dumps({"method": m, "judge": j}) + "\n" for m, j in (("a", "old"), ("b", "new"))))
    numbers, rows = Numbers(small / "records"), {"of": "study/rows.jsonl", "key": "method"}
    columns = {"": "{{ label }}"}
    with pytest.raises(UserError, match=r"rows differ in judge \(new, old\)"):
        numbers.table({"rows": rows, "columns": columns})
    assert numbers.table({"rows": rows | {"where": {"judge": "new"}}, "columns": columns}).endswith("|---|\n| b |")
    assert numbers.table({"rows": rows | {"key": ["method", "judge"]}, "columns": columns}).endswith("| a |\n| b |")


def test_tables_in_markdown_are_read_with_their_headings(small):
    """Several in one file, as the studies of denoising write them."""
    path = small / "records/study/table.md"
    path.write_text("### low\n\n| by | x |\n|---|---|\n| a | 1 |\n\n| class | y |\n|---|---|\n| b | 2 |\n\n### high\n")
    rows = Numbers(small / "records").rows("study/table.md", heading="low")
    assert [{k: row[k] for k in row if k not in ("folder", "heading")} for row in rows] == [
        {"by": "a", "x": "1"},
        {"class": "b", "y": "2"},
    ]


def test_numbers_are_rounded_as_people_do():
    assert [fixed(2.675, 2), fixed(0.9625, 1, 100), fixed(12345.5), fixed(-0.04, 1), fixed(-2.5)] == [
        "2.68",
        "96.3",
        "12,346",
        "0.0",
        "-3",
    ]


def test_no_interval_is_written_as_zero_that_is_none():
    assert interval({"psnr": 24.6074, "psnr_interval": 0.0049}, "psnr", 2) == "24.607 ± 0.005"
    assert interval({"psnr": 24.6074, "psnr_interval": 0.0}, "psnr", 2) == "24.61 ± 0.00"
    assert interval({"psnr": 24.6074}, "psnr", 2) == "24.61"
    assert percent({"kept": 1.0, "kept_interval": 0.0004}, "kept", 1) == "100.00 ± 0.04 %"
    assert over([{"mse": 1.0}, {"mse": 3.0}], "mse", 1) == "2.0 ± 1.4"
