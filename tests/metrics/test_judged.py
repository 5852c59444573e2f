"""Metrics of judges, with judges whose embeddings are known."""

import numpy as np
import pytest

from stav2a import registry
from stav2a.metrics.distribution import frechet_distance
from stav2a.metrics.judges.clap import Clap, Clap630k
from stav2a.metrics.judges.cnn14 import Cnn14
from stav2a.metrics.judges.judge import weights_in
from stav2a.metrics.registered.judged import (
    PAM,
    ClapScore,
    FrechetAudioDistance,
    FrechetDistance,
    InceptionScore,
    KernelAudioDistance,
    KLDivergence,
    missing_judges,
)
from stav2a.metrics.registered.timing import AAAlign
from stav2a.metrics.score import ArraySounds, EvaluationSet

RATE, N = 100, 24
RECORD = np.dtype([("embedding", float, 3), ("logits", float, 4)])


class Toy:
    """Takes the first samples of a sound for what it makes of it."""

    name, fault, definition, scale = "toy classifier", None, "a toy (no weights)", 2.0

    def __call__(self, audio, sample_rate):
        return np.array((audio[:3], audio[3:7]), dtype=RECORD)


class Windows(Toy):
    """Two rows of three samples for each sound, or one for a short one."""

    def __call__(self, audio, sample_rate):
        return np.asarray(audio, float)[: 6 if len(audio) > 8 else 3].reshape(-1, 3)


class Texts(Windows):
    """Reads a text as the vector that its letter stands for."""

    name = "toy"

    def __call__(self, audio, sample_rate):
        return np.asarray(audio[:3], float)

    def read(self, texts):
        return np.array([np.eye(3)["xyz".index(text[0])] for text in texts])


class Prompts(Windows):
    def read(self, texts):
        assert [text.split()[3] for text in texts] == ["clear", "noisy"]
        return np.eye(3)[:2]


class Missing(Toy):
    fault = "weights of Toy not found: put toy.pth here: nowhere"


def samples(generated=None, references=None, **known):
    rng = np.random.default_rng(0)
    ours, theirs = (
        [each.astype(float) for each in (rng.normal(size=(N, 9)) if given is None else given)]
        for given in (generated, references)
    )
    sounds = ArraySounds(generated=ours, references=theirs, sample_rate=RATE)
    return EvaluationSet(ids=[f"clip{i}" for i in range(len(ours))], sounds=sounds, **known)


@pytest.mark.parametrize("metric", [FrechetDistance, KLDivergence, InceptionScore, KernelAudioDistance])
def test_a_published_judge_stands_in_for_a_classifier(metric):
    score = metric(judge=Toy, resamples=20)(samples())
    assert score.judge == "a toy (no weights)"
    assert np.isfinite(score.value) and score.n == N


@pytest.mark.parametrize(
    "metric",
    [
        FrechetDistance,
        KLDivergence,
        InceptionScore,
        KernelAudioDistance,
        FrechetAudioDistance,
        ClapScore,
        PAM,
    ],
)
def test_a_judge_without_weights_leaves_the_metric_out_and_listens_to_nothing(metric):
    made = metric(judge=Missing)
    assert made(samples()).unavailable == "weights of Toy not found: put toy.pth here: nowhere"
    assert made.extractors == ()


def test_fad_pools_the_windows_of_all_clips():
    short = [np.arange(8.0) + i for i in range(12)]
    long = [np.arange(9.0) * i for i in range(12)]
    both = samples([*short[:6], *long[:6]], [*long[6:], *short[6:]])
    score = FrechetAudioDistance(judge=Windows, resamples=20)(both)
    pooled = [
        np.concatenate([Windows()(sound[: min(len(sound), len(other))], RATE) for sound, other in pairs])
        for pairs in (
            list(zip(both.sounds.generated, both.sounds.references, strict=True)),
            list(zip(both.sounds.references, both.sounds.generated, strict=True)),
        )
    ]
    assert score.value == pytest.approx(frechet_distance(*pooled))
    assert (score.name, score.n) == ("fad", 12)
    assert score.floor is not None


def test_clap_is_the_mean_cosine_with_the_own_caption_and_has_a_chance_level():
    """Sounds x, y and 0.8 y + 0.6 z with captions x, y, z: cosines 1, 1, 0.6; with the others 0, 0, 0.4."""
    sounds = np.array([[2.0, 0, 0], [0, 1, 0], [0, 0.8, 0.6]])
    score = ClapScore(judge=Texts)(samples(sounds, sounds, captions=["x", "y", "z"]))
    assert score.per_clip == pytest.approx({"clip0": 1.0, "clip1": 1.0, "clip2": 0.6})
    assert score.chance == pytest.approx(0.8 / 2 / 3)
    assert score.corrected == pytest.approx((2.6 / 3 - 0.4 / 3) / (1 - 0.4 / 3))


def test_clap_of_a_sound_in_segments_is_the_mean_of_their_cosines():
    """MS-CLAP's form: of two sounds, the first has a segment along its caption and one at a right angle."""

    class Segments(Texts):
        def __call__(self, audio, sample_rate):
            return np.asarray(audio).reshape(-1, 3)

    sounds = [np.array([2.0, 0, 0, 0, 1, 0]), np.array([0.0, 0.6, 0.8])]
    score = ClapScore(judge=Segments)(samples(sounds, sounds, captions=["x", "y"]))
    assert score.per_clip == pytest.approx({"clip0": 0.5, "clip1": 0.6})
    assert score.chance == pytest.approx((0.5 + 0.0) / 2)
    assert score.extras["real sound"] == pytest.approx(0.55)


def test_clips_without_a_caption_are_left_out_of_clap():
    sounds = np.eye(3)
    score = ClapScore(judge=Texts)(samples(sounds, sounds, captions=["x", "", "z"]))
    assert (score.n, score.skipped) == (2, {"clip1": "no caption"})
    assert ClapScore(judge=Texts)(samples(sounds, sounds)).unavailable == "no clip has a caption"


def test_pam_is_the_probability_of_the_clean_prompt():
    """One window between the prompts and one along the clean one, scale 2: (1/2 + 1 / (1 + e^-2)) / 2."""
    sounds = np.array([[1.0, 1, 0, 3, 0, 0, 0, 0, 0]])
    score = PAM(judge=Prompts)(samples(sounds, sounds))
    assert score.value == pytest.approx((0.5 + 1 / (1 + np.exp(-2))) / 2)
    assert (score.name, score.label) == ("pam", "PAM")


def test_released_forms_have_names_of_their_own(monkeypatch):
    monkeypatch.delenv("STAV2A_WEIGHTS", raising=False)
    names = {entry.name for entry in registry.available("metric")}
    both = sorted(name for name in names if f"{name}_released" in names)
    assert both == ["aa_align", "av_align", "clap", "kl", "pam"]
    for name in both:
        for form in (name, f"{name}_released"):
            assert registry.get("metric", form).factory().reporter.name == form


def test_clap_by_another_judge_is_named_after_it(scratch_registry):
    assert ClapScore(judge=Clap).reporter.name == "clap"
    assert ClapScore(judge=Clap630k).reporter.name == "clap_released"
    assert ClapScore(judge=Texts).reporter.name == "clap_Texts"
    reporter = registry.get("metric", "clap_ms_clap").factory().reporter
    assert (reporter.name, reporter.label) == ("clap_ms_clap", "CLAP (MS-CLAP 2023)")

    @scratch_registry.register("judge", "mine")
    class Mine(Texts):
        """A judge of one's own."""

        name = "Mine of 2026"

    reporter = ClapScore(judge=Mine).reporter
    assert (reporter.name, reporter.label) == ("clap_mine", "CLAP (Mine of 2026)")


def test_judges_without_weights_are_listed_with_the_metrics_that_need_them(monkeypatch, tmp_path):
    monkeypatch.delenv("STAV2A_WEIGHTS", raising=False)
    metrics = [KLDivergence(), FrechetDistance(judge=Cnn14), ClapScore(judge=Texts), PAM(), AAAlign()]
    (cnn14, clap) = missing_judges(metrics, has_classifier=False)
    assert cnn14.message == "kl, fd: weights of PANNs Cnn14 classifier not found."
    assert "Put Cnn14_16k_mAP=0.438.pth, from zenodo.org/records/3987831, into a folder" in cnn14.advice
    assert "gpt2 with the tokenizer of huggingface.co/openai-community/gpt2" in clap.advice
    own, _ = missing_judges(metrics, has_classifier=True)
    assert own.message.startswith("fd: "), "the set's own classifier gives KL"
    for name in ("Cnn14_16k_mAP=0.438.pth", "CLAP_weights_2023.pth"):
        (tmp_path / name).touch()
    with weights_in(tmp_path):
        (tokenizer,) = missing_judges([KLDivergence(), PAM()], has_classifier=False)
    assert tokenizer.message == "pam: tokenizer of MS-CLAP 2023 not found."
