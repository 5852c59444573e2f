"""The page in a real browser: does it play, show and stay silent on the console?"""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.reports.pages import page

pytestmark = pytest.mark.slow

PLAYERS = """
() => Promise.all([...document.querySelectorAll('video, audio')].map(async player => {
  if (player.readyState < 1) await new Promise(done => {
    player.onloadedmetadata = player.onerror = done;
    player.load();
  });
  return {name: player.ariaLabel, seconds: player.duration, error: player.error && player.error.message};
}))
"""
PICTURES = """
() => [...document.images].map(image => (
  {name: image.alt, width: image.naturalWidth, shown: image.clientWidth}
))
"""


@pytest.fixture
def opened(browser, tmp_path) -> Iterator[Any]:
    """The page, opened from a disk without a network; what it says on the console is an error."""
    context = browser.new_context(offline=True, viewport={"width": 1400, "height": 1000})
    tab = context.new_page()
    said: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto(page(tmp_path).as_uri())
    yield tab
    context.close()
    assert said == []


def test_every_player_can_play(opened):
    players = opened.evaluate(PLAYERS)
    assert [player["name"] for player in players] == [
        "real sound: test_0", "CN: test_0", "CN+Onset: test_0",
        "real sound: test_1", "CN: test_1", "CN+Onset: test_1",
    ]  # fmt: skip
    for player in players:
        assert player["error"] is None, player
        assert player["seconds"] == pytest.approx(0.8, abs=0.1), player


def test_every_picture_is_seen(opened):
    pictures = opened.evaluate(PICTURES)
    assert len(pictures) == 9  # six spectrograms, two metrics, the training
    assert all(picture["width"] > 0 and picture["shown"] > 100 for picture in pictures), pictures


def test_the_cards_of_a_clip_stand_side_by_side(opened):
    boxes = [tile.bounding_box() for tile in opened.locator("article").first.locator(".tile").all()]
    assert len(boxes) == 3
    assert len({round(box["y"]) for box in boxes}) == 1


def test_a_telephone_shows_it_without_scrolling_sideways(opened):
    opened.set_viewport_size({"width": 360, "height": 800})
    assert opened.evaluate("document.documentElement.scrollWidth") <= 360


def test_players_and_tables_are_reached_by_keyboard(opened):
    reached = set()
    for _ in range(40):
        opened.keyboard.press("Tab")
        reached.add(
            opened.evaluate("document.activeElement.tagName + ' ' + document.activeElement.className")
        )
    assert "DIV scroll" in reached
    assert any(each.startswith("VIDEO") for each in reached)
    assert any(each.startswith("AUDIO") for each in reached)


def test_on_a_phone_plots_are_wide_enough_to_read_and_scroll_by_themselves(opened):
    """Their smallest text has 8 points: 10 pixels at 90 pixels an inch."""
    opened.set_viewport_size({"width": 390, "height": 844})
    assert opened.evaluate("document.documentElement.scrollWidth") == 390
    widths = {picture["name"][:12]: picture["shown"] for picture in opened.evaluate(PICTURES)}
    assert widths["AA-Align by "] == widths["FD by row: P"] == 576  # 6 inches
    assert widths["Training cur"] == 480  # 4.8 inches
    assert widths["spectrogram,"] > 3.3 * 90
    for plot in opened.locator("img.plot").all():
        card = plot.locator("..")
        assert card.evaluate("card => card.scrollWidth > card.clientWidth && card.tabIndex === 0")
