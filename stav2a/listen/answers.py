"""What the page asks for and tells, as plain values. It learns tokens, and never the name of a system."""

from collections.abc import Mapping
from typing import Any

from stav2a.listen.errors import ListenError
from stav2a.listen.folder import ListeningTest
from stav2a.listen.order import playlist
from stav2a.listen.scales import HIGHEST, LOWEST, NAMES
from stav2a.listen.videos import Video

MAX_NAME = 40


class NotFound(ListenError):
    """No such video in this test."""


def session(test: ListeningTest, name: str) -> dict[str, Any]:
    """A listener's videos in their order, and what is rated already.

    Raises:
        ListenError: The name can't be used.
    """
    annotator = annotator_of(name)
    by_place = {(video.clip, video.system): video for video in test.videos}
    order = playlist(test.clips, test.systems, seed=test.seed, annotator=annotator)
    heard = test.database.heard(annotator)
    rated: dict[tuple[str, str], dict[str, int]] = {}
    for rating in test.database.ratings(annotator):
        rated.setdefault((rating.clip, rating.system), {})[rating.scale] = rating.value
    videos = [
        {
            "video": by_place[place].token,
            "seconds": by_place[place].seconds,
            "heard": by_place[place].token in heard,
            "ratings": rated.get(place, {}),
        }
        for place in order
    ]
    return {"annotator": annotator, "versions": len(test.systems), "videos": videos}


def rate(test: ListeningTest, told: Mapping[str, Any]) -> None:
    """Keep a rating: annotator, video, scale, value.

    Raises:
        ListenError: One of them can't be; nothing is kept.
    """
    annotator, video = annotator_of(told.get("annotator")), video_of(test, told.get("video"))
    scale, value = told.get("scale"), told.get("value")
    if scale not in NAMES:
        raise ListenError(f"scale is {scale!r}. Expected one of {', '.join(NAMES)}.")
    if type(value) is not int or not LOWEST <= value <= HIGHEST:  # True is no rating
        raise ListenError(f"value is {value!r}. Expected a whole number from {LOWEST} to {HIGHEST}.")
    test.database.rate(annotator, video.token, scale, value)


def mark_heard(test: ListeningTest, told: Mapping[str, Any]) -> None:
    """Keep that a listener has played a video to its end: annotator, video."""
    test.database.mark_heard(annotator_of(told.get("annotator")), video_of(test, told.get("video")).token)


def video_of(test: ListeningTest, token: Any) -> Video:
    """The video of this token.

    Raises:
        NotFound: There is none.
    """
    for video in test.videos:
        if video.token == token:
            return video
    raise NotFound("there is no such video in this test. Load the page again.")


def annotator_of(name: Any) -> str:
    """A name as it is kept: spaces and capitals make no difference.

    Raises:
        ListenError: It is empty, too long, or no text.

    Example:
        >>> annotator_of("  Ada   Lovelace ")
        'ada lovelace'
    """
    words = " ".join(name.split()).casefold() if isinstance(name, str) else ""
    if not words or len(words) > MAX_NAME or not words.isprintable():
        raise ListenError(f"the name is {name!r}. Expected 1 to {MAX_NAME} characters.")
    return words
