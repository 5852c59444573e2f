"""Text of a model's audit: a table of its blocks, notes on it, and the missing weights and data."""

from collections.abc import Sequence

from stav2a.models.audit import Audit, BlockAudit
from stav2a.reports.tables import grid
from stav2a.utils.errors import StaV2AError

HEAD = ("block", "class", "parameters", "trained in", "training", "inference", "FLOPs a step")
WORDS = {0, 1, 3}  # columns aligned to the left


def audit_lines(found: Audit, branches: int = 2) -> list[str]:
    """Table of the blocks with their totals, and notes on how it was counted; for branches of guidance."""
    lines = [*grid(HEAD, [*map(_row, found.blocks), _totals(found)], left=WORDS).splitlines(), ""]
    for stage in found.stages:
        trained = _millions(sum(stage.trained.values()))
        lines.append(f"stage.{stage.stage} trains {trained}, in {_amount(found.training_bytes(stage), 'B')}")
    if not found.stages:
        lines.append("no stage has steps: nothing is trained")
    step = f"one denoising step of one clip: {', '.join(f'{name} {s}' for name, s in found.shapes.items())}"
    if found.flops is None:
        lines.append(f"{step}; its operations could not be counted")
    else:
        once, whole = _amount(found.flops), _amount(branches * found.flops)
        guided = f"; {whole}FLOP with the {branches} branches of guidance" if branches > 1 else ""
        lines.append(f"{step}, the longest caption: {once}FLOP{guided}")
    copy = f", and the sampler's copy of unet and backbone in {found.precision}"
    return [
        *lines,
        "training: weights, gradients, AdamW's two moments and EMA in float32, the most of any stage; "
        f"inference: weights in float32{'' if found.precision == 'float32' else copy}",
        "not counted: activations, a stage's own helpers, the copies that validation keeps; normalisations "
        "and activations in FLOPs, where a product and its sum are two",
    ]


def missing_lines(missing: Sequence[StaV2AError]) -> list[str]:
    """Missing weights and data, with each advice once."""
    if not missing:
        return ["nothing that the recipe names is missing on this machine"]
    by_advice: dict[str, list[str]] = {}
    for each in missing:
        by_advice.setdefault(each.advice, []).append(each.message)
    lines = ["missing on this machine, and what to do:"]
    for advice, messages in by_advice.items():
        lines += [f"  {message.removesuffix('.')}" for message in messages]
        lines.append(f"    -> {advice.removesuffix('.')}")
    return lines


def _row(block: BlockAudit) -> tuple[str, ...]:
    if block.parameters is None:
        return (block.slot, block.kind, "unknown", "frozen", "unknown", "unknown", "-")
    trained = ", ".join(block.trained_in) or ("frozen" if block.parameters else "-")
    flops = "unknown" if block.flops is None else _amount(block.flops) if block.flops else "-"
    memory = _amount(block.training, "B"), _amount(block.inference, "B")
    return (block.slot, block.kind, _millions(block.parameters), trained, *memory, flops)


def _totals(found: Audit) -> tuple[str, ...]:
    unknown = [block.slot for block in found.blocks if block.parameters is None]
    training = [found.training_bytes(stage) for stage in found.stages]
    return (
        "all",
        f"without {', '.join(unknown)}" if unknown else "",
        _millions(sum(block.parameters or 0 for block in found.blocks)),
        "",
        _amount(max(training), "B") if training else "-",
        _amount(sum(block.inference for block in found.blocks), "B"),
        "unknown" if found.flops is None else _amount(found.flops),
    )


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f} M" if count >= 1e6 else _amount(count).strip()


def _amount(number: float, unit: str = "") -> str:
    """Number with a prefix, such as 798.5 G."""
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {prefix}{unit}"
    return f"{number:.0f} {unit}".rstrip() if unit else f"{number:.0f}"
