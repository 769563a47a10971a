"""What pyproject.toml can't say: where the folders beside the package go.

A wheel carries them inside it, as triptych/lab/, because names such as `models` and `scripts` in site-packages would
meet those of other packages. An editable install leaves them where they are and makes `models` importable, which the
scripts of a checkout need; triptych/paths.py finds them in both cases.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

LAB = ("accelerate_config.yaml", "configs", "metrics", "models", "scripts")
# scripts/project maintains a checkout: its report, records and notebooks
LEFT_OUT = shutil.ignore_patterns("__pycache__", "project")


class BuildWithLab(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        lab = Path(self.build_lib) / "triptych/lab"
        shutil.rmtree(lab, ignore_errors=True)  # what an earlier build left in build/
        lab.mkdir(parents=True)
        for name in LAB:
            if Path(name).is_dir():
                shutil.copytree(name, lab / name, ignore=LEFT_OUT)
            else:
                shutil.copyfile(name, lab / name)


class EditableWithModels(editable_wheel):
    def run(self) -> None:
        self.distribution.packages.append("models")
        super().run()


setup(cmdclass={"build_py": BuildWithLab, "editable_wheel": EditableWithModels})
