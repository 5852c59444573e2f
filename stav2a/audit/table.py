"""The audit in words."""

from stav2a.audit.counting import Audit, Block

HEAD = ("block", "class", "parameters", "trained in", "training", "inference", "FLOPs a step")
NUMBERS = {2, 4, 5, 6}  # columns that end, not begin, in line


def table(found: Audit) -> list[str]:
    """The audit, a block a line, and how to read it."""
    rows = [HEAD, *(_row(block) for block in found.blocks), _totals(found)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    lines = ["  ".join(_placed(cell, i, widths[i]) for i, cell in enumerate(row)).rstrip() for row in rows]
    return [*lines, "", *_stages(found), *_step(found), *_reading(found)]


def _placed(cell: str, column: int, width: int) -> str:
    return cell.rjust(width) if column in NUMBERS else cell.ljust(width)


def _row(block: Block) -> tuple[str, ...]:
    if block.parameters is None:
        return (block.slot, block.kind, "unknown", "frozen", "unknown", "unknown", "-")
    trained = ", ".join(block.trained_in) or ("frozen" if block.parameters else "-")
    flops = "unknown" if block.flops is None else _amount(block.flops) if block.flops else "-"
    memory = _amount(block.training, "B"), _amount(block.inference, "B")
    return (block.slot, block.kind, _millions(block.parameters), trained, *memory, flops)


def _totals(found: Audit) -> tuple[str, ...]:
    unknown = [block.slot for block in found.blocks if block.parameters is None]
    parameters = sum(block.parameters or 0 for block in found.blocks)
    training = max((found.training_bytes(each) for each in found.trainings), default=None)
    return (
        "all",
        f"without {', '.join(unknown)}" if unknown else "",
        _millions(parameters),
        "",
        "-" if training is None else _amount(training, "B"),
        _amount(sum(block.inference for block in found.blocks), "B"),
        "unknown" if found.flops is None else _amount(found.flops),
    )


def _stages(found: Audit) -> list[str]:
    if not found.trainings:
        return ["no stage has steps: nothing is trained"]
    return [
        f"stage.{each.stage} trains {_millions(sum(each.trained.values()))}, in "
        f"{_amount(found.training_bytes(each), 'B')}"
        for each in found.trainings
    ]


def _step(found: Audit) -> list[str]:
    shapes = ", ".join(f"{name} {shape}" for name, shape in found.shapes.items())
    if found.flops is None:
        return [f"one denoising step of one clip: {shapes}; its operations could not be counted"]
    return [
        f"one denoising step of one clip: {shapes}, the longest caption: {_amount(found.flops)}FLOP; "
        f"{_amount(2 * found.flops)}FLOP with guidance, which doubles it"
    ]


def _reading(found: Audit) -> list[str]:
    return [
        f"training: weights, gradients, AdamW's two moments and EMA in float32, the most of any stage; "
        f"inference: weights in float32{_copy(found.precision)}",
        "not counted: activations, a stage's own helpers, the copies that validation keeps; normalisations "
        "and activations in FLOPs, where a product and its sum are two",
    ]


def _copy(precision: str) -> str:
    return "" if precision == "float32" else f", and the sampler's copy of unet and backbone in {precision}"


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f} M" if count >= 1e6 else _amount(count).strip()


def _amount(number: float, unit: str = "") -> str:
    """A number to three digits or more, such as 798.5 G."""
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {prefix}{unit}"
    return f"{number:.0f} {unit}".rstrip() if unit else f"{number:.0f}"
