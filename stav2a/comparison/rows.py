"""What is compared: rows of an ablation, each trained with several seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stav2a.metrics.sets import Score


@dataclass(frozen=True)
class Row:
    """One row: the same recipe, trained and measured with several seeds.

    Args:
        name: As in the table.
        scores: Seed -> its scores on the held-out clips, which are the same for all rows and seeds.
        builds_on: The row that this one changes by a step, or None.
        missing: Seed -> why it has no scores.
    """

    name: str
    scores: Mapping[int, Sequence[Score]]
    builds_on: str | None = None
    missing: Mapping[int, str] = field(default_factory=dict)

    def named(self, metric: str) -> dict[int, Score]:
        """Seed -> its score of this name, measured or not."""
        found = {seed: [s for s in scores if s.name == metric] for seed, scores in self.scores.items()}
        return {seed: scores[0] for seed, scores in sorted(found.items()) if scores}

    def measured(self, metric: str) -> dict[int, Score]:
        """Seed -> its score of this name, where there is a figure."""
        return {seed: score for seed, score in self.named(metric).items() if score.unavailable is None}
