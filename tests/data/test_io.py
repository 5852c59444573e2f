import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from stav2a.data.media import MediaError, opening, writing
from stav2a.data.media.audio import read_audio
from stav2a.data.media.video import decode, read_video, resample_frames
from stav2a.utils.resampling import fit_audio

RATE, FRAMES = 25, 20


def pictures(count: int = FRAMES, size: int = 64) -> np.ndarray:
    """A grey that grows by 10 a frame: its level tells the frame."""
    return np.repeat(10 * np.arange(count, dtype=np.uint8), size * size * 3).reshape(count, size, size, 3)


def sound(duration_s: float = FRAMES / RATE, sample_rate: int = 16_000) -> np.ndarray:
    """Silence, then from 0.5 s on a tone."""
    t = np.arange(round(duration_s * sample_rate)) / sample_rate
    return (0.5 * np.sin(2 * np.pi * 440 * t) * (t >= 0.5)).astype(np.float32)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    writing.write_clip(path, pictures(), RATE, sound(), 16_000)
    return path


def write(path: Path, codec: str, rate: int | Fraction = RATE, options: dict[str, str] | None = None) -> Path:
    """A video without sound."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for picture in pictures():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def packets(path: Path) -> list[tuple]:
    with av.open(str(path)) as container:
        return [(p.pts, p.dts, p.duration, p.time_base, bytes(p)) for p in container.demux(video=0) if p.size]


def without_decoding_times(rows: list[tuple]) -> list[tuple]:
    return [(pts, *rest) for pts, _, *rest in rows]


def levels(frames: np.ndarray) -> list[int]:
    """Which frame of `pictures` each one is."""
    return np.round(frames.reshape(len(frames), -1).mean(axis=1) / 10).astype(int).tolist()


def test_same_input_gives_the_same_bytes(clip, tmp_path):
    writing.write_clip(tmp_path / "again.mp4", pictures(), RATE, sound(), 16_000)
    assert (tmp_path / "again.mp4").read_bytes() == clip.read_bytes()


def test_probe_tells_what_was_written(clip):
    assert opening.probe(clip) == opening.VideoInfo(64, 64, 25.0, 20, 0.8, True, "h264")


def test_decode_returns_what_was_written_at_its_time(clip):
    decoded = decode(clip)
    assert levels(decoded.frames) == list(range(FRAMES))
    np.testing.assert_allclose(decoded.pts_s, np.arange(FRAMES) / RATE, atol=1e-6)
    assert decoded.duration_s == pytest.approx(0.8)
    audio = fit_audio(decoded.audio, 12_800)
    assert np.abs(audio[:7800]).max() < 0.02 and np.abs(audio[8000:]).max() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(("rate", "expected"), [(12.5, range(0, 20, 2)), (5, [0, 5, 10, 15]), (50, None)])
def test_frames_are_the_nearest_in_time(clip, rate, expected):
    length = round(0.8 * rate)
    frames = read_video(clip, frame_rate_hz=rate, size=16)
    assert frames.shape == (length, 16, 16, 3)
    np.testing.assert_array_equal(frames, resample_frames(decode(clip), rate, (16, 16), length))
    assert expected is None or levels(frames) == list(expected)


def test_a_stretch_beyond_the_end_holds_the_last_frame(clip):
    frames = read_video(clip, frame_rate_hz=25, start_s=0.6, duration_s=0.4)
    assert levels(frames) == [15, 16, 17, 18, 19, 19, 19, 19, 19, 19]


def test_without_a_rate_every_frame_of_the_stretch_comes(clip):
    assert levels(read_video(clip, start_s=0.2, duration_s=0.12, gray=True)) == [5, 6, 7]


def test_frames_are_chosen_by_the_times_of_all(clip):
    whole = read_video(clip)
    chosen = read_video(clip, times_s=lambda times_s: times_s[[5, 2, 2, len(times_s) - 1]])
    assert np.array_equal(chosen, whole[[5, 2, 2, -1]])


def test_a_stretch_outside_the_video_is_refused(clip):
    with pytest.raises(MediaError, match="no frame from 3 s on for 1 s; the last is at 0.76 s"):
        read_video(clip, frame_rate_hz=5, start_s=3, duration_s=1)


def test_audio_comes_at_the_rate_asked_for(clip):
    assert len(read_audio(clip, 8000)) == pytest.approx(6400, abs=512)


def test_wav_round_trip(tmp_path):
    writing.write_wav(tmp_path / "a" / "x.wav", sound(), 16_000)
    with wave.open(str(tmp_path / "a" / "x.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (16_000, 1, 12_800)
    np.testing.assert_allclose(read_audio(tmp_path / "a" / "x.wav", 16_000), sound(), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("x.mp4", "libx264"),
        ("x.mov", "libx264"),
        ("x.mkv", "libx264"),
        ("x.mkv", "libx265"),
        ("x.webm", "libvpx-vp9"),
        ("x.mp4", "mpeg4"),
    ],
)
def test_mux_copies_every_packet(tmp_path, name, codec):
    quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    video = write(tmp_path / name, codec, options=quiet)
    writing.mux(video, sound(), 16_000, tmp_path / "out" / "y.mp4")
    if name == "x.mkv":  # which leaves the first of them out
        assert without_decoding_times(packets(tmp_path / "out" / "y.mp4")) == without_decoding_times(
            packets(video)
        )
    else:
        assert packets(tmp_path / "out" / "y.mp4") == packets(video)
    before, after = opening.probe(video), opening.probe(tmp_path / "out" / "y.mp4")
    assert (after.frames, after.has_audio) == (before.frames, True)


@pytest.mark.parametrize("rate", [25, Fraction(30_000, 1001)])
@pytest.mark.parametrize("length_s", [0.1, 0.8, 3.0])
def test_muxed_sound_is_as_long_as_the_picture(tmp_path, rate, length_s):
    video = write(tmp_path / "x.mp4", "libx264", rate)
    writing.mux(video, sound(length_s), 16_000, tmp_path / "y.mp4")
    with av.open(str(tmp_path / "y.mp4")) as container:
        picture, audio = (
            float(s.duration * s.time_base) for s in (*container.streams.video, *container.streams.audio)
        )
    assert abs(picture - audio) < 1 / rate


def test_mux_replaces_the_old_sound(clip, tmp_path):
    writing.mux(clip, np.zeros(12_800), 16_000, tmp_path / "y.mp4")
    assert packets(tmp_path / "y.mp4") == packets(clip)
    assert np.abs(read_audio(tmp_path / "y.mp4", 16_000)).max() < 1e-3


def test_muxed_sound_begins_with_the_picture(clip, tmp_path):
    writing.mux(clip, sound(), 16_000, tmp_path / "y.mp4")
    audio = read_audio(tmp_path / "y.mp4", 16_000)
    assert np.flatnonzero(np.abs(audio) > 0.1)[0] == pytest.approx(8000, abs=64)


def test_a_turned_video_is_read_upright_and_stays_turned(tmp_path):
    wide = np.zeros((4, 32, 64, 3), np.uint8)
    wide[:, :, :16] = 255  # bright on the left
    with av.open(str(tmp_path / "x.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        stream.set_display_rotation(90)
        for picture in wide:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    writing.mux(tmp_path / "x.mp4", sound(), 16_000, tmp_path / "y.mp4")
    for name in ("x.mp4", "y.mp4"):
        frames = read_video(tmp_path / name)
        assert frames.shape[1:3] == (64, 32)
        assert (opening.probe(tmp_path / name).width, opening.probe(tmp_path / name).height) == (32, 64)
        assert frames[0, 48:].mean() > 200 > 50 > frames[0, :16].mean()  # counterclockwise: left is now below


def test_frames_at_given_times_need_a_picture_that_lasts_so_long(clip):
    times_s = np.array([0.0, 0.21, 0.78, 0.9])
    double = read_video(clip, times_s=lambda _: times_s, fit=lambda frame: frame[::2, ::2])
    assert levels(double) == [0, 5, 19, 19] and double.shape[1:] == (32, 32, 3)
    with pytest.raises(MediaError, match=r"its picture ends after 0.80 s; it is needed at 0.91 s. Give the"):
        read_video(clip, times_s=lambda _: times_s + 0.01)


def cut(path: Path, clip: Path, keep: float) -> Path:
    path.write_bytes(clip.read_bytes()[: int(keep * clip.stat().st_size)])
    return path


def test_bad_videos_are_told_in_one_line(clip, tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nhttp://localhost/x.ts\n")
    writing.write_wav(tmp_path / "sound.wav", sound(), 16_000)
    cut(tmp_path / "cut.mp4", clip, 0.6)
    expected = {
        "missing.mp4": "no such file. Give the path of a video file",
        ".": "a folder, where a video file was expected",
        "empty.mp4": r"an empty file \(0 bytes\). Give a complete video file",
        "text.mp4": "not a readable video, or cut off .* Give a complete video file",
        "list.m3u8": "not a readable video, or cut off .* Give a complete video file",
        "sound.wav": "no video stream with frames in it: it holds audio. Give a complete video file",
        "cut.mp4": "cut off.* Give a complete video file",
    }
    for name, message in expected.items():
        for read in (
            opening.probe,
            decode,
            read_video,
            lambda path: writing.mux(path, sound(), 16_000, tmp_path / "o.mp4"),
        ):
            with pytest.raises(MediaError, match=message) as error:
                read(tmp_path / name)
            assert "\n" not in str(error.value) and error.value.place == tmp_path / name
    assert not (tmp_path / "o.mp4").exists()


def test_bad_sounds_are_told_in_one_line(tmp_path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("not a sound")
    expected = {
        "missing.wav": r"no such file. Give the path of a sound or video file \(wav, flac, mp3, mp4, …\).",
        ".": "a folder, where a sound or video file was expected. Name the files in it.",
        "empty.wav": r"an empty file \(0 bytes\). Give a complete sound or video file",
        "text.wav": r"not a readable sound or video, or cut off \(.*\). Give a complete sound or video file",
    }
    for name, message in expected.items():
        with pytest.raises(MediaError, match=message):
            read_audio(tmp_path / name, 16_000)


@pytest.mark.parametrize("name", ["x.wav", "x.flac", "x.mka", "x.m4a"])
@pytest.mark.parametrize("keep", [0.2, 0.5, 0.8])
def test_a_sound_that_is_cut_off_is_refused(tmp_path, name, keep):
    whole = write_sound(tmp_path / f"whole_{name}")
    assert len(read_audio(whole, 16_000)) == pytest.approx(32_000, abs=2048)
    with pytest.raises(MediaError, match="cut off.* Give a complete sound or video file"):
        read_audio(cut(tmp_path / name, whole, keep), 16_000)


def write_sound(path: Path) -> Path:
    """Two seconds of noise in the format of the file's ending, an mp4's index before its sound."""
    codec = {".wav": "pcm_s16le", ".flac": "flac", ".mka": "aac", ".m4a": "aac"}[path.suffix]
    noise = (np.random.default_rng(0).normal(size=(1, 32_000)) * 3000).astype(np.int16)
    options = {"movflags": "+faststart"} if path.suffix == ".m4a" else {}
    form = {".m4a": "ipod", ".mka": "matroska"}.get(path.suffix, path.suffix[1:])
    with av.open(str(path), "w", format=form, options=options) as container:
        stream = container.add_stream(codec, rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(noise, format="s16", layout="mono")
        frame.sample_rate = 16_000
        size = stream.codec_context.frame_size or 1024
        resampler = av.AudioResampler(stream.codec_context.format, "mono", 16_000, frame_size=size)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("length", [0, 0x7FFFF000, 0x80000000, 0xFFFFFFFF, 64_044])
def test_a_wav_without_its_length_is_read_whole(tmp_path, length):
    content = bytearray(write_sound(tmp_path / "x.wav").read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = length.to_bytes(4, "little")
    (tmp_path / "x.wav").write_bytes(content)
    assert len(read_audio(tmp_path / "x.wav", 16_000)) == 32_000


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv"])
def test_a_video_cut_behind_its_index_is_refused(tmp_path, name):
    whole = tmp_path / f"whole_{name}"
    with av.open(str(whole), "w", options={"movflags": "+faststart"} if name == "x.mp4" else {}) as container:
        stream = container.add_stream("libx264", rate=RATE, options={"g": "5", "bf": "0"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        noise = np.random.default_rng(0).integers(0, 255, (40, 64, 64, 3), np.uint8)
        for picture in noise:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    for read in (opening.probe, read_video):
        with pytest.raises(MediaError, match="cut off"):
            read(cut(tmp_path / name, whole, 0.5))


def test_a_video_without_frames_is_refused(tmp_path):
    with av.open(str(tmp_path / "x.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        container.start_encoding()
    with pytest.raises(MediaError, match="no video stream with frames in it: it holds nothing"):
        opening.probe(tmp_path / "x.mp4")


def test_training_clips_need_sound(tmp_path):
    with pytest.raises(MediaError, match="no sound stream in it. Training needs clips with sound"):
        decode(write(tmp_path / "x.mp4", "libx264"))


def test_the_ending_that_is_written_is_named(clip, tmp_path):
    with pytest.raises(MediaError, match="an mp4 is written. Name it y.mp4."):
        writing.mux(clip, sound(), 16_000, tmp_path / "y.avi")
    with pytest.raises(MediaError, match="an mkv is written. Name it y.mkv."):
        writing.mux(write(tmp_path / "x.webm", "libvpx"), sound(), 16_000, tmp_path / "y.mp4")


def test_an_odd_sample_rate_is_refused(clip, tmp_path):
    with pytest.raises(MediaError, match="AAC has no sample rate of 17000 Hz"):
        writing.mux(clip, sound(), 17_000, tmp_path / "y.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told(clip, tmp_path):
    (tmp_path / "file").touch()
    for write_it in (
        lambda path: writing.mux(clip, sound(), 16_000, path.with_suffix(".mp4")),
        lambda path: writing.write_wav(path, sound(), 16_000),
        lambda path: writing.write_clip(path, pictures(2), RATE, sound(), 16_000),
    ):
        with pytest.raises(
            MediaError, match=r"can't be written .* Choose an output folder that can be written to"
        ):
            write_it(tmp_path / "file" / "x.mp4")


def test_nothing_is_left_of_a_failed_write(tmp_path):
    with pytest.raises(RuntimeError), writing.atomic(tmp_path / "x.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
