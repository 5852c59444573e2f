"""Parameters, memory and operations of each block. Meta tensors will do: only shapes count."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stav2a.assembly import BLOCKS, STAV2A, Conditions
from stav2a.data.io.resampling import frame_count

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}  # a number, by precision
GRADIENT, ADAMW, EMA = 4, 8, 4  # bytes a trained parameter, beside its weight: kept in float32 throughout
DENOISER = ("unet", "backbone")  # what a sampler of another precision keeps a copy of
CAPTION_TOKENS = 77  # of a text encoder that has no `max_length`


@dataclass(frozen=True)
class Training:
    """What one stage trains.

    Args:
        stage: Its name.
        trained: Parameters that it trains, by slot; the backbone's are without the U-Net's.
        averaged: Whether it keeps a running mean of them.
    """

    stage: str
    trained: Mapping[str, int]
    averaged: bool

    def bytes_a_parameter(self) -> int:
        """Beside the weight itself."""
        return GRADIENT + ADAMW + (EMA if self.averaged else 0)


@dataclass(frozen=True)
class Block:
    """One row of the table.

    Args:
        slot: Of `BLOCKS`; the backbone is without the U-Net.
        kind: Its class.
        parameters: How many; None where its size is not known.
        trained_in: Stages that train it; none where it is frozen.
        weights: Bytes of its weights and buffers in float32.
        training: Bytes at most over all stages: the same, and what training keeps of them.
        inference: Bytes of its weights, and of the copy that a sampler of another precision keeps of them.
        flops: Operations of one denoising step; None where they could not be counted.
    """

    slot: str
    kind: str
    parameters: int | None
    trained_in: tuple[str, ...]
    weights: int
    training: int
    inference: int
    flops: int | None


@dataclass(frozen=True)
class Audit:
    """All blocks, and what holds for the whole model.

    Args:
        blocks: One a slot.
        trainings: One a stage.
        shapes: Of what one denoising step is given, by the paper's symbols.
        precision: In which the sampler computes.
    """

    blocks: Sequence[Block]
    trainings: Sequence[Training]
    shapes: Mapping[str, tuple[int, ...]]
    precision: str

    @property
    def flops(self) -> int | None:
        """Operations of one denoising step without guidance; None where they could not be counted."""
        counted = [block.flops for block in self.blocks]
        return None if None in counted else sum(filter(None, counted))

    def training_bytes(self, training: Training) -> int:
        """Memory of one stage: every block's weights in float32, and what training adds."""
        weights = sum(block.weights for block in self.blocks)
        return weights + sum(training.trained.values()) * training.bytes_a_parameter()


def audit(model: STAV2A, stages: Sequence[tuple[str, Any]], *, precision: str = "float32") -> Audit:
    """Count everything. Which parameters require a gradient is changed on the way.

    Args:
        model: Assembled, on any device; a block with a true `size_unknown` is left out of all sums.
        stages: Name and instance of every stage that has steps, in order.
        precision: In which the sampler computes, one of `BYTES`; the weights are float32 throughout.
    """
    trainings = list(_trainings(model, stages))
    given = _step_inputs(model.eval())
    flops = _flops(model, given)
    blocks = [_block(model, slot, trainings, precision, flops) for slot in BLOCKS]
    z_t, _, conditions = given
    shapes = {"z_t": z_t, "c": conditions.c, "e_lv": conditions.e_lv}
    return Audit(blocks, trainings, {name: tuple(x.shape) for name, x in shapes.items()}, precision)


def _trainings(model: STAV2A, stages: Sequence[tuple[str, Any]]) -> Iterable[Training]:
    """Freeze and thaw blocks as the stages will."""
    frozen = {slot for slot in BLOCKS if not any(p.requires_grad for p in model.block(slot).parameters())}
    for name, stage in stages:
        model.requires_grad_(False)
        for slot in stage.trains:
            if slot not in frozen:
                model.block(slot).requires_grad_(True)
        if "backbone" in stage.trains:
            model.backbone.start_from_t2a()
        trained = {slot: sum(p.numel() for p in _own(model, slot) if p.requires_grad) for slot in BLOCKS}
        yield Training(name, trained, bool(getattr(stage, "ema_decay", 0)))
        frozen |= set(stage.trains) - {"unet", "backbone"}


def _block(
    model: STAV2A, slot: str, trainings: Sequence[Training], precision: str, flops: Mapping[str, int | None]
) -> Block:
    block = model.block(slot)
    numbers = [*_own(model, slot), *_own(model, slot, buffers=True)]
    extra = [each.trained[slot] * each.bytes_a_parameter() for each in trainings]
    weights = _bytes(numbers, "float32")
    return Block(
        slot,
        getattr(block, "stands_for", type(block).__name__),
        None if getattr(block, "size_unknown", False) else sum(p.numel() for p in _own(model, slot)),
        tuple(each.stage for each in trainings if each.trained[slot]),
        weights,
        weights + max(extra, default=0),
        weights + (_bytes(numbers, precision) if slot in DENOISER and precision != "float32" else 0),
        flops.get(slot, 0),
    )


def _own(model: STAV2A, slot: str, *, buffers: bool = False) -> list[Tensor]:
    """A block's tensors; the U-Net's are not the backbone's."""

    def of(module: nn.Module) -> list[Tensor]:
        return list(module.buffers() if buffers else module.parameters())

    inner = {id(t) for t in of(model.block("unet"))} if slot == "backbone" else set()
    return [t for t in of(model.block(slot)) if id(t) not in inner]


def _bytes(tensors: Sequence[Tensor], precision: str) -> int:
    return sum(t.numel() * (BYTES[precision] if t.is_floating_point() else t.element_size()) for t in tensors)


@torch.no_grad()
def _step_inputs(model: STAV2A) -> tuple[Tensor, Tensor, Conditions]:
    """One clip's, with the longest caption: z_t, t and the conditions, without numbers."""
    encoder, text = model.feature_encoder, model.text_encoder
    tokens = getattr(text, "max_length", CAPTION_TOKENS)
    e_v = torch.empty(1, frame_count(model.duration_s, encoder.frame_rate_hz), encoder.dim, device="meta")
    e_text = torch.empty(1, tokens, text.dim, device="meta")
    mask = torch.empty(1, tokens, dtype=torch.bool, device="meta")
    z_t = torch.empty(1, *model.latent_shape, device="meta")
    return z_t, torch.empty(1, dtype=torch.long, device="meta"), model.condition(e_v, e_text, mask)


@torch.no_grad()
def _flops(model: STAV2A, given: tuple[Tensor, Tensor, Conditions]) -> dict[str, int | None]:
    """Operations of one denoising step: the U-Net's, and what the backbone adds."""
    from torch.utils.flop_counter import FlopCounterMode

    z_t, t, conditions = given
    try:
        with FlopCounterMode(display=False) as whole:
            model.predict(z_t, t, conditions)
        with FlopCounterMode(display=False) as alone:
            model.block("unet")(z_t, t, conditions.c, encoder_attention_mask=conditions.mask)
    except (NotImplementedError, RuntimeError):  # an operation that has no meta version
        return {"unet": None, "backbone": None}
    unet = alone.get_total_flops()
    return {"unet": unet, "backbone": whole.get_total_flops() - unet}
