import dataclasses
import math
import pickle

import numpy as np
import pytest

from stav2a import recipe, registry
from stav2a.evaluation.scores import from_json, to_json
from stav2a.experiments.experiment import Experiment
from stav2a.metrics import registered  # noqa: F401  (registers)
from stav2a.metrics.distribution import frechet_distance
from stav2a.metrics.registered.judged import (
    ClassAccuracy,
    FrechetDistance,
    InceptionScore,
    KernelAudioDistance,
    KLDivergence,
)
from stav2a.metrics.registered.timing import AAAlign, AVAlign, OnsetF1
from stav2a.metrics.score import ArraySounds, ClassifierOutputs, EvaluationSet, MetricError, describe
from stav2a.registry import available, name_of

RATE = 1000


class Spikes:
    """Hears an onset at each sample above its level."""

    calls = 0

    def __init__(self, level=0.5):
        self.level = level

    def __call__(self, audio, sample_rate):
        Spikes.calls += 1
        return np.flatnonzero(audio > self.level) / sample_rate


def sound(*onsets_s, duration_s=2.0):
    audio = np.zeros(int(duration_s * RATE), dtype=np.float32)
    audio[[round(t * RATE) for t in onsets_s]] = 1.0
    return audio


def arrays(generated, references):
    return ArraySounds(generated=generated, references=references, sample_rate=RATE)


def classified(n=24, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    return ClassifierOutputs(
        name="toy classifier",
        generated_logits=rng.normal(size=(n, classes)),
        reference_logits=rng.normal(size=(n, classes)),
        generated_embeddings=rng.normal(size=(n, 6)),
        reference_embeddings=rng.normal(size=(n, 6)),
    )


@pytest.fixture
def three():
    """a: both onsets hit. b: one of two. c: silent on both sides."""
    return EvaluationSet(
        ids=["a", "b", "c"],
        sounds=arrays(
            [sound(0.5, 1.0), sound(0.5, 1.5), sound()], [sound(0.52, 1.02), sound(0.55, 1.9), sound()]
        ),
        true_onsets_s=[np.array([0.5, 1.0]), np.array([0.5, 1.9, 2.5]), np.array([])],
        flows=[np.eye(20)[5], None, np.zeros(2)],
        frame_rate_hz=[10.0, 10.0, 10.0],
        flow_definition="toy",
    )


@pytest.fixture
def many():
    toy = classified()
    return EvaluationSet(
        ids=[f"clip{i}" for i in range(24)],
        sounds=arrays([sound(0.5)] * 24, [sound(0.5)] * 24),
        labels=toy.generated_logits.argmax(axis=1),
        vague=np.arange(24) < 10,
        classifier=toy,
    )


def test_all_metrics_are_registered():
    names = {entry.name for entry in available("metric")}
    assert {"aa_align", "av_align", "onset_f1", "fd", "kl", "is", "class_accuracy"} <= names


def test_aa_align_is_the_mean_of_the_clips_that_have_one(three):
    score = AAAlign(detector=Spikes)(three)
    assert score.per_clip == {"a": 1.0, "b": 1 / 3}
    assert score.value == pytest.approx(2 / 3)
    assert score.n == 2
    assert score.skipped == {"c": "no onset in either sound"}
    assert score.low is not None and score.high is not None and score.low <= score.value <= score.high
    # a with b: 1 hit of 3; with c: 0. b with a: 1 of 3; with c: 0. c with a and b: 0.
    assert score.chance == pytest.approx((1 / 6 + 1 / 6 + 0) / 3)
    assert score.corrected == pytest.approx((2 / 3 - 1 / 9) / (1 - 1 / 9))


def test_aa_align_tells_its_definition(three):
    score = AAAlign(detector=Spikes, tolerance_s=0.05)(three)
    assert score.definition == (
        "onsets of generated against real sound, matched one to one, |difference| < 0.05 s (strict)"
    )
    assert score.judge == "Spikes(level=0.5) from sound at 1000 Hz"
    assert (score.n, score.draws, score.seed, score.others) == (2, 2000, 0, 2)
    assert score.described == f"{score.definition}, by {score.judge}"


def test_another_matching_is_another_score(three):
    score = AAAlign(detector=Spikes, matching="released")(three)
    assert (score.name, score.label) == ("aa_align_released", "AA-Align (released)")
    assert "matched as released" in score.definition
    with pytest.raises(MetricError, match="Write one of: one_to_one, released"):
        AAAlign(matching="relased")


def test_sounds_are_cropped_to_their_common_duration():
    samples = EvaluationSet(ids=["a"], sounds=arrays([sound(0.5, 1.8)], [sound(0.5, duration_s=1.0)]))
    score = AAAlign(detector=Spikes)(samples)
    assert score.value == 1.0
    assert score.low is score.chance is score.corrected is None  # one clip


def test_onsets_are_detected_once_for_equal_detectors(three):
    Spikes.calls = 0
    for metric in (AAAlign, AVAlign, OnsetF1):
        metric(detector=Spikes)(three)
    assert Spikes.calls == 6
    AAAlign(detector=lambda: Spikes(level=0.7))(three)
    assert Spikes.calls == 12


def test_a_detector_that_cannot_be_pickled_serves_too(three):
    def hear(audio, sample_rate):
        return Spikes()(audio, sample_rate)

    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(hear)
    assert AAAlign(detector=lambda: hear)(three).n == 2
    assert describe(hear) == "hear"


def test_av_align_leaves_out_clips_without_usable_video(three):
    score = AVAlign(detector=Spikes)(three)
    assert score.per_clip == {"a": 0.5}  # one peak, at 0.5 s; two onsets
    assert score.skipped["b"] == "no video"
    assert score.skipped["c"].startswith("the video has 2 frame(s).")
    assert "flow: toy; peaks > 0.1 px/frame" in score.definition
    assert score.extras["real sound"] == 0.5


def test_av_align_without_video_is_not_measured(many):
    assert AVAlign(detector=Spikes)(many).unavailable == "no video flow was given"


def test_onset_f1_hears_no_further_than_the_sound_lasts(three):
    score = OnsetF1(detector=Spikes)(three)
    assert score.per_clip == {"a": 1.0, "b": 0.5}  # the onset at 2.5 s lies behind the end
    assert score.extras["F1 of real sound"] == pytest.approx(1.0)
    assert score.skipped == {"c": "no onset in the sound, none known"}
    assert (
        OnsetF1(detector=Spikes)(without_truth(three)).unavailable == "the clips' true onsets are not known"
    )


def without_truth(samples):
    return EvaluationSet(ids=samples.ids, sounds=samples.sounds)


def test_a_component_of_another_slot_is_no_detector():
    with pytest.raises(registry.RegistryError, match="onset_detector was given metric.kl"):
        AAAlign(detector=KLDivergence)


def test_fd(many):
    score = FrechetDistance(resamples=50)(many)
    toy = many.classifier
    assert (score.label, score.judge) == ("FD", "toy classifier")
    assert score.value == frechet_distance(toy.generated_embeddings, toy.reference_embeddings)
    assert score.low < score.value < score.high
    assert score.floor > 0 and score.centred
    assert score.beside == {"bias floor (a perfect generator at this n)": score.floor}
    assert len(score.replicates) == 50
    moved = np.array(score.replicates) - np.mean(score.replicates) + score.value
    assert (score.low, score.high) == pytest.approx(tuple(np.quantile(moved, [0.025, 0.975])))
    assert not score.higher_is_better


def test_kl(many):
    exact, released = KLDivergence()(many), KLDivergence(eps=1e-6)(many)
    assert (exact.name, released.name, released.label) == ("kl", "kl_released", "KL (released)")
    assert KLDivergence(eps=1e-5)(many).name == "kl_eps_1e-05"
    assert exact.value == pytest.approx(np.mean(list(exact.per_clip.values())))
    assert released.value < exact.value
    assert exact.described.endswith("nats, eps 0, by toy classifier")


def test_is(many):
    score = InceptionScore(resamples=50)(many)
    assert (score.label, score.judge) == ("IS", "toy classifier")
    assert 1 < score.value < 4
    assert score.low < score.value < score.high


def test_replicates_are_of_what_has_no_value_a_clip(many):
    mean, whole = KLDivergence()(many), InceptionScore(resamples=50)(many)
    assert mean.per_clip and mean.replicates is None
    assert whole.per_clip is None and len(whole.replicates) == 50
    assert from_json(to_json([whole])) == [whole]


def test_a_definition_does_not_depend_on_the_clips_or_the_draws(many, three):
    ours, theirs = AAAlign(detector=Spikes)(three), AAAlign(detector=Spikes, resamples=9)(many)
    assert ours.described == theirs.described and (ours.n, ours.draws) != (theirs.n, theirs.draws)
    assert InceptionScore(resamples=50)(many).described == InceptionScore(resamples=60)(many).described


def test_class_accuracy_of_all_and_of_vague_captions(many):
    score = ClassAccuracy()(many)
    assert (score.value, score.n, score.name) == (1.0, 24, "class_accuracy")
    assert 0 < score.chance < 0.6
    assert score.corrected == 1.0
    vague = ClassAccuracy(captions="vague")(many)
    assert (vague.name, vague.n) == ("class_accuracy_vague", 10)
    assert (vague.label, vague.judge) == ("Class accuracy on vague captions", "toy classifier")
    named = ClassAccuracy(captions="named")(many)
    assert (named.name, named.n) == ("class_accuracy_named", 14)
    assert sorted([*named.per_clip, *vague.per_clip]) == sorted(score.per_clip)
    with pytest.raises(MetricError, match="captions was 'some'. Write one of: all, vague, named."):
        ClassAccuracy(captions="some")


@pytest.mark.parametrize("metric", [FrechetDistance, KLDivergence, InceptionScore, KernelAudioDistance])
def test_without_a_classifier_and_weights_there_is_no_figure(metric, three, monkeypatch):
    monkeypatch.delenv("STAV2A_WEIGHTS", raising=False)
    score = metric()(three)
    assert score.unavailable == (
        "weights of PANNs Cnn14 classifier not found: put Cnn14_16k_mAP=0.438.pth, from "
        "zenodo.org/records/3987831, into a folder that the environment variable STAV2A_WEIGHTS names"
    )
    assert math.isnan(score.value)


def test_class_accuracy_is_the_sets_own_classifiers(three):
    assert ClassAccuracy()(three).unavailable == "no classifier was given for this evaluation"


def test_too_few_clips_give_a_reason_and_no_figure():
    samples = EvaluationSet(ids=["a"], sounds=arrays([sound()], [sound()]), classifier=classified(1))
    assert "needs 2 clips or more" in FrechetDistance()(samples).unavailable
    assert "needs 20 clips or more; got 1" in InceptionScore()(samples).unavailable
    assert AAAlign(detector=Spikes)(samples).unavailable == "no clip has a value (no onset in either sound)"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"ids": ["a", "a"]}, "clip ids occur twice: a"),
        ({"ids": []}, "there is no clip to evaluate"),
        ({"sounds": arrays([sound()], [sound()])}, "2 ids but 1 sounds"),
        ({"captions": ["x"]}, "2 ids but 1 captions"),
        ({"classifier": classified(3)}, "2 ids but 3 classifier"),
        ({"flows": [None, None]}, "flows came without frame_rate_hz"),
    ],
)
def test_a_set_that_does_not_fit_together_is_refused(change, told):
    fitting = {"ids": ["a", "b"], "sounds": arrays([sound()] * 2, [sound()] * 2)}
    with pytest.raises(MetricError, match=told):
        EvaluationSet(**{**fitting, **change})


@pytest.mark.parametrize(
    ("generated", "references", "told"),
    [
        ([sound()], [sound()] * 2, "1 generated sounds but 2 real ones"),
        ([sound(), np.zeros((2, 5))], [sound()] * 2, r"sound 1 of the generated is of shape \(2, 5\)"),
        ([sound(), np.zeros(0)], [sound()] * 2, r"sound 1 of the generated is of shape \(0,\)"),
        ([sound()] * 2, [sound() + np.nan, sound()], "sound 0 of the references holds samples that are not"),
    ],
)
def test_sounds_that_cannot_be_listened_to_are_refused(generated, references, told):
    with pytest.raises(MetricError, match=told):
        arrays(generated, references)


def test_a_classifier_gives_one_row_a_clip():
    rows = dataclasses.asdict(classified(4)) | {"reference_logits": np.zeros((3, 4))}
    with pytest.raises(
        MetricError, match=r"toy classifier gave .*reference_logits \(3, 4\).* Give one row a clip"
    ):
        ClassifierOutputs(**rows)


def test_recipes_name_the_metrics():
    bindings = ["metric.aa_align.matching = 'released'", "metric.is.splits = 2"]
    loaded = recipe.load("recipes/cn.gin", bindings, root=Experiment)
    metrics = {name_of(metric): metric() for metric in loaded.build().metrics}
    assert metrics["aa_align"].matching == "released" and metrics["is"].splits == 2
