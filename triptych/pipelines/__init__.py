"""Saved models: to disk and back, their schedulers, drawing from them."""
