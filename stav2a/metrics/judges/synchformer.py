"""Synchformer [Iashin et al., 2024], the judge of DeSync: how far a sound is from its picture in time.

Both are cut into segments of 0.64 s, one every 0.32 s. Each tower describes a segment for itself; a joint
transformer over 14 segments of both gives the likeliest of 21 offsets. With equal random weights at full size
the network agrees with the authors' to 1e-6 (docs/metrics.md).
"""

import functools
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from stav2a.metrics.judges.judge import AudioVisualJudge, padded
from stav2a.metrics.score import MetricError
from stav2a.registry import register
from stav2a.utils.checkpoints import load_state
from stav2a.utils.torch_files import read

RATE, FRAME_RATE_HZ, SIDE = 16_000, 25, 224  # of sound, of picture, and the picture's sides in pixels
FRAMES, STEP = 16, 8  # of a segment of the picture, and from one to the next
SAMPLES, HOP = (n * RATE // FRAME_RATE_HZ for n in (FRAMES, STEP))  # the same of the sound
ROUNDED = RATE // 1000  # samples that a sound may lack, by rounding of its duration
SEGMENTS = 14  # of a window
WINDOW = FRAMES + STEP * (SEGMENTS - 1)  # frames
WINDOW_S = WINDOW / FRAME_RATE_HZ  # 4.8
OFFSETS_S = np.linspace(-2, 2, 21)  # the classes; positive: the sound is early
N_FFT, HANN, MEL_HOP, MELS, MEL_FRAMES = 1024, 400, 160, 128, 66
MEAN, DEVIATION = -4.2677393, 4.5689974  # of AST's log-mels
WIDTH, DEPTH, HEADS, JOINT_DEPTH, JOINT_HEADS = 768, 12, 12, 3, 8
PATCH, DEEP, STRIDE = 16, 2, 10  # side of all patches, frames of the picture's, and step of the mels'
TIMES, PLACES = FRAMES // DEEP, (SIDE // PATCH) ** 2  # tokens of a segment of the picture
BANDS, MEL_TIMES = ((n - PATCH) // STRIDE + 1 for n in (MELS, MEL_FRAMES))  # tokens of one of the sound
UNUSED = "vfeat_extractor.patch_embed."  # of a tower for single pictures; in the file, in no computation

# The authors' names -> those of torch's encoder layer.
RENAMED = (
    (r"^(afeat_extractor\.)ast\.(embeddings\.)?(patch_embeddings\.)?", r"\1"),
    (r"\.encoder\.layer\.(\d+)\.", r".layers.\1."),
    (r"\.attention\.attention\.(query|key|value)\.", r".self_attn.\1."),
    (r"\.attention\.output\.dense\.", ".self_attn.out_proj."),
    (r"\.intermediate\.dense\.", ".linear1."),
    (r"\.output\.dense\.", ".linear2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"^(transformer\.blocks\.\d+)\.attn\.proj\.", r"\1.self_attn.out_proj."),
    (r"^(transformer\.blocks\.\d+)\.attn\.", r"\1.self_attn."),
    (r"^(transformer\.blocks\.\d+)\.ln([12])\.", r"\1.norm\2."),
    (r"^(transformer\.blocks\.\d+)\.mlp\.0\.", r"\1.linear1."),
    (r"^(transformer\.blocks\.\d+)\.mlp\.2\.", r"\1.linear2."),
)
THIRDS = re.compile(r"\.self_attn\.(query|key|value)\.(weight|bias)$")


@register("judge", "synchformer")
class Synchformer(AudioVisualJudge):
    """Synchformer trained on AudioSet (24-01-04T16-39-21): tokens of the segments of a sound or a picture.

    Features are those of the first 14 and of the last 14 whole segments, of 4.8 s. A shorter sound has none.

    Args:
        weights: The file synchformer_state_dict.pth, or the authors' 24-01-04T16-39-21.pt; None looks for the
            first in the folder of all weights.

    Shapes:
        audio (S,) -> (2, 14, 6, 768), or (0, 14, 6, 768); frames (L, 224, 224, 3) -> (2, 14, 8, 768)
    """

    name = "Synchformer"
    published = "synchformer_state_dict.pth"
    source = "github.com/hkchengrex/MMAudio/releases/tag/v0.1"
    sample_rate = RATE

    @property
    def front_end(self) -> str:
        parts = f"{SEGMENTS} segments of {FRAMES / FRAME_RATE_HZ:g} s every {STEP / FRAME_RATE_HZ:g} s"
        return f"16 kHz, {MELS} mels; {FRAME_RATE_HZ} fps at {SIDE} px; the first and the last {parts}"

    def load(self) -> "SynchNetwork":
        model = SynchNetwork()
        tensors = renamed(read(self.file, ["model"]).tensors)
        load_state(model, tensors, f"{self.file}: weights of {self.name}")
        return model

    def judge_batch(self, sounds: np.ndarray) -> Sequence[np.ndarray]:
        count = segments(sounds.shape[1] + 2)  # resampling may round otherwise than the clip's duration
        if count < SEGMENTS:
            return [np.zeros((0, SEGMENTS, MEL_TIMES, self.model.width), np.float32)] * len(sounds)
        cut = self.tensor(padded(sounds, SAMPLES + HOP * (count - 1))).unfold(1, SAMPLES, HOP)
        tower = self.model.afeat_extractor
        known = {start: tower(log_mels(cut[:, start])) for start in _needed(count)}
        parts = [{start: tokens[i] for start, tokens in known.items()} for i in range(len(sounds))]
        return [_windows(each, count) for each in parts]

    def frame_times_s(self, duration_s: float) -> np.ndarray:
        count = segments(round(duration_s * RATE))
        if count < SEGMENTS:
            raise MetricError(
                f"lasts {duration_s:.2f} s; {self.name} needs {WINDOW_S:g} s of sound and picture"
            )
        frames = np.arange(FRAMES + STEP * (count - 1))
        if len(frames) > 2 * WINDOW:
            frames = np.concatenate([frames[:WINDOW], frames[-WINDOW:]])
        return frames / FRAME_RATE_HZ

    def fit(self, frame: np.ndarray) -> np.ndarray:
        height, width = frame.shape[:2]
        short = min(height, width)
        size = (SIDE * height // short, SIDE * width // short)
        pixels = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].contiguous()
        if size != (height, width):
            pixels = functional.interpolate(pixels, size, mode="bicubic", antialias=True)
        top, left = (round((side - SIDE) / 2) for side in size)
        return pixels[0, :, top : top + SIDE, left : left + SIDE].permute(1, 2, 0).numpy()

    def watch(self, frames: np.ndarray) -> np.ndarray:
        count = (len(frames) - FRAMES) // STEP + 1
        known = {}
        for start in _needed(count):
            pixels = self.tensor(frames[STEP * start :][:FRAMES]).permute(3, 0, 1, 2)[None] / 255
            known[start] = self.model.vfeat_extractor((pixels - 0.5) / 0.5)[0]
        return _windows(known, count)

    def offsets_s(self, sound: np.ndarray, picture: np.ndarray) -> np.ndarray:
        """Likeliest offsets of both windows of a clip, in seconds; positive where the sound is early.

        Shapes:
            (2, 14, 6, 768), (2, 14, 8, 768) -> (2,), NaN where features are not finite
        """
        with torch.no_grad():
            logits = self.model(self.tensor(sound), self.tensor(picture)).cpu().numpy()
        return np.where(np.isfinite(logits).all(axis=1), OFFSETS_S[logits.argmax(axis=1)], np.nan)


def _needed(count: int) -> list[int]:
    """Segments of the first and the last window."""
    return sorted({*range(SEGMENTS), *range(count - SEGMENTS, count)})


def _windows(known: Mapping[int, Tensor], count: int) -> np.ndarray:
    """Tokens (T, D) of the segments -> (2, 14, T, D)."""
    starts = (0, count - SEGMENTS)
    return (
        torch.stack([known[start + i] for start in starts for i in range(SEGMENTS)])
        .unflatten(0, (2, SEGMENTS))
        .cpu()
        .numpy()
    )


class SynchNetwork(nn.Module):
    """Both towers and the joint transformer, with random weights.

    Args:
        width: Width of all tokens.
        depth: Blocks of each tower.
        heads: Attention heads of the towers.
        joint_depth: Blocks of the joint transformer.
        joint_heads: Its attention heads.

    Shapes:
        sound (B, 14, 6, D), picture (B, 14, 8, D) -> logits of the offsets (B, 21)
    """

    def __init__(
        self,
        *,
        width: int = WIDTH,
        depth: int = DEPTH,
        heads: int = HEADS,
        joint_depth: int = JOINT_DEPTH,
        joint_heads: int = JOINT_HEADS,
    ) -> None:
        super().__init__()
        self.width = width
        self.vfeat_extractor = PictureTower(width, depth, heads)
        self.afeat_extractor = SpectrogramTower(width, depth, heads)
        self.vproj, self.aproj = nn.Linear(width, width), nn.Linear(width, width)
        self.transformer = JointTransformer(width, joint_depth, joint_heads)

    def forward(self, sound: Tensor, picture: Tensor) -> Tensor:
        return self.transformer(self.aproj(sound).flatten(1, 2), self.vproj(picture).flatten(1, 2))


class PictureTower(nn.Module):
    """Motionformer with divided attention [Patrick et al., 2021; Bertasius et al., 2021], ViT-B.

    Shapes:
        (B, 3, 16, 224, 224) -> one token for two frames (B, 8, D)
    """

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        patch = (DEEP, PATCH, PATCH)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + PLACES, width))
        self.temp_embed = nn.Parameter(torch.zeros(1, TIMES, width))
        self.patch_embed_3d = nn.ModuleDict({"proj": nn.Conv3d(3, width, patch, stride=patch)})
        self.blocks = nn.ModuleList(DividedBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.spatial_attn_agg = TokenPooling(width, heads, eps=1e-6)

    def forward(self, segments: Tensor) -> Tensor:
        patches = self.patch_embed_3d["proj"](segments).flatten(3).permute(0, 2, 3, 1)  # (B, 8, 196, D)
        patches = patches + self.pos_embed[:, None, 1:] + self.temp_embed[:, :, None]
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(segments), 1, -1)
        for block in self.blocks:
            first, patches = block(first, patches)
        return self.spatial_attn_agg.pool(self.norm(patches))


class DividedBlock(nn.Module):
    """Block of a tower for pictures: attention over time, over space, and an MLP.

    Shapes:
        class token (B, 1, D), patches (B, T, N, D) -> the same
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width, eps=1e-6) for _ in range(3))
        self.attn, self.timeattn = DividedAttention(width, heads), DividedAttention(width, heads)
        layers = OrderedDict(fc1=nn.Linear(width, 4 * width), act=nn.GELU(), fc2=nn.Linear(4 * width, width))
        self.mlp = nn.Sequential(layers)

    def forward(self, first: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        change, changes = self.timeattn(self.norm3(first), self.norm3(patches).transpose(1, 2))
        first, patches = first + change, patches + changes.transpose(1, 2)
        change, changes = self.attn(self.norm1(first), self.norm1(patches))
        first, patches = first + change, patches + changes
        return first + self.mlp(self.norm2(first)), patches + self.mlp(self.norm2(patches))


class DividedAttention(nn.Module):
    """Attention of each patch to its group and the class token, and of the class token to everything.

    Shapes:
        class token (B, 1, D), patches in groups (B, G, M, D) -> the same
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, first: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        query, key, value = self._split(first[:, None])  # (B, 1, H, 1, d)
        queries, keys, values = self._split(patches)  # (B, G, H, M, d)
        groups = patches.shape[1]
        of_all = functional.scaled_dot_product_attention(
            query[:, 0],
            torch.cat([key[:, 0], *keys.unbind(1)], dim=2),  # (B, H, 1 + G M, d)
            torch.cat([value[:, 0], *values.unbind(1)], dim=2),
        )
        of_group = functional.scaled_dot_product_attention(
            queries,
            torch.cat([key.expand(-1, groups, -1, -1, -1), keys], dim=3),  # (B, G, H, 1 + M, d)
            torch.cat([value.expand(-1, groups, -1, -1, -1), values], dim=3),
        )
        return self._joined(of_all), self._joined(of_group)

    def _split(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, G, M, D) -> queries, keys and values (B, G, H, M, d)."""
        return self.qkv(x).unflatten(3, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5).unbind(0)

    def _joined(self, x: Tensor) -> Tensor:
        """(…, H, M, d) -> (…, M, D)."""
        return self.proj(x.transpose(-3, -2).flatten(-2))


class SpectrogramTower(nn.Module):
    """Audio spectrogram transformer [Gong et al., 2021] for 66 frames of log-mels.

    Shapes:
        (B, 128, 66) -> one token for 0.1 s (B, 6, D)
    """

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.distillation_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 2 + BANDS * MEL_TIMES, width))
        self.projection = nn.Conv2d(1, width, PATCH, stride=STRIDE)
        self.layers = nn.ModuleList(encoder_layer(width, heads, eps=1e-12) for _ in range(depth))
        self.layernorm = nn.LayerNorm(width, eps=1e-12)
        self.freq_attn_agg = TokenPooling(width, heads, eps=1e-6)

    def forward(self, mels: Tensor) -> Tensor:
        patches = self.projection(mels[:, None]).flatten(2).transpose(1, 2)  # band by band
        extra = torch.cat([self.cls_token, self.distillation_token], dim=1).expand(len(mels), -1, -1)
        x = torch.cat([extra, patches], dim=1) + self.position_embeddings
        for layer in self.layers:
            x = layer(x)
        bands = self.layernorm(x)[:, 2:].unflatten(1, (BANDS, MEL_TIMES))
        return self.freq_attn_agg.pool(bands.transpose(1, 2))


class TokenPooling(nn.TransformerEncoderLayer):
    """Encoder layer with a class token, which gathers the others."""

    def __init__(self, width: int, heads: int, eps: float) -> None:
        super().__init__(
            width, heads, 4 * width, 0.0, nn.GELU(), layer_norm_eps=eps, batch_first=True, norm_first=True
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))

    def pool(self, x: Tensor) -> Tensor:
        """(B, T, N, D) -> (B, T, D)."""
        rows = x.flatten(0, 1)
        rows = self(torch.cat([self.cls_token.expand(len(rows), 1, -1), rows], dim=1))
        return rows[:, 0].unflatten(0, x.shape[:2])


class JointTransformer(nn.Module):
    """Transformer of both sides' tokens: an offset token, the picture's, a separator, the sound's.

    Shapes:
        sound (B, 84, D), picture (B, 112, D) -> logits (B, 21)
    """

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.vis_in_lnorm, self.aud_in_lnorm, self.ln_f = (nn.LayerNorm(width) for _ in range(3))
        self.OFF_tok = nn.Parameter(torch.zeros(1, 1, width))
        self.MOD_tok = nn.Parameter(torch.zeros(1, 1, width))
        places = 2 + SEGMENTS * (TIMES + MEL_TIMES)
        self.pos_emb_cfg = nn.ParameterDict({"pos_emb": nn.Parameter(torch.zeros(1, places, width))})
        self.blocks = nn.ModuleList(encoder_layer(width, heads, eps=1e-5) for _ in range(depth))
        self.off_head = nn.Linear(width, len(OFFSETS_S))

    def forward(self, sound: Tensor, picture: Tensor) -> Tensor:
        start, between = (token.expand(len(sound), -1, -1) for token in (self.OFF_tok, self.MOD_tok))
        x = torch.cat([start, self.vis_in_lnorm(picture), between, self.aud_in_lnorm(sound)], dim=1)
        x = x + self.pos_emb_cfg["pos_emb"]
        for block in self.blocks:
            x = block(x)
        return self.off_head(self.ln_f(x[:, 0]))


def encoder_layer(width: int, heads: int, eps: float) -> nn.TransformerEncoderLayer:
    """Encoder layer of AST and of the joint transformer: normalised before attention and MLP, no dropout."""
    return nn.TransformerEncoderLayer(
        width, heads, 4 * width, 0.0, nn.GELU(), layer_norm_eps=eps, batch_first=True, norm_first=True
    )


def renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published state dict under our names, with queries, keys and values together."""
    found: dict[str, Tensor] = {}
    thirds: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(UNUSED):
            continue
        for pattern, replacement in RENAMED:
            name = re.sub(pattern, replacement, name)
        if third := THIRDS.search(name):
            whole = THIRDS.sub(r".self_attn.in_proj_\2", name)
            thirds.setdefault(whole, {})[third[1]] = tensor
        else:
            found[name] = tensor
    for name, parts in thirds.items():
        found[name] = torch.cat([parts[part] for part in ("query", "key", "value") if part in parts])
    return found


def segments(samples: int) -> int:
    """Number of whole segments in a sound at 16 kHz; 1 ms may be lacking, by rounding.

    Example:
        >>> [segments(round(seconds * RATE)) for seconds in (4.79, 4.7995, 8, 10)]
        [13, 14, 24, 30]
    """
    return max(0, (samples + ROUNDED - SAMPLES) // HOP + 1)


def log_mels(parts: Tensor) -> Tensor:
    """Log-mels of segments of sound, normalised as AST's; the last frame is a logarithm of 0, as released.

    Shapes:
        (B, 10240) -> (B, 128, 66)
    """
    hann = torch.hann_window(HANN, device=parts.device)
    spectra = torch.stft(parts, N_FFT, MEL_HOP, HANN, hann, return_complex=True)  # centred, reflected ends
    logs = torch.log(_filters().to(parts.device) @ spectra.abs().square() + 1e-6)
    logs = functional.pad(logs, (0, MEL_FRAMES - logs.shape[2]))
    return (logs - MEAN) / (2 * DEVIATION)


@functools.cache
def _filters() -> Tensor:
    """Triangular filters of HTK's mels, peaks at 1: (128, 513)."""
    import librosa

    filters = librosa.filters.mel(
        sr=RATE, n_fft=N_FFT, n_mels=MELS, fmin=0.0, fmax=RATE / 2, htk=True, norm=None
    )
    return torch.from_numpy(filters)
