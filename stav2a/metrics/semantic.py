"""Does the sound mean the right thing? Arrays in, numbers out."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stav2a.metrics.errors import MetricError


def predicted_classes(logits: ArrayLike) -> NDArray[np.int64]:
    """The likeliest class of each row; of equals, the first.

    Shapes:
        (N, C) -> (N,)
    """
    rows = np.asarray(logits, dtype=np.float64)
    if rows.ndim != 2 or not rows.size or not np.isfinite(rows).all():
        raise MetricError(
            f"the logits were of shape {rows.shape}, or not all finite. Give one finite row a clip."
        )
    return rows.argmax(axis=1)


def class_hits(logits: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """1.0 for each clip whose likeliest class is its label, else 0.0; their mean is the accuracy.

    Args:
        logits: A classifier's, one row a clip.
        labels: The true classes, as indices into the logits' columns.

    Shapes:
        (N, C), (N,) -> (N,)

    Raises:
        MetricError: Labels that don't pair up with the rows, or that the classifier doesn't know.

    Example:
        >>> class_hits([[0.0, 1.0], [0.0, 1.0]], [1, 0])
        array([1., 0.])
    """
    predicted, truth = predicted_classes(logits), np.asarray(labels)
    if truth.shape != predicted.shape:
        raise MetricError(f"{truth.shape} labels for {len(predicted)} clips. Give one label a clip.")
    classes = np.shape(logits)[1]
    if truth.min() < 0 or truth.max() >= classes:
        raise MetricError(
            f"labels from {truth.min()} to {truth.max()}, but the classifier has classes 0 to {classes - 1}."
        )
    return (predicted == truth).astype(np.float64)
