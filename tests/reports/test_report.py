import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from stav2a.metrics.score import Score
from stav2a.reports.html import Media, ReportError
from stav2a.reports.plots import curves_png
from stav2a.reports.run_report import ReportClip, write_report

ATTACK = '<script>alert("x")</script>'
SCORES = [
    Score(
        name="aa", label="AA-Align", definition="onsets matched one to one", higher_is_better=True,
        value=0.7123, low=0.68, high=0.745, n=128, chance=0.21, corrected=0.635,
        corrected_low=0.6, corrected_high=0.67,
        left_out={"c9": "no onset"},
    ),
    Score(name="fd", label="FD", definition="Fréchet distance", higher_is_better=False, value=123.456, n=128),
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
    (tmp_path / "film.mp4").write_bytes(b"film")
    clip = ReportClip(
        id="struck_0001",
        caption=f"a rod strikes {ATTACK}",
        tags=("glass", "vague caption"),
        facts={"AA-Align": "0.75"},
        media=(
            Media("film with generated sound", tmp_path / "film.mp4", "video/mp4"),
            Media("generated", b"sound", "audio/wav"),
            Media("reference", b"real sound", "audio/wav"),
            Media("spectrograms", b"\x89PNG", "image/png"),
        ),
    )
    written = write_report(
        tmp_path / "report.html",
        title=f"cn {ATTACK}",
        facts={"recipe": "recipes/cn.gin", "more": ATTACK},
        scores=SCORES,
        notes=["FD uses the benchmark's classifier."],
        clips=[clip],
        curves=curves_png({"joint/train": [(0, 1.0), (1, 0.5)]}),
        details={"Recipe": f"run.seed = 0\n{ATTACK}", "Environment": {"torch": "2.13.0"}},
    )
    assert sorted(file.name for file in tmp_path.iterdir()) == ["film.mp4", "report.html"]
    return written.read_text(encoding="utf-8")


def test_the_page_plays_and_shows_every_media(page: str):
    reader = Reader(page)
    (film,) = reader.all("video")
    assert film["src"] == "data:video/mp4;base64," + base64.b64encode(b"film").decode()
    assert "controls" in film
    assert [sound["aria-label"] for sound in reader.all("audio")] == [
        "generated: struck_0001",
        "reference: struck_0001",
    ]
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in reader.all("img"))
    assert [image["alt"] for image in reader.all("img")] == ["spectrograms: struck_0001", "Training curves"]


def test_the_page_asks_nothing_of_the_network(page: str):
    assert not re.search(r"https?:", page)
    assert not re.search(r"(src|href)=(?!\"data:)", page)
    assert "default-src 'none'" in page


def test_words_of_the_user_are_never_markup(page: str):
    reader = Reader(page)
    assert reader.all("script") == []
    assert reader.text.count(ATTACK) == 5  # title twice, fact, caption, snapshot


def test_the_table_tells_value_interval_chance_and_direction(page: str):
    text = " ".join(Reader(page).text.split())
    assert "AA-Align ↑ 0.712 0.680 … 0.745 0.210 0.635 [0.600 … 0.670] 128" in text
    assert "FD ↓ 123.5 – – – 128" in text
    assert "CLAP ↑ not measured: no checkpoint" in text
    assert "onsets matched one to one; left out: 1 of 129 clips." in text
    assert "FD uses the benchmark's classifier." in text


def test_an_interval_is_drawn_where_there_is_one(page: str):
    (circle,) = Reader(page).all("circle")
    assert circle["cx"] == "106.8"  # 0.7123 of 150


def test_a_page_of_nothing_but_a_title_is_whole(tmp_path: Path):
    reader = Reader(write_report(tmp_path / "r.html", title="empty").read_text())
    assert reader.all("table") == reader.all("video") == []


def test_a_kind_no_browser_plays_is_refused_and_nothing_is_written(tmp_path: Path):
    clip = ReportClip("a", "b", media=[Media("features", b"x", "application/zip")])
    with pytest.raises(ReportError, match="features is of kind 'application/zip'; expected video/…, audio/…"):
        write_report(tmp_path / "r.html", title="x", clips=[clip])
    assert list(tmp_path.iterdir()) == []
