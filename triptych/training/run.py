"""A training run on disk: its folder, its steps, its checkpoints, its log.

Bookkeeping that no paper mentions. The script keeps the algorithm; this file keeps the promise that a run
killed at any moment and resumed ends with the same weights, averages and log, bit for bit (fp32, CPU).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from triptych.config.base import flatten, to_dict
from triptych.config.training import ExperimentConfig
from triptych.data.image_set import ImageSet, describe, to_images
from triptych.data.order import BatchOrder, make_loader
from triptych.devices import device_name
from triptych.errors import UserError, expendable, plain
from triptych.publishing import client, staging
from triptych.seeds import keyed_generator, keyed_seed
from triptych.training import checkpoints, console, machine, processes, run_folder
from triptych.training.curves import Curves
from triptych.training.draws import Draws
from triptych.training.log import ScalarLog, TrainingFailed
from triptych.training.signals import StopSignal
from triptych.training.state import Resumable


class Run(Draws, Resumable):
    """One run of one experiment, in ``<output_dir>/<name>``.

    The folder holds ``config.yaml`` (what ``--config`` reads back), ``run.json`` (kind, data, and for each
    session versions, commit, device, precision), ``log.jsonl`` (a function of the config alone), ``timing.jsonl``
    (the clock and the memory), ``curves.png``, ``checkpoints/``, ``samples/`` and, at the end, ``pipeline/``.

    Args:
        config: the experiment; only what every experiment has is used here.

    Attributes:
        update: optimizer updates done.
        updated: whether the step being taken completes an update.
        images: what it trains on, once it does.
        generator: the random numbers of this step, a function of (seed, step).

    Raises:
        UserError: the folder holds another run, or one that `config` does not fit.
    """

    def __init__(self, config: ExperimentConfig):
        self.config = config
        self.folder = Path(config.run.output_dir) / config.name
        self.accelerator = processes.start(config.run.tracker, config.gradient_accumulation_steps, self.folder)
        self.device, self.is_main = self.accelerator.device, self.accelerator.is_main_process
        self.num_processes, self.process_index = self.accelerator.num_processes, self.accelerator.process_index
        if self.device.type == "cpu":
            machine.keep_freed_memory()
            machine.use_all_cores(config.run.num_threads, int(os.environ.get("LOCAL_WORLD_SIZE", self.num_processes)))
        self.update, self.step, self.updated = 0, 0, False
        self._seconds_before, self._clock, self._logged_at = 0.0, time.perf_counter(), time.perf_counter()
        self._log = ScalarLog(self.folder, lambda x: self.accelerator.reduce(x, reduction="mean"), self.is_main)
        self._signal, self._curves = StopSignal(), Curves(self.folder)
        self._networks, self._resumed = [], None
        if self.is_main:
            console.tell_device(config.name, self.device, self.num_processes, self.accelerator.mixed_precision)
        processes.on_main(self.is_main, self._claim_folder)
        if config.run.push_to:
            processes.on_main(
                self.is_main, lambda: client.refuse_unless_free(config.run.push_to, config.run.push_private)
            )

    # ---- beginning -------------------------------------------------------------------------------

    def _claim_folder(self) -> None:
        run_folder.refuse_unless_writable(self.folder)
        run_folder.refuse_unless_fits(self.folder, self.config)
        if run_folder.holds_run(self.folder):
            run_folder.lock(self.folder)

    def prepare(self, stateful: list[Any], *objects: Any) -> tuple[Any, ...]:
        """Register what a checkpoint holds, wrap models and optimizers, and resume if asked.

        Args:
            stateful: what has a ``state_dict`` and is saved as it is: averages, learning-rate schedulers. The latter
                are not wrapped, because accelerate would step them once per process; here they count updates.
            objects: models and optimizers; returned as accelerate wraps them.
        """
        self._networks = [model for model in objects if isinstance(model, torch.nn.Module)]
        prepared = self.accelerator.prepare(*objects)
        self.accelerator.register_for_checkpointing(*stateful, self)
        if self.config.resume:
            checkpoint = processes.on_main(self.is_main, self._find_checkpoint)
            if checkpoint is not None:
                self._load(checkpoint)
            self._resumed = checkpoint, self.update
        return prepared

    def _begin_session(self, images: ImageSet) -> None:
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
        } | machine.circumstances()
        run_folder.begin_session(self.folder, self.config, describe(images), session)
        self._log.cut_back()

    # ---- steps -----------------------------------------------------------------------------------

    def batches(
        self, images: ImageSet, held_out: ImageSet | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield (images in [-1, 1], labels) for every step left: (B, C, H, W), (B,).

        Before the first step: enters the session and what the data is in the run's records, and tells what is about to
        happen. After the caller's body: counts, logs, checkpoints, and leaves when a signal asks for it.

        Args:
            images: to train on.
            held_out: what the caller validates on, of which it is told how many there are.

        Raises:
            UserError: the run was started on other data, the loss is not finite or has risen back to where it began
                (checkpoints of before stay), or an image cannot be decoded.
        """
        self.images = images
        processes.on_main(self.is_main, lambda: self._begin_session(images))
        config, accumulation = self.config, self.config.gradient_accumulation_steps
        if config.run.tracker:
            settings = flatten(to_dict(config)).items()
            self.accelerator.init_trackers("triptych", {key: str(value) for key, value in settings})
        order = BatchOrder(
            len(images),
            config.batch_size,
            config.seed,
            start=self.step,
            stop=config.num_updates * accumulation,
            process_index=self.process_index,
            num_processes=self.num_processes,
            by_visit=images.by_visit,
        )
        if self.is_main:
            console.tell_plan(config, self.folder, self._networks, images, held_out, self._images_in(1), self._resumed)
        progress = console.Progress(config.num_updates, self.update, self.is_main and config.run.progress)
        with self._signal, progress:
            self._clock = self._logged_at = time.perf_counter()
            try:
                yield from self._steps(images, order, progress)
            except TrainingFailed as error:
                raise error.explained(self.folder, checkpoints.listed(self.folder / "checkpoints")) from None
            except UserError:  # an image of a stream that cannot be decoded: what was learned so far is kept
                if self.num_processes == 1 and self.step > 0 and self.step == self.update * accumulation:
                    self.save_checkpoint()
                raise

    def _steps(
        self, images: ImageSet, order: BatchOrder, progress: console.Progress
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for batch in make_loader(images, order, self.config.data.num_workers):
            self.generator = keyed_generator("noise", self.config.seed, self.step, device=self.device)
            # torch.manual_seed also tells devices that aren't there, which costs most of a millisecond.
            seed_dropout = torch.default_generator.manual_seed if self.device.type == "cpu" else torch.manual_seed
            seed_dropout(keyed_seed("dropout", self.config.seed, self.step, self.process_index))
            self.updated = (self.step + 1) % self.config.gradient_accumulation_steps == 0
            pixels, labels = batch["pixels"], batch["labels"]
            x0 = to_images(pixels.to(self.device, non_blocking=True))
            yield x0, labels.to(self.device, non_blocking=True)
            self.step += 1
            if self.updated:
                self.update += 1
                progress.step(self.update, self._log)
                self._after_update(progress)

    def _after_update(self, progress: console.Progress) -> None:
        last, stopping = self.update == self.config.num_updates, self._signal_of_any_process()
        logged = last or self.update % self.config.run.log_every == 0
        if logged:
            self._write_log(progress)
        if last or stopping or self.update % self.config.run.checkpoint_every == 0:
            self.save_checkpoint()
        if self.is_main and (logged or stopping):
            with self.expendable("drawing curves.png"):
                self._curves.keep_up(now=last or bool(stopping))
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

    def _signal_of_any_process(self) -> int:
        """The signal any process has received, 0 for none, so that all leave together."""
        if self.num_processes == 1:
            return self._signal.received
        if self.device.type != "cpu" and self.update % 10:  # there the question costs a synchronisation
            return 0
        return int(self.accelerator.gather(torch.tensor([self._signal.received], device=self.device)).max())

    # ---- log -------------------------------------------------------------------------------------

    def log(self, **values: torch.Tensor | float) -> None:
        """Record scalars of this step; their means over steps and processes are written every ``log_every`` updates."""
        self._log.record(self.update + 1, values, self.device)

    def _write_log(self, progress: console.Progress) -> None:
        means = self._log.take_means()
        now, previous = time.perf_counter(), (self.update - 1) // self.config.run.log_every * self.config.run.log_every
        speed = self._images_in(self.update - previous) / (now - self._logged_at)
        timing = {"seconds": self.seconds, "images_per_second": speed}
        timing["peak_memory_mb"] = machine.peak_memory_mb(self.device)
        self._logged_at = now
        row = {"update": self.update, "images_seen": self.images_seen, **means}
        self._log.write(row, {"update": self.update, **timing})
        self._log.refuse_collapse(row, self.config.run.stop_if_collapsed)
        with self.expendable(f"handing the scalars to {self.config.run.tracker}"):
            self.accelerator.log(means | timing, step=self.update)
        progress.row(self.update, means, speed)

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

    def expendable(self, what: str) -> AbstractContextManager[None]:
        """For what training can do without, pictures and the like: an exception in the body becomes a warning."""
        return expendable(what, self.folder)

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
                again = f"python scripts/publish.py {self.folder} {repo_id}" + (" --private" if private else "")
                raise UserError(
                    f"{plain(error)} The run is whole in {self.folder}; publish it with `{again}`."
                ) from error
        run_folder.unlock(self.folder)
