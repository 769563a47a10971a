"""A package, so that its conftest.py and that of the folder above have different names."""

import sys

from conftest import ROOT

sys.path.insert(0, str(ROOT / "space"))  # as running space/app.py does
