"""Agreement of sounds with classes and captions. Arrays in, numbers out."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stav2a.metrics.distribution import matrix
from stav2a.metrics.score import MetricError

RIDGE = 1.0  # of the linear probe


def predicted_classes(logits: ArrayLike) -> NDArray[np.int64]:
    """Likeliest class of each row; of equals, the first.

    Shapes:
        (N, C) -> (N,)
    """
    return matrix(logits, "logits").argmax(axis=1)


def class_hits(logits: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Hits: 1.0 for each clip whose likeliest class is its label, else 0.0; their mean is the accuracy.

    Args:
        logits: Logits of a classifier, one row a clip.
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


class LinearProbe:
    """Linear classifier of embeddings: ridge regression on one-hot classes, in closed form.

    Embeddings are brought to zero mean and unit deviation, dimension by dimension, before they are weighted.

    Args:
        embeddings: Embeddings of sounds of known classes.
        labels: Their classes, counted from 0.
        ridge: Weight of the squared coefficients beside the mean squared error.

    Shapes:
        (N, D), (N,); called with (M, D) -> scores of the classes (M, C)

    Raises:
        MetricError: Labels that don't pair up with the rows, fewer than two classes.

    Example:
        >>> probe = LinearProbe([[0.0], [1.0], [5.0], [6.0]], [0, 0, 1, 1])
        >>> probe([[0.5], [5.5]]).argmax(axis=1)
        array([0, 1])
    """

    def __init__(self, embeddings: ArrayLike, labels: ArrayLike, *, ridge: float = RIDGE) -> None:
        x, truth = matrix(embeddings, "embeddings of the examples"), np.asarray(labels)
        if truth.shape != x.shape[:1]:
            raise MetricError(f"{truth.shape} labels for {len(x)} examples. Give one label an example.")
        if len(set(truth.tolist())) < 2:
            raise MetricError("the examples are of one class alone; a probe needs two or more.")
        deviation = x.std(axis=0)
        self.definition = f"ridge regression ({ridge:g}) on standardised embeddings"
        self._mean, self._deviation = x.mean(axis=0), np.where(deviation > 0, deviation, 1.0)
        z, classes = self._scaled(x), np.eye(truth.max() + 1)[truth]
        self._offset = classes.mean(axis=0)
        gram = z.T @ z + ridge * len(z) * np.eye(z.shape[1])
        self._weights = np.linalg.solve(gram, z.T @ (classes - self._offset))

    def __call__(self, embeddings: ArrayLike) -> NDArray[np.float64]:
        return self._scaled(matrix(embeddings, "embeddings")) @ self._weights + self._offset

    def _scaled(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return (x - self._mean) / self._deviation


def cosines(sounds: ArrayLike, texts: ArrayLike) -> NDArray[np.float64]:
    """Cosine of each sound's embedding with its caption's; their mean is the CLAP score.

    Shapes:
        (N, D), (N, D) -> (N,)

    Raises:
        MetricError: Different shapes, numbers that are not finite.

    Example:
        >>> cosines([[1.0, 0.0], [3.0, 4.0]], [[2.0, 0.0], [1.0, 0.0]])
        array([1. , 0.6])
    """
    x, y = matrix(sounds, "sounds' embeddings"), matrix(texts, "texts' embeddings")
    if x.shape != y.shape:
        raise MetricError(f"embeddings of shapes {x.shape} and {y.shape}. Give one of each a clip.")
    return (x * y).sum(axis=1) / (np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1))


def prompted(segments: ArrayLike, prompts: ArrayLike, scale: float) -> float:
    """PAM: how much likelier the first of two prompts is for a sound, by softmax; a mean over its segments.

    Args:
        segments: Embeddings of the sound's segments.
        prompts: Embeddings of the wanted quality and of its opposite.
        scale: Factor of the cosines before softmax.

    Shapes:
        (W, D), (2, D) -> a probability

    Example:
        >>> round(prompted([[1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], 2.0), 4)  # 1 / (1 + exp(-2))
        0.8808
    """
    sounds, texts = np.asarray(segments, dtype=np.float64), np.asarray(prompts, dtype=np.float64)
    wanted, opposite = (cosines(sounds, np.broadcast_to(text, sounds.shape)) for text in texts)
    return float((1 / (1 + np.exp(-scale * (wanted - opposite)))).mean())
