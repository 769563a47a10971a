"""A training run on disk: its folder, its steps, its checkpoints, its log.

Bookkeeping that no paper mentions. The script keeps the algorithm; this file keeps the promise that a run
killed at any moment and resumed ends with the same weights, averages and log, bit for bit (fp32, CPU).
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import gather_object, parse_flag_from_env
from tqdm.auto import tqdm

from triptych.config.base import flatten, to_dict
from triptych.config.training import ExperimentConfig
from triptych.data.image_set import ImageSet, describe, to_images
from triptych.data.order import BatchOrder, make_loader
from triptych.devices import device_name, effective_precision
from triptych.errors import UserError, plain, tell_traceback
from triptych.publishing import client, staging
from triptych.seeds import keyed_generator, keyed_seed
from triptych.training import checkpoints, machine, run_folder
from triptych.training.log import NotFinite, ScalarLog


class Run:
    """One run of one experiment, in ``<output_dir>/<name>``.

    The folder holds ``config.yaml`` (what ``--config`` reads back), ``run.json`` (kind, data, and for each
    session versions, commit, device, precision), ``log.jsonl`` (a function of the config alone), ``timing.jsonl``
    (the clock and the memory), ``checkpoints/``, ``samples/`` and, at the end, ``pipeline/``.

    Args:
        config: the experiment; only what every experiment has is used here.

    Attributes:
        update: optimizer updates done.
        updated: whether the step being taken completes an update.
        generator: the random numbers of this step, a function of (seed, step).

    Raises:
        UserError: the folder holds another run, or one that `config` does not fit.
    """

    def __init__(self, config: ExperimentConfig):
        self.config = config
        self.folder = Path(config.run.output_dir) / config.name
        # accelerate joins several CPU processes (gloo) only when told that it is on a CPU.
        on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
        state = PartialState(cpu=on_cpu)
        precision, note = effective_precision(os.environ.get("ACCELERATE_MIXED_PRECISION", "no"), state.device)
        if note:
            state.print(f"note: {note}", file=sys.stderr)
        try:
            self.accelerator = Accelerator(
                cpu=on_cpu,
                mixed_precision=precision,
                gradient_accumulation_steps=config.gradient_accumulation_steps,
                log_with=config.run.tracker,
                project_dir=self.folder,
            )
        except ValueError as error:
            raise UserError(f"run.tracker {config.run.tracker!r}: {error}") from None
        if config.run.tracker and not self.accelerator.log_with:
            raise UserError(
                f"run.tracker {config.run.tracker!r} is not installed. `pip install {config.run.tracker}`, or set "
                f"run.tracker to tensorboard, or to null for log.jsonl alone."
            )
        self.device, self.is_main = self.accelerator.device, self.accelerator.is_main_process
        self.num_processes = self.accelerator.num_processes
        self.process_index = self.accelerator.process_index
        if self.device.type == "cpu":
            machine.keep_freed_memory()
            machine.use_all_cores(config.run.num_threads, int(os.environ.get("LOCAL_WORLD_SIZE", self.num_processes)))
        self.update, self.step, self.updated = 0, 0, False
        self._seconds_before, self._clock, self._logged_at = 0.0, time.perf_counter(), time.perf_counter()
        self._log = ScalarLog(self.folder, lambda x: self.accelerator.reduce(x, reduction="mean"), self.is_main)
        self._signal = 0
        self._tell_processes()
        self._on_main(self._claim_folder)
        if config.run.push_to:
            self._on_main(lambda: client.refuse_unless_free(config.run.push_to, config.run.push_private))

    # ---- beginning -------------------------------------------------------------------------------

    def _tell_processes(self) -> None:
        several, count = self.num_processes > 1, torch.get_num_threads()
        number = f"{self.num_processes} process{'es' if several else ''}"
        threads = f", {count} thread{'s' if count > 1 else ''}{' each' if several else ''}"
        threads = threads if self.device.type == "cpu" else ""
        precision = self.accelerator.mixed_precision
        self.accelerator.print(
            f"Training {self.config.name}: {number} on {self.device.type}{threads}, precision {precision}.",
            file=sys.stderr,
        )
        # The launcher says where the processes meet, but starts one alone on a CPU unless told how to start more.
        asked = {"MASTER_ADDR", "ACCELERATE_MIXED_PRECISION"} <= os.environ.keys()
        if asked and "WORLD_SIZE" not in os.environ and self.num_processes == 1:
            self.accelerator.print(
                "warning: accelerate was asked for several processes and started one. On a CPU, --multi_gpu beside "
                "--num_processes starts them all, for all its name.",
                file=sys.stderr,
            )

    def _claim_folder(self) -> None:
        run_folder.refuse_unless_writable(self.folder)
        run_folder.refuse_unless_fits(self.folder, self.config)
        if run_folder.holds_run(self.folder):
            run_folder.lock(self.folder)

    def _on_main(self, function: Callable[[], Any]) -> Any:
        """Run `function` on the main process alone; all get what it returns, or stop where it fails."""
        return self._together(function if self.is_main else lambda: None)[0]

    def _together(self, function: Callable[[], Any]) -> list[Any]:
        """Run `function` on every process; what they return, in order, or an error on all if one fails."""
        answer, failure = None, None
        try:
            answer = function()
        except Exception as error:
            failure = error
        told = None if failure is None else (isinstance(failure, UserError), plain(failure))
        answers = gather_object([(answer, told)])
        if failure is not None:
            raise failure
        for process, (_, problem) in enumerate(answers):
            if problem is not None:
                raise UserError(problem[1] if problem[0] else f"Process {process} stopped: {problem[1]}")
        return [answer for answer, _ in answers]

    def prepare(self, images: ImageSet, stateful: list[Any], *objects: Any) -> tuple[Any, ...]:
        """Register what a checkpoint holds, wrap models and optimizers, and resume if asked.

        Args:
            images: what :meth:`batches` yields.
            stateful: what has a ``state_dict`` and is saved as it is: averages, learning-rate schedulers. The latter
                are not wrapped, because accelerate would step them once per process; here they count updates.
            objects: models and optimizers; returned as accelerate wraps them.
        """
        self._images = images
        prepared = self.accelerator.prepare(*objects)
        self.accelerator.register_for_checkpointing(*stateful, self)
        if self.config.resume:
            checkpoint = self._on_main(self._find_checkpoint)
            if checkpoint is not None:
                self._load(checkpoint)
            self.accelerator.print(f"Resuming from {checkpoint or 'the beginning'}.", file=sys.stderr)
        self._on_main(self._begin_session)
        if self.config.run.tracker:
            settings = {key: str(value) for key, value in flatten(to_dict(self.config)).items()}
            self.accelerator.init_trackers("triptych", settings)
        return prepared

    def _find_checkpoint(self) -> Path | None:
        """What to go on from; a branch that was killed before its first checkpoint begins again."""
        folder = self.folder / "checkpoints"
        found, beginning = checkpoints.find(folder, self.config.resume), run_folder.branched_from(self.folder)
        return checkpoints.find(folder, beginning) if found is None and beginning else found

    def _load(self, checkpoint: Path) -> None:
        try:
            self.accelerator.load_state(str(checkpoint))
        except UserError:
            raise
        except Exception as error:
            others = [str(c) for c in checkpoints.listed(checkpoint.parent) if c != checkpoint]
            raise UserError(
                f"{checkpoint} cannot be loaded ({type(error).__name__}: {plain(error)}). Resume from another one "
                f"(--resume; there {'are ' + ', '.join(others) if others else 'is none'}), or train anew under another "
                f"--name."
            ) from error
        if self.update > self.config.num_updates:
            raise UserError(
                f"num_updates {self.config.num_updates} is less than the {self.update} that {checkpoint} has done. "
                f"Give {self.update} or more, or resume from an earlier checkpoint."
            )

    def _begin_session(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        run_folder.lock(self.folder)
        if self.config.resume is None and run_folder.holds_run(self.folder):  # begun meanwhile by another process
            run_folder.refuse_unless_fits(self.folder, self.config)
        trunk = run_folder.trunk_of(self.folder, self.config.resume)
        if trunk is not None and not (self.folder / "config.yaml").exists():
            run_folder.begin_branch(self.folder, trunk, self.config.resume)
        session = {
            "from_update": self.update,
            "device": self.device_name,
            "precision": self.accelerator.mixed_precision,
            "num_processes": self.num_processes,
            "num_threads": torch.get_num_threads(),
            "versions": machine.versions(),
            "commit": machine.git_commit(),
            "arguments": sys.argv[1:],
        }
        run_folder.begin_session(self.folder, self.config, describe(self._images), session)
        self._log.cut_back()

    # ---- steps -----------------------------------------------------------------------------------

    def batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield (images in [-1, 1], labels) for every step left: (B, C, H, W), (B,).

        After the caller's body: counts, logs, checkpoints, and leaves when a signal asks for it.

        Raises:
            UserError: the loss is not finite (the last checkpoint stays), or an image cannot be decoded.
        """
        config, accumulation = self.config, self.config.gradient_accumulation_steps
        stop = config.num_updates * accumulation
        order = BatchOrder(
            len(self._images),
            config.batch_size,
            config.seed,
            start=self.step,
            stop=stop,
            process_index=self.process_index,
            num_processes=self.num_processes,
            by_visit=self._images.by_visit,
        )
        silent = not (self.is_main and config.run.progress)
        bar = tqdm(total=config.num_updates, initial=self.update, disable=silent, unit="update", dynamic_ncols=True)
        handlers = {number: signal.signal(number, self._remember) for number in (signal.SIGINT, signal.SIGTERM)}
        self._clock = self._logged_at = time.perf_counter()
        try:
            for batch in make_loader(self._images, order, config.data.num_workers):
                self.generator = keyed_generator("noise", config.seed, self.step, device=self.device)
                # torch.manual_seed also tells devices that aren't there, which costs most of a millisecond.
                seed_dropout = torch.default_generator.manual_seed if self.device.type == "cpu" else torch.manual_seed
                seed_dropout(keyed_seed("dropout", config.seed, self.step, self.process_index))
                self.updated = (self.step + 1) % accumulation == 0
                pixels, labels = batch["pixels"], batch["labels"]
                x0 = to_images(pixels.to(self.device, non_blocking=True))
                yield x0, labels.to(self.device, non_blocking=True)
                self.step += 1
                if self.updated:
                    self.update += 1
                    bar.update()
                    self._after_update(bar)
        except NotFinite as error:
            raise self._explain(error) from None
        except UserError:  # an image of a stream that cannot be decoded: what was learned so far is kept
            if self.num_processes == 1 and self.step > 0 and self.step == self.update * accumulation:
                self.save_checkpoint()
            raise
        finally:
            bar.close()
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _after_update(self, bar: tqdm) -> None:
        last, stopping = self.update == self.config.num_updates, self._signal_of_any_process()
        if last or self.update % self.config.run.log_every == 0:
            self._write_log(bar)
        if last or stopping or self.update % self.config.run.checkpoint_every == 0:
            self.save_checkpoint()
        if stopping and not last:
            self.accelerator.print(
                f"\nStopped at update {self.update} and saved. Go on with --resume latest.", file=sys.stderr
            )
            self.accelerator.end_training()
            sys.exit(128 + stopping)

    def due(self, every: int) -> bool:
        """Whether the update being completed is one of every `every`, or the last."""
        done = self.update + 1
        return self.updated and (done == self.config.num_updates or (every > 0 and done % every == 0))

    def _share(self, draw: Callable[..., torch.Tensor], size: int, *rest: int) -> torch.Tensor:
        """Draw for the global batch and keep this process's part: the numbers don't depend on who shares it."""
        everyones = draw((size * self.num_processes, *rest), generator=self.generator, device=self.device)
        return everyones[self.process_index * size : (self.process_index + 1) * size]

    def randn(self, size: int, *rest: int) -> torch.Tensor:
        """Unit Gaussian noise of this step, (size, *rest)."""
        return self._share(torch.randn, size, *rest)

    def rand(self, size: int, *rest: int) -> torch.Tensor:
        """Uniform numbers in [0, 1) of this step, (size, *rest)."""
        return self._share(torch.rand, size, *rest)

    def spread(self, size: int) -> torch.Tensor:
        """Numbers in [0, 1) of this step, evenly spread over the batches of all processes, each of them uniform (Kingma
        et al. 2021, appendix I.1), (size,)."""
        everyones = size * self.num_processes
        shift = torch.rand((), generator=self.generator, device=self.device)
        return (shift + torch.arange(everyones, device=self.device) / everyones).remainder(1)[
            self.process_index * size : (self.process_index + 1) * size
        ]

    def randint(self, high: int, size: int) -> torch.Tensor:
        """Uniform integers in [0, high) of this step, (size,)."""
        return self._share(lambda shape, **where: torch.randint(high, shape, **where), size)

    def positions(self, size: int) -> range:
        """Places of this step's images in the stream of all that the run sees, the same however many processes."""
        first = (self.step * self.num_processes + self.process_index) * size
        return range(first, first + size)

    def accumulate(self, *models: Any) -> Any:
        """accelerate's context: processes exchange gradients at the last step of an update only."""
        return self.accelerator.accumulate(*models)

    def clip_grad_norm(self, weights: list[torch.nn.Parameter], max_norm: float) -> torch.Tensor:
        """Scale the gradients of `weights` down to the L2 norm `max_norm` if theirs, which is returned, is larger."""
        if self.device.type != "cpu":
            return self.accelerator.clip_grad_norm_(weights, max_norm)
        # On a CPU the norm can be asked for at no cost, and gradients that are small enough stay untouched.
        norm = torch.nn.utils.get_total_norm([p.grad for p in weights if p.grad is not None])
        if norm > max_norm:
            torch.nn.utils.clip_grads_with_norm_(weights, max_norm, norm)
        return norm

    def _remember(self, number: int, _frame: Any) -> None:
        self._signal = number
        signal.signal(number, signal.SIG_DFL)  # a second one means now

    def _signal_of_any_process(self) -> int:
        """The signal any process has received, 0 for none, so that all leave together."""
        if self.num_processes == 1:
            return self._signal
        if self.device.type != "cpu" and self.update % 10:  # there the question costs a synchronisation
            return 0
        return int(self.accelerator.gather(torch.tensor([self._signal], device=self.device)).max())

    # ---- log -------------------------------------------------------------------------------------

    def log(self, **values: torch.Tensor | float) -> None:
        """Record scalars of this step; their means over steps and processes are written every ``log_every`` updates."""
        self._log.record(self.update + 1, values, self.device)

    def _write_log(self, bar: tqdm) -> None:
        means = self._log.take_means()
        now, previous = time.perf_counter(), (self.update - 1) // self.config.run.log_every * self.config.run.log_every
        speed = self._images_in(self.update - previous) / (now - self._logged_at)
        timing = {"seconds": self.seconds, "images_per_second": speed}
        timing["peak_memory_mb"] = machine.peak_memory_mb(self.device)
        self._logged_at = now
        self._log.write(
            {"update": self.update, "images_seen": self.images_seen, **means}, {"update": self.update, **timing}
        )
        with self.expendable(f"handing the scalars to {self.config.run.tracker}"):
            self.accelerator.log(means | timing, step=self.update)
        bar.set_postfix({key: f"{value:.4g}" for key, value in means.items()}, refresh=False)

    def _explain(self, error: NotFinite) -> UserError:
        kept = [c.name for c in checkpoints.listed(self.folder / "checkpoints")]
        return UserError(
            f"{error} of {self.folder}, and training stopped. The last good checkpoint is kept "
            f"({kept[-1] if kept else 'there was none yet'}). A lower optimizer.lr, more optimizer.num_warmup_updates "
            f"or a smaller optimizer.max_grad_norm usually help; --mixed_precision no tells whether precision "
            f"is the cause."
        )

    def _images_in(self, updates: int) -> int:
        return updates * self.config.batch_size * self.config.gradient_accumulation_steps * self.num_processes

    @property
    def images_seen(self) -> int:
        """Images trained on so far, over all processes."""
        return self._images_in(self.update)

    @property
    def seconds(self) -> float:
        """Time spent in :meth:`batches`, over all sessions."""
        return self._seconds_before + time.perf_counter() - self._clock

    @property
    def device_name(self) -> str:
        return device_name(self.device)

    def facts(self, model: torch.nn.Module) -> dict[str, Any]:
        """For the card of `model`: how large it is, and what its training took."""
        return {
            "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
            "updates": f"{self.update:,}",
            "images seen": f"{self.images_seen:,}",
            "minutes": f"{self.seconds / 60:.1f}",
            "device": self.device_name,
            "precision": self.accelerator.mixed_precision,
            "seed": self.config.seed,
        }

    # ---- checkpoints -----------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Where the run stands; accelerate saves it with the weights."""
        return {
            "update": self.update,
            "step": self.step,
            "seconds": self.seconds,
            "log": self._log.state_dict(),
            "images_per_step": self.config.batch_size * self.num_processes,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        now = self.config.batch_size * self.num_processes
        if state["images_per_step"] != now:
            raise UserError(
                f"{self.folder} was trained with {state['images_per_step']} images a step over all processes; "
                f"{self.num_processes} processes of batch_size {self.config.batch_size} make {now}. Choose "
                f"--num_processes and --batch_size so that the product stays."
            )
        self.update, self.step, self._seconds_before = state["update"], state["step"], state["seconds"]
        self._log.load_state_dict(state["log"])

    def save_checkpoint(self) -> None:
        """Save everything a resumed run needs; a checkpoint is there whole or not at all.

        Raises:
            UserError: it cannot be written; those before it stay.
        """
        self._log.settle()
        folder = self.folder / "checkpoints"
        partial = folder / f".writing_{self.update:08d}"
        try:
            self._on_main(lambda: checkpoints.begin(folder, self.update))
            self._together(lambda: self.accelerator.save_state(str(partial)))  # each saves its own random state
            self._on_main(lambda: self._seal(partial))
        except Exception as error:
            shutil.rmtree(partial, ignore_errors=True)
            kept = [c.name for c in checkpoints.listed(folder)]
            free = f", {shutil.disk_usage(self.folder).free / 1e6:,.0f} MB free there" if self.folder.exists() else ""
            raise UserError(
                f"The checkpoint of update {self.update} cannot be written to {folder} ({plain(error)}{free}). "
                f"Kept: {', '.join(kept) or 'none, it is the first'}. Make room, or mend what is named, and go on with "
                f"--resume latest."
            ) from error

    def _seal(self, partial: Path) -> None:
        run_folder.keep_records(self.folder, partial)
        checkpoints.commit(partial, self.config.run.keep_checkpoints)

    @contextmanager
    def expendable(self, what: str) -> Iterator[None]:
        """For what training can do without, pictures and the like: an exception in the body becomes a warning."""
        try:
            yield
        except Exception as error:
            print(
                f"\nwarning: {what} failed ({type(error).__name__}: {plain(error)}); the rest goes on. "
                f"{tell_traceback(error, self.folder)}",
                file=sys.stderr,
            )

    def finish(self) -> None:
        """Close the trackers and the process group, and publish the run where ``run.push_to`` says.

        Raises:
            UserError: it could not be published; it is whole on disk, and ``scripts/publish.py`` can do it later.
        """
        with self.expendable("closing the tracker"):
            self.accelerator.end_training()
        if self.is_main and (repo_id := self.config.run.push_to):
            private = self.config.run.push_private
            try:
                print("Published:", staging.publish(staging.find(self.folder), private, repo_id=repo_id))
            except Exception as error:
                again = f"python scripts/publish.py {self.folder} {repo_id}" + (" --private true" if private else "")
                raise UserError(
                    f"{plain(error)} The run is whole in {self.folder}; publish it with `{again}`."
                ) from error
        run_folder.unlock(self.folder)
