"""From names to metrics: `aa_align`, or `aa_align_released` for a metric's form in the paper."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stav2a.errors import UsageError
from stav2a.registry import available, did_you_mean, get

RELEASED = "_released"
PAPERS = ("fd", "fad", "kl", "is", "pam", "clap", "av_align", "aa_align")  # Table I's columns


def build(names: Sequence[str], *, detector: str | None = None, flow: str | None = None) -> dict[str, Any]:
    """The metrics of these names, by them.

    Args:
        names: Of registered metrics; with `_released` at the end, in the form of the paper's authors.
        detector: The onset detector of those that have one; None is each metric's own.
        flow: The optical flow of those that have one; None is each metric's own.

    Raises:
        UsageError: No metric of that name, or it has no other form.
        RegistryError: No detector or flow of that name.
    """
    chosen = {"detector": ("onset_detector", detector), "flow": ("optical_flow", flow)}
    parts = {setting: get(slot, name).factory for setting, (slot, name) in chosen.items() if name}
    return {name: _build(name, parts) for name in names}


def released(names: Sequence[str]) -> list[str]:
    """The same names, those that have a form of the paper's in it."""
    return [f"{name}{RELEASED}" if _has_released(name) else name for name in names]


def _build(name: str, parts: Mapping[str, Callable[..., Any]]) -> Any:
    entries = {entry.name: entry for entry in available("metric")}
    plain = name if name in entries else name.removesuffix(RELEASED)
    if plain not in entries:
        raise UsageError(f"there is no metric {name!r}. {did_you_mean(name, entries)}")
    factory = entries[plain].factory
    if plain != name and not _has_released(plain):
        raise UsageError(f"{plain} has one form alone, the paper's too. Write {plain}.")
    make = factory if plain == name else factory.released  # type: ignore[attr-defined]
    return make(**{setting: part for setting, part in parts.items() if setting in entries[plain].parameters})


def _has_released(name: str) -> bool:
    return any(entry.name == name and hasattr(entry.factory, "released") for entry in available("metric"))
