"""Judging images: judges, features, scores, restorers that are compared."""
