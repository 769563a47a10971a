"""What a training shows, under real `accelerate launch`: its beginning, its course, its end, its errors."""

from __future__ import annotations

import ast
import io
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, environment, flags, launch_command, launched
from curve_pixels import curve_pixels
from safetensors.torch import load_file
from stand_ins import classifier_flags, gan_flags, vae_flags, write_images
from warm_start import warmed

from triptych import cli
from triptych.publishing.kinds import KINDS
from triptych.training import console, follow_up
from triptych.training.log import ScalarLog

LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(ROOT / "accelerate_config.yaml")]


TRIPTYCH = [sys.executable, "-m", "triptych"]


def launch(script: str, folder: Path, *arguments: str, fresh: bool = False) -> subprocess.CompletedProcess:
    done = launched([*launch_command(script=ROOT / f"scripts/{script}.py"), *arguments], folder, fresh=fresh)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("console")


@pytest.fixture(scope="module")
def shown(folder) -> subprocess.CompletedProcess:
    """A VAE of twelve updates, its progress shown, and validated."""
    arguments = vae_flags(name="shown", run__progress="true", validation_split="test")
    return launch("train_vae", folder, *arguments, fresh=True)


# ---- the beginning -------------------------------------------------------------------------------


def test_six_lines_say_what_begins(shown, folder):
    lines = shown.stderr.splitlines()
    device, network, data, updates, written, stop = lines[:6]
    assert device == "Training shown: cpu, 1 thread, precision fp32."
    weights = load_file(folder / "runs/shown/pipeline/vae/diffusion_pytorch_model.safetensors").values()
    assert network == f"  network   VAE, {sum(tensor.numel() for tensor in weights):,} parameters"
    said = "1,437 images of 8x8 pixels and 1 channel in 10 classes; validated on 360 others"
    assert data == f"  data      digits, split train: {said}"
    assert updates == "  updates   12 of 16 images, 192 images in all, 0.1 epochs"  # 2 x 8 images an update
    assert written == "  written   to runs/shown, a checkpoint every 4 updates"
    assert "Ctrl-C" in stop and "--resume latest" in stop


def test_where_nothing_can_be_redrawn_a_line_for_each_row(shown, folder):
    """And these stand in the log; nothing is drawn over."""
    lines = shown.stderr.splitlines()[6:]
    assert "\r" not in shown.stderr and len(lines) == 4, shown.stderr
    rows = [json.loads(line) for line in (folder / "runs/shown/log.jsonl").read_text().splitlines()]
    for line, row in zip(lines, rows, strict=True):
        assert line.startswith(f"update {row['update']}/12: loss {row['loss']:.4g}")
        assert re.search(r"; [\d,]+ images/s, \d\d:\d\d left$", line), line
    assert "validation_neg_elbo" in lines[-1]


def test_progress_changes_no_log(shown, folder):
    """Nor does a silent run say more than its six lines."""
    silent = launch("train_vae", folder, *vae_flags(name="silent", run__progress="false", validation_split="test"))
    assert len(silent.stderr.splitlines()) == 6
    logs = [(folder / f"runs/{name}/log.jsonl").read_bytes() for name in ("shown", "silent")]
    assert logs[0] == logs[1] and logs[0]


def test_a_resumed_run_says_from_where(folder):
    """Its curves are those of all updates, also of those before."""
    launch("train_vae", folder, *vae_flags(name="again", num_updates="8", optimizer__lr_schedule="constant"))
    changed = vae_flags(name="again", num_updates="12", optimizer__lr_schedule="constant", resume="latest")
    first = (folder / "runs/again/curves.png").read_bytes()
    lines = launch("train_vae", folder, *changed).stderr.splitlines()
    assert len(lines) == 6
    assert lines[3].endswith(". Resuming from runs/again/checkpoints/update_00000008, after update 8")
    assert (folder / "runs/again/curves.png").read_bytes() != first
    assert not list((folder / "runs/again").glob(".*")), "nothing is left beside it"


def test_two_processes_say_so_once(folder):
    two = launch_command("--multi_gpu", "--num_processes", "2", script=ROOT / "scripts/train_vae.py")
    done = launched([*two, *vae_flags(name="two", run__progress="true", num_updates="3")], folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Training two: 2 processes, cpu, 1 thread each, precision fp32.") == 1
    assert done.stderr.count("  updates   3 of 32 images, ") == 1 and done.stderr.count("update 3/3: loss ") == 1
    assert done.stdout.count("What one may want next:") == 1


def test_what_is_known_of_a_folder_is_told(tmp_path):
    write_images(tmp_path / "set", 6)
    (tmp_path / "set/cat/notes.txt").write_text("x")
    done = launch("train_vae", tmp_path, *vae_flags(name="x", data__path="set", num_updates="1"))
    said = "  data      set, split train: 6 images of 8x8 pixels and 3 channels in 2 classes; passed over: 1 .txt"
    assert said in done.stderr.splitlines() and len(done.stderr.splitlines()) == 6


# ---- a terminal ----------------------------------------------------------------------------------


def test_a_terminal_shows_a_bar_with_the_loss_of_the_first_updates(tmp_path):
    """Long before the first row of the log, which is at the end here."""
    main, other = pty.openpty()
    termios.tcsetwinsize(other, (40, 200))
    command = [*launch_command(script=ROOT / "scripts/train_vae.py")]
    command += vae_flags(name="x", run__progress="true", run__log_every="12")
    command = warmed(command, environment())
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=other, stdout=subprocess.DEVNULL)
    os.close(other)
    said = b""
    while True:
        try:
            said += os.read(main, 4096)
        except OSError:  # the other end is closed
            break
    assert process.wait() == 0
    frames = [frame for frame in said.decode().split("\r") if "12 [" in frame]
    losses = [re.findall(rf" {k}/12 \[.*loss=([\d.]+)", "\n".join(frames))[-1] for k in (1, 2, 4, 8)]
    assert len(set(losses)) == 4, frames
    assert "update 12/12" not in said.decode(), "no lines beside the bar"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_reading_the_loss_grows_rare_and_ends_with_the_first_row(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stderr", Terminal())
    read = []

    class Log(ScalarLog):
        def newest(self) -> dict[str, float]:
            read.append(update)
            return super().newest()

    log = Log(tmp_path, lambda x: x, writes=True)
    with console.Progress(1000, 500, shown=True) as progress:
        for update in range(501, 701):
            log.record(update, {"loss": torch.tensor(update / 1000), "lr": 1.0}, torch.device("cpu"))
            progress.step(update, log)
            if update == 600:
                progress.row(update, log.take_means(), 1.0)
    assert [update - 500 for update in read] == [1, 2, 4, 8, 16, 32, 64]
    assert "501/1000" in sys.stderr.getvalue() and "loss=0.501" in sys.stderr.getvalue()
    assert "loss=0.5505" in sys.stderr.getvalue(), "the mean of the row"


def test_nothing_is_read_where_nothing_is_shown(tmp_path, capsys):
    class Log(ScalarLog):
        def newest(self) -> dict[str, float]:
            raise AssertionError("costs a synchronisation")

    for shown in (True, False):  # here stderr is no terminal
        with console.Progress(4, 0, shown) as progress:
            progress.step(1, Log(tmp_path, lambda x: x, writes=True))
            progress.row(1, {"lr": 0.1, "loss_b": 2.0}, 10.0)
    assert capsys.readouterr().err.splitlines() == ["update 1/4: loss_b 2; 10 images/s, 00:00 left"]


# ---- the end -------------------------------------------------------------------------------------


def next_commands(done: subprocess.CompletedProcess) -> list[list[str]]:
    """What the end of a training proposes, as a shell would read it."""
    _, told, commands = done.stdout.partition("What one may want next:\n")
    assert told, done.stdout
    return [shlex.split(line) for line in commands.splitlines() if line.startswith("  ")]


def test_the_end_says_what_is_there(shown, folder):
    said = re.search(
        r"^Saved the pipeline to (\S+) after [\d.]+ minutes of training; samples in (\S+), curves in (\S+)\.$",
        shown.stdout,
        re.MULTILINE,
    )
    pipeline, samples, drawn = (folder / part for part in said.groups())
    assert (pipeline / "model_index.json").exists() and list(samples.glob("*.png"))
    assert curve_pixels(drawn) > 100


def test_the_next_commands_work(folder, shown):
    """Both of every family as they are printed, one after the other in one folder: where a classifier of the same
    images is there it judges, and a classifier judges what is there."""
    demo = ["--config", str(ROOT / "configs/demo/flow_digits.yaml"), "--unet.block_out_channels", "32,64"]
    flow = [*demo, "--num_updates", "2", "--batch_size", "8", "--sampling.num_inference_steps", "2"]
    flow += ["--run.tracker", "null", "--run.progress", "false", "--run.num_threads", "1", "--name", "flow"]
    used = {}
    for family, arguments in {
        "diffusion": flags(name="diffusion"),
        "classifier": classifier_flags(name="judge"),
        "flow": flow,
        "gan": gan_flags(name="denoiser"),
        "vae": None,
    }.items():
        script = str(ROOT / f"scripts/train_{family}.py")
        training = launched([sys.executable, script, *arguments], folder) if arguments else shown
        assert training.returncode == 0, training.stderr
        commands = next_commands(training)
        for command in commands:
            done = launched(command, folder)
            assert done.returncode == 0, (family, shlex.join(command), done.stderr)
        used[family] = [Path(command[1]).name for command in commands]
    assert used == {
        "diffusion": ["generate.py", "reverse_process.py"],
        "classifier": ["score.py", "publish.py"],
        "flow": ["generate.py", "score.py"],
        "gan": ["restorations.py", "score_denoiser.py"],
        "vae": ["vae.py", "score_vae.py"],
    }
    for judged, source in (("judge", "diffusion"), ("flow", "flow")):
        scores = json.loads((folder / f"runs/{judged}/scores/scores.json").read_text())
        assert scores["source"] == f"runs/{source}/pipeline" and scores["reference_split"] == "test"
        assert "class_accuracy" in scores


@pytest.mark.parametrize("kind", KINDS)
def test_every_next_command_is_one(kind, monkeypatch, tmp_path):
    """Whatever is known: the script takes it, by its own parser."""
    lists = {name: ["--data.path", "digits", "--data.split", "test"] for name in ("seen", "held_out", "labelled")}
    noise = follow_up.as_flags({"noise.kinds": ["poisson", "gaussian"], "noise.sigma": [0.0, 50.0]})
    known = dict.fromkeys(("split", "test"), "test") | {"steps": "4", "scheduler": "DDIMScheduler", "name": "x"}
    known |= {name: str(tmp_path) for name in ("run", "model", "judge", "judged")} | lists
    known |= {"data": lists["seen"][:2], "noise": noise, "any_noise": [*noise, "--any_size"]}
    assert len(KINDS[kind].next) >= 3
    for line in KINDS[kind].next:
        command = shlex.split(follow_up.fill(line, known))
        script = ast.parse(Path(command[1]).read_text())
        monkeypatch.setattr(sys, "argv", command[1:])
        assert cli._from_command_line(*cli._interface_of(script, cli._call_of_command(script)))


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [["--nme", "x"], ["--data.path", "./nowhere"]])
def test_errors_end_in_their_own_words(wrong, tmp_path):
    """By the launcher as it is typed, and by the project's command, which keeps the script's exit status."""
    for command, status in (
        ([*LAUNCH, str(ROOT / "scripts/train_vae.py")], 1),
        ([*TRIPTYCH, "train-vae"], 2),
    ):
        done = launched([*command, *wrong], tmp_path, fresh=wrong[0] == "--nme")
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr and done.stderr.strip().splitlines()[-1].startswith("error: ")


def test_ctrl_c_ends_in_how_to_go_on(tmp_path):
    command = [*TRIPTYCH, "train-vae", *vae_flags(name="x", num_updates="100000", run__log_every="1")]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(), start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    log, deadline = tmp_path / "runs/x/log.jsonl", time.monotonic() + 120
    while time.monotonic() < deadline and not (log.exists() and log.read_bytes().count(b"\n") >= 2):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT and "Traceback" not in said, said
    update = int(re.search(r"Stopped at update (\d+) and saved. Go on with --resume latest.\s*$", said)[1])
    assert (tmp_path / f"runs/x/checkpoints/update_{update:08d}").exists() and (tmp_path / "runs/x/curves.png").exists()


def test_several_processes_end_with_the_status_of_theirs(tmp_path):
    several = ["--", "--multi_gpu", "--num_processes", "2", "--mixed_precision", "no", "--main_process_port", "0"]
    done = launched([*TRIPTYCH, "train-vae", "--data.path", "./nowhere", *several], tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "error: data.path './nowhere' does not exist" in done.stderr
