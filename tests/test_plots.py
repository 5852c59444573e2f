import struct

import numpy as np
import pytest

from stav2a.plots import compare_png, curves_png, spectrogram_png

MEL = np.random.default_rng(0).normal(-6, 1, (200, 64)).astype(np.float32)


def size(png: bytes) -> tuple[int, int]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", png[16:24])


def pixels(png: bytes) -> np.ndarray:
    import cv2

    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def count(png: bytes, colour: str) -> int:
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return int((pixels(png) == rgb).all(-1).sum())


def test_the_same_input_gives_the_same_bytes():
    assert spectrogram_png(MEL, 2.0, [0.5]) == spectrogram_png(MEL, 2.0, [0.5])


def test_each_true_onset_has_its_mark():
    bare, one, three = (spectrogram_png(MEL, 2.0, times) for times in (None, [0.5], [0.5, 1.0, 1.5]))
    orange = [count(png, "#D55E00") for png in (bare, one, three)]
    assert orange[0] == 0
    assert orange[1] < orange[2]  # one in the legend, and one an onset
    assert orange[2] == pytest.approx(2 * orange[1], rel=0.2)


def test_detected_onsets_look_different_from_true_ones():
    png = spectrogram_png(MEL, 2.0, None, [0.5, 1.0])
    assert count(png, "#0072B2") > 0
    assert count(png, "#D55E00") == 0


def test_no_onsets_is_not_an_error():
    size(spectrogram_png(MEL, 2.0, np.array([]), np.array([])))


def test_silence_can_be_drawn():
    size(spectrogram_png(np.full((200, 64), -11.5), 2.0, [0.5], title="silence $x_{"))


def test_a_comparison_is_taller_than_one_spectrogram():
    both = size(compare_png({"generated": MEL, "reference": MEL}, 2.0, [0.5], {"generated": [0.4]}))
    assert both[1] > 1.5 * size(spectrogram_png(MEL, 2.0))[1]
    assert both[0] == size(spectrogram_png(MEL, 2.0))[0]


def test_curves_of_many_stages_are_drawn_in_panels():
    steps = np.arange(100.0)
    stages = {f"{stage}/train": list(zip(steps, np.exp(-steps / 9), strict=True)) for stage in "abcd"}
    one = size(curves_png({"a/train": stages["a/train"]}))
    four = size(curves_png(stages | {"a/validation": [(0, 1.0), (99, 0.1)]}))
    assert four[0] > 2 * one[0] and four[1] > 1.5 * one[1]


@pytest.mark.parametrize(
    "losses", [{}, {"a/train": []}, {"a/train": [(0, float("nan"))]}, {"loss": [(0, 0.0), (1, -1.0)]}]
)
def test_curves_without_points_are_drawn_empty(losses: dict):
    size(curves_png(losses))
