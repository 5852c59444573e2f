"""What a filter answers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Decision:
    """Whether a clip is kept, the score behind it, the reason in words, and the rule that decided."""

    keep: bool
    score: float | None
    reason: str
    rule: str = ""


def by_figure(rule: str, score: float, unit: str, *, keep: bool, sign: str, bound: float) -> Decision:
    """A decision by a figure, with the reason in words: "rejected: 1.20 < 2 s"."""
    word = "kept" if keep else "rejected"
    return Decision(bool(keep), float(score), f"{word}: {score:.2f} {sign} {bound:g} {unit}", rule)
