"""ImageBind-Huge [Girdhar et al., 2023]: sounds and pictures in one space; its two trunks of these alone."""

import functools
import re
import warnings
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from stav2a.metrics.judges.judge import AudioVisualJudge, padded
from stav2a.registry import register
from stav2a.utils.checkpoints import load_state
from stav2a.utils.torch_files import read

RATE, CLIP_S = 16_000, 2  # of sound, in Hz; of a clip of sound or picture
WINDOW, HOP, FFT, MELS, FRAMES = 400, 160, 512, 128, 204  # samples, mels, frames of a clip
LEVEL, DEVIATION = -4.268, 9.138  # of the log-mels that it was trained on
EPSILON = float(np.finfo(np.float32).eps)  # smallest power of a mel
AUDIO_CLIPS, FILM_CLIPS = 3, 5
SIDE, PATCH = 224, 14  # pixels of the picture and of a patch, which has two frames
AUDIO_PATCH, AUDIO_STEP = 16, 10  # mels and frames
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)  # of RGB, as CLIP's
SPREAD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
EVERY_S = 2.0  # between the frames that av-benchmark takes
TOLERANCE_S = 0.25  # by which a film may be shorter than a round number of seconds: codecs pad and cut

OTHERS = re.compile(r"modality_\w+\.(text|depth|thermal|imu)\.")  # trunks without a use here
RENAMED = (
    (r"modality_preprocessors\.(\w+)\.cls_token", r"\1.token"),
    (r"modality_preprocessors\.(\w+)\.pos_embedding_helper\.pos_embed", r"\1.positions"),
    (r"modality_preprocessors\.vision\.rgbt_stem\.proj\.1\.", "vision.patches."),
    (r"modality_preprocessors\.audio\.rgbt_stem\.proj\.", "audio.patches."),
    (r"modality_preprocessors\.audio\.rgbt_stem\.norm_layer\.", "audio.patch_norm."),
    (r"modality_trunks\.vision\.pre_transformer_layer\.0\.", "vision.token_norm."),
    (r"modality_trunks\.(\w+)\.blocks\.", r"\1.blocks."),
    (r"modality_heads\.(\w+)\.0\.", r"\1.last_norm."),
    (r"modality_heads\.(\w+)\.2\.", r"\1.projection."),
    (r"modality_postprocessors\.audio\.1\.log_logit_scale", "audio.log_scale"),
)


class ImageBindJudge(AudioVisualJudge):
    """ImageBind-Huge; a subclass chooses the frames of a film, which are shown two by two."""

    name = "ImageBind"
    published = "imagebind_huge.pth"
    source = "dl.fbaipublicfiles.com/imagebind/imagebind_huge.pth"
    sample_rate = RATE
    shown: str  # description of the frames

    @property
    def front_end(self) -> str:
        return f"16 kHz, {AUDIO_CLIPS} clips of {CLIP_S} s, {MELS} mels; {self.shown}, 3 crops"

    def load(self) -> "ImageBindTowers":
        model = ImageBindTowers()
        load_state(model, renamed(read(self.file).tensors), f"{self.file}: weights of {self.name}")
        return model

    def judge_batch(self, sounds: np.ndarray) -> Sequence[np.ndarray]:
        found = self.model.audio(self.tensor(np.concatenate([clip_mels(sound) for sound in sounds])))
        return list(found.unflatten(0, (len(sounds), -1)).mean(dim=1).cpu().numpy())

    def film_times_s(self, film_s: np.ndarray, duration_s: float) -> np.ndarray:
        if duration_s > len(film_s) / average_rate(film_s) + TOLERANCE_S:
            return self.frame_times_s(duration_s)  # if the film has them
        return film_s[self.frame_numbers(film_s, duration_s)]

    def watch(self, frames: np.ndarray) -> np.ndarray:
        seen = [self.model.vision(self.tensor(three_crops(pair))) for pair in self.pairs(frames)]
        return torch.cat(seen).mean(dim=0).cpu().numpy()

    @abstractmethod
    def frame_numbers(self, film_s: np.ndarray, duration_s: float) -> np.ndarray:
        """Numbers of the frames to show, of a film whose frames are at these times.

        Shapes:
            (N,), seconds -> (L,)
        """

    @abstractmethod
    def pairs(self, frames: np.ndarray) -> Iterable[np.ndarray]:
        """The fitted frames two by two.

        Shapes:
            (L, h, w, 3) -> (2, h, w, 3) each, 0 to 255
        """


@register("judge", "imagebind")
class ImageBind(ImageBindJudge):
    """ImageBind-Huge on the frames that av-benchmark shows it: one every 2 s, each with the next.

    Frame k is the last before 2k + 1 s, as ffmpeg's filter fps=0.5 has it. Of less than 4 s there is one
    frame, shown twice; av-benchmark refuses such a film.

    Args:
        weights: The file imagebind_huge.pth; None looks for it in the folder of all weights.

    Shapes:
        audio (S,) -> (1024,); frames (L, h, w, 3), one every 2 s -> (1024,)
    """

    shown = "a frame every 2 s with the next, bicubic"

    def frame_times_s(self, duration_s: float) -> np.ndarray:
        count = max(1, int((duration_s + TOLERANCE_S) / EVERY_S))
        return EVERY_S * (np.arange(count) + 0.5)

    def frame_numbers(self, film_s: np.ndarray, duration_s: float) -> np.ndarray:
        limits_s = self.frame_times_s(shown_frames(film_s, duration_s) / average_rate(film_s))
        return np.maximum(np.searchsorted(film_s, limits_s - 1e-6) - 1, 0)

    def fit(self, frame: np.ndarray) -> np.ndarray:
        height, width = frame.shape[:2]
        size = [int(SIDE * side / min(height, width)) for side in (height, width)]
        picture = torch.from_numpy(frame).movedim(-1, 0)[None]  # of whole levels, before and after
        small = functional.interpolate(picture, size=size, mode="bicubic", antialias=True)
        return small[0].movedim(0, -1).numpy()

    def pairs(self, frames: np.ndarray) -> Iterable[np.ndarray]:
        return (frames[[k, k + 1]] for k in range(len(frames) - 1)) if len(frames) > 1 else [frames[[0, 0]]]


@register("judge", "imagebind_clips")
class ImageBindClips(ImageBindJudge):
    """ImageBind-Huge on the frames of its authors' own loader: the first and the last of five clips of 2 s.

    Clip k begins k / 5 of the way through all but the last 2 s.

    Args:
        weights: The file imagebind_huge.pth; None looks for it in the folder of all weights.

    Shapes:
        audio (S,) -> (1024,); frames (10, h, w, 3) -> (1024,)
    """

    shown = f"first and last frame of {FILM_CLIPS} clips of {CLIP_S} s, bilinear"

    def frame_times_s(self, duration_s: float) -> np.ndarray:
        return np.array([float(each) for clip in constant_clips(duration_s, FILM_CLIPS) for each in clip])

    def frame_numbers(self, film_s: np.ndarray, duration_s: float) -> np.ndarray:
        count, rate = shown_frames(film_s, duration_s), average_rate(film_s)
        limits = np.ceil(rate * self.frame_times_s(count / rate)).astype(int).reshape(-1, 2)
        return (np.minimum(limits, count) - [0, 1]).clip(0, count - 1).ravel()

    def fit(self, frame: np.ndarray) -> np.ndarray:
        height, width = frame.shape[:2]
        size = [int(side / min(height, width) * SIDE) for side in (height, width)]
        picture = torch.from_numpy(frame).movedim(-1, 0)[None].float()
        return functional.interpolate(picture, size=size, mode="bilinear")[0].movedim(0, -1).numpy()

    def pairs(self, frames: np.ndarray) -> Iterable[np.ndarray]:
        return frames.reshape(-1, 2, *frames.shape[1:])


@dataclass(frozen=True)
class TowerSize:
    """Size of a tower.

    Args:
        width: Transformer hidden size.
        depth: Number of blocks.
        heads: Number of heads.
    """

    width: int
    depth: int
    heads: int


VISION, AUDIO = TowerSize(1280, 32, 16), TowerSize(768, 12, 12)  # of ImageBind-Huge


class ImageBindBlock(nn.Module):
    """Attention and perceptron, each normalised first.

    Args:
        size: Size of the tower.
        extra: Whether a learned key and its value are attended to besides.

    Shapes:
        (B, L, width) -> the same
    """

    def __init__(self, size: TowerSize, *, extra: bool) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(size.width, size.heads, add_bias_kv=extra, batch_first=True)
        self.norm_1 = nn.LayerNorm(size.width, eps=1e-6)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(size.width, 4 * size.width), "fc2": nn.Linear(4 * size.width, size.width)}
        )
        self.norm_2 = nn.LayerNorm(size.width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp["fc2"](functional.gelu(self.mlp["fc1"](self.norm_2(x))))


class ImageBindTower(nn.Module):
    """Transformer on patches, and its first token projected to the common space.

    Args:
        size: Size of the tower.
        patches: Convolution that makes tokens of patches.
        count: Number of patches.
        output: Width of the common space.
        extra: See `ImageBindBlock`.

    Shapes:
        input of the convolution -> (B, output), of unit length
    """

    def __init__(self, size: TowerSize, patches: nn.Module, count: int, output: int, *, extra: bool) -> None:
        super().__init__()
        self.patches = patches
        self.patch_norm: nn.Module = nn.Identity()
        self.token = nn.Parameter(torch.zeros(1, 1, size.width))
        self.positions = nn.Parameter(torch.zeros(1, count + 1, size.width))
        self.token_norm: nn.Module = nn.Identity()
        self.blocks = nn.Sequential(*(ImageBindBlock(size, extra=extra) for _ in range(size.depth)))
        self.last_norm = nn.LayerNorm(size.width, eps=1e-6)
        self.projection = nn.Linear(size.width, output, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch_norm(self.patches(x).flatten(2).transpose(1, 2))
        tokens = torch.cat([self.token.expand(len(tokens), -1, -1), tokens], dim=1) + self.positions
        first = self.blocks(self.token_norm(tokens))[:, 0]
        return functional.normalize(self.projection(self.last_norm(first)), dim=-1)


class FrameTower(ImageBindTower):
    """Tower of pairs of frames, a ViT-H/14 in ImageBind-Huge.

    Shapes:
        (B, 3, 2, 224, 224), normalised -> (B, output), of unit length
    """

    def __init__(self, size: TowerSize, output: int) -> None:
        patch = (2, PATCH, PATCH)
        patches = nn.Conv3d(3, size.width, patch, stride=patch, bias=False)
        super().__init__(size, patches, (SIDE // PATCH) ** 2, output, extra=False)
        self.token_norm = nn.LayerNorm(size.width, eps=1e-6)


class MelTower(ImageBindTower):
    """Tower of log-mels.

    Shapes:
        (B, 1, 128, 204) -> (B, output), all of the length exp(log_scale)
    """

    def __init__(self, size: TowerSize, output: int) -> None:
        patches = nn.Conv2d(1, size.width, AUDIO_PATCH, stride=AUDIO_STEP, bias=False)
        high, long = ((length - AUDIO_PATCH) // AUDIO_STEP + 1 for length in (MELS, FRAMES))
        super().__init__(size, patches, high * long, output, extra=True)
        self.patch_norm = nn.LayerNorm(size.width)
        self.register_buffer("log_scale", torch.zeros(()))  # ln 20 in the file

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.get_buffer("log_scale").exp().clamp(max=100)


class ImageBindTowers(nn.Module):
    """The towers of pictures and of sounds, with random weights; sizes are those of ImageBind-Huge.

    Args:
        vision: Size of the tower of pictures, a ViT-H/14.
        audio: Size of the tower of sounds.
        output: Width of the common space.
    """

    def __init__(self, vision: TowerSize = VISION, audio: TowerSize = AUDIO, output: int = 1024) -> None:
        super().__init__()
        self.vision = FrameTower(vision, output)
        self.audio = MelTower(audio, output)


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The two towers of a published state dict, under the names of `ImageBindTowers`.

    A name that is none of ImageBind's stays as it is.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if OTHERS.match(name):
            continue
        for pattern, replacement in RENAMED:
            name = re.sub(rf"^{pattern}", replacement, name)
        found[name] = tensor
    return found


def constant_clips(duration_s: float, count: int) -> list[tuple[Fraction, Fraction]]:
    """Begin and end of clips of 2 s, evenly spread as by pytorchvideo's ConstantClipsPerVideoSampler.

    They are exact, as their ends decide which frames are inside.

    Example:
        >>> [str(start) for start, _ in constant_clips(10.0, 5)]
        ['0', '8/5', '16/5', '24/5', '32/5']
    """
    step = Fraction(max(duration_s - CLIP_S, 0)) / count
    return [(step * k, step * k + CLIP_S) for k in range(count)]


def clip_mels(sound: np.ndarray) -> np.ndarray:
    """Log-mels of three clips of a sound at 16 kHz, as Kaldi computes them, normalised.

    Less than one window of 25 ms is padded with silence.

    Shapes:
        (S,) -> (3, 1, 128, 204)
    """
    from transformers.audio_utils import spectrogram

    whole = padded(sound, WINDOW).copy()
    found = []
    for start, end in constant_clips(len(whole) / RATE, AUDIO_CLIPS):
        clip = whole[int(start * RATE) : int(end * RATE)]
        clip -= clip.mean()  # in place, as the authors do: a later clip that overlaps sees it
        mels = spectrogram(
            clip,
            window=np.hanning(WINDOW),
            frame_length=WINDOW,
            hop_length=HOP,
            fft_length=FFT,
            power=2.0,
            center=False,
            preemphasis=0.97,
            mel_filters=_filters(),
            mel_floor=EPSILON,
            log_mel="log",
            remove_dc_offset=True,
        )[:, :FRAMES]
        found.append(np.pad(mels, ((0, 0), (0, FRAMES - mels.shape[1]))))  # before it is normalised
    return ((np.stack(found)[:, None] - LEVEL) / DEVIATION).astype(np.float32)


@functools.cache
def _filters() -> np.ndarray:
    from transformers.audio_utils import mel_filter_bank

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the lowest filters are empty, as in training
        return mel_filter_bank(
            num_frequency_bins=FFT // 2 + 1,
            num_mel_filters=MELS,
            min_frequency=20,
            max_frequency=RATE / 2,
            sampling_rate=RATE,
            mel_scale="kaldi",
            triangularize_in_mel_space=True,
        )


def three_crops(pictures: np.ndarray) -> np.ndarray:
    """Squares at the begin, the middle and the end of the longer side, normalised as CLIP's pictures.

    Shapes:
        (2, h, w, 3), 0 to 255, the shorter side 224 -> (3, 3, 2, 224, 224): crop, RGB, frame
    """
    places = zip(*([0, -(-(side - SIDE) // 2), side - SIDE] for side in pictures.shape[1:3]), strict=True)
    squares = [pictures[:, top : top + SIDE, left : left + SIDE] for top, left in places]
    scaled = (np.stack(squares).astype(np.float32) / 255 - MEAN) / SPREAD
    return np.ascontiguousarray(np.moveaxis(scaled, -1, 1))


def shown_frames(times_s: np.ndarray, duration_s: float) -> int:
    """Number of frames in a clip's duration; all of a film's if the clip is hardly shorter.

    Example:
        >>> times_s = np.arange(100) / 25
        >>> shown_frames(times_s, 3.9), shown_frames(times_s, 3.0)
        (100, 75)
    """
    if duration_s + TOLERANCE_S > times_s[-1]:
        return len(times_s)
    return max(1, int(np.searchsorted(times_s, duration_s - 1e-6)))


def average_rate(times_s: np.ndarray) -> float:
    """Average frames a second, without the noise of the division.

    Example:
        >>> [average_rate(np.arange(100) / rate) for rate in (25, 30_000 / 1001)]
        [25.0, 29.97002997002997]
    """
    return (
        float(Fraction((len(times_s) - 1) / times_s[-1]).limit_denominator(1001)) if len(times_s) > 1 else 1.0
    )
