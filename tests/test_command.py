"""Whatever goes wrong in a script ends as one paragraph; the traceback is a file."""

from __future__ import annotations

from triptych.cli import command

import importlib
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, environment, flags, launch_command, launched

from triptych.config.vae import VaeConfig
from triptych.errors import UserError, plain

SCRIPT = """
from pathlib import Path
from triptych.cli import command
from triptych.errors import UserError

class Raises:
    def __init__(self, error): self.error = error
    def __len__(self): return 2
    def __getitem__(self, k): raise self.error

def from_worker(error):
    import torch
    list(torch.utils.data.DataLoader(Raises(error), num_workers=1))

def save_tensors(path):
    import torch
    from safetensors.torch import save_file
    save_file({"x": torch.zeros(100_000)}, path)

def main(what: str, path: str) -> None:
    {
        "value": lambda: [].index("the seventh"),
        "nothing": lambda: (_ for _ in ()).throw(AssertionError()),
        "write": lambda: Path(path).write_bytes(bytes(100_000)),
        "tensors": lambda: save_tensors(path),
        "missing": lambda: open(path),
        "ctrl-c": lambda: (_ for _ in ()).throw(KeyboardInterrupt()),
        "worker": lambda: from_worker(ValueError("bad picture 7")),
        "user's in worker": lambda: from_worker(UserError("Picture 7.png is torn. Remove it.")),
    }[what]()

command(main)
"""


@pytest.fixture
def call(tmp_path):
    script = tmp_path / "breaks.py"
    script.write_text(SCRIPT)
    (tmp_path / "temporary").mkdir()

    def call(what: str, path: Path | str = "-", limit: int | None = None, **more: str) -> subprocess.CompletedProcess:
        def small_files() -> None:
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        env = environment(TMPDIR=str(tmp_path / "temporary"), **more)
        run = [sys.executable, str(script), what, str(path)]
        return subprocess.run(run, env=env, capture_output=True, text=True, timeout=120, preexec_fn=small_files)

    return call


def test_any_exception_is_a_paragraph_and_a_file(call, tmp_path):
    for what, says in (
        ("value", "breaks.py stopped with ValueError: 'the seventh' is not in list. If"),
        ("nothing", "AssertionError: no message."),
        ("worker", "ValueError: bad picture 7."),
    ):
        done = call(what)
        assert done.returncode == 1 and says in done.stderr and "Traceback" not in done.stderr, done.stderr
        assert done.stderr.strip().count("\n") == 0, "one paragraph"
        saved = Path(re.search(r"The traceback is in (\S+\.txt)\.", done.stderr).group(1))
        assert saved.parent == tmp_path / "temporary"
        assert "Traceback (most recent call last)" in saved.read_text() and what in saved.read_text()
    shown = call("value", TRIPTYCH_TRACEBACK="1")
    assert shown.returncode == 1 and "Traceback (most recent call last)" in shown.stderr


def test_a_user_error_of_a_worker_is_told_like_any_other(call):
    done = call("user's in worker")
    assert (done.returncode, done.stderr.strip()) == (2, "error: Picture 7.png is torn. Remove it.")


def test_ctrl_c_is_one_line(call):
    done = call("ctrl-c")
    assert (done.returncode, done.stderr.strip()) == (130, "Stopped by Ctrl-C.")


@pytest.mark.parametrize("what", ["write", "tensors"])
def test_where_there_is_no_room_is_named(call, tmp_path, what):
    """The system refuses a file that grows too large as it refuses one on a full disk: it does not say which."""
    path = tmp_path / "deep" / "answer.bin"
    path.parent.mkdir()
    done = call(what, path, limit=20_000)
    assert done.returncode == 1 and f"at {path}. Make room" in done.stderr and "Traceback" not in done.stderr


def test_what_cannot_be_opened_is_named(call, tmp_path):
    (tmp_path / "file").touch()
    for path, says in ((tmp_path / "none", "No such file"), (tmp_path / "file/x", "Not a directory")):
        done = call("missing", path)
        assert done.returncode == 1 and says in done.stderr and str(path) in done.stderr
        assert "Traceback" not in done.stderr


def test_each_process_of_a_launch_tells(call, tmp_path):
    launch = launch_command("--multi_gpu", "--num_processes", "2", script=tmp_path / "breaks.py")
    done = launched([*launch, "value", "-"], tmp_path)
    assert done.returncode != 0 and done.stderr.count("breaks.py stopped with ValueError") >= 1
    assert "Traceback (most recent call last)" not in done.stderr.split("ChildFailedError")[0].split("torch/dist")[0]


@pytest.mark.parametrize("content", ["", "\0\0\0\0", "name: x\nrun: {", "- 1\n", "\ufeff", "just words"], ids=range(6))
def test_a_config_that_is_no_config_is_named(monkeypatch, capsys, tmp_path, content):
    path = tmp_path / "config.yaml"
    path.write_text(content)
    for arguments in (["--config", str(path)], [f"--config={path}"]):
        monkeypatch.setattr(sys, "argv", ["train_vae.py", *arguments])
        with pytest.raises(SystemExit) as left:
            command(lambda config: pytest.fail("trained with the defaults"), VaeConfig)
        said = capsys.readouterr().err
        assert left.value.code == 2 and str(path) in said and "cannot be read as settings" in said


# ---- the project's own scripts --------------------------------------------------------------------


def run_script(monkeypatch, capsys, name: str, *arguments: object) -> tuple[int, str]:
    module = importlib.import_module(name)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        command(module.main)
    return left.value.code, capsys.readouterr().err


def test_scripts_tell_what_they_cannot_read(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    garbage = tmp_path / "garbage"
    garbage.mkdir()
    for name in ("model_index.json", "config.json", "config.yaml", "run.json", "log.jsonl", "scores.json"):
        (garbage / name).write_bytes(b"\0\xff\0")
    for name, *arguments in (
        ("generate", garbage, "out"),
        ("figures.curves", garbage),
        ("publish", garbage, "user/name"),
        ("export_pipeline", garbage, "out"),
        ("score", garbage),
    ):
        code, said = run_script(monkeypatch, capsys, name, *arguments)
        assert code in (1, 2) and "error: " in said and "Traceback" not in said, (name, said)


@pytest.mark.parametrize("content", [b"\0\xff\0", b"[1]\n", b'"x"\n{}\n', b"\0\0\0\n", b'{"update": 3}\n{"upda\n{}\n'])
def test_a_log_that_holds_no_rows_is_named(monkeypatch, capsys, tmp_path, content):
    (tmp_path / "log.jsonl").write_bytes(content)
    code, said = run_script(monkeypatch, capsys, "figures.curves", tmp_path)
    assert code == 2 and f"{tmp_path / 'log.jsonl'}" in said and "copy" in said


def test_a_crash_in_training_says_what_is_kept(tmp_path):
    """The traceback lies in the run's folder, and the paragraph names the checkpoint that is kept."""
    script = tmp_path / "crashes.py"
    script.write_text(
        "import runpy, triptych.training.run as r; o = r.Run.randn\n"
        "def randn(self, *s): return o(self, *s) if self.update < 6 else 1 / 0\n"
        f"r.Run.randn = randn\nrunpy.run_path({str(ROOT / 'scripts/train_diffusion.py')!r}, run_name='__main__')\n"
    )
    run = [sys.executable, str(script), *flags(name="crash")]
    done = launched(run, tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "in main (scripts/train_diffusion.py, line" in done.stderr and "ZeroDivisionError" in done.stderr
    assert "runs/crash/checkpoints/update_00000004 is kept; --resume latest" in done.stderr
    (saved,) = (tmp_path / "runs/crash").glob("traceback_*.txt")
    assert "ZeroDivisionError" in saved.read_text()


def test_ctrl_c_before_training_is_one_line(tmp_path):
    """While the images are read there is nothing to save."""
    script = tmp_path / "slow.py"
    script.write_text(
        "import runpy, time, triptych.data.sources as d\n"
        "def load(*a, **k): print('reading', flush=True); time.sleep(60)\n"
        f"d.load_images = load\nrunpy.run_path({str(ROOT / 'scripts/train_vae.py')!r}, run_name='__main__')\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script)], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout.readline() == b"reading\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and b"Stopped by Ctrl-C." in said and b"Traceback" not in said


def test_plain_text_of_an_exception():
    assert plain(ValueError("a\n  b")) == "a b"
    assert plain(UserError("a\nb")) == "a\nb", "as it was written"
    worker = "Caught OSError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File x\n"
    assert plain(OSError(f"{worker}PIL.UnidentifiedImageError: cannot\nidentify")) == "cannot identify"
