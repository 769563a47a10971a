"""Shared by the tests: a tiny experiment that trains in seconds, launched as users launch it."""

from __future__ import annotations

import atexit
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from stand_in_hub import StandInHub
from warm_start import warmed

# diffusers copies the code of a local pipeline to one place; two workers (and what they start) that load the same one
# at the same moment may meet a file half written. Set before diffusers is imported.
os.environ["HF_MODULES_CACHE"] = tempfile.mkdtemp(prefix="modules_")
atexit.register(shutil.rmtree, os.environ["HF_MODULES_CACHE"], ignore_errors=True)

# A shell starts what it puts in the background deaf to Ctrl-C, and what that starts inherits it; tests press Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))  # as running scripts/x.py does

# Real components, small: two levels, attention, AdaGN, unshuffle, guidance, accumulation, EMA, samples.
TINY = {
    "data.path": "digits",
    "unet.block_out_channels": "[8, 16]",
    "unet.norm_num_groups": "4",
    "unet.layers_per_block": "1",
    "unet.attention_resolutions": "[2]",
    "unet.attention_head_dim": "8",
    "unet.dropout": "0.1",
    "schedule.prediction_type": "v_prediction",
    "pixel_unshuffle": "2",
    "horizontal_flip": "true",
    "batch_size": "8",
    "gradient_accumulation_steps": "2",
    "num_updates": "12",
    "optimizer.name": "muon",
    "optimizer.num_warmup_updates": "2",
    "min_snr_gamma": "5",
    "sampling.num_inference_steps": "2",
    "sampling.num_per_class": "1",
    "run.checkpoint_every": "4",
    "run.log_every": "3",
    "run.sample_every": "0",
    "run.tracker": "null",
    "run.progress": "false",
    "run.num_threads": "1",
}


def flags(**changes: str) -> list[str]:
    """The tiny experiment as command-line flags; ``data__path`` stands for ``data.path``."""
    settings = TINY | {key.replace("__", "."): str(value) for key, value in changes.items()}
    return [part for key, value in settings.items() for part in (f"--{key}", value)]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT), **more}


def launch_command(*launcher: str, script: Path | str = ROOT / "scripts/train_diffusion.py") -> list[str]:
    # Port 0 is any free one: two tests may launch several processes at the same time.
    config = [
        "--config_file",
        str(ROOT / "accelerate_config.yaml"),
        "--mixed_precision",
        "no",
        "--main_process_port",
        "0",
    ]
    return [sys.executable, "-m", "accelerate.commands.launch", "-q", *config, *launcher, str(script)]


def launched(
    command: list[str], cwd: Path, env: dict[str, str] | None = None, timeout: float = 300, fresh: bool = False
) -> subprocess.CompletedProcess:
    """``subprocess.run``, but no Python that `command` starts imports the libraries anew; see ``warm_start.py``."""
    env = env or environment()
    command = command if fresh else warmed(command, env)
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout)


@pytest.fixture
def study(monkeypatch, tmp_path, capsys) -> Callable[..., subprocess.CompletedProcess]:
    """Call a script of scripts/studies/ in this process, in an empty working directory, as its command line does.

    The scripts that it runs one after another are processes of their own, as for :func:`launched`.
    """
    from triptych.cli import command

    from triptych.studies import stages

    def run(stage: list[str]) -> subprocess.CompletedProcess:
        done = launched(stage, Path.cwd())
        print(done.stdout)
        print(done.stderr, file=sys.stderr)
        return done

    def call(name: str, *arguments: str) -> subprocess.CompletedProcess:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        monkeypatch.setattr(stages, "subprocess", SimpleNamespace(run=run))
        capsys.readouterr()
        code = 0
        try:
            command(importlib.import_module(f"studies.{name}").main)
        except SystemExit as left:
            code = left.code
        said = capsys.readouterr()
        return subprocess.CompletedProcess(sys.argv, code, said.out, said.err)

    return call


@pytest.fixture
def train_here(monkeypatch, tmp_path) -> Callable[..., Path]:
    """Call a training script in this process, in an empty working directory, as its command line does; what is wrong is
    raised as it is. Gives the run's folder."""
    from triptych.cli import command

    monkeypatch.chdir(tmp_path)

    def call(script: str, parameters: type, arguments: Sequence[object]) -> Path:
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *map(str, arguments)])
        configs: list = []
        command(lambda config: configs.append(config), parameters)
        importlib.import_module(script).main(configs[0])
        return Path(configs[0].run.output_dir) / configs[0].name

    return call


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Train the tiny experiment as `accelerate launch` does, in an empty working directory."""

    def start(
        *launcher: str, script: Path | str = ROOT / "scripts/train_diffusion.py", fresh: bool = False, **changes: str
    ):
        command = [*launch_command(*launcher, script=script), *flags(**changes)]
        return launched(command, tmp_path, fresh=fresh)

    return start


@pytest.fixture(autouse=True)
def _threads() -> None:
    """This worker's share of the cores; training in the test process sets its own number, so it is set every time."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def figures(monkeypatch) -> list:
    """The matplotlib figures that are written while the test runs: what they show can be asked of them."""
    from triptych.figures import charts, images

    kept, save = [], images.save

    def keep(figure, path: Path, **settings) -> Path:
        kept.append(figure)
        return save(figure, path, **settings)

    for module in (charts, images):
        monkeypatch.setattr(module, "save", keep)
    return kept


TOKEN = "hf_TheTokenOfTheTest"


@pytest.fixture(scope="session")
def one_address():
    """The Hub's server, at one address for all tests: libraries that read it need be imported only once."""
    with StandInHub() as hub:
        yield hub


@pytest.fixture
def hub(one_address):
    one_address.forget()
    one_address.add_user("me", TOKEN, orgs=("lab",))
    return one_address


@pytest.fixture(scope="session")
def one_home(tmp_path_factory) -> Path:
    """Where the client looks for its cache: a link to that of the test, for the same reason."""
    return tmp_path_factory.mktemp("client") / "home"


@pytest.fixture
def client(tmp_path, one_home) -> Callable[..., dict[str, str]]:
    """What the client finds in its environment: this Hub, an empty cache, and a token if there is one."""

    def variables(hub: StandInHub, token: str | None = TOKEN, **more: str) -> dict[str, str]:
        home = tmp_path / f"home_{len(list(tmp_path.glob('home_*')))}"
        home.mkdir()
        one_home.unlink(missing_ok=True)
        one_home.symlink_to(home)
        here = {
            "HF_HUB_OFFLINE": "0",
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(one_home),
            "HF_MODULES_CACHE": str(one_home / "modules"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            "NO_PROXY": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
        }
        variables = environment(**here | more)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"):
            variables.pop(name, None)
        return variables | ({"HF_TOKEN": token} if token else {})

    return variables


@pytest.fixture
def publish(client, tmp_path) -> Callable[..., subprocess.CompletedProcess]:
    """scripts/publish.py as users call it; whatever happens, the token is in nothing that is printed."""

    def run(hub: StandInHub, source: Path, repo_id: str, *flags: str, token: str | None = TOKEN, **more: str):
        command = [sys.executable, str(ROOT / "scripts/publish.py"), str(source), repo_id, *flags]
        env = client(hub, token, **more)
        done = launched(command, tmp_path, env, timeout=120, fresh=bool(more))
        assert "Traceback" not in done.stderr
        assert not token or token not in done.stdout + done.stderr, "the token was printed"
        return done

    return run
