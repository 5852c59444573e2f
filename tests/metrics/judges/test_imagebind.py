"""ImageBind at tiny size, with random weights in the published layout.

The golden numbers are those of the authors' code, as in the package imagebind-unofficial 0.1.1, with the same
tensors (see `filled`) on the same inputs: sounds through `load_and_transform_audio_data`, pictures through
the transforms of av-benchmark (4db65bc, by torchvision 0.28) or of `load_and_transform_video_data`.
"""

from fractions import Fraction
from functools import partial

import av
import numpy as np
import pytest
import torch

from stav2a.evaluation.folders import pairing
from stav2a.evaluation.folders.systems import score
from stav2a.metrics.judges import imagebind
from stav2a.metrics.judges.imagebind import (
    ImageBind,
    ImageBindClips,
    ImageBindTowers,
    TowerSize,
    clip_mels,
    renamed,
)
from stav2a.metrics.registered.audiovisual import ImageBindScore
from stav2a.utils.checkpoints import CheckpointError
from tests.evaluation.folder_material import folders
from tests.metrics.judges.judge_material import filled

RATE = 16_000
SIZES = {"vision": TowerSize(16, 2, 2), "audio": TowerSize(12, 2, 2), "output": 8}
NAMES = [
    ("token", "modality_preprocessors.{}.cls_token"),
    ("positions", "modality_preprocessors.{}.pos_embedding_helper.pos_embed"),
    ("patch_norm", "modality_preprocessors.{}.rgbt_stem.norm_layer"),
    ("token_norm", "modality_trunks.{}.pre_transformer_layer.0"),
    ("blocks", "modality_trunks.{}.blocks"),
    ("last_norm", "modality_heads.{}.0"),
    ("projection", "modality_heads.{}.2"),
    ("log_scale", "modality_postprocessors.{}.1.log_logit_scale"),
]
MELS = {
    0.5: [-0.1927776, 0.07154063, 0.785099, 0.4670607],
    3.0: [-0.4424518, 0.1736637, 0.8279631, 0.4670607],
    10.0: [-0.1864587, 0.2446545, 0.784176, 0.4670607],
}
SOUNDS = {
    0.5: [0.1282184, -0.4458719, 0.3532639, -0.5371733, 0.3775196, -0.269179, 0.1384896, -0.3673066],
    3.0: [0.133398, -0.5185589, 0.4278711, -0.5541183, 0.3141729, -0.1958152, 0.1583767, -0.2404194],
    10.0: [0.1283896, -0.5161321, 0.4288486, -0.5422118, 0.3104363, -0.1983112, 0.2038652, -0.2434324],
}
PICTURES = [
    (
        ImageBind,
        (4, 256, 340),
        [0.3418256, 0.6451792, -0.3138092, 0.2448289, 0.2786764, 0.1596204, 0.4305839, -0.1404829],
    ),
    (
        ImageBind,
        (3, 300, 240),
        [0.3480796, 0.6385345, -0.3207575, 0.2370805, 0.277271, 0.1629691, 0.4342023, -0.1412044],
    ),
    (
        ImageBindClips,
        (4, 256, 340),
        [0.3428566, 0.6455602, -0.3126613, 0.2442038, 0.2798575, 0.1602111, 0.4292385, -0.1409207],
    ),
    (
        ImageBindClips,
        (4, 300, 240),
        [0.3447283, 0.6399559, -0.3197486, 0.239777, 0.2771528, 0.1607905, 0.4355642, -0.1388298],
    ),
]
# Frame rate and number of frames of x264 films; numbers of the frames that ImageBind's loader took of them
# (pytorchvideo 0.1.5, decord 0.6.0).
CLIPS = [
    (25, 250, [0, 49, 40, 89, 80, 129, 120, 169, 160, 209]),
    (25, 200, [0, 49, 30, 79, 60, 110, 90, 139, 120, 169]),
    (25, 75, [0, 49, 5, 55, 10, 59, 15, 64, 20, 69]),
    (24, 240, [0, 47, 39, 86, 77, 124, 116, 163, 154, 201]),
    (Fraction(30_000, 1001), 300, [0, 59, 49, 107, 97, 155, 145, 203, 193, 251]),
    (50, 470, [0, 99, 74, 173, 148, 247, 223, 321, 296, 395]),
    (60, 480, [0, 119, 72, 191, 144, 263, 216, 335, 288, 407]),
]


def sound(seconds):
    noise = np.random.default_rng(round(10 * seconds)).normal(0, 0.1, round(RATE * seconds))
    return (noise + 0.02).astype(np.float32)


def pictures(count, height, width):
    k, y, x, c = np.meshgrid(range(count), range(height), range(width), range(3), indexing="ij")
    return ((2 * x * (c + 1) + y * (3 - c) + 37 * k * (c + 1)) // 3 % 256).astype(np.uint8)


def published(towers):
    """Our tensors under the published names, and some of the other trunks."""
    found = {}
    for name, tensor in towers.state_dict().items():
        tower, part = name.split(".", 1)
        patches = "proj.1" if tower == "vision" else "proj"
        for ours, theirs in [*NAMES, ("patches", f"modality_preprocessors.{{}}.rgbt_stem.{patches}")]:
            if part.split(".")[0] == ours:
                found[theirs.format(tower) + part.removeprefix(ours)] = tensor
    others = ("modality_trunks.imu.blocks.0.norm_1.bias", "modality_postprocessors.text.1.log_logit_scale")
    return found | {name: torch.zeros(1) for name in others}


@pytest.fixture
def weights(tmp_path, monkeypatch):
    monkeypatch.setattr(imagebind, "ImageBindTowers", partial(ImageBindTowers, **SIZES))
    torch.save(filled(published(ImageBindTowers(**SIZES))), tmp_path / "imagebind_huge.pth")
    return str(tmp_path / "imagebind_huge.pth")


def test_sizes_are_the_published_ones():
    with torch.device("meta"):
        shapes = {name: tuple(t.shape) for name, t in published(ImageBindTowers()).items()}
    assert shapes["modality_preprocessors.vision.rgbt_stem.proj.1.weight"] == (1280, 3, 2, 14, 14)
    assert shapes["modality_preprocessors.audio.pos_embedding_helper.pos_embed"] == (1, 229, 768)
    assert shapes["modality_trunks.audio.blocks.11.attn.bias_k"] == (1, 1, 768)
    with torch.device("meta"):
        numbers = sum(tensor.numel() for tensor in ImageBindTowers().state_dict().values())
    assert numbers == 719_065_089  # of the authors' modules


@pytest.mark.parametrize("seconds", SOUNDS)
def test_sounds_are_embedded_as_by_the_authors(weights, seconds):
    mels = clip_mels(sound(seconds))
    assert mels.shape == (3, 1, 128, 204)
    places = ((0, 0, 0), (1, 40, 20), (2, 127, 47), (2, 64, 203))
    assert [mels[clip, 0, band, time] for clip, band, time in places] == pytest.approx(
        MELS[seconds], abs=2e-5
    )
    assert ImageBind(weights=weights)(sound(seconds), RATE).tolist() == pytest.approx(
        SOUNDS[seconds], abs=2e-6
    )


@pytest.mark.parametrize(("kind", "size", "expected"), PICTURES)
def test_pictures_are_embedded_as_by_the_authors(weights, kind, size, expected):
    judge = kind(weights=weights)
    fitted = np.stack([judge.fit(frame) for frame in pictures(*size)])
    assert min(fitted.shape[1:3]) == 224
    assert judge.watched(fitted).tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("rate", "count", "expected"), CLIPS)
def test_the_frames_of_the_authors_loader_are_taken(rate, count, expected):
    film_s = np.arange(count) / float(rate)
    found = ImageBindClips().frame_numbers(film_s, count / float(rate))
    assert found.tolist() == expected


def ffmpegs_frames(times_s, duration_s):
    """Numbers of the frames that ffmpeg's filter fps=0.5 gives, as many as av-benchmark takes."""
    graph, base = av.filter.Graph(), Fraction(1, 90_000)
    source = graph.add_buffer(width=16, height=16, format="gray", time_base=base)
    chain = [source, graph.add("fps", "0.5"), graph.add("buffersink")]
    for one, other in zip(chain, chain[1:], strict=False):
        one.link_to(other)
    graph.configure()
    for number, time_s in enumerate(times_s):
        picture = np.full((16, 16), number % 256, np.uint8)
        picture[0] = number // 256
        frame = av.VideoFrame.from_ndarray(picture, format="gray")
        frame.pts, frame.time_base = round(time_s / base), base
        graph.push(frame)
    graph.push(None)
    found = []
    while True:
        try:
            picture = graph.pull().to_ndarray()
        except (av.BlockingIOError, av.EOFError):
            return found[: int(0.5 * duration_s)]
        found.append(256 * int(picture[0, 0]) + int(picture[1, 0]))


@pytest.mark.parametrize(("rate", "count"), [each[:2] for each in CLIPS if each[1] != 75])
def test_the_frames_of_ffmpegs_filter_are_taken(rate, count):
    film_s, seconds = np.arange(count) / float(rate), count / float(rate)
    found = ImageBind().frame_numbers(film_s, seconds).tolist()
    assert found == ffmpegs_frames(film_s, seconds + 1e-3)


def test_frames_at_uneven_times_are_those_of_ffmpegs_filter_too():
    film_s = np.cumsum(np.random.default_rng(0).uniform(0.01, 0.09, 200))
    film_s -= film_s[0]
    found = ImageBind().frame_numbers(film_s, film_s[-1]).tolist()
    assert len(found) >= 4 and found == ffmpegs_frames(film_s, 100)[: len(found)]


def test_a_clip_that_is_cut_takes_no_frame_beyond_it():
    film_s = np.arange(250) / 25
    for kind in (ImageBind, ImageBindClips):
        assert kind().film_times_s(film_s, 4.0).max() < 4.0
        assert kind().film_times_s(film_s, 9.9).tolist() == kind().film_times_s(film_s, 10.0).tolist()
        assert kind().film_times_s(film_s, 13.0).max() > 10.1  # which its reader refuses


@pytest.mark.parametrize(("count", "seconds"), [(1, 0.04), (40, 1.6), (75, 3.0), (99, 3.96)])
def test_short_films_are_watched_too(weights, count, seconds):
    film_s = np.arange(count) / 25
    for kind, frames in ((ImageBind, 2 if seconds > 3.9 else 1), (ImageBindClips, 10)):
        judge = kind(weights=weights)
        assert len(judge.film_times_s(film_s, seconds)) == frames
        seen = np.stack([judge.fit(frame) for frame in pictures(frames, 30, 40)])
        assert np.isfinite(judge.watched(seen)).all()


def test_silence_and_the_shortest_sound_have_finite_features(weights):
    judge = ImageBind(weights=weights)
    for audio in (np.zeros(RATE, np.float32), np.full(1, 0.5, np.float32)):
        before = audio.copy()
        assert np.isfinite(judge(audio, RATE)).all() and audio.tolist() == before.tolist()


def test_weights_of_another_model_are_refused(weights, tmp_path):
    tensors = torch.load(weights)
    broken = {
        "missing modality_heads": lambda: tensors.pop("modality_heads.audio.2.weight"),
        "unknown": lambda: tensors.update({"modality_trunks.smell.blocks.0.norm_1.bias": torch.zeros(1)}),
    }
    for name, damage in broken.items():
        damage()
        torch.save(tensors, tmp_path / f"{name}.pth")
    with pytest.raises(CheckpointError, match="ImageBind does not fit .* missing audio.projection.weight"):
        ImageBind(weights=str(tmp_path / "missing modality_heads.pth")).prepare()
    with pytest.raises(CheckpointError, match="unknown smell.blocks.0.norm_1.bias"):
        ImageBind(weights=str(tmp_path / "unknown.pth")).prepare()
    assert set(renamed(published(ImageBindTowers(**SIZES)))) == set(ImageBindTowers(**SIZES).state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("kind", [ImageBind, ImageBindClips])
def test_sounds_of_a_folder_are_compared_with_their_films(weights, tmp_path, kind):
    made = folders(tmp_path, clips=2)
    clips, unpaired = pairing.pair(made["real"], {"good": made["good"]})
    metric = ImageBindScore(judge=partial(kind, weights=weights), shuffles=1, resamples=20)
    found = score(clips, [metric], crops=[None], unpaired=unpaired, cache=tmp_path / "cache", workers=1)
    (good,) = found.scores[None]["good"]
    assert good.name == "imagebind" and good.n == 2 and -1 <= good.value <= 1
    assert good.judge == kind(weights=weights).definition
