"""A listening test in a real browser: from the first clip to the report, with a reload on the way."""

from collections.abc import Iterator
from typing import Any

import pytest

from stav2a.experiments.tracking import Tracker
from stav2a.listening.analysis import analyse
from stav2a.listening.ratings_report import write_report
from stav2a.listening.server import PageServer, playlist
from tests.listening.listening_examples import begun, serving

pytestmark = pytest.mark.slow

OFFLINE = "ERR_INTERNET_DISCONNECTED"  # the browser's own words, while a test keeps it off the network
PHONE = {"width": 360, "height": 740}


@pytest.fixture
def server(tmp_path) -> Iterator[PageServer]:
    with serving(begun(tmp_path)) as server:
        yield server


@pytest.fixture
def tab(browser, server) -> Iterator[Any]:
    """The page; what it says on the console is an error."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    tab = context.new_page()
    tab.set_default_timeout(10_000)
    said: list[str] = []
    tab.on("console", lambda message: OFFLINE in message.text or said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto(server.address)
    yield tab
    context.close()
    assert said == []


def begin(tab, name: str) -> None:
    tab.get_by_label("Your name or initials").fill(name)
    tab.keyboard.press("Enter")
    tab.locator("#trial").wait_for()


def wait_for(tab, words: str) -> None:
    tab.wait_for_function("words => document.getElementById('status').textContent.includes(words)", arg=words)


def rate_by_keyboard(tab, *values: int) -> None:
    """Play, then type a value a scale, and go on."""
    tab.keyboard.press("Space")
    for value in values:
        for digit in str(value):
            tab.keyboard.press(digit)
        tab.keyboard.press("Enter")
    wait_for(tab, "Saved.")
    tab.keyboard.press("Enter")  # the focus is on Next


def test_from_the_first_clip_to_the_report(tab, server):
    begin(tab, "Ada")
    place = tab.locator("#place")
    assert place.text_content() == "Clip 1 of 2, version 1 of 2"
    rate_by_keyboard(tab, 87, 100, 9, 50)
    assert place.text_content() == "Clip 1 of 2, version 2 of 2"
    tab.keyboard.press("Space")
    tab.keyboard.press("6")  # the first scale that is not set
    wait_for(tab, "To go on, set semantic alignment and temporal alignment and overall quality.")

    tab.reload()
    tab.locator("#trial").wait_for()
    assert place.text_content() == "Clip 1 of 2, version 2 of 2"
    assert [tab.locator(f"#{scale}-value").text_content() for scale in ("aq", "sa")] == ["6", "–"]
    rate_by_keyboard(tab, 70, 60, 50)

    tab.locator("#play").click()  # the second clip by mouse
    for scale in ("aq", "sa", "ta", "oq"):
        tab.locator(f"#{scale}").click()  # in the middle, where the handle is
    wait_for(tab, "Saved.")
    tab.locator("#next").click()
    rate_by_keyboard(tab, 1, 2, 3, 4)
    assert tab.locator("#end-title").text_content() == "Thank you: all 4 videos are rated"

    test = server.test
    kept = {(each.clip, each.system, each.scale): each.value for each in test.database.ratings("ada")}
    first, second, third, fourth = (
        [kept[video.clip, video.system, scale] for scale in ("aq", "sa", "ta", "oq")]
        for video in playlist(test, "ada")
    )
    assert (first, second, fourth) == ([87, 100, 9, 50], [6, 70, 60, 50], [1, 2, 3, 4])
    assert all(49 <= value <= 52 for value in third)
    assert analyse(test, test.database.ratings()).progress == {"ada": 2}
    assert "ada: 2 of 2 clips rated" in write_report(test, Tracker(), 110)


def test_nobody_goes_on_before_the_clip_was_played_and_rated(tab):
    begin(tab, "Ada")
    assert tab.locator("#next").is_disabled() and tab.locator("#seek").is_disabled()
    for key in ("5", "Enter", "5", "Enter", "5", "Enter", "5"):
        tab.keyboard.press(key)
    wait_for(tab, "To go on, play the video to its end.")
    assert tab.locator("#next").is_disabled()
    tab.keyboard.press("Space")
    wait_for(tab, "Saved.")
    assert tab.locator("#next").is_enabled() and tab.locator("#seek").is_enabled()


def test_enter_before_a_rating_is_saved_waits_and_does_not_play_again(tab):
    begin(tab, "Ada")
    tab.keyboard.press("Space")
    tab.wait_for_function("() => document.getElementById('play').textContent === 'Play again'")
    tab.context.set_offline(True)
    for key in ("5", "Enter", "5", "Enter", "5", "Enter", "5", "Enter", "Enter", "Enter"):
        tab.keyboard.press(key)
    assert tab.evaluate("document.getElementById('video').paused")
    assert tab.locator("#play").text_content() == "Play again"
    tab.context.set_offline(False)
    wait_for(tab, "Saved.")
    assert tab.evaluate("document.activeElement.id") == "next"


def test_arrows_move_a_scale_by_one_and_back_shows_what_was_rated(tab):
    begin(tab, "Ada")
    rate_by_keyboard(tab, 87, 60, 50, 40)
    tab.locator("#back").click()
    tab.locator("#aq").focus()
    tab.keyboard.press("ArrowRight")
    wait_for(tab, "Saved.")
    assert tab.locator("#aq-value").text_content() == "88"
    assert tab.locator("#oq").get_attribute("aria-valuetext") == "40"


def test_a_server_that_is_away_loses_no_rating(tab, server):
    begin(tab, "Ada")
    tab.context.set_offline(True)
    tab.keyboard.press("7")
    trouble = tab.locator("#trouble")
    trouble.wait_for()
    assert "Not saved yet: the program in the terminal does not answer." in trouble.text_content()
    assert tab.locator("#next").is_disabled()
    tab.context.set_offline(False)
    trouble.wait_for(state="hidden")
    assert [each.value for each in server.test.database.ratings("ada")] == [7]


def test_two_listeners_share_a_test(tab, browser, server):
    begin(tab, "Ada")
    tab.keyboard.press("7")
    other = browser.new_context().new_page()
    other.goto(server.address)
    begin(other, "Bob")
    other.keyboard.press("8")
    for page in (tab, other):
        wait_for(page, "To go on, play the video to its end, and set semantic")
    tab.wait_for_timeout(200)
    assert {each.annotator: each.value for each in server.test.database.ratings()} == {"ada": 7, "bob": 8}
    other.context.close()


def test_another_listener_can_take_the_chair(tab, server):
    begin(tab, "Ada")
    tab.keyboard.press("7")
    wait_for(tab, "set semantic")
    tab.get_by_role("button", name="not you?").click()
    begin(tab, "Bob")
    assert tab.locator("#who").text_content() == "bob"
    assert tab.locator("#aq-value").text_content() == "–"


def test_the_page_never_names_a_system(tab, server):
    begin(tab, "Ada")
    seen = (
        tab.content() + tab.evaluate("JSON.stringify(session)") + tab.locator("#video").get_attribute("src")
    )
    assert [name for name in ("gt", "mine") if f"{name}/" in seen or f'"{name}"' in seen] == []
    assert not any(clip in seen for clip in server.test.clips)


def test_a_telephone_shows_it_without_scrolling_sideways(tab):
    tab.set_viewport_size(PHONE)
    for name in (None, "Ada"):
        if name:
            begin(tab, name)
        assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
