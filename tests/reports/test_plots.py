import struct

import numpy as np
import pytest

from stav2a.reports import plots
from stav2a.reports.plots import (
    Mark,
    compare_png,
    curves_png,
    forest_png,
    histogram_png,
    strip_png,
)

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


def spectrogram_png(mel, onsets_s=None, title="one") -> bytes:
    return compare_png({title: mel}, 2.0, onsets_s)


def test_the_same_input_gives_the_same_bytes():
    assert spectrogram_png(MEL, [0.5]) == spectrogram_png(MEL, [0.5])


def test_each_true_onset_has_its_mark():
    bare, one, three = (spectrogram_png(MEL, times) for times in (None, [0.5], [0.5, 1.0, 1.5]))
    orange = [count(png, "#D55E00") for png in (bare, one, three)]
    assert orange[0] == 0
    assert orange[1] < orange[2]  # one in the legend, and one an onset
    assert orange[2] == pytest.approx(2 * orange[1], rel=0.2)


def test_no_onsets_is_not_an_error():
    size(spectrogram_png(MEL, np.array([])))


def test_silence_can_be_drawn():
    size(spectrogram_png(np.full((200, 64), -11.5), [0.5], title="silence $x_{"))


def test_a_comparison_is_taller_than_one_spectrogram():
    both = size(compare_png({"generated": MEL, "reference": MEL}, 2.0, [0.5]))
    assert both[1] > 1.5 * size(spectrogram_png(MEL))[1]
    assert both[0] == size(spectrogram_png(MEL))[0]


def test_curves_of_many_stages_are_drawn_in_panels():
    steps = np.arange(100.0)
    stages = {stage: {"train": list(zip(steps, np.exp(-steps / 9), strict=True))} for stage in "abcd"}
    one = size(curves_png({"a": stages["a"]}))
    stages["a"]["validation"] = [(0, 1.0), (99, 0.1)]
    four = size(curves_png(stages))
    assert four[0] > 2 * one[0] and four[1] > 1.5 * one[1]


@pytest.mark.parametrize(
    "losses",
    [
        {},
        {"a": {}},
        {"a": {"train": []}},
        {"a": {"b": [(0, float("nan"))]}},
        {"a": {"b": [(0, 0.0), (1, -1.0)]}},
    ],
)
def test_curves_without_points_are_drawn_empty(losses: dict):
    size(curves_png(losses))


def test_a_run_has_one_colour_in_all_panels():
    curve = [(0.0, 1.0), (1.0, 0.5)]
    first_alone = curves_png(
        {"loss": {"CN": curve, "CN+Onset": curve[::-1]}, "onset/loss": {"CN+Onset": curve}}
    )
    blue, orange = count(first_alone, "#0072B2"), count(first_alone, "#D55E00")
    assert orange > blue > 0  # two panels and the legend, one panel and the legend


def test_a_legend_of_many_runs_takes_the_room_it_needs():
    curve = [(0.0, 1.0), (1.0, 0.5)]
    few, many = (
        size(curves_png({"loss": {f"a rather long name {i}": curve for i in range(n)}})) for n in (1, 9)
    )
    assert many[0] == few[0] and many[1] > few[1] + 50


def test_a_strip_is_small_and_marks_true_onsets():
    bare, two = strip_png(MEL, 2.0), strip_png(MEL, 2.0, [0.5, 1.0])
    assert size(bare) == size(two) == (528, 224)
    assert count(two, "#D55E00") > count(bare, "#D55E00") == 0


def test_a_strip_marks_detected_onsets_apart_from_true_ones():
    both = strip_png(MEL, 2.0, [0.5], detected_s=[0.5, 1.0])
    assert count(both, "#009E73") > count(strip_png(MEL, 2.0, [0.5]), "#009E73") == 0
    assert count(both, "#D55E00") == count(strip_png(MEL, 2.0, [0.5]), "#D55E00")


def test_no_axis_has_an_offset(monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "_png", lambda figure: drawn.append(figure) or b"")
    curves_png({"loss": {"CN": [(0.0, 3.690001), (1.0, 3.690002)]}})
    forest_png({"CN": Mark(1.00001, 1.000005, 1.000015)}, label="IS")
    for axes in (axes for figure in drawn for axes in figure.axes):
        axes.figure.draw_without_rendering()
        assert axes.xaxis.get_offset_text().get_text() == axes.yaxis.get_offset_text().get_text() == ""
        assert axes.get_xlabel()


def test_plots_have_no_ground_of_their_own():
    import cv2

    png = np.frombuffer(forest_png({"CN": Mark(0.2, 0.1, 0.3)}), np.uint8)
    assert cv2.imdecode(png, cv2.IMREAD_UNCHANGED)[0, 0, 3] == 0


def test_strips_on_one_scale_show_which_sound_is_louder():
    soft, loud = pixels(strip_png(MEL - 4, 2.0, loudest=0.0)), pixels(strip_png(MEL, 2.0, loudest=0.0))
    assert loud.astype(int).sum() > soft.astype(int).sum()


def test_a_forest_plot_has_a_line_for_every_row():
    rows = {"T2A": Mark(0.2, 0.1, 0.3, [0.1, 0.3], sure=True, beside="0.498"), "CN": Mark(0.6, 0.5, 0.7)}
    two = forest_png(rows, title="AA-Align ↑", baseline="CN", beside="paper")
    three = forest_png(rows | {"CN Frozen": None}, title="AA-Align ↑", baseline="CN", beside="paper")
    assert size(three)[1] > size(two)[1]
    assert count(two, "#D55E00") > 0 and count(two, "#0072B2") > 0
    assert two == forest_png(rows, title="AA-Align ↑", baseline="CN", beside="paper")


def test_a_row_that_may_equal_the_baseline_is_a_ring():
    full, ring = (forest_png({"CN+": Mark(0.2, sure=sure)}) for sure in (True, False))
    assert count(full, "#0072B2") > 1.5 * count(ring, "#0072B2") > 0


def test_a_forest_of_nothing_is_drawn_empty():
    size(forest_png({}))
    size(forest_png({"CN": None}, baseline="CN"))


def test_a_histogram_shows_its_threshold_and_repeats_its_bytes():
    plain = histogram_png([0, 3, 1, 0], title="four bins", label="score")
    parted = histogram_png([0, 3, 1, 0], title="four bins", label="score", threshold=0.5)
    assert plain[:4] == parted[:4] == b"\x89PNG" and plain != parted
    assert parted == histogram_png([0, 3, 1, 0], title="four bins", label="score", threshold=0.5)


def test_names_of_dots_at_one_place_stand_apart():
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from stav2a.reports.plots import _name_dots

    figure = Figure(figsize=(6, 4))
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    _name_dots(axes, [(f"a row, {number}", 0.5, 0.5, 10.0) for number in range(4)])
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in axes.texts if text.get_visible()]
    assert len(boxes) == 4
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
