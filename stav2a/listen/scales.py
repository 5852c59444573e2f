"""The four scales of the paper's listening test (sec. III-A), each from 1 to 100."""

from dataclasses import dataclass

LOWEST, HIGHEST = 1, 100


@dataclass(frozen=True)
class Scale:
    """What is rated.

    Args:
        name: In the database and in tables for programs.
        label: The paper's letters.
        title: What they stand for, in the paper's words.
        question: What a listener is asked, in ours: the paper does not print its own.
    """

    name: str
    label: str
    title: str
    question: str


# In the order of Table II: the parts first, then the whole.
SCALES = (
    Scale("aq", "AQ", "Audio quality", "The sound alone: is it clear and natural, free of noise and faults?"),
    Scale("sa", "SA", "Semantic alignment", "Are these the sounds of the things and events in the picture?"),
    Scale("ta", "TA", "Temporal alignment", "Do the sounds come at the moments when you see them happen?"),
    Scale("oq", "OQ", "Overall quality", "All in all: how good is this sound for this video?"),
)
NAMES = tuple(scale.name for scale in SCALES)
