"""A training run: its folder, steps, checkpoints, log, optimizers."""
