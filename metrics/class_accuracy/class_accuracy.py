"""Class recognised against class asked for, counted by scikit-learn."""

from __future__ import annotations

import warnings
from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn.metrics import confusion_matrix

DESCRIPTION = """
The fraction of images in which a classifier recognises the class that was asked for, the same for each class, and the
confusion matrix: rows are classes asked for, columns classes recognised. The classifier errs too: give its own accuracy
on real images beside this number.
"""

KWARGS_DESCRIPTION = """
Args:
    predictions: ids of the classes recognised, (N,).
    references: ids of the classes asked for, (N,).
    class_names: names by id; ids themselves if not given.

Returns:
    accuracy, mean_class_accuracy (over the classes that occur), per_class (name: {accuracy, n}; accuracy is None where
    n is 0), confusion_matrix, missing_classes (names never asked for) and n.
"""


class ClassAccuracy(evaluate.Metric):
    """See DESCRIPTION."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=KWARGS_DESCRIPTION,
            # Not integers: 0.6 would be taken for class 0.
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("float64")}
            ),
            format="numpy",
        )

    def _compute(self, predictions: Any, references: Any, class_names: list[str] | None = None) -> dict[str, Any]:
        recognised, asked = np.asarray(predictions), np.asarray(references)
        if not len(asked):
            raise ValueError("There are no images.")
        both = np.concatenate([recognised, asked])
        if not np.array_equal(both, np.round(both)):  # nor is NaN
            wrong = both[both != np.round(both)][0]
            raise ValueError(f"Class ids must be whole numbers; found {wrong:g}.")
        both, recognised, asked = (ids.astype(np.int64) for ids in (both, recognised, asked))
        if class_names is None:
            class_names = range(int(both.max()) + 1)
        if isinstance(class_names, str):
            raise ValueError(f"class_names must be a list of names, not {class_names!r}.")
        names = [str(name) for name in class_names]
        if len(set(names)) < len(names):
            twice = ", ".join(sorted({name for name in names if names.count(name) > 1}))
            raise ValueError(f"class_names must differ from each other; there is more than one {twice}.")
        if both.min() < 0 or both.max() >= len(names):
            raise ValueError(
                f"Class ids must lie between 0 and {len(names) - 1}, as there are {len(names)} classes; found "
                f"{both.min()} to {both.max()}. Ids below 0 are images without a label."
            )
        matrix = confusion_matrix(asked, recognised, labels=range(len(names)))  # (asked for, recognised)
        counts, right = matrix.sum(1), matrix.diagonal()
        per_class = {
            name: {"accuracy": float(hits / count) if count else None, "n": int(count)}
            for name, hits, count in zip(names, right, counts, strict=True)
        }
        missing = [name for name, count in zip(names, counts, strict=True) if not count]
        if missing:
            warnings.warn(f"No image of these classes was asked for: {', '.join(missing)}.", stacklevel=3)
        return {
            "accuracy": float(right.sum() / counts.sum()),
            "mean_class_accuracy": float((right[counts > 0] / counts[counts > 0]).mean()),
            "per_class": per_class,
            "confusion_matrix": matrix.tolist(),
            "missing_classes": missing,
            "n": int(counts.sum()),
        }
