"""Synchformer at tiny size, with random weights under the authors' names.

The golden numbers are those of the authors' code (v-iashin/Synchformer 9287703: sync_model.py,
transformer.py, motionformer.py, vit_helper.py, ast.py, modeling_ast.py) with av-benchmark's front ends
(torchaudio 2.11), with the same tensors (see `weights`) on the same input. They agree to 1e-6.
"""

import hashlib
import pickle
import sys
from functools import partial
from types import ModuleType

import librosa
import numpy as np
import pytest
import torch

from stav2a.metrics.judges import synchformer
from stav2a.metrics.judges.synchformer import Synchformer, SynchNetwork, log_mels
from stav2a.metrics.registered.audiovisual import DeSync
from stav2a.metrics.score import ArraySounds, EvaluationSet, MetricError, VideoFeatures
from stav2a.utils.checkpoints import CheckpointError
from stav2a.utils.torch_files import ConvertError
from tests.metrics.judges.judge_material import filled

pytestmark = pytest.mark.slow

RATE = 16_000
TINY = {"width": 24, "depth": 2, "heads": 2, "joint_depth": 2, "joint_heads": 2}
GOLDEN = {
    "sound": {
        (0, 0, 0): [-0.159164, 0.5006, -0.095339, 0.743065, 0.038119, 0.187671],
        (0, 5, 3): [-0.043049, -0.019748, 0.208691, 0.164061, -0.038545, 0.0794],
        (1, 13, 5): [0.080495, -0.137016, 0.235685, 0.134966, -0.049172, 0.042175],
    },
    "picture": {
        (0, 0, 0): [-0.066899, -0.010324, -0.303223, 0.086267, 0.411448, -0.105995],
        (0, 5, 3): [-0.11823, -0.033731, -0.378567, 0.04404, 0.442207, -0.141034],
        (1, 13, 7): [0.064862, -0.077097, -0.257335, 0.127697, 0.4608, -0.055974],
    },
    "logits": [
        [
            -1.00584, -0.26572, -0.136038, 0.225974, 0.569466, -0.179406, -0.04864, -0.106734, -0.030585,
            0.612319, 0.887218, 0.452295, -0.563736, 0.109649, 0.228827, -0.626324, 0.413211, -0.003684,
            0.038576, -0.504581, 0.255165,
        ],
        [
            -1.003096, -0.254702, -0.151734, 0.236617, 0.575381, -0.203675, -0.039528, -0.120911, -0.066713,
            0.60444, 0.883505, 0.492234, -0.571929, 0.115064, 0.230857, -0.627921, 0.429995, -0.006445,
            0.031942, -0.496173, 0.269753,
        ],
    ],
}  # fmt: skip


def layout(width, depth, joint_depth, **_):
    """Names and shapes of a published file."""
    shapes = {}

    def layer(name, rows, columns):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (rows, columns), (rows,)

    def norms(name, *names):
        for each in names:
            shapes[f"{name}.{each}.weight"] = shapes[f"{name}.{each}.bias"] = (width,)

    def mlp(name, first, second):
        layer(f"{name}.{first}", 4 * width, width)
        layer(f"{name}.{second}", width, 4 * width)

    def pooling(name):
        shapes[f"{name}.cls_token"] = (1, 1, width)
        shapes[f"{name}.self_attn.in_proj_weight"] = (3 * width, width)
        shapes[f"{name}.self_attn.in_proj_bias"] = (3 * width,)
        layer(f"{name}.self_attn.out_proj", width, width)
        mlp(name, "linear1", "linear2")
        norms(name, "norm1", "norm2")

    picture, sound, joint = "vfeat_extractor", "afeat_extractor", "transformer"
    shapes |= {f"{picture}.cls_token": (1, 1, width), f"{picture}.pos_embed": (1, 197, width)}
    shapes[f"{picture}.temp_embed"] = (1, 8, width)
    for name, patch in (("patch_embed", (3, 16, 16)), ("patch_embed_3d", (3, 2, 16, 16))):
        shapes[f"{picture}.{name}.proj.weight"] = (width, *patch)
        shapes[f"{picture}.{name}.proj.bias"] = (width,)
    for block in (f"{picture}.blocks.{i}" for i in range(depth)):
        for attention in ("attn", "timeattn"):
            layer(f"{block}.{attention}.qkv", 3 * width, width)
            layer(f"{block}.{attention}.proj", width, width)
        mlp(f"{block}.mlp", "fc1", "fc2")
        norms(block, "norm1", "norm2", "norm3")
    norms(picture, "norm")
    pooling(f"{picture}.spatial_attn_agg")

    embeddings = f"{sound}.ast.embeddings"
    shapes |= {f"{embeddings}.{token}_token": (1, 1, width) for token in ("cls", "distillation")}
    shapes[f"{embeddings}.position_embeddings"] = (1, 74, width)
    shapes[f"{embeddings}.patch_embeddings.projection.weight"] = (width, 1, 16, 16)
    shapes[f"{embeddings}.patch_embeddings.projection.bias"] = (width,)
    for block in (f"{sound}.ast.encoder.layer.{i}" for i in range(depth)):
        for each in ("attention.attention.query", "attention.attention.key", "attention.attention.value"):
            layer(f"{block}.{each}", width, width)
        layer(f"{block}.attention.output.dense", width, width)
        mlp(block, "intermediate.dense", "output.dense")
        norms(block, "layernorm_before", "layernorm_after")
    norms(f"{sound}.ast", "layernorm")
    pooling(f"{sound}.freq_attn_agg")

    for each in ("vproj", "aproj"):
        layer(each, width, width)
    shapes |= {f"{joint}.{token}_tok": (1, 1, width) for token in ("OFF", "MOD")}
    shapes[f"{joint}.pos_emb_cfg.pos_emb"] = (1, 198, width)
    norms(joint, "vis_in_lnorm", "aud_in_lnorm", "ln_f")
    for block in (f"{joint}.blocks.{i}" for i in range(joint_depth)):
        for each in ("key", "query", "value", "proj"):
            layer(f"{block}.attn.{each}", width, width)
        mlp(f"{block}.mlp", "0", "2")
        norms(block, "ln1", "ln2")
    layer(f"{joint}.off_head", 21, width)
    return shapes


def weights():
    """Random tensors of the tiny layout."""
    short = {
        name.replace("feat_extractor", "tower"): torch.empty(each) for name, each in layout(**TINY).items()
    }
    return {name.replace("tower", "feat_extractor"): tensor for name, tensor in filled(short).items()}


def sound(seconds, seed=0):
    samples = round(seconds * RATE)
    envelope = np.linspace(0, 1, samples) ** 2
    return (0.1 * np.random.default_rng(seed).normal(size=samples) * envelope).astype(np.float32)


def pictures(count):
    small = np.random.default_rng(1).integers(0, 256, (count, 14, 14, 3), dtype=np.uint8)
    return small.repeat(16, axis=1).repeat(16, axis=2)


@pytest.fixture
def judge(tmp_path, monkeypatch):
    monkeypatch.setattr(synchformer, "SynchNetwork", partial(SynchNetwork, **TINY))
    path = tmp_path / "synchformer_state_dict.pth"
    torch.save(weights(), path)
    return Synchformer(weights=str(path))


def test_the_layout_is_that_of_the_authors_network():
    """Hashes of the names and shapes of their network's tensors, at tiny and at published size."""
    for sizes, hashed in (
        (TINY, "112a3191b66d61ee"),
        ({"width": 768, "depth": 12, "joint_depth": 3}, "2b459b2526cbd88f"),
    ):
        lines = sorted(f"{name} {each}" for name, each in layout(**sizes).items())
        assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] == hashed


def test_every_published_tensor_has_its_place():
    with torch.device("meta"):
        model = SynchNetwork()
        given = {name: torch.empty(each) for name, each in layout(768, 12, 3).items()}
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    assert {name: tensor.shape for name, tensor in synchformer.renamed(given).items()} == expected
    assert sum(tensor.numel() for tensor in given.values()) == 237_460_245


def test_sound_and_picture_give_what_the_authors_network_gives(judge):
    heard, seen = judge(sound(5.12), RATE), judge.watched(pictures(128))
    assert (heard.shape, seen.shape) == ((2, 14, 6, 24), (2, 14, 8, 24))
    with torch.no_grad():
        logits = judge.model(torch.from_numpy(heard), torch.from_numpy(seen)).numpy()
    for name, found in (("sound", heard), ("picture", seen)):
        for corner, expected in GOLDEN[name].items():
            np.testing.assert_allclose(found[corner][:6], expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(logits, GOLDEN["logits"], rtol=0, atol=1e-5)


def test_classes_are_offsets_of_a_fifth_of_a_second(judge):
    heard, seen = judge(sound(4.8), RATE), judge.watched(pictures(120))
    bias = judge.model.transformer.off_head.bias.data
    for number, offset_s in (
        (18, 1.6),
        (0, -2.0),
        (10, 0.0),
    ):  # the first: the example of the authors' README
        bias.zero_()[number] = 100
        assert judge.offsets_s(heard, seen).tolist() == pytest.approx([offset_s, offset_s])
        assert DeSync(judge=lambda: judge).compare(heard, seen) == pytest.approx(abs(offset_s))


def test_both_windows_of_the_shortest_clip_are_the_same(judge):
    heard, seen = judge(sound(4.8), RATE), judge.watched(pictures(120))
    assert (heard[0] == heard[1]).all() and (seen[0] == seen[1]).all()


def test_the_mels_are_librosas_but_for_the_last_frame():
    audio = sound(0.64)
    mel = librosa.feature.melspectrogram(
        y=audio, sr=RATE, n_fft=1024, win_length=400, hop_length=160, n_mels=128, htk=True, norm=None,
        pad_mode="reflect",
    )  # fmt: skip
    expected = (np.log(mel + 1e-6) + 4.2677393) / (2 * 4.5689974)
    found = log_mels(torch.from_numpy(audio)[None])[0].numpy()
    np.testing.assert_allclose(found[:, :65], expected, atol=2e-5)
    assert found[:, 65] == pytest.approx(4.2677393 / (2 * 4.5689974))


@pytest.mark.parametrize(
    ("seconds", "frames", "last"), [(4.8, 120, 4.76), (8.0, 200, 7.96), (30, 240, 29.72)]
)
def test_frames_are_taken_of_whole_segments_alone(judge, seconds, frames, last):
    times = judge.frame_times_s(seconds)
    assert len(times) == frames and times[0] == 0 and times[-1] == pytest.approx(last)
    assert np.diff(times[:120]) == pytest.approx(0.04)
    assert judge(sound(seconds), RATE).shape == (2, 14, 6, 24)


def test_the_last_window_of_a_long_clip_begins_with_a_segment(judge):
    times = judge.frame_times_s(30)
    assert times[120] % 0.32 == pytest.approx(0) and times[-1] - times[120] == pytest.approx(4.76)
    long, frames = sound(30), pictures(240)
    start = round(times[120] * RATE)
    np.testing.assert_allclose(judge(long, RATE)[1], judge(long[start:], RATE)[0], atol=1e-5)
    np.testing.assert_allclose(judge.watched(frames)[1], judge.watched(frames[120:])[0], atol=1e-5)


def test_shorter_clips_are_told_and_a_rounded_duration_is_none(judge):
    assert judge(sound(4.0), RATE).shape == (0, 14, 6, 24)
    with pytest.raises(MetricError, match=r"^lasts 4.00 s; Synchformer needs 4.8 s of sound and picture$"):
        judge.frame_times_s(4.0)
    assert len(judge.frame_times_s(4.7995)) == 120
    assert judge(sound(4.7995), RATE).shape == (2, 14, 6, 24)


@pytest.mark.parametrize("size", [(240, 427), (427, 240), (224, 224), (100, 130), (480, 480)])
def test_frames_are_squares_from_the_middle(judge, size):
    frame = np.zeros((*size, 3), np.uint8)
    frame[size[0] // 2 :, :, 0] = 255
    fitted = judge.fit(frame)
    assert (fitted.shape, fitted.dtype) == ((224, 224, 3), np.uint8)
    assert fitted[:108, :, 0].max() == 0 and fitted[116:, :, 0].min() == 255


def test_silence_has_an_offset_and_what_is_not_finite_has_none(judge):
    seen = judge.watched(np.zeros((120, 224, 224, 3), np.uint8))
    assert np.isfinite(judge.offsets_s(judge(np.zeros(76_800), RATE), seen)).all()
    noise = sound(4.8)
    noise[70_000] = np.nan
    assert np.isnan(judge.offsets_s(judge(noise, RATE), seen)).all()


class GivenVideos:
    """One picture for each long clip."""

    def __init__(self, seen):
        self.seen = seen

    def __len__(self):
        return 3

    def features(self, watcher):
        return VideoFeatures({0: self.seen, 1: self.seen}, {2: "lasts 4.00 s"})


def test_desync_is_the_mean_of_both_windows_and_leaves_short_clips_out(judge):
    seen = judge.watched(pictures(120))
    sounds = [sound(4.8), sound(4.8, seed=1), sound(4.0)]
    samples = EvaluationSet(
        ids=["a", "b", "c"],
        sounds=ArraySounds(generated=sounds, references=sounds, sample_rate=RATE),
        videos=GivenVideos(seen),
    )
    score = DeSync(judge=lambda: judge)(samples)
    offsets = [np.abs(judge.offsets_s(judge(each, RATE), seen)).mean() for each in sounds[:2]]
    assert (score.n, score.skipped, score.chance) == (2, {"c": "lasts 4.00 s"}, None)
    assert score.value == pytest.approx(np.mean(offsets)) == score.extras["real sound"]
    assert score.arrow == "↓" and "fps at 224 px" in score.judge


def test_weights_of_another_model_are_refused(judge, tmp_path):
    torch.save({"vproj.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="weights of Synchformer does not fit this model: missing"):
        Synchformer(weights=str(tmp_path / "other.pth")).prepare()
    (tmp_path / "cut.pth").write_bytes(judge.path.read_bytes()[:-5000])
    with pytest.raises(ConvertError, match="cut off"):
        Synchformer(weights=str(tmp_path / "cut.pth")).prepare()
    half = {
        name: tensor for name, tensor in weights().items() if "layer.1.attention.attention.key" not in name
    }
    torch.save(half, tmp_path / "half.pth")
    with pytest.raises(CheckpointError, match=r"layers.1.self_attn.in_proj_weight is \(48, 24\), expected"):
        Synchformer(weights=str(tmp_path / "half.pth")).prepare()


def test_the_authors_file_is_read_with_its_settings_left_alone(judge, tmp_path, monkeypatch):
    """It holds a `DictConfig` of OmegaConf, which need not be installed."""
    module = ModuleType("omegaconf.dictconfig")
    module.DictConfig = type("DictConfig", (), {"__module__": "omegaconf.dictconfig"})
    monkeypatch.setitem(sys.modules, "omegaconf", ModuleType("omegaconf"))
    monkeypatch.setitem(sys.modules, "omegaconf.dictconfig", module)
    settings = module.DictConfig()
    settings.content = {"epochs": 61}
    beside = {"args": settings, "metrics": {"accuracy_1": np.float64(0.5)}, "epoch": 60}
    path = tmp_path / "24-01-04T16-39-21.pt"
    torch.save({"model": weights(), **beside}, path)
    monkeypatch.undo()
    monkeypatch.setattr(synchformer, "SynchNetwork", partial(SynchNetwork, **TINY))
    with pytest.raises((pickle.UnpicklingError, ModuleNotFoundError)):
        torch.load(path, weights_only=True)
    assert (Synchformer(weights=str(path))(sound(4.8), RATE) == judge(sound(4.8), RATE)).all()
