"""How long a plan will take: from what was measured in this store, else from a laptop's figures."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from stav2a.ablation.planning import Plan
from stav2a.keys import Part
from stav2a.store import Store

# Seconds on 2 cores at laptop scale, two runs side by side (docs/speed.md): of one step of a stage; of making
# something else once; of a run's own start, sampling, measuring and report.
LAPTOP_STEP_S = {
    "autoencoder": 0.2,
    "contrastive": 0.12,
    "t2a_pretrain": 0.19,
    "t2a_finetune": 0.2,
    "onset": 0.011,
    "joint": 0.26,
    "classifier": 0.06,
}
LAPTOP_S = {"clips": 60.0, "filter": 3.0, "features": 2.0, "latents": 5.0, "flows": 10.0}
LAPTOP_RUN_S = 55.0
LAPTOP_DATASET = "dataset.struck_objects"


@dataclass(frozen=True)
class Estimate:
    """Seconds of work, and where the figure comes from; None where there is none."""

    seconds: float | None
    source: str

    def told(self, jobs: int) -> str:
        """In words, for so many runs at a time."""
        if self.seconds is None:
            return f"no estimate: {self.source}"
        work = f"about {duration(self.seconds)} of work"
        at_once = f", {duration(self.seconds / jobs)} with {jobs} runs at a time" if jobs > 1 else ""
        return f"{work}{at_once} ({self.source})"


def estimate(plan: Plan) -> Estimate:
    """What is lacking, priced."""
    unfinished = [run for run in plan.runs if not run.folder.finished]
    if not unfinished:
        return Estimate(0.0, "all runs are finished")
    measured = _measured(plan.store, [part for run in plan.runs for part in run.parts])
    lacking = plan.to_make()
    unknown = sorted({part.name for part in lacking if part.steps and part.name not in measured})
    datasets = {run.described["parameters"]["dataset"]["component"] for run in unfinished}
    if unknown and datasets != {LAPTOP_DATASET}:
        return Estimate(None, f"nothing was measured here yet of {', '.join(unknown)}")
    step_s = {**LAPTOP_STEP_S, **measured}
    if strangers := [name for name in unknown if name not in step_s]:
        return Estimate(None, f"nothing was measured here yet of {', '.join(strangers)}")
    made = sum(part.steps * step_s[part.name] if part.steps else LAPTOP_S[part.kind] for part in lacking)
    source = "a 2-core laptop's figures at laptop scale" if unknown else "stages as measured in this store"
    return Estimate(made + LAPTOP_RUN_S * len(unfinished), source)


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


def _measured(store: Store, parts: Iterable[Part]) -> dict[str, float]:
    """Seconds a step of every stage of this plan of which the store tells."""
    found = {}
    for part in parts:
        path = store.path(part.kind, part.key) / "facts.json"
        if part.steps and path.is_file():
            facts = json.loads(path.read_text())
            found[part.name] = facts["seconds"] / facts["steps"]
    return found
