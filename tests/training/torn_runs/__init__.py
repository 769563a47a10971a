"""A package, so that its conftest.py and that of the folder above have different names."""
