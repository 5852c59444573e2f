"""A plan in words, printed before anything is started."""

from collections import Counter
from collections.abc import Iterable

from stav2a.ablation.estimate import duration, training_s
from stav2a.ablation.planning import Plan, PlannedRun
from stav2a.keys import Part


def told(plan: Plan, jobs: int = 1) -> str:
    """What a plan will make, what it finds there, and where that is known, how long it takes."""
    study = plan.study
    width = max(len(row.name) for row in study.rows)
    size = f"{counted(len(study.rows), 'row')} × {counted(len(study.seeds), 'seed')}"
    lines = [f"{study.name}: {size} ({', '.join(map(str, study.seeds))}), compared with {study.baseline}"]
    done: set[str] = set()
    for row in study.rows:
        runs = [run for run in plan.runs if run.row.name == row.name]
        lines.append(f"  {row.name:{width}}  {_state(plan, runs, done)}")
    return "\n".join(
        [
            *lines,
            f"to make: {_listed(plan.to_make())}",
            f"reused:  {_listed(_reused(plan))}",
            *_time(plan, jobs),
        ]
    )


def _time(plan: Plan, jobs: int) -> list[str]:
    """How long the training takes, where this store has timed its stages before."""
    seconds = training_s(plan)
    if not seconds:
        return []
    at_once = f", {duration(seconds / jobs)} with {jobs} runs at a time" if jobs > 1 else ""
    return [f"time:    about {duration(seconds)} of training{at_once} (steps as timed in this store)"]


def _state(plan: Plan, runs: list[PlannedRun], done: set[str]) -> str:
    """What a row's runs train that no earlier row trains for them; `done` is told of it."""
    finished = sum(run.folder.finished for run in runs)
    if finished == len(runs):
        return "finished"
    lacking = {part.key: part for run in runs for part in run.lacks(plan.store) if part.steps}
    own = [part for key, part in lacking.items() if key not in done]
    done |= set(lacking)
    begun = f"{finished} of {len(runs)} finished; " if finished else ""
    return f"{begun}trains {_listed(own)}" if own else f"{begun}samples and measures"


def _reused(plan: Plan) -> list[Part]:
    parts = {(part.kind, part.key): part for run in plan.runs for part in run.parts}
    return [part for part in parts.values() if plan.store.has(part.kind, part.key)]


def _listed(parts: Iterable[Part]) -> str:
    counts = Counter(part.name for part in parts)
    return ", ".join(f"{n} × {name}" if n > 1 else name for name, n in counts.items()) or "nothing"


def counted(number: int, thing: str) -> str:
    """A number of things.

    Example:
        >>> counted(1, "row"), counted(2, "row")
        ('1 row', '2 rows')
    """
    return f"{number} {thing}{'' if number == 1 else 's'}"
