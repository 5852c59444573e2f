"""Metrics of a judge that the run's own clips have not trained, with judges whose embeddings are known."""

from dataclasses import replace

import numpy as np
import pytest

from stav2a.metrics.registered.audioset import (
    ClassAgreement,
    MusicShare,
    PaSSTDivergence,
    PaSSTFrechetDistance,
    PaSSTInceptionScore,
    ProbeAccuracy,
    SpeechShare,
    YAMNetFrechetDistance,
    YAMNetKernelDistance,
    probe_accuracy_vague,
)
from stav2a.metrics.registered.judged import FrechetDistance
from stav2a.metrics.score import ClassifierOutputs, MetricError
from stav2a.metrics.semantic import LinearProbe
from tests.metrics.test_judged import Missing, N, Toy, Windows, samples

BY_PASST = (PaSSTFrechetDistance, PaSSTDivergence, PaSSTInceptionScore)


class Presence(Toy):
    """Takes a sound's samples for the probabilities of its windows, and a quarter of them for music."""

    def __call__(self, audio, sample_rate):
        found = np.empty(len(audio), [("speech", float), ("music", float)])
        found["speech"], found["music"] = audio, audio / 4
        return found


class Examples:
    """Sounds whose class is the sign of their first number."""

    def __init__(self, count=60):
        self.sounds = np.random.default_rng(1).normal(size=(count, 9))
        self.labels = (self.sounds[:, 0] > 0).astype(int)

    def features(self, extractor):
        return [extractor(sound, 100) for sound in self.sounds]


def labelled(**known):
    given = samples()
    truth = np.array([int(sound[0] > 0) for sound in given.sounds.generated])
    return replace(given, labels=truth, examples=Examples(), **known)


@pytest.mark.parametrize(
    ("metric", "name", "label", "counterpart"),
    [
        (YAMNetFrechetDistance, "fd_yamnet", "FD (toy classifier)", "fd"),
        (YAMNetKernelDistance, "kad_yamnet", "KAD (toy classifier)", "kad"),
        (PaSSTFrechetDistance, "fd_passt", "FD (toy classifier)", "fd"),
        (PaSSTDivergence, "kl_passt", "KL (toy classifier)", "kl"),
        (PaSSTInceptionScore, "is_passt", "IS (toy classifier)", "is"),
        (ProbeAccuracy, "probe_accuracy_yamnet", "Probe accuracy (toy classifier)", "class_accuracy"),
        (
            probe_accuracy_vague,
            "probe_accuracy_vague_yamnet",
            "Probe accuracy on vague captions (toy classifier)",
            "class_accuracy_vague",
        ),
    ],
)
def test_scores_have_names_of_their_own_and_that_of_the_other_judges(metric, name, label, counterpart):
    score = metric(judge=Toy, resamples=20)(labelled(vague=np.ones(N)))
    assert (score.name, score.label, score.counterpart) == (name, label, counterpart)
    assert score.unavailable is None and np.isfinite(score.value)
    assert FrechetDistance(judge=Toy, resamples=20)(samples()).counterpart == ""


def test_the_sets_own_classifier_does_not_stand_in():
    own = ClassifierOutputs(
        name="own", generated_logits=np.eye(N), reference_logits=np.eye(N),
        generated_embeddings=np.eye(N), reference_embeddings=np.eye(N),
    )  # fmt: skip
    given = labelled(classifier=own)
    assert "YAMNet" in str(YAMNetFrechetDistance.default_judge.name)
    assert {each.default_judge.name for each in BY_PASST} == {"PaSST"}
    for metric in (YAMNetFrechetDistance, YAMNetKernelDistance, ClassAgreement, ProbeAccuracy, *BY_PASST):
        assert metric(judge=Toy, resamples=20)(given).judge.endswith("a toy (no weights)")


def test_a_missing_judge_is_the_reason_in_each():
    for metric in (YAMNetFrechetDistance, ClassAgreement, ProbeAccuracy, SpeechShare, *BY_PASST):
        assert metric(judge=Missing)(labelled()).unavailable == Missing.fault


def test_a_judge_that_is_no_classifier_is_told():
    told = FrechetDistance(judge=Windows)(samples()).unavailable
    assert told == "toy classifier gives float64 of shape (2, 3), expected a record of embedding and logits"


def test_the_probe_knows_the_classes_that_it_was_fitted_on():
    score = ProbeAccuracy(judge=Toy)(labelled())
    assert score.value > 0.8 > 0.7 > score.chance
    assert score.judge.startswith("ridge regression (1) on standardised embeddings of 60 training clips, on ")


def test_the_probe_needs_training_clips_and_true_classes():
    assert ProbeAccuracy(judge=Toy)(samples()).unavailable == "there are no training clips of known classes"
    known = replace(labelled(), labels=None)
    assert ProbeAccuracy(judge=Toy)(known).unavailable == "the clips' true classes are not known"


def test_the_probe_is_the_same_again_and_affine_in_the_embeddings():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 6)), rng.integers(0, 3, 50)
    one, two = LinearProbe(x, y, ridge=1.0), LinearProbe(3 * x + 5, y, ridge=1.0)
    np.testing.assert_array_equal(one(x), LinearProbe(x, y, ridge=1.0)(x))
    np.testing.assert_allclose(one(x), two(3 * x + 5), atol=1e-12)
    np.testing.assert_allclose(one(x).sum(axis=1), 1.0)


@pytest.mark.parametrize(
    ("labels", "told"), [([0, 1], "labels for 3 examples"), ([1, 1, 1], "of one class alone")]
)
def test_a_probe_without_classes_to_tell_apart_is_refused(labels, told):
    with pytest.raises(MetricError, match=told):
        LinearProbe(np.eye(3), labels)


def test_sounds_agree_with_themselves_and_by_chance_with_others():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(N, 9))
    assert ClassAgreement(judge=Toy)(samples(real, real)).value == 1.0
    assert ClassAgreement(judge=Toy)(samples(real, real)).chance < 0.6
    assert ClassAgreement(judge=Toy)(samples(real[::-1], real)).value < 0.6


def test_windows_with_speech_are_counted_beside_those_of_the_real_sounds():
    """Of four windows, 3 and 1 above the threshold in the generated sounds, 1 and 2 in the real ones."""
    ours, theirs = [[0.9, 0.2, 0.5, 0.1], [0.4, 0, 0, 0]], [[0, 0, 0, 0.3], [0.2, 0.2, 0, 0]]
    given = samples(np.array(ours), np.array(theirs))
    score = SpeechShare(judge=Presence)(given)
    assert score.per_clip == {"clip0": 0.75, "clip1": 0.25} and score.value == 0.5
    assert score.extras == {"real sounds": 0.375, "above the clip's real sound": 0.25}
    assert (score.name, score.label) == ("speech_share_yamnet", "Speech share (toy classifier)")
    assert not score.higher_is_better
    assert score.definition == "share of the generated sound's windows with speech likelier than 0.1"
    assert SpeechShare(judge=Presence, threshold=0.45)(given).value == 0.25
    assert MusicShare(judge=Presence)(given).per_clip == {"clip0": 0.5, "clip1": 0.0}


def test_a_judge_without_windows_of_speech_is_told():
    told = SpeechShare(judge=Windows)(samples()).unavailable
    assert told == "toy classifier gives float64 of shape (2, 3), expected records with a field speech"
