"""Audiobox Aesthetics [Tjandra et al., 2025], on WavLM [Chen et al., 2022]: ratings of a sound alone."""

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from stav2a.metrics.judges.judge import PublishedJudge, padded
from stav2a.registry import register
from stav2a.utils.checkpoints import CheckpointError, load_state
from stav2a.utils.torch_files import read

RATE, WINDOW_S = 16_000, 10
FRAME = 320  # samples of a frame of WavLM
AXES = ("PQ", "PC", "CE", "CU")
OUTPUTS = np.dtype([(axis, np.float32) for axis in AXES])
LINEAR_LAYERS = 5  # of a rating's perceptron, all but the last with normalisation and GELU
WAVLM = {
    "num_buckets": 320,
    "max_bucket_distance": 800,
    "apply_spec_augment": False,
}  # else transformers' own
RENAMED = (
    (r"^wavlm_model\.", "wavlm."),
    (r"^wavlm\.mask_emb$", "wavlm.masked_spec_embed"),
    (r"^wavlm\.layer_norm\.", "wavlm.feature_projection.layer_norm."),
    (r"\.post_extract_proj\.", ".feature_projection.projection."),
    (r"\.conv_layers\.(\d)\.0\.", r".conv_layers.\1.conv."),
    (r"\.conv_layers\.0\.2\.", ".conv_layers.0.layer_norm."),
    (r"\.pos_conv\.0\.", ".pos_conv_embed.conv."),
    (r"\.weight_g$", ".parametrizations.weight.original0"),
    (r"\.weight_v$", ".parametrizations.weight.original1"),
    (r"\.self_attn_layer_norm\.", ".layer_norm."),
    (r"\.self_attn\.grep_a$", ".attention.gru_rel_pos_const"),
    (r"\.self_attn\.grep_linear\.", ".attention.gru_rel_pos_linear."),
    (r"\.self_attn\.relative_attention_bias\.", ".attention.rel_attn_embed."),
    (r"\.self_attn\.", ".attention."),
    (r"\.fc1\.", ".feed_forward.intermediate_dense."),
    (r"\.fc2\.", ".feed_forward.output_dense."),
)


@register("judge", "audiobox_aesthetics")
class AudioboxAesthetics(PublishedJudge):
    """Audiobox Aesthetics: production quality and complexity, content enjoyment and usefulness of a sound.

    A sound is taken in windows of 10 s, the last filled up with silence that is masked; a window counts as
    much as it has sound.

    Args:
        weights: The file checkpoint.pt; None looks for audiobox-aesthetics.pt in the folder of all weights.

    Shapes:
        audio (S,) -> a record (): PQ, PC, CE, CU, 1 to 10 each
    """

    name = "Audiobox Aesthetics"
    published = "audiobox-aesthetics.pt"
    source = "dl.fbaipublicfiles.com/audiobox-aesthetics/checkpoint.pt"
    sample_rate = RATE

    @property
    def front_end(self) -> str:
        return f"16 kHz, windows of {WINDOW_S} s weighted by their length"

    def load(self) -> "AestheticHeads":
        found = read(self.file, ["state_dict"])
        model = AestheticHeads(targets(found.beside.get("target_transform"), str(self.file)))
        load_state(model, renamed_wavlm(found.tensors), f"{self.file}: weights of {self.name}")
        return model

    def judge_batch(self, sounds: np.ndarray) -> Sequence[np.ndarray]:
        window = WINDOW_S * RATE
        parts = [sounds[:, start : start + window] for start in range(0, sounds.shape[1], window)]
        lengths = torch.tensor([part.shape[1] for part in parts], device=self.device)
        ratings = torch.stack(
            [
                self.model(self.tensor(padded(part, window)), length.expand(len(sounds)))
                for part, length in zip(parts, lengths, strict=True)
            ],
            dim=1,
        )  # (B, windows, 4)
        weighted = [lengths / lengths.sum() @ each for each in ratings]
        return [np.array(tuple(each.tolist()), dtype=OUTPUTS) for each in weighted]


class AestheticHeads(nn.Module):
    """WavLM, and for each rating a weighting of its layers and a perceptron.

    Args:
        targets: Mean and deviation of each rating in the training.
        sizes: Sizes of WavLM, other than WavLM-Base's.

    Shapes:
        sounds (B, S) at 16 kHz, lengths (B,) in samples -> (B, 4), in the order of `AXES`
    """

    def __init__(self, targets: Mapping[str, tuple[float, float]], **sizes: Any) -> None:
        super().__init__()
        from transformers import WavLMConfig, WavLMModel

        self.targets = dict(targets)
        config = WavLMConfig(**(WAVLM | sizes))
        self.wavlm = WavLMModel(config)
        layers, width = config.num_hidden_layers + 1, config.hidden_size
        self.layer_weights = nn.ParameterDict({axis: nn.Parameter(torch.zeros(layers)) for axis in AXES})
        self.proj_layer = nn.ModuleDict({axis: _perceptron(width) for axis in AXES})

    def forward(self, sounds: Tensor, lengths: Tensor) -> Tensor:
        features = self.wavlm.feature_extractor(sounds).transpose(1, 2)
        frames = torch.arange(features.shape[1], device=sounds.device)
        inside = frames[None] * FRAME < lengths[:, None]  # a frame with any sound, by the authors' count
        encoder = self.wavlm.encoder  # its own forward pass gives its last layer alone
        x = self.wavlm.feature_projection(features)[0] * inside[..., None]
        x = encoder.layer_norm(x + encoder.pos_conv_embed(x))
        layers, bias = [x], None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask")  # of transformers
            for index, layer in enumerate(encoder.layers):
                x, bias = layer(x, attention_mask=inside, position_bias=bias, index=index)
                layers.append(x)
        weights = inside / inside.sum(dim=1, keepdim=True)
        means = torch.stack([torch.einsum("btc,bt->bc", layer, weights) for layer in layers])
        found = []
        for axis in AXES:
            mixed = torch.einsum("lbc,l->bc", means, self.layer_weights[axis].softmax(dim=0))
            mean, deviation = self.targets[axis]
            rating = self.proj_layer[axis](functional.normalize(mixed, dim=-1))[:, 0]
            found.append(rating * deviation + mean)
        return torch.stack(found, dim=1)


def _perceptron(width: int) -> nn.Sequential:
    hidden = [(nn.Linear(width, width), nn.LayerNorm(width), nn.GELU()) for _ in range(LINEAR_LAYERS - 1)]
    return nn.Sequential(*(part for parts in hidden for part in parts), nn.Linear(width, 1))


def renamed_wavlm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published state dict under transformers' names; an unknown name stays as it is."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        name = name.removeprefix("model.")
        for pattern, replacement in RENAMED:
            name = re.sub(pattern, replacement, name)
        found[name] = tensor
    return found


def targets(value: Any, file: str) -> dict[str, tuple[float, float]]:
    """Mean and deviation of each rating, of the entry target_transform of a file.

    Raises:
        CheckpointError: The entry is missing, or of another form.

    Example:
        >>> targets({axis: {"mean": 5.0, "std": 2.0} for axis in AXES}, "x.pt")["CE"]
        (5.0, 2.0)
    """
    try:
        return {axis: (float(value[axis]["mean"]), float(value[axis]["std"])) for axis in AXES}
    except (KeyError, TypeError, ValueError):
        wanted = "{'CE': {'mean': …, 'std': …}, …}"
        raise CheckpointError(
            f"{file}: no entry target_transform of the form {wanted}.", advice="Give the file checkpoint.pt."
        ) from None
