"""Choice of an evaluation's metrics: by preset, by name, or by a recipe that binds them and their judges."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stav2a import recipe, registry
from stav2a.evaluation.folders.systems import PAPERS, RELEASED
from stav2a.registry import did_you_mean
from stav2a.utils.errors import UsageError

DEFAULT = (*PAPERS, "kad")
PRESETS: Mapping[str, Sequence[str]] = {
    # Those that need no download: YAMNet's weights can be installed.
    "laptop": ("aa_align", "av_align", "fd_yamnet", "kad_yamnet", "class_agreement_yamnet"),
    "av_benchmark": (
        "fd", "fad", "kl", "is", "clap_music_speech", "clap_ms_clap", "fd_passt", "kl_passt", "is_passt",
        "imagebind", "desync",
    ),
    "stav2a_paper": (
        "fd", "fad", "kl_released", "is", "pam_released", "clap_released", "av_align_released",
        "aa_align_released",
    ),
}  # fmt: skip


@recipe.as_root("evaluation")
@dataclass(frozen=True, kw_only=True)
class FolderEvaluation:
    """An evaluation of folders, as a file or bindings write it.

    Args:
        metrics: Metrics, in the table's order.
    """

    metrics: Sequence[Callable[..., Any]]


def load_metrics(
    names: Sequence[str],
    *,
    preset: str | None = None,
    recipes: Sequence[str | Path] = (),
    bindings: Sequence[str] = (),
    trust: bool = False,
) -> tuple[list[str], recipe.Recipe[FolderEvaluation]]:
    """Names of the metrics to compute, and the recipe that binds their parameters.

    Args:
        names: Names; those with `_released` at the end are in the form of the paper's authors.
        preset: Key of `PRESETS`, in place of names.
        recipes: Files that bind `evaluation.metrics`, or parameters of metrics and judges.
        bindings: Bindings laid over them.
        trust: Let the recipes import any module.

    Returns:
        Names and recipe for `systems.choose`.

    Raises:
        UsageError: Both names and a preset, or a preset that there isn't.
        RecipeError: The files or the bindings don't fit.
    """
    registry.load()
    if preset is not None:
        if names:
            raise UsageError("--metrics and --preset both say what to compute.", advice="Give one of them.")
        if preset not in PRESETS:
            raise UsageError(f"there is no preset {preset!r}.", advice=did_you_mean(preset, PRESETS))
        names = PRESETS[preset]
    known = {entry.name for entry in registry.available("metric")}
    plain = {name: name if name in known else name.removesuffix(RELEASED) for name in names or DEFAULT}
    for name in plain:
        if plain[name] not in known:
            raise UsageError(f"there is no metric {name!r}.", advice=did_you_mean(name, known))
    listed = ", ".join(f"@metric.{name}" for name in dict.fromkeys(plain.values()))
    chosen = f"evaluation.metrics = [{listed}]"
    # Names are laid over the files; the default lies below them.
    written = [chosen] if names or not _binds_metrics(recipes, trust=trust) else []
    loaded = recipe.load(recipes, [*written, *bindings], root=FolderEvaluation, trust=trust)
    factories = [registry.expect("metric", factory) for factory in loaded.build().metrics]
    found = [registry.name_of(factory) for factory in factories]
    if written and found == list(dict.fromkeys(plain.values())):
        found = list(plain)
    return found, loaded


def _binds_metrics(recipes: Sequence[str | Path], *, trust: bool) -> bool:
    read = recipe.parsing.read(recipes, (), trust=trust)
    return any((each.selector, each.parameter) == ("evaluation", "metrics") for each in read.written)
