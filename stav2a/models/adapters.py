"""Adapters: small trained layers beside the frozen ones of a block."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from stav2a.registry import register
from stav2a.utils.errors import UsageError, check_bounds


@register("adapter", "none")
class NoAdapter:
    """Train the weights of the blocks themselves."""

    blocks: tuple[str, ...] = ()

    def attach(self, block: nn.Module) -> None:
        """Leave the block as it is."""


@register("adapter", "lora")
class LoRA:
    """Low-rank updates of frozen layers, by peft (Hu et al. 2021): W x + alpha / rank * B A x.

    B begins as zero, so that the block's output does not change when they are attached. What is stored, and
    saved beside a base in a folder, is A and B alone.

    Args:
        rank: Rows of A and columns of B.
        alpha: Weight of the update, times the rank.
        targets: Endings of the names of the layers that get one, linear or convolutions. diffusers names an
            attention's output `to_out.0`.
        blocks: Blocks that are adapted, of those that the stage trains; it trains the others in full. A
            backbone's own layers are new, so of a backbone the U-Net alone can be adapted.

    Raises:
        UsageError: Nothing would be adapted, peft is not installed, or no layer has such a name.
    """

    def __init__(
        self,
        *,
        rank: int = 8,
        alpha: int = 8,
        targets: tuple[str, ...] = ("to_q", "to_k", "to_v"),
        blocks: tuple[str, ...] = ("unet",),
    ) -> None:
        check_bounds("adapter.lora.rank", rank, 1)
        check_bounds("adapter.lora.alpha", alpha, 1)
        for name, given in (("targets", targets), ("blocks", blocks)):
            if not given:
                raise UsageError(
                    f"adapter.lora.{name} = (): expected one or more.",
                    advice="To train the weights themselves bind @adapter.none.",
                )
        self.rank, self.alpha, self.targets, self.blocks = rank, alpha, targets, blocks

    def attach(self, block: nn.Module) -> None:
        """Freeze a block, and add layers that train to those of the targets."""
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError:
            raise UsageError(
                "adapter.lora needs peft, which is not installed.",
                advice="pip install 'stav2a[lora]', or bind @adapter.none.",
            ) from None
        config = LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules=list(self.targets))
        try:
            inject_adapter_in_model(config, block)
        except ValueError as error:
            linear = sorted({name.rpartition(".")[2] for name, _ in _linear(block)} - {"0", "1", "2"})
            raise UsageError(
                f"adapter.lora.targets = {self.targets} fits no layer of {type(block).__name__}: "
                f"{next(iter(str(error).splitlines()), '')}",
                advice=f"Its linear layers end in {', '.join(linear) or 'nothing'}.",
            ) from error
        for name, parameter in block.named_parameters():
            parameter.requires_grad_(is_adapter(name))


def _linear(block: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name, each) for name, each in block.named_modules() if isinstance(each, nn.Linear))


def is_adapter(name: str) -> bool:
    """True for the name of a tensor that an adapter has added."""
    return ".lora_" in name


def merge(block: nn.Module) -> None:
    """Add the updates to the weights of the adapted layers, which take their own place again."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted: list[tuple[str, Any]] = [
        (name, each) for name, each in block.named_modules() if isinstance(each, BaseTunerLayer)
    ]
    for name, layer in adapted:
        layer.merge()
        parent, _, last = name.rpartition(".")
        setattr(block.get_submodule(parent), last, layer.get_base_layer())
    if hasattr(block, "peft_config"):
        del block.peft_config


def base_name(name: str) -> str:
    """Name that a tensor of a frozen layer had before the adapter was attached."""
    return name.replace(".base_layer.", ".")
