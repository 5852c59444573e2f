"""The error of this room."""


class ComparisonError(ValueError):
    """These scores can't be compared as asked. Says what came, what was expected, what to do."""
