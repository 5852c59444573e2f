"""Training time that a plan has left, from the stages timed in this store."""

import json
from collections.abc import Iterable

from stav2a.ablation.planning import Plan
from stav2a.keys import Part
from stav2a.store import Store


def training_s(plan: Plan) -> float | None:
    """Seconds of training that are left; None where a stage that is left was never timed in this store."""
    lacking = [part for part in plan.to_make() if part.steps]
    step_s = _step_s(plan.store, [part for run in plan.runs for part in run.parts])
    if any(part.name not in step_s for part in lacking):
        return None
    return sum(part.steps * step_s[part.name] for part in lacking)


def duration(seconds: float) -> str:
    """A duration in words.

    Example:
        >>> duration(42), duration(1380), duration(5000)
        ('42 s', '23 min', '1 h 23 min')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _step_s(store: Store, parts: Iterable[Part]) -> dict[str, float]:
    """Seconds a step of every stage of this plan that the store has a record of."""
    found = {}
    for part in parts:
        path = store.path(part.kind, part.key) / "facts.json"
        if part.steps and path.is_file():
            facts = json.loads(path.read_text(encoding="utf-8"))
            found[part.name] = facts["seconds"] / facts["steps"]
    return found
