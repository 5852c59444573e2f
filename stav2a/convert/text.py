"""T5 encoders inside checkpoints: their sizes read off the tensors, their folder as transformers knows it."""

import json
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from stav2a.convert.parts import Part, layout_of
from stav2a.convert.reading import ConvertError

ATTENTION = "encoder.block.0.layer.0.SelfAttention"
TABLE, TWIN = "shared.weight", "encoder.embed_tokens.weight"  # one table under two names


def text_encoder(kind: str, component: str, tensors: Mapping[str, Tensor], prefix: str) -> Part:
    """The part of a T5 or mT5 encoder, of whatever size it is.

    Args:
        kind: `t5` or `mt5`.
        component: Which of ours takes the folder.
        tensors: The checkpoint.
        prefix: Of the encoder's keys in it.

    Raises:
        ConvertError: A tensor that tells a size is missing.
    """
    from transformers import MT5Config, MT5EncoderModel, T5Config, T5EncoderModel

    config_kind, model_kind = (MT5Config, MT5EncoderModel) if kind == "mt5" else (T5Config, T5EncoderModel)
    config = config_kind(**_sizes(tensors, prefix))
    with torch.device("meta"):
        model = model_kind(config)
    layout = {name: shape for name, shape in layout_of(model).items() if name != TWIN}
    hub = {**json.loads(config.to_json_string()), "architectures": [model_kind.__name__], "dtype": "float32"}
    hub["tokenizer_class"] = "PreTrainedTokenizerFast"  # or transformers makes up an empty tokenizer
    return Part(
        "text_encoder",
        component,
        {},
        layout,
        prefix,
        twins={f"{prefix}{TWIN}": f"{prefix}{TABLE}"},
        hub=hub,
        needs=f"the tokenizer's files of google/{'mt5' if kind == 'mt5' else 'flan-t5'}-large",
    )


def _sizes(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Any]:
    def shape(name: str) -> tuple[int, ...]:
        if prefix + name not in tensors:
            raise ConvertError(f"  1 missing: {prefix}{name}")
        return tuple(tensors[prefix + name].shape)

    blocks = [re.match(re.escape(prefix) + r"encoder\.block\.(\d+)\.", name) for name in tensors]
    buckets, heads = shape(f"{ATTENTION}.relative_attention_bias.weight")
    vocabulary, width = shape(TABLE)
    gated = f"{prefix}encoder.block.0.layer.1.DenseReluDense.wi_0.weight" in tensors
    inner = "wi_0" if gated else "wi"
    return {
        "vocab_size": vocabulary,
        "d_model": width,
        "d_kv": shape(f"{ATTENTION}.q.weight")[0] // heads,
        "d_ff": shape(f"encoder.block.0.layer.1.DenseReluDense.{inner}.weight")[0],
        "num_layers": 1 + max(int(found[1]) for found in blocks if found),
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
        "feed_forward_proj": "gated-gelu" if gated else "relu",
    }
