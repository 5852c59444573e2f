"""Streams, chapters, metadata and rotation of a film that gets a new sound."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.subtitles.subtitle
import numpy as np
import pytest

from stav2a.data.media import MediaError, mux, probe
from tests.data.strange_films import film, impulse_s

RATE_HZ, SECONDS, FPS = 48_000, 2, 25
CLICK_S = 1.25  # of the film's own sound


@pytest.fixture(scope="module")
def edited(tmp_path_factory) -> Path:
    """An mp4 with two turned pictures, a timecode, two tracks of sound, a title, chapters and subtitles."""
    folder = tmp_path_factory.mktemp("edited")
    path = folder / "edited.mp4"
    click = np.zeros((1, SECONDS * RATE_HZ), np.float32)
    click[0, round(CLICK_S * RATE_HZ)] = 0.9
    with av.open(str(path), "w") as file:
        pictures = [file.add_stream("libx264", rate=FPS, width=64, height=48) for _ in "ab"]
        for stream in pictures:
            stream.pix_fmt = "yuv420p"
            stream.set_display_rotation(90)
        pictures[0].metadata["timecode"] = "01:00:00:00"
        sounds = [file.add_stream("aac", rate=RATE_HZ, layout="mono") for _ in "ab"]
        for stream, language in zip(sounds, ("eng", "deu"), strict=True):
            stream.metadata["language"] = language
        words = file.add_stream("mov_text")
        words.metadata["language"] = "fra"
        words.codec_context.subtitle_header = b"[Script Info]\nScriptType: v4.00+\n[V4+ Styles]\n[Events]\n"
        file.metadata.update({"title": "My clip", "artist": "someone"})
        second = Fraction(1, 1000)
        names = ("one", "two")
        file.set_chapters(
            [
                {
                    "id": i,
                    "start": 1000 * i,
                    "end": 1000 * i + 1000,
                    "time_base": second,
                    "metadata": {"title": n},
                }
                for i, n in enumerate(names)
            ]
        )
        text = av.subtitles.subtitle.SubtitleSet.create(b"0,0,Default,,0,0,0,,hello", 0, 500)
        packet = words.codec_context.encode_subtitle(text)
        packet.stream, packet.pts, packet.dts, packet.duration = words, 500, 500, 500
        packet.time_base = second
        file.mux(packet)
        for number in range(SECONDS * FPS):
            for stream, brightness in zip(pictures, (number, 200), strict=True):
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), brightness, np.uint8), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, FPS)
                file.mux(stream.encode(frame))
        for stream in sounds:
            for first in range(0, click.shape[1], 1024):
                part = av.AudioFrame.from_ndarray(click[:, first : first + 1024].copy(), "fltp", "mono")
                part.sample_rate, part.pts, part.time_base = RATE_HZ, first, Fraction(1, RATE_HZ)
                file.mux(stream.encode(part))
        for stream in (*pictures, *sounds):
            file.mux(stream.encode(None))
    return path


def facts(path: Path) -> dict[str, Any]:
    """What a player knows of a film."""
    with av.open(str(path)) as file:
        found: dict[str, Any] = {"title": file.metadata["title"], "artist": file.metadata["artist"]}
        found["chapters"] = [(c["start"], c["end"], c["metadata"]["title"]) for c in file.chapters()]
        found["timecode"] = file.streams.video[0].metadata["timecode"]
        found["words"] = [(s.language, s.codec_context.name) for s in file.streams.subtitles]
        lines = [(float(p.pts * p.time_base), bytes(p)[2:7]) for p in file.demux(subtitles=0) if p.size > 2]
    return found | {"lines": lines, "turns": [turn(path, index) for index in (0, 1)]}


def turn(path: Path, index: int) -> int:
    with av.open(str(path)) as file:
        return next(file.decode(video=index)).rotation


def packets(path: Path, kind: str, index: int) -> list[tuple[bytes, Fraction]]:
    with av.open(str(path)) as file:
        return [(bytes(p), p.pts * p.time_base) for p in file.demux(**{kind: index}) if p.size]


def tracks(path: Path) -> list[tuple[str | None, bool]]:
    """Language of each track of sound, and whether it is the one that players take."""
    with av.open(str(path)) as file:
        default = av.stream.Disposition.default
        return [(stream.language, bool(stream.disposition & default)) for stream in file.streams.audio]


def test_all_but_the_old_sound_is_kept_and_nothing_is_said_to_be_lost(edited, tmp_path):
    output = tmp_path / "y.mp4"
    assert mux(edited, np.zeros(9), RATE_HZ, output, hidden=True) == []
    assert facts(output) == facts(edited)
    assert facts(output)["turns"] == [90, 90] and facts(output)["lines"] == [(0.5, b"hello")]
    for index in (0, 1):
        assert packets(output, "video", index) == packets(edited, "video", index)
    assert tracks(output) == [("und", True)]


def test_the_old_tracks_of_sound_stand_behind_the_new_one_at_their_time(edited, tmp_path):
    output = tmp_path / "y.mp4"
    assert mux(edited, np.zeros((2, 9)), RATE_HZ, output, hidden=True, own_tracks=True) == []
    assert tracks(output) == [("und", True), ("eng", False), ("deu", False)]
    assert impulse_s(edited) == pytest.approx(CLICK_S, abs=1e-4)
    for index in (1, 2):
        assert packets(output, "audio", index) == packets(edited, "audio", index - 1)
    with av.open(str(output)) as file:
        assert file.streams.audio[0].layout.name == "stereo"
    assert probe(output).duration_s == pytest.approx(SECONDS)


def test_old_tracks_stay_beside_a_picture_that_is_encoded_anew(tmp_path):
    source = film(tmp_path / "x.mkv", codec="libvpx")
    output = tmp_path / "y.mp4"
    assert mux(source, np.zeros(9), RATE_HZ, output, reencode=True, own_tracks=True) == []
    assert [data for data, _ in packets(output, "audio", 1)] == [d for d, _ in packets(source, "audio", 0)]


def test_a_track_that_the_container_does_not_hold_is_named(tmp_path):
    source = film(tmp_path / "x.mpg", codec="mpeg4")
    remarks = mux(source, np.zeros(9), RATE_HZ, tmp_path / "y.mp4", own_tracks=True)
    assert remarks == ["audio (mp2), which mp4 can't hold"]


def test_old_tracks_that_are_not_there_or_not_in_time_are_refused(tmp_path):
    silent = film(tmp_path / "x.gif", codec="gif", pix_fmt="rgb8")
    with pytest.raises(MediaError, match="no sound stream in it"):
        mux(silent, np.zeros(9), RATE_HZ, tmp_path / "y.mov", own_tracks=True)
    hidden = film(tmp_path / "x.mp4", times_s=[0.04 * i - 0.4 for i in range(50)])
    with pytest.raises(MediaError, match="its edit list hides frames"):
        mux(hidden, np.zeros(9), RATE_HZ, tmp_path / "y.mp4", hidden=True, own_tracks=True)
