"""Films as strangers send them: whatever their clock, container and codec, sound and picture agree."""

import errno
import os
from pathlib import Path

import av
import numpy as np
import pytest

from stav2a.data.media import (
    MediaError,
    check_output,
    container_for,
    decode,
    mux,
    probe,
    probe_times,
    read_audio,
    read_video,
    writing,
)
from tests.data import strange_films as strange
from tests.data.strange_films import FLASH, FRAMES, STEP_S, WRAP_S, film

RATE_HZ = 16_000
UNEVEN = [STEP_S * i + (0.3 if i > 30 else 0) for i in range(FRAMES)]
HOLE = [STEP_S * i + (30 if i > 30 else 0) for i in range(FRAMES)]
EARLY = [STEP_S * i - 0.4 for i in range(FRAMES)]


def joined(path: Path) -> Path:
    """Two transport streams one after the other, whose clock begins anew."""
    film(path, start_s=5)
    path.write_bytes(path.read_bytes() * 2)
    return path


FILMS = {
    "an ordinary mp4": lambda p: film(p / "x.mp4"),
    "a transport stream from 10 s on, with B-frames": lambda p: film(p / "x.ts", start_s=10, bf="2"),
    "a transport stream whose clock wraps": lambda p: film(p / "x.ts", start_s=WRAP_S - 2.2),
    "transport streams that were joined": lambda p: joined(p / "x.ts"),
    "Matroska from 11 days on": lambda p: film(p / "x.mkv", start_s=1e6),
    "WebM from 60 s on": lambda p: film(p / "x.webm", codec="libvpx-vp9", start_s=60),
    "a picture that begins late": lambda p: film(p / "x.mkv", late_s=0.5),
    "an mp4 whose picture begins late": lambda p: film(p / "x.mp4", late_s=0.5),
    "pictures before time 0": lambda p: film(p / "x.mp4", times_s=EARLY),
    "frames at uneven times": lambda p: film(p / "x.mp4", times_s=UNEVEN),
    "a hole between frames, with B-frames": lambda p: film(p / "x.mp4", times_s=HOLE, bf="2"),
    "an avi with B-frames": lambda p: film(p / "x.avi", bf="2"),
    "a flv with B-frames": lambda p: film(p / "x.flv", bf="2"),
    "a fragment from 8 s on": lambda p: film(p / "x.mp4", start_s=8),
    "a cover before the film": lambda p: film(p / "x.mkv", cover=0),
    "VP8": lambda p: film(p / "x.webm", codec="libvpx"),
    "ProRes": lambda p: film(p / "x.mov", codec="prores_ks", pix_fmt="yuv422p10le"),
    "MJPEG": lambda p: film(p / "x.avi", codec="mjpeg", pix_fmt="yuvj420p"),
    "MPEG-2": lambda p: film(p / "x.mpg", codec="mpeg2video"),
    "a GIF": lambda p: film(p / "x.gif", codec="gif", pix_fmt="rgb8"),
}


def sound_with_impulse(video: Path) -> tuple[np.ndarray, float]:
    """Sound with one sample at the time of the flash, by the picture's own clock; and that time."""
    times_s = probe_times(video) if probe(video, hidden=True).frames == probe(video).frames else None
    flash_s = STEP_S * FLASH if times_s is None else float(times_s[FLASH])
    sound = np.zeros(round(probe(video, hidden=True).duration_s * RATE_HZ))
    sound[round(flash_s * RATE_HZ)] = 0.9
    return sound, flash_s


def added(video: Path, folder: Path, **options: bool) -> tuple[Path, float]:
    sound, flash_s = sound_with_impulse(video)
    output = folder / f"out{container_for(video, reencode=options.get('reencode', False))}"
    mux(video, sound, RATE_HZ, output, hidden=True, **options)
    return output, flash_s


@pytest.mark.parametrize("kind", FILMS)
def test_sound_and_picture_of_any_film_begin_at_0_and_stay_together(kind, tmp_path):
    video = FILMS[kind](tmp_path)
    output, flash_s = added(video, tmp_path)
    shown = strange.pictures(output)
    assert shown[0][0] == 0 and len(shown) == len(strange.packets(video))
    assert next(time_s for time_s, flash in shown if flash) == pytest.approx(flash_s, abs=0.002)
    assert strange.impulse_s(output) == pytest.approx(flash_s, abs=0.002)
    picture_s, sound_s = strange.ends_s(output)
    assert picture_s == pytest.approx(probe(video, hidden=True).duration_s, abs=0.002)
    assert sound_s == pytest.approx(picture_s, abs=0.002)


@pytest.mark.parametrize("kind", FILMS)
def test_the_packets_of_any_film_are_copied(kind, tmp_path):
    video = FILMS[kind](tmp_path)
    output, _ = added(video, tmp_path)
    if video.suffix in (".ts", ".avi") and output.suffix == ".mp4":  # start codes become lengths
        assert len(strange.packets(output)) == len(strange.packets(video))
    else:
        assert strange.packets(output) == strange.packets(video)


@pytest.mark.parametrize("kind", ["VP8", "ProRes", "MPEG-2", "a GIF"])
def test_a_picture_that_mp4_does_not_hold_can_be_encoded_anew(kind, tmp_path):
    video = FILMS[kind](tmp_path)
    output, flash_s = added(video, tmp_path, reencode=True)
    shown = strange.pictures(output)
    assert output.suffix == ".mp4" and probe(output).codec == "h264" and len(shown) == FRAMES
    assert shown[0][0] == 0
    assert next(time_s for time_s, flash in shown if flash) == pytest.approx(flash_s, abs=0.002)


def test_frames_that_an_edit_list_hides_stay_hidden_beside_sound_of_the_film(tmp_path):
    video = film(tmp_path / "x.mp4", times_s=EARLY)
    remarks = mux(video, np.zeros(9), RATE_HZ, tmp_path / "y.mp4")
    assert remarks == [] and len(strange.pictures(tmp_path / "y.mp4")) == FRAMES - 10
    remarks = mux(video, np.zeros(9), RATE_HZ, tmp_path / "z.mp4", hidden=True)
    assert remarks == ["10 frames that its edit list hides are shown"]


def test_a_transport_stream_with_b_frames_is_read(tmp_path):
    video = film(tmp_path / "x.ts", bf="2")
    assert read_video(video, size=8).shape == (FRAMES, 8, 8, 3)
    bright = [level > 200 for level in read_video(video, size=8).mean(axis=(1, 2, 3))]
    assert bright.index(True) == FLASH == [f.mean() > 200 for f in decode(video).frames].index(True)


def test_frames_of_an_avi_come_in_the_order_in_which_they_are_shown(tmp_path):
    decoded = decode(film(tmp_path / "x.avi", bf="2"))
    assert decoded.notes == () and decoded.pts_s[FLASH] == pytest.approx(STEP_S * FLASH)
    assert decoded.frames[FLASH].mean() > 200


def test_a_fragment_of_a_longer_film_is_whole(tmp_path):
    whole = film(tmp_path / "x.mp4", start_s=8)
    with av.open(str(whole)) as old:
        options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
        with av.open(str(tmp_path / "y.mp4"), "w", options=options) as new:
            copy = new.add_stream_from_template(old.streams.video[0], opaque=True)
            for packet in old.demux(video=0):
                if packet.size:
                    packet.stream = copy
                    new.mux(packet)
    assert probe(tmp_path / "y.mp4").frames == FRAMES


def test_a_recording_that_begins_between_two_whole_pictures_is_read(tmp_path):
    video = film(tmp_path / "x.ts", g="12", sc_threshold="0")
    whole, data = read_video(video, size=8), video.read_bytes()
    video.write_bytes(data[: 188 * 2] + data[188 * 8 :])  # the tables, and not the first picture
    frames = read_video(video, size=8)
    assert len(frames) == probe(video).frames
    np.testing.assert_array_equal(frames[-10:], whole[-10:])


@pytest.mark.parametrize("tag", ["hvc1", "hev1"])
def test_the_tag_of_hevc_stays(tag, tmp_path):
    quiet = {"x265-params": "log-level=none"}
    video = strange.retagged(tmp_path / "x.mp4", film(tmp_path / "first.mp4", codec="libx265", **quiet), tag)
    output, _ = added(video, tmp_path)
    with av.open(str(output)) as file:
        assert file.streams.video[0].codec_context.codec_tag == tag


def test_title_and_chapters_are_kept_and_what_mp4_does_not_hold_is_named(tmp_path):
    video = strange.with_subtitles(tmp_path / "x.mkv", film(tmp_path / "first.mp4"))
    remarks = mux(video, np.zeros(9), RATE_HZ, tmp_path / "y.mp4")
    assert remarks == ["subtitle (srt), which mp4 can't hold"]
    with av.open(str(tmp_path / "y.mp4")) as file:
        assert file.metadata["title"] == "My clip"
        starts = [float(c["start"] * c["time_base"]) for c in file.chapters()]
        assert starts == pytest.approx([0, 1], abs=0.07)  # the picture began 0.064 s after the clock


def test_subtitles_stay_in_matroska_in_step(tmp_path):
    video = strange.with_subtitles(tmp_path / "x.mkv", film(tmp_path / "f.mkv", codec="libvpx", late_s=0.25))
    assert mux(video, np.zeros(9), RATE_HZ, tmp_path / "y.mkv") == []
    with av.open(str(tmp_path / "y.mkv")) as file:
        (line,) = [packet for packet in file.demux(subtitles=0) if packet.size]
        assert bytes(line) == b"hello" and float(line.pts * line.time_base) == pytest.approx(0.25, abs=0.03)


def test_the_cover_stays_beside_the_film(tmp_path):
    output, _ = added(film(tmp_path / "x.mkv", cover=0), tmp_path)
    with av.open(str(output)) as file:
        assert [s.codec_context.name for s in file.streams.video] == ["h264", "mjpeg"]
        assert file.streams.video[1].disposition & av.stream.Disposition.attached_pic


@pytest.mark.parametrize("channels", [8, 16])
def test_sound_of_many_channels_is_averaged(channels, tmp_path):
    import wave

    samples = np.tile(np.arange(channels) * 100, (RATE_HZ // 10, 1)).astype("<i2")
    with wave.open(str(tmp_path / "x.wav"), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(samples.tobytes())
    sound = read_audio(tmp_path / "x.wav", RATE_HZ)
    np.testing.assert_allclose(sound, 100 * (channels - 1) / 2 / 32768, atol=1e-6)


def float_wav(path: Path, samples: np.ndarray) -> Path:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("pcm_f32le", rate=RATE_HZ, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="flt", layout="mono")
        frame.sample_rate = RATE_HZ
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def test_sound_beyond_full_scale_is_refused_but_for_the_peaks_that_codecs_give(tmp_path):
    tone = np.sin(np.arange(RATE_HZ))
    with pytest.raises(MediaError, match=r"of its sound lies beyond full scale \(up to 3e\+04, where 1"):
        read_audio(float_wav(tmp_path / "x.wav", 30_000 * tone), RATE_HZ)
    assert np.abs(read_audio(float_wav(tmp_path / "y.wav", 1.0005 * tone), RATE_HZ)).max() == 1


# Errors of the output


@pytest.mark.parametrize(("codec", "pix_fmt"), [("rawvideo", "bgr24"), ("rawvideo", "yuv420p")])
def test_a_picture_that_no_container_holds_is_told_with_the_way_round(codec, pix_fmt, tmp_path):
    video = film(tmp_path / "x.avi", codec=codec, pix_fmt=pix_fmt)
    with pytest.raises(MediaError, match="its picture is rawvideo, which can't be copied .*: --reencode."):
        container_for(video)
    mux(video, np.zeros(9), RATE_HZ, tmp_path / "y.mp4", reencode=True)
    assert probe(tmp_path / "y.mp4").frames == FRAMES


def test_an_error_of_the_output_names_the_output(tmp_path, monkeypatch):
    video = film(tmp_path / "x.mp4")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writing, "_encoded_sound", full)
    with pytest.raises(MediaError, match="can't be written \\(No space left on device\\)") as error:
        mux(video, np.zeros(9), RATE_HZ, tmp_path / "y.mp4")
    assert error.value.place == tmp_path / "y.mp4"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["a: b.mp4", "file:x.mp4", "-x %03d.mp4", "ä" * 125 + ".mp4"])
def test_any_name_of_a_file_can_be_written(name, tmp_path):
    check_output(tmp_path / name, 0)
    assert list(tmp_path.iterdir()) == []
    mux(film(tmp_path / "x.mp4"), np.zeros(9), RATE_HZ, tmp_path / name)
    assert probe(tmp_path / name).frames == FRAMES


def test_an_output_that_cannot_be_written_is_found_before(tmp_path, monkeypatch):
    with pytest.raises(MediaError, match="can't be written \\(File name too long\\)"):
        check_output(tmp_path / ("x" * 256 + ".mp4"), 0)
    with pytest.raises(MediaError, match="can't be written: 1000000000000.0 MB are needed") as error:
        check_output(tmp_path / "x.mp4", 10**18)
    assert error.value.place == tmp_path / "x.mp4"
