"""How long one clip takes on one core: all but flow and encoder; exact and fast AV-Align; two workers.

Arms that are compared take turns, so that other work on the machine meets both; the figures are medians.
What runs on one core is timed by the processor's own clock, which stands still while others have the core.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from stav2a.data import mel
from stav2a.data.filters import AVAlignFilter, Duration, Silence, SpeechCaptions, Static
from stav2a.data.media import decode, resample_frames
from stav2a.data.onsets import Librosa, SuperFlux, onset_frames
from stav2a.data.optical_flow import SparseFarneback, motion
from stav2a.utils.parallel import parallel
from stav2a.utils.resampling import fit_audio, resample_audio
from tests.benchmarks.clips import write

one_core = pytest.mark.benchmark(timer=time.process_time)
FRAMES = 40  # of a clip, where the flow of all would take too long


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    yield
    cv2.setNumThreads(before[0])
    torch.set_num_threads(before[1])


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("clip") / "clip.mp4")


@pytest.fixture(scope="module")
def grey(path) -> np.ndarray:
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in decode(path).frames])


def all_but_flow_and_encoder(path: Path) -> None:
    clip = decode(path, caption="something is hit")
    for data_filter in (SpeechCaptions(), Duration(), Silence(), Static()):
        data_filter(clip)
    resample_frames(clip, 4.0, (224, 224), 40)
    for frame in clip.frames:
        cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    sound = fit_audio(resample_audio(clip.audio, clip.sample_rate, 16_000), 160_000)
    onset_frames(SuperFlux()(sound, 16_000), 256, 25.0)
    Librosa()(clip.audio, clip.sample_rate)
    mel.log_mel(torch.from_numpy(sound)[None])


@one_core
def test_all_but_flow_and_encoder(benchmark, path):
    benchmark.extra_info["at_most_s"] = 0.35
    benchmark.pedantic(all_but_flow_and_encoder, args=(path,), rounds=10, warmup_rounds=3)


@one_core
def test_exact_av_align_against_one_pass_of_farneback(benchmark, path, grey):
    clip, data_filter = decode(path), AVAlignFilter()
    arms = {"av_align": lambda: data_filter(clip), "farneback": partial(one_pass_of_farneback, grey)}
    compare(benchmark, arms, rounds=5)


def one_pass_of_farneback(grey: np.ndarray) -> None:
    for before, after in zip(grey, grey[1:], strict=False):
        flow = cv2.calcOpticalFlowFarneback(before, after, None, 0.5, 3, 15, 3, 5, 1.2, 0)
        cv2.magnitude(flow[..., 0], flow[..., 1]).mean()


@one_core
def test_sparse_flow_against_the_exact_one(benchmark, grey):
    some = grey[:FRAMES]
    arms = {"sparse": partial(motion, some, flow=SparseFarneback()), "exact": partial(motion, some)}
    compare(benchmark, arms, rounds=9)


def test_two_workers_against_one(benchmark, path):
    clips = [path] * 128  # so many that starting the workers does not count

    def arm(workers: int) -> Callable[[], None]:
        return lambda: [*parallel(all_but_flow_and_encoder, clips, workers=workers, description="preparing")]

    compare(benchmark, {"two workers": arm(2), "one worker": arm(1)}, rounds=1)


def compare(benchmark, arms: dict[str, Callable[[], object]], *, rounds: int) -> None:
    """Time arms in turns; the first is the benchmark's own figure, the others stand beside it."""
    for arm in arms.values():
        arm()
    (ours, ours_run), *others = arms.items()
    taken: dict[str, list[float]] = {name: [] for name in arms}

    def setup() -> None:
        for name, run in others:
            taken[name].append(seconds(run, benchmark._timer))

    def own() -> None:
        taken[ours].append(seconds(ours_run, benchmark._timer))

    benchmark.pedantic(own, setup=setup, rounds=rounds)
    medians = {name: float(np.median(each)) for name, each in taken.items()}
    ratios = {f"{name} / {ours}": medians[name] / medians[ours] for name, _ in others}
    benchmark.extra_info.update({**{f"{n} median_s": m for n, m in medians.items()}, **ratios})
    print(f"\n{benchmark.name}: {benchmark.extra_info}")


def seconds(run: Callable[[], object], clock: Callable[[], float]) -> float:
    started = clock()
    run()
    return clock() - started
