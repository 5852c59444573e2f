import dataclasses
import re
import struct
from base64 import b64decode

import pytest

from stav2a.data.media import MediaError
from stav2a.evaluation.comparison import ComparisonError, compare
from stav2a.reports.comparison_tables import comparison_document
from stav2a.reports.pages import write_page
from tests.reports.pages import ATTACK, clip, page
from tests.reports.test_report import Reader


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return page(tmp_path_factory.mktemp("page")).read_text(encoding="utf-8")


@pytest.fixture
def reader(written):
    return Reader(written)


def test_every_clip_goes_through_the_real_sound_and_all_rows_that_have_it(reader):
    assert [sound["aria-label"] for sound in reader.all("audio")] == [
        "real sound: test_0", "real sound: test_1",
    ]  # fmt: skip
    assert [film["aria-label"] for film in reader.all("video")] == [
        "CN: test_0", "CN+Onset: test_0", "CN: test_1", "CN+Onset: test_1",
    ]  # fmt: skip
    assert all("controls" in player for player in reader.all("video") + reader.all("audio"))
    strips = [image["alt"] for image in reader.all("img") if "spectrogram" in str(image["alt"])]
    assert strips[:3] == [
        "spectrogram, real sound: test_0", "spectrogram, CN: test_0", "spectrogram, CN+Onset: test_0",
    ]  # fmt: skip
    assert len(strips) == 6


def test_there_is_a_plot_for_each_metric_and_one_of_training(reader):
    plots = [str(image["alt"]) for image in reader.all("img") if "spectrogram" not in str(image["alt"])]
    assert plots[0] == "AA-Align by row: Pretrained-T2A 0.194, CN 0.583, CN+Onset 0.629"
    assert plots[1].startswith("FD by row: ")
    assert plots[2:] == ["Training curves"]


def test_pictures_have_the_size_that_the_page_says(reader):
    for image in reader.all("img"):
        png = b64decode(str(image["src"]).removeprefix("data:image/png;base64,"))
        width, height = struct.unpack(">II", png[16:24])
        assert image.get("width") in (None, str(width)) and image.get("height") in (None, str(height))


def test_the_tables_and_their_notes_are_there(reader):
    text = " ".join(reader.text.split())
    assert "Of 4 differences to CN: 3 with the paper's sign, 0 with the other one, 1 within noise." in text
    assert "CN+Onset +0.045 [+0.021, +0.071] +0.023 ✓ yes +0.44 [−0.46, +1.31] +0.44 ≈ within noise" in text
    assert "CN Frozen – – – –" in text
    assert "CN+Onset − CN +0.045" in text
    assert "CN Frozen, seed 0, 1, 2: exit code 1." in text
    assert "AA-Align 0.75 KL 0.12" in text
    assert len(reader.all("table")) == 5  # four, and the environment


def test_the_page_asks_nothing_of_the_network_and_runs_nothing(written, reader):
    assert not re.search(r"https?:", written)
    assert not re.search(r"(src|href)=(?!\"data:)", written)
    assert "default-src 'none'" in written
    assert reader.all("script") == []
    assert reader.text.count(ATTACK) == 4  # title twice, two captions


def test_all_that_scrolls_can_be_reached_by_keyboard(reader):
    regions = [each for each in reader.all("div") if "scroll" in str(each.get("class"))]
    assert len(regions) == 7  # four tables, two metrics, the training
    assert all(region["tabindex"] == "0" and region["aria-labelledby"] for region in regions)
    ids = {attributes["id"] for _, attributes in reader.elements if "id" in attributes}
    assert {region["aria-labelledby"] for region in regions} <= ids


def test_tables_alone_make_a_page(tmp_path):
    reader = Reader(page(tmp_path, clips=(), curves=None, details=None, facts=None).read_text())
    assert reader.all("video") == reader.all("dl") == []
    assert len(reader.all("img")) == 2


def test_nothing_to_compare_makes_a_page_that_says_so(tmp_path):
    nothing = compare({"CN": {}}, metrics={"aa": "higher"}, baseline="CN", missing={"CN": {0: "killed"}})
    written = write_page(tmp_path / "r.html", comparison_document(nothing), title="x", comparison=nothing)
    reader = Reader(written.read_text())
    assert "There is nothing to compare yet." in reader.text
    assert "CN, seed 0: killed." in reader.text
    assert reader.all("table") == reader.all("img") == []


def test_a_clip_through_a_stranger_is_refused_and_nothing_is_written(tmp_path):
    one = clip(tmp_path, "test_0")
    strange = dataclasses.replace(one, rows={"C": one.rows["CN"]})
    with pytest.raises(
        ComparisonError, match="clip test_0 came through 'C', which is not a row. The rows are: Pre"
    ):
        page(tmp_path, clips=[strange])
    assert not (tmp_path / "report.html").exists()


def test_a_sound_that_is_gone_is_told(tmp_path):
    one = clip(tmp_path, "test_0")
    with pytest.raises((MediaError, FileNotFoundError), match="gone.wav"):
        page(tmp_path, clips=[dataclasses.replace(one, reference=tmp_path / "gone.wav")])


def test_notes_stand_after_the_tables_the_plots_and_the_clips(tmp_path):
    text = page(tmp_path).read_text()
    places = [text.index(f'id="{name}"') for name in ("table-1", "pictures", "clips", "notes", "training")]
    assert places == sorted(places)
