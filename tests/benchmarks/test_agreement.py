"""How well detectors and filters agree with the embedded benchmark, where the truth is known.

Prints a table each; `docs/filters.md` holds what came out.
"""

from functools import partial

import numpy as np
import pytest
from scipy.stats import spearmanr

from stav2a import registry
from stav2a.data.clip import Clip
from stav2a.data.filters import AVAlignFilter
from stav2a.data.media import decode
from stav2a.data.onsets import Librosa, SuperFlux
from stav2a.data.optical_flow import Farneback, SparseFarneback
from stav2a.data.struck_objects import StruckObjects
from stav2a.metrics.alignment import onset_scores
from stav2a.utils.parallel import parallel

CLIPS, WITHIN_S = 240, 0.05


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[Clip]:
    world = StruckObjects(train_clips=CLIPS, validation_clips=0, test_clips=0)
    return world.clips(tmp_path_factory.mktemp("world"))


def heard(detector, clip: Clip) -> np.ndarray:
    decoded = decode(clip.video)
    return detector(decoded.audio, decoded.sample_rate)


@pytest.mark.parametrize("name", ["superflux", "librosa"])
def test_onset_detectors_against_the_exact_onsets(benchmark, clips, name):
    detector = registry.get("onset_detector", name).factory()
    found = benchmark.pedantic(
        lambda: list(parallel(partial(heard, detector), clips, description=name)), rounds=1
    )
    scores = [onset_scores(f, c.onsets_s, tolerance_s=WITHIN_S) for f, c in zip(found, clips, strict=True)]
    errors = np.concatenate([nearest(f, c.onsets_s) for f, c in zip(found, clips, strict=True)])
    errors = errors[np.abs(errors) < WITHIN_S]
    precision, recall, f1 = np.nanmean(scores, axis=0)
    print(
        f"\n| `onset_detector.{name}` | {f1:.3f} | {precision:.3f} | {recall:.3f} "
        f"| {1e3 * np.median(errors):+.1f} ms | {1e3 * errors.std():.1f} ms |"
    )


def nearest(found: np.ndarray, known) -> np.ndarray:
    """For each known onset, how much later the nearest found one is, in seconds."""
    if not len(found):
        return np.zeros(0)
    late = np.asarray(found)[:, None] - np.asarray(known)[None]
    return late[np.abs(late).argmin(axis=0), np.arange(late.shape[1])]


def decided(filters, clip: Clip) -> list:
    decoded = decode(clip.video)
    return [each(decoded) for each in filters]


def test_the_filter_against_the_known_flaws_and_fast_flow_against_exact(benchmark, clips):
    kinds = [(flow, detector) for detector in (Librosa, SuperFlux) for flow in (Farneback, SparseFarneback)]
    filters = [AVAlignFilter(detector=detector, flow=flow) for flow, detector in kinds]
    filters.append(AVAlignFilter(detector=SuperFlux, flow_size=32))
    all_ = benchmark.pedantic(
        lambda: list(parallel(partial(decided, filters), clips, description="AV-Align")), rounds=1
    )
    good = np.array([clip.flaw is None for clip in clips])
    print(f"\n{good.sum()} of {len(good)} clips are good")
    names = [f"{f.__name__}, {d.__name__}" for f, d in kinds] + ["Farneback at 32 pixels, SuperFlux"]
    for index, name in enumerate(names):
        keep = np.array([row[index].keep for row in all_])
        hits = (keep & good).sum()
        print(f"| {name} | {hits / keep.sum():.3f} | {hits / good.sum():.3f} |")
    for exact, fast in ((0, 1), (2, 3)):
        scores = np.array([[row[i].score or 0.0 for i in (exact, fast)] for row in all_])
        equal = np.mean([row[exact].keep == row[fast].keep for row in all_])
        rho = spearmanr(*scores.T)[0]
        print(f"{names[fast]}: rank correlation {rho:.4f}, equal decisions {equal:.4f}")
