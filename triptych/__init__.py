"""Triptych: what every training script needs and no paper mentions.

Configuration, data, run folder, checkpoints, logging, export and figures. The algorithms stand in
``scripts/``, the networks and pipelines in ``models/``; this package receives them and never imports them.
"""
