"""A custom pipeline that carries its code, and that of its custom components, along with its weights.

Plain diffusers writes no code for a custom pipeline, and the folder would not load. What is saved is one file, in which
the files that the pipeline imports from here come first. Several files would load too, but diffusers copies those of
all local folders to one place: processes that load at the same time would read each other's half-written copies, and
folders of two versions each other's files.
"""

from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path


def carried(name: str, file: str) -> tuple[str, str]:
    """Code as it is when a pipeline's module is imported: by the time it is saved, the files may be another version's.

    Args:
        name: what the module is saved as.
        file: its ``__file__``.

    Returns:
        `name`, and the text to save: the module's, after those that it imports by `from .module import ...`.
    """
    path = Path(file)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parts = gather(path, done=set())
    if len(parts) == 1:
        return name, path.read_text(encoding="utf-8")  # a saved one, or one that imports nothing from here
    head = f'"""{ast.get_docstring(tree, clean=False)}"""\n\nfrom __future__ import annotations\n\n'
    return name, head + "\n\n".join(f"# ---- {module}.py\n{text}" for module, text in parts)


def gather(path: Path, done: set[str]) -> list[tuple[str, str]]:
    """A module and those that it imports from its own folder, what is needed first coming first: (name, text).

    Of a text is left out what can stand once alone, at the top: docstring, `from __future__`, and imports from here.
    """
    text = path.read_text(encoding="utf-8")
    parts, lines = [], text.splitlines()
    for number, node in enumerate(ast.parse(text).body):
        relative = isinstance(node, ast.ImportFrom) and node.level == 1
        docstring = number == 0 and isinstance(node, ast.Expr)
        if relative and node.module not in done:
            done.add(node.module)
            parts += gather(path.with_name(f"{node.module}.py"), done)
        if relative or docstring or (isinstance(node, ast.ImportFrom) and node.module == "__future__"):
            lines[node.lineno - 1 : node.end_lineno] = [None] * (node.end_lineno - node.lineno + 1)
    return [*parts, (path.stem, "\n".join(line for line in lines if line is not None).strip() + "\n")]


class CarriesCode:
    """A base to name before `DiffusionPipeline`; the class keeps as `_code` what :func:`carried` gives."""

    def save_pretrained(
        self,
        save_directory: str | Path,
        safe_serialization: bool = True,
        variant: str | None = None,
        push_to_hub: bool = False,
        **kwargs,
    ) -> None:
        """Save weights, configs and code, so that ``from_pretrained(..., trust_remote_code=True)`` works anywhere.

        Args as in [`DiffusionPipeline.save_pretrained`].
        """
        hub = {k: kwargs.pop(k) for k in ("repo_id", "commit_message", "private", "create_pr", "token") if k in kwargs}
        super().save_pretrained(save_directory, safe_serialization=safe_serialization, variant=variant, **kwargs)
        folder, kind = Path(save_directory), type(self)
        name, code = source(kind)
        (folder / "pipeline.py").write_text(alias(name, kind), encoding="utf-8")
        (folder / f"{name}.py").write_text(code, encoding="utf-8")
        index_path = folder / "model_index.json"
        index = json.loads(index_path.read_text(encoding="utf-8"))
        index["_class_name"] = [name, kind.__name__]
        for key, component in self.components.items():
            component = type(getattr(component, "_orig_mod", component))  # what torch.compile wraps
            if isinstance(index.get(key), list) and "_code" in vars(component):
                file, text = component._code
                (folder / key / f"{file}.py").write_text(text, encoding="utf-8")
                index[key] = [file, component.__name__]
        index.pop("_name_or_path", None)
        index_path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        if push_to_hub:
            self.push_to_hub(hub.pop("repo_id", folder.name), variant=variant, **hub)


def alias(name: str, kind: type) -> str:
    """Text of the `pipeline.py` that diffusers' `custom_pipeline=folder` looks for.

    Diffusers runs those of all folders in one module and wants one pipeline there, so what another left is dropped.
    """
    return (
        "for key in [key for key, value in globals().items() if isinstance(value, type)]:\n"
        "    del globals()[key]\n"
        f"from .{name} import {kind.__name__}  # noqa: E402, F401\n"
    )


def source(kind: type) -> tuple[str, str]:
    """Name and text of the module that a pipeline's class is saved with; one derived from ours brings its own file."""
    return vars(kind).get("_code") or carried(Path(inspect.getfile(kind)).stem, inspect.getfile(kind))
