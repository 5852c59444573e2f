"""The one error of the metrics."""


class MetricError(ValueError):
    """A metric was given something it can't measure: what came, what was expected, what to do."""
