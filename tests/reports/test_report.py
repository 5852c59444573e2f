import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from stav2a.data.media import write_clip, write_wav
from stav2a.metrics.score import Score
from stav2a.reports.comparison_tables import scores_document
from stav2a.reports.html import ReportError
from stav2a.reports.pages import ComparedClip, RowClip, sample_clips, write_page
from stav2a.reports.tables import Document

ATTACK = '<script>alert("x")</script>'
SCORES = [
    Score(
        name="aa_align", label="AA-Align", definition="onsets matched one to one", higher_is_better=True,
        value=0.7123, low=0.68, high=0.745, n=128, chance=0.21, corrected=0.635,
        corrected_low=0.6, corrected_high=0.67,
        per_clip={"struck_0001": 0.75, "other": 0.5}, skipped={"c9": "no onset"},
    ),
    Score(
        name="fd", label="FD", definition="Fréchet distance", higher_is_better=False, value=123.456, n=128,
        judge="toy classifier",
    ),
    Score(name="clap", label="CLAP", definition="cosine", higher_is_better=True, unavailable="no checkpoint"),
]  # fmt: skip


class Reader(HTMLParser):
    """Elements and text of a page, as a browser would see them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def page(tmp_path: Path) -> str:
    samples, rate = tmp_path / "samples", 16_000
    samples.mkdir()
    sound = np.random.default_rng(0).normal(size=rate // 2).astype(np.float32) * 0.1
    for name in ("struck_0001.wav", "struck_0001.reference.wav"):
        write_wav(samples / name, sound, rate)
    write_clip(samples / "struck_0001.mp4", np.zeros((12, 16, 16, 3), np.uint8), 24, sound, rate)
    clip = {
        "id": "struck_0001", "caption": f"a rod strikes {ATTACK}", "label": "glass", "vague": True,
        "onsets_s": [0.1], "duration_s": 0.5,
    }  # fmt: skip
    (samples / "clips.json").write_text(json.dumps([clip]))
    written = write_page(
        tmp_path / "report.html",
        scores_document(SCORES),
        scores=SCORES,
        title=f"cn {ATTACK}",
        facts={"recipe": "recipes/cn.gin", "more": ATTACK},
        clips=sample_clips({"generated": samples}, {"generated": SCORES}, ["aa_align"]),
        curves={"joint": {"train": [(0, 1.0), (1, 0.5)]}},
        details={"Recipe": f"run.seed = 0\n{ATTACK}", "Environment": {"torch": "2.13.0"}},
    )
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.html", "samples"]
    return written.read_text(encoding="utf-8")


def test_the_page_plays_and_shows_every_media(page: str, tmp_path: Path):
    reader = Reader(page)
    (film,) = reader.all("video")
    content = (tmp_path / "samples" / "struck_0001.mp4").read_bytes()
    assert film["src"] == "data:video/mp4;base64," + base64.b64encode(content).decode()
    assert "controls" in film and film["aria-label"] == "generated: struck_0001"
    assert [sound["aria-label"] for sound in reader.all("audio")] == ["real sound: struck_0001"]
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in reader.all("img"))
    assert [image["alt"] for image in reader.all("img")] == [
        "spectrogram, real sound: struck_0001", "spectrogram, generated: struck_0001", "Training curves",
    ]  # fmt: skip
    assert "glass vague caption" in " ".join(reader.text.split())
    assert "AA-Align 0.75" in " ".join(reader.text.split())


def test_the_page_asks_nothing_of_the_network(page: str):
    assert not re.search(r"https?:", page)
    assert not re.search(r"(src|href)=(?!\"data:)", page)
    assert "default-src 'none'" in page


def test_words_of_the_user_are_never_markup(page: str):
    reader = Reader(page)
    assert reader.all("script") == []
    assert reader.text.count(ATTACK) == 5  # title twice, fact, caption, snapshot


def test_the_table_has_value_interval_chance_and_direction(page: str):
    text = " ".join(Reader(page).text.split())
    assert "AA-Align ↑ 0.712 [0.680, 0.745] 0.210 0.635 [0.600, 0.670] 128" in text
    assert "FD ↓ 123.46 – – 128" in text
    assert "CLAP: no checkpoint." in text
    assert "AA-Align: onsets matched one to one." in text and "FD: by toy classifier." in text
    assert "AA-Align: 1 of 129 clips, no onset: c9." in text


def test_an_interval_is_drawn_where_there_is_one(page: str):
    (circle,) = Reader(page).all("circle")
    assert circle["cx"] == "106.8"  # 0.7123 of 150


def test_a_page_of_nothing_but_a_title_is_whole(tmp_path: Path):
    reader = Reader(write_page(tmp_path / "r.html", Document([]), title="empty").read_text())
    assert reader.all("table") == reader.all("video") == []


def test_a_kind_no_browser_plays_is_refused_and_nothing_is_written(tmp_path: Path):
    write_wav(tmp_path / "a.wav", np.zeros(8000, np.float32), 16_000)
    made = RowClip(tmp_path / "a.zip", tmp_path / "a.wav")
    clip = ComparedClip("a", "b", (), (), 0.5, tmp_path / "a.wav", {"generated": made})
    with pytest.raises(ReportError, match="generated is of kind '.zip'; expected video/…, audio/…"):
        write_page(tmp_path / "r.html", Document([]), title="x", clips=[clip])
    assert [file.name for file in tmp_path.iterdir()] == ["a.wav"]


def test_clips_come_first_and_definitions_are_folded(page: str):
    places = [page.index(f'id="{name}"') for name in ("clips", "table-1", "notes", "training")]
    assert places == sorted(places)
    folded = re.findall(r'<details class="card">\n<summary>(.*?)</summary>', page)
    assert folded[:2] == ["How to read them", "What was measured"] or folded[0] == "What was measured"
    assert re.findall(r'<details class="card" open>\n<summary>(.*?)</summary>', page) == [
        "Too few clips",
        "Left out",
        "Missing",
    ]
