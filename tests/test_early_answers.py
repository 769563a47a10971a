"""Help and refusals of a command line, before a script's imports; how its arguments may be typed."""

from __future__ import annotations

from triptych.cli import command

import subprocess
import sys

import pytest
from conftest import ROOT, environment, launched

EARLY = """
import contextlib, io, runpy, sys

for script in sys.argv[1:]:
    for arguments, code, text in ((["--help"], 0, "--help"), (["--overwrit_e"], 2, "unrecognized arguments")):
        sys.modules.pop("triptych.cli", None)
        sys.argv, said = [script, *arguments], io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                runpy.run_path(script, run_name="__main__")
            except SystemExit as left:
                assert left.code == code, (script, arguments, left.code, said.getvalue())
        assert text in said.getvalue(), (script, said.getvalue())
        assert "<class" not in said.getvalue(), (script, said.getvalue())
        heavy = {"torch", "diffusers", "matplotlib", "sklearn", "datasets"} & sys.modules.keys()
        assert not heavy, (script, arguments, heavy)
"""


TALKER = """
from triptych.cli import command

def main(lines: int = 9) -> None:
    \"""Print some.\"""
    for k in range(lines):
        print(k)

if __name__ == "__main__":
    command(main)
"""


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("open_for", [0, 1], ids=["closed at once", "closed after a line"])
@pytest.mark.parametrize(
    ("command", "codes"),
    [
        ([sys.executable, "-m", "triptych", "--help"], {0, 141}),
        ([sys.executable, "scripts/generate.py", "--help"], {0, 141}),  # less than what is held back for a pipe
        ([sys.executable, "scripts/train_diffusion.py", "--help"], {0, 141}),  # more
        ([sys.executable, "scripts/train_vae.py", "--print_config"], {0, 141}),
        ([sys.executable, "TALKER"], {0, 141}),
        ([sys.executable, "TALKER", "--lines", "100000"], {141}),
    ],
    ids=lambda value: " ".join(value[1:]) if isinstance(value, list) else "",
)
def test_what_is_read_no_further_ends_without_a_word(command, codes, open_for, unbuffered, tmp_path):
    """As in `triptych --help | head -1`."""
    (tmp_path / "talker.py").write_text(TALKER)
    command = [str(tmp_path / "talker.py") if word == "TALKER" else word for word in command]
    start = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    env = environment() | {"PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen(command, cwd=ROOT, env=env, **start) as process:
        for _ in range(open_for):
            process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode in codes


def test_a_script_without_an_output_runs(tmp_path):
    """As with `>&-`, where Python has no sys.stdout at all."""
    (tmp_path / "talker.py").write_text(TALKER)
    line = f"'{sys.executable}' '{tmp_path / 'talker.py'}' >&-"
    done = subprocess.run(line, shell=True, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_another_pipe_that_breaks_is_told(monkeypatch, capsys):
    def main() -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(sys, "argv", ["script.py"])
    with pytest.raises(SystemExit) as left:
        command(main)
    assert left.value.code == 1 and "Broken pipe" in capsys.readouterr().err


def test_help_and_mistakes_are_answered_before_anything_heavy_is_imported():
    scripts = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "scripts").rglob("*.py"))]
    assert len(scripts) > 25
    done = subprocess.run([sys.executable, "-c", EARLY, *scripts], cwd=ROOT, env=environment(), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("train_gan.py", ["--num_updates", "0"], "num_updates must be at least 1"),
        ("train_gan.py", ["--noise.sigma", "[3, 2]"], "noise.sigma must be a range"),
        ("generate.py", ["x", "--batch_size", "many"], "batch_size"),
        ("score.py", ["x", "--data.image_size", "1"], "data.image_size must be at least 4"),
        ("train_vae.py", ["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_what_is_refused_early_is_refused_in_the_same_words(script, arguments, message, tmp_path):
    """By the real start of a script, and by one whose first import has answered nothing."""
    said = []
    for late in (False, True):
        code = f"import sys, runpy; sys.argv = {[str(ROOT / 'scripts' / script), *arguments]!r}; "
        code += "import triptych.cli; " if late else ""  # it is imported where no script is being started
        code += "runpy.run_path(sys.argv[0], run_name='__main__')"
        done = launched([sys.executable, "-c", code], tmp_path, fresh=not late)
        assert done.returncode == 2 and message in done.stderr, done.stderr
        said.append(done.stderr)
    assert said[0] == said[1]


def given(monkeypatch, *arguments: str) -> dict:
    def main(
        folder: str,
        sizes: list[int] | None = None,
        interval: tuple[float, float] | None = None,
        names: list[str] | None = None,
        classes: list[str | int] | str | None = None,
        overwrite: bool = False,
    ) -> None:
        received.update(locals())

    received: dict = {}
    monkeypatch.setattr(sys, "argv", ["script.py", *arguments])
    command(main)
    received.pop("received", None)
    return {key: value for key, value in received.items() if value not in (None, False)}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--sizes", "5,20,50"], {"sizes": [5, 20, 50]}),
        (["--sizes", "[5, 20, 50]"], {"sizes": [5, 20, 50]}),
        (["--sizes=7"], {"sizes": [7]}),
        (["--sizes", "null"], {}),
        (["--interval", "0.3,5"], {"interval": (0.3, 5.0)}),
        (["--names", "a, b"], {"names": ["a", "b"]}),
        (["--names", '["--a", "1"]'], {"names": ["--a", "1"]}),
        (["--classes", "cat,ship"], {"classes": "cat,ship"}),
        (["--overwrite"], {"overwrite": True}),
        (["--overwrite", "--sizes", "1,2"], {"overwrite": True, "sizes": [1, 2]}),
        (["--overwrite", "true"], {"overwrite": True}),
        (["--overwrite", "false"], {}),
        (["--overwrite=False"], {}),
    ],
    ids=" ".join,
)
def test_lists_and_switches_are_typed_in_one_way(monkeypatch, arguments, expected):
    for line in (["here", *arguments], [*arguments, "here"]):
        assert given(monkeypatch, *line) == {"folder": "here"} | expected


@pytest.mark.parametrize(
    ("flag", "value", "good"),
    [
        ("--sizes", "5,many", "--sizes 5,20"),
        ("--interval", "3", "--interval 0.5,2"),
        ("--overwrite=maybe", None, "true"),
    ],
)
def test_a_bad_value_is_answered_with_a_good_one(monkeypatch, capsys, flag, value, good):
    with pytest.raises(SystemExit) as left:
        given(monkeypatch, "here", flag, *([value] if value else []))
    assert left.value.code == 2 and good in capsys.readouterr().err


@pytest.mark.parametrize(
    "end",
    [
        "if __name__ == '__main__':\n    main(sys.argv)",
        "if __name__ == '__main__':\n    run(main)",
        "main(sys.argv)",
        "if len(sys.argv) > 1:\n    print('more')\nif __name__ == '__main__':\n    main(sys.argv)\n    print('end')",
    ],
)
def test_a_program_of_somebody_s_own_is_left_alone(tmp_path, end):
    """It imports the library, has arguments of its own, and nothing of it is run twice."""
    program = tmp_path / "own.py"
    program.write_text(
        "import sys\nfrom pathlib import Path\nfrom triptych.cli import listed\n"
        "mark = Path('marks').open('a').write('x')\n"
        "def main(arguments):\n    print('mine', listed(arguments[1]))\n"
        f"def run(function):\n    function(sys.argv)\n{end}\n"
    )
    command = [sys.executable, str(program), "--sizes=1,2"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0 and "mine ['--sizes=1', '2']" in done.stdout, done.stderr
    assert (tmp_path / "marks").read_text() == "x"
