"""A training run on disk: its folder, its steps, its checkpoints, its log.

Bookkeeping that no paper mentions. The script keeps the algorithm; this file keeps the promise that a run
killed at any moment and resumed ends with the same weights, averages and log, bit for bit (fp32, CPU).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from triptych.config.base import flatten, to_dict
from triptych.config.training import ExperimentConfig
from triptych.data.image_set import ImageSet, describe, to_images
from triptych.data.order import BatchOrder, make_loader
from triptych.devices import device_name
from triptych.errors import UserError, plain, tell_traceback
from triptych.publishing import client, staging
from triptych.seeds import keyed_generator, keyed_seed
from triptych.training import checkpoints, machine, processes, run_folder
from triptych.training.draws import Draws
from triptych.training.log import NotFinite, ScalarLog
from triptych.training.state import Resumable


class Run(Draws, Resumable):
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
        self.accelerator = processes.start(config.run.tracker, config.gradient_accumulation_steps, self.folder)
        self.device, self.is_main = self.accelerator.device, self.accelerator.is_main_process
        self.num_processes, self.process_index = self.accelerator.num_processes, self.accelerator.process_index
        if self.device.type == "cpu":
            machine.keep_freed_memory()
            machine.use_all_cores(config.run.num_threads, int(os.environ.get("LOCAL_WORLD_SIZE", self.num_processes)))
        self.update, self.step, self.updated = 0, 0, False
        self._seconds_before, self._clock, self._logged_at = 0.0, time.perf_counter(), time.perf_counter()
        self._log = ScalarLog(self.folder, lambda x: self.accelerator.reduce(x, reduction="mean"), self.is_main)
        self._signal = 0
        processes.tell(self.accelerator, config.name)
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
        prepared = self.accelerator.prepare(*objects)
        self.accelerator.register_for_checkpointing(*stateful, self)
        if self.config.resume:
            checkpoint = processes.on_main(self.is_main, self._find_checkpoint)
            if checkpoint is not None:
                self._load(checkpoint)
            self.accelerator.print(f"Resuming from {checkpoint or 'the beginning'}.", file=sys.stderr)
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
            "num_threads": torch.get_num_threads(),
            "versions": machine.versions(),
            "commit": machine.git_commit(),
            "arguments": sys.argv[1:],
        }
        run_folder.begin_session(self.folder, self.config, describe(images), session)
        self._log.cut_back()

    # ---- steps -----------------------------------------------------------------------------------

    def batches(self, images: ImageSet) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield (images in [-1, 1], labels) for every step left: (B, C, H, W), (B,).

        Before the first step: enters the session and what the data is in the run's records. After the caller's body:
        counts, logs, checkpoints, and leaves when a signal asks for it.

        Raises:
            UserError: the run was started on other data, the loss is not finite (the last checkpoint stays), or an
                image cannot be decoded.
        """
        processes.on_main(self.is_main, lambda: self._begin_session(images))
        config, accumulation = self.config, self.config.gradient_accumulation_steps
        if config.run.tracker:
            settings = flatten(to_dict(config)).items()
            self.accelerator.init_trackers("triptych", {key: str(value) for key, value in settings})
        stop = config.num_updates * accumulation
        order = BatchOrder(
            len(images),
            config.batch_size,
            config.seed,
            start=self.step,
            stop=stop,
            process_index=self.process_index,
            num_processes=self.num_processes,
            by_visit=images.by_visit,
        )
        silent = not (self.is_main and config.run.progress)
        bar = tqdm(total=config.num_updates, initial=self.update, disable=silent, unit="update", dynamic_ncols=True)
        handlers = {number: signal.signal(number, self._remember) for number in (signal.SIGINT, signal.SIGTERM)}
        self._clock = self._logged_at = time.perf_counter()
        try:
            for batch in make_loader(images, order, config.data.num_workers):
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
            kept = [c.name for c in checkpoints.listed(self.folder / "checkpoints")]
            raise error.explained(self.folder, kept) from None
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
                again = f"python scripts/publish.py {self.folder} {repo_id}" + (" --private" if private else "")
                raise UserError(
                    f"{plain(error)} The run is whole in {self.folder}; publish it with `{again}`."
                ) from error
        run_folder.unlock(self.folder)
