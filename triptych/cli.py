"""The command line: a main function or a dataclass of settings becomes flags, and an error one paragraph.

Scripts import this first. It then reads what the script's `main` takes, and answers --help, --print_config and mistyped
flags at once, before the script spends seconds on importing torch and what stands upon it.
"""

from __future__ import annotations
import __future__

import ast
import dataclasses
import difflib
import os
import re
import sys
import traceback
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from types import UnionType
from typing import Any, NoReturn, TypeVar, Union, get_args, get_origin

import jsonargparse
import yaml

from triptych.errors import UserError, explain, is_refusal, plain, quiet_where_nobody_reads, tell_traceback

T = TypeVar("T")
jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)  # what stands below a setting explains it


def listed(text: str | None, separator: str = ",") -> list[str]:
    """ "a, b" from the command line, as a list without blanks and empty parts."""
    return [part.strip() for part in (text or "").split(separator) if part.strip()]


def named_folders(text: str, argument: str, taken: Collection[str] = ()) -> dict[str, str]:
    """ "a=folder,b=folder" from the command line, by name.

    Args:
        text: what was given.
        argument: what it was given as, for the errors.
        taken: names that mean something else.

    Raises:
        UserError: it is of another form, or a name is given twice or is one of `taken`.
    """
    parts = [part.split("=", 1) for part in listed(text)]
    if any(len(part) != 2 or not all(part) for part in parts):
        raise UserError(f"{argument} must be name=folder, several separated by commas, not {text!r}.")
    folders = dict(parts)
    if set(taken) & folders.keys() or len(folders) < len(parts):
        none_of = f", and none of {', '.join(taken)}" if taken else ""
        raise UserError(f"{argument}: the names clash. Every name must be its own{none_of}.")
    return folders


def command(main: Callable[..., Any], parameters: type[T] | Callable[..., Any] | None = None) -> None:
    """Run `main` from the command line; whatever goes wrong is told in one paragraph.

    With a config dataclass as `parameters`, its fields become the flags (and ``--config FILE``,
    ``--print_config``) and `main` receives the instance; without, the flags are `main`'s own parameters.

    A :class:`UserError`, and what a model or a metric refuses, leave with exit code 2, Ctrl-C with 130, any other
    exception with 1 and the path of a file that holds the traceback. With TRIPTYCH_TRACEBACK=1 in the environment the
    traceback is shown in all these cases.
    """
    run: Path | None = None
    try:
        with quiet_where_nobody_reads():
            given = _in_its_folder(_from_command_line(main, parameters))
            run = _run_of(given.get("config"))
            main(**given)
    except KeyboardInterrupt as error:
        _leave(error, f"Stopped by Ctrl-C.{_what_is_kept(run)}", 130)
    except UserError as error:
        _leave(error, f"error: {plain(error)}", 2)
    except Exception as error:
        if is_refusal(error):
            _leave(error, f"error: {plain(error)}", 2)
        _leave(error, f"error: {explain(error)}{_what_is_kept(run)} {tell_traceback(error, run)}", 1)


class PlainHelp(jsonargparse.DefaultHelpFormatter):
    """Help in which a type is called Path, not <class 'Path'>."""

    def format_help(self) -> str:
        return re.sub(r"<class\s+'([\w.]+)'>", r"\1", super().format_help())


def _from_command_line(main: Callable[..., Any], parameters: type[T] | Callable[..., Any] | None) -> dict[str, Any]:
    """The arguments of `main`."""
    parser = jsonargparse.ArgumentParser(
        description=sys.modules["__main__"].__doc__, exit_on_error=False, formatter_class=PlainHelp
    )
    parser.add_argument("--config", action=jsonargparse.ActionConfigFile, help="a YAML file of these settings")
    if parameters is None:
        parser.add_function_arguments(main, as_positional=True)
    else:
        parser.add_class_arguments(parameters)
    for file in _config_files():
        _refuse_unless_settings(file)
    try:
        arguments = parser.parse_args(in_full(parser, sys.argv[1:]))
    except jsonargparse.ArgumentError as error:
        _refuse(parser, str(error))
    try:
        values = parser.instantiate(arguments).as_dict()
        values.pop("config", None)
        return values if parameters is None else {"config": parameters(**values)}
    except ValueError as error:  # of a __post_init__ above
        raise UserError(str(error)) from None


def in_full(parser: jsonargparse.ArgumentParser, arguments: list[str]) -> list[str]:
    """`arguments` as jsonargparse reads them: ``--overwrite`` means true, and ``5,20,50`` is a list where one is asked
    for."""
    types = {flag: getattr(action, "_typehint", None) for action in parser._actions for flag in action.option_strings}
    full, rest = [], list(arguments)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        kinds = _members(types.get(flag))
        if bool in kinds and not equals:
            following = rest[0].lower() if rest else ""
            flag, equals, value = flag, "=", rest.pop(0) if following in ("true", "false", "yes", "no") else "true"
        elif kinds & {list, tuple} and str not in kinds:
            if not equals and rest and not rest[0].startswith("--"):
                equals, value = "=", rest.pop(0)
            if equals and value and not value.lstrip().startswith(("[", "(")) and value != "null":
                value = f"[{value}]"
        full.append(flag + equals + value)
    return full


def _members(typehint: Any) -> set[Any]:
    """What a type may be, containers without what they hold: ``list[int] | None`` -> {list, NoneType}."""
    if get_origin(typehint) in (Union, UnionType):
        return set().union(*(_members(kind) for kind in get_args(typehint)))
    return {get_origin(typehint) or typehint}


def _example(action: Any) -> str:
    """A value that `action` takes, as it is typed, "" for those that take any text."""
    kinds, text = _members(getattr(action, "_typehint", None)), str(getattr(action, "_typehint", ""))
    if kinds & {list, tuple}:
        return "0.5,2" if "float" in text else "5,20" if "int" in text else "one,two"
    return "8" if int in kinds else "0.5" if float in kinds else "true" if bool in kinds else ""


def _config_files() -> list[Path]:
    """What ``--config`` names, in order."""
    files, arguments = [], sys.argv[1:]
    for k, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag == "--config" and (equals or k + 1 < len(arguments)):
            files.append(Path(value if equals else arguments[k + 1]))
    return files


def _refuse_unless_settings(file: Path) -> None:
    """A file of settings that is empty, torn or something else is named; one that isn't there, by the parser."""
    if not file.is_file():
        return
    try:
        problem = "" if isinstance(yaml.safe_load(file.read_text()), dict) else "it is empty or a list, not settings"
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = plain(error)
    except OSError as error:
        problem = error.strerror
    if problem:
        copies = sorted(file.parent.glob(f"checkpoints/update_*/{file.name}"))
        hint = f" The run's last checkpoint holds a copy: --config {copies[-1]}, with the same flags." if copies else ""
        raise UserError(f"--config {file} cannot be read as settings: {problem}.{hint}")


def _in_its_folder(given: dict[str, Any]) -> dict[str, Any]:
    """`given`, its config moved to the run's folder where a run is resumed by its own ``config.yaml``.

    The folder may have been renamed or moved since, or named from another directory. What the command line says of
    either counts more.
    """
    said = {argument.partition("=")[0] for argument in sys.argv[1:]} & {"--name", "--run", "--run.output_dir"}
    config, files = given.get("config"), _config_files()
    if said or not files or getattr(config, "resume", None) is None:
        return given
    folder = files[-1].parent if files[-1].parent.name not in ("", "..") else files[-1].absolute().parent
    if folder.name.startswith("update_") and folder.parent.name == "checkpoints":  # the copy in a checkpoint
        folder = folder.absolute().parent.parent
    is_run = any((folder / part).exists() for part in ("checkpoints", "timing.jsonl"))
    here = Path(config.run.output_dir) / config.name
    if not is_run or folder.resolve() == here.resolve():
        return given
    print(f"note: going on in {folder}, where its settings say {here}.", file=sys.stderr)
    run = dataclasses.replace(config.run, output_dir=str(folder.parent))
    return {"config": dataclasses.replace(config, name=folder.name, run=run)}


def _run_of(config: Any) -> Path | None:
    """The folder of the training that `config` is about."""
    run = getattr(config, "run", None)
    return None if run is None else Path(run.output_dir) / config.name


def _what_is_kept(run: Path | None) -> str:
    """Where a training that was interrupted goes on."""
    newest = max(run.glob("checkpoints/update_*"), default=None) if run is not None else None
    return f" What was trained up to {newest} is kept; --resume latest goes on from there." if newest else ""


def _leave(error: BaseException, message: str, code: int) -> NoReturn:
    if os.environ.get("TRIPTYCH_TRACEBACK", "0") not in ("", "0"):
        traceback.print_exception(error)
    print(f"\n{message}", file=sys.stderr)
    sys.exit(code)


def _refuse(parser: jsonargparse.ArgumentParser, message: str) -> None:
    """Print a parser's complaint with the nearest known key, and leave."""
    known = [action.dest for action in parser._actions if action.dest]
    unknown = re.search(r"key ['\"]?([\w.]+)|unrecognized arguments: --([\w.]+)", message, re.IGNORECASE)
    hint = ""
    if unknown:
        name = unknown.group(1) or unknown.group(2)
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f" Did you mean '{near[0]}'?" if near and name not in known else ""
    bad = re.match(r"Parser key [\"']?([\w.]+)", message)
    if bad and (good := _example({action.dest: action for action in parser._actions}.get(bad.group(1)))):
        hint = f". Give it as in --{bad.group(1)} {good}."
    print(f"\nerror: {' '.join(message.split())}{hint} All settings: --help, --print_config.", file=sys.stderr)
    sys.exit(2)


# ---- before a script's imports -------------------------------------------------------------------

LIGHT = ("triptych.config", "triptych.cli", "triptych.errors", "triptych.jsonl")  # rooms that import no torch


def _answer_early() -> None:
    """If a script is being started: refuse its arguments, or answer --help, as :func:`command` will, but now.

    What the script imports is not there yet, so `main` is taken from its source without its body. Where that does not
    suffice (a default that needs a library), nothing happens here, and :func:`command` says it later.
    """
    source = Path(getattr(sys.modules["__main__"], "__file__", None) or "")
    if source.suffix != ".py" or len(sys.argv) < 2:
        return
    try:
        script = ast.parse(source.read_text())
        call = _call_of_command(script)
        if call is not None:
            with quiet_where_nobody_reads():
                _from_command_line(*_interface_of(script, call))
    except UserError as error:
        _leave(error, f"error: {plain(error)}", 2)
    except Exception:  # it must be imported to be understood; command() will meet what is wrong again, and tell it
        return


def _call_of_command(script: ast.Module) -> ast.Call | None:
    """Where `script` calls :func:`command`, alone under an ``if`` at its end; None: it is a program of another kind, of
    which nothing may be run here."""
    last = script.body[-1] if script.body else None
    statements = last.body if isinstance(last, ast.If) else []
    call = statements[0].value if len(statements) == 1 and isinstance(statements[0], ast.Expr) else None
    ours = isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == command.__name__
    return call if ours else None


def _interface_of(script: ast.Module, call: ast.Call) -> tuple[Callable[..., Any], Any]:
    """What `script` gives to :func:`command`: a `main` that does nothing, and the class of its settings."""
    names: dict[str, Any] = {"__name__": "__main__", "__file__": sys.argv[0]}
    for node in script.body:
        module = getattr(node, "module", None) or ""
        if isinstance(node, ast.FunctionDef) and node.name == "main":
            node.body = [node.body[0] if ast.get_docstring(node) else ast.Pass()]
        elif isinstance(node, ast.ImportFrom):
            if module.split(".")[0] not in sys.stdlib_module_names and not module.startswith(LIGHT):
                continue
        elif isinstance(node, ast.Import):
            if not {alias.name.split(".")[0] for alias in node.names} <= sys.stdlib_module_names:
                continue
        elif not isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            continue
        with suppress(Exception):  # a constant that needs what is not imported
            _execute([node], names)
    main, *parameters = (names[argument.id] for argument in call.args)
    return main, *(parameters or [None])


def _execute(nodes: list[ast.stmt], names: dict[str, Any]) -> None:
    # its annotations stay text, which the parser resolves when it needs them
    flags = __future__.annotations.compiler_flag
    exec(compile(ast.fix_missing_locations(ast.Module(nodes, [])), "script", "exec", flags), names)


_answer_early()
