"""What the user can mend, and what is said of what nobody foresaw."""

from __future__ import annotations

import errno
import io
import os
import re
import select
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from triptych.paths import PACKAGE, project_path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a disk, somebody's share of it, what a process may write


class UserError(Exception):
    """Something the user can mend. Its text is one paragraph: what is wrong, where, and what to do."""


def check(condition: bool, message: str) -> None:
    """Raise ``ValueError(message)`` unless `condition`; jsonargparse turns it into a command-line error."""
    if not condition:
        raise ValueError(message)


def check_interval(interval: tuple[float, float] | None, setting: str) -> None:
    """The same for noise levels between which something is done."""
    low, high = interval or (0, 1)
    check(0 <= low < high, f"{setting} must be [low, high] with 0 <= low < high")


@contextmanager
def quiet_where_nobody_reads() -> Iterator[None]:
    """End the body without a word when what it prints is read no further, as in ``triptych score NAME | head -3``.

    The process leaves with exit code 141, which is what a shell says of a program that SIGPIPE has stopped; what was
    printed to the end before anybody noticed, such as a help text, leaves with the code that it would have had.
    """
    try:
        yield
    except BrokenPipeError:
        if _is_read():  # it was another pipe
            raise
        sys.exit(141)
    finally:
        try:
            if sys.stdout is not None:  # as with `>&-`
                sys.stdout.flush()
        except BrokenPipeError:  # the interpreter would try again at its end, and complain
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_read() -> bool:
    """Whether somebody reads what is printed, as far as this system tells."""
    if not hasattr(select, "poll"):  # Windows
        return True
    output = select.poll()
    with suppress(AttributeError, io.UnsupportedOperation):  # no output, or one that is no file
        output.register(sys.stdout.fileno(), 0)
    return not any(event & select.POLLERR for _, event in output.poll(0))


# ---- what to say of an exception -----------------------------------------------------------------
def is_refusal(error: Exception) -> bool:
    """Whether :func:`check` raised it, or a file of ``models/`` or ``metrics/``, or its copy in a saved pipeline: they
    say by a ValueError what of their input is wrong and how to mend it."""
    frame = next(reversed([frame for frame, _ in traceback.walk_tb(error.__traceback__)]), None)
    module = frame.f_globals.get("__name__", "") if frame else ""
    ours = module.partition(".")[0] in ("models", "diffusers_modules", "evaluate_modules")
    return type(error) is ValueError and (ours or frame.f_code is check.__code__)


def plain(error: BaseException) -> str:
    """The text of an exception without the traceback that those of worker processes carry in it."""
    text = str(error).strip()
    if "Traceback (most recent call last)" in text:
        return " ".join(re.split(r"^[\w.]+(?:Error|Exception|Interrupt|Exit): ?", text, flags=re.MULTILINE)[-1].split())
    return text if isinstance(error, UserError) else " ".join(text.split())[:600]


def tell_traceback(error: BaseException, folder: Path | None) -> str:
    """Save the traceback in the run's `folder`, or where files that nobody keeps are, and say where it is."""
    name = f"traceback_{time.strftime('%Y%m%d_%H%M%S')}_{os.getpid()}.txt"
    text = f"{' '.join(sys.argv)}\n\n{''.join(traceback.format_exception(error))}\n"
    is_run = folder is not None and (folder / "config.yaml").exists()
    for place in (folder, None) if is_run else (None,):
        with suppress(OSError):
            path = (place or Path(tempfile.gettempdir())) / name
            with path.open("a") as file:
                file.write(text)
            return f"The traceback is in {path}."
    return "The traceback could not be saved; TRIPTYCH_TRACEBACK=1 in the environment shows it."


@contextmanager
def expendable(what: str, folder: Path | None = None) -> Iterator[None]:
    """For what a work can do without: an exception in the body becomes a warning, and a traceback in `folder`."""
    try:
        yield
    except Exception as error:
        print(
            f"\nwarning: {what} failed ({type(error).__name__}: {plain(error)}); the rest goes on. "
            f"{tell_traceback(error, folder)}",
            file=sys.stderr,
        )


def explain(error: Exception) -> str:
    """What was being done, what happened, and what can be done: for exceptions that nobody foresaw."""
    number, path = _errno_of(error), _path_of(error)
    at = f" at {path}" if path else ""
    if number in FULL:
        return f"{os.strerror(number)}{at}. Make room there or have it written elsewhere, and run this again."
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{os.strerror(number)}{at}. Make it readable and writable for you, or name another place."
    if number is not None and path:
        return f"{os.strerror(number)}{at}. Name another place, or mend what is there."
    where = _where(error)
    what = f"{Path(sys.argv[0]).name} stopped{where} with {type(error).__name__}: {plain(error) or 'no message'}"
    if isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error):
        return f"{what}. The memory does not suffice: a smaller batch_size needs less."
    return f"{what}{'' if what.endswith(('.', '!', '?')) else '.'} If that does not tell what to mend, report it."


def _where(error: Exception) -> str:
    """The innermost function of ours that the exception passed through."""
    rooms = [*map(project_path, ("metrics", "models", "scripts")), PACKAGE]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        room = next((room for room in rooms if path.is_relative_to(room)), None)
        if room is not None and frame.name != "command":
            return f" in {frame.name} ({path.relative_to(room.parent)}, line {frame.lineno})"
    return ""


def _errno_of(error: Exception) -> int | None:
    """The operating system's number of what went wrong; libraries in Rust hide it in the text."""
    if isinstance(error, OSError):
        return error.errno
    hidden = re.search(r"\(os error (\d+)\)", str(error))
    return int(hidden.group(1)) if hidden else None


def _path_of(error: Exception) -> str | None:
    """The file at which an operation failed: the exception's own, or the one that was open in the innermost function.

    A write that fails names no file.
    """
    if isinstance(error, OSError) and error.filename is not None:
        return str(error.filename)
    if _errno_of(error) not in (*FULL, errno.EIO):
        return None
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for value in (value for frame in reversed(frames) for value in reversed(frame.f_locals.values())):
        name = getattr(value, "name", None) if isinstance(value, io.IOBase) else value
        if isinstance(name, Path) or (isinstance(name, str) and os.sep in name and "\n" not in name):
            return str(name)
    return None
