"""Films as strangers send them, each made from nothing: other clocks, containers, codecs and streams."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

TICKS, FRAMES, STEP_S = 90_000, 50, 0.04
FLASH = 20  # number of the white frame
WRAP_S = 2**33 / TICKS  # a transport stream's clock starts anew


def film(
    path: Path,
    *,
    codec: str = "libx264",
    start_s: float = 0.0,
    late_s: float = 0.0,
    times_s: Sequence[float] | None = None,
    pix_fmt: str = "yuv420p",
    cover: int | None = None,
    size: tuple[int, int] = (64, 48),
    container: str | None = None,
    **options: str,
) -> Path:
    """A film of 2 s with a flash, beside it 2 s of silence as sound.

    Args:
        path: The file.
        codec: Codec of the picture.
        start_s: Time at which picture and sound begin.
        late_s: Time by which the picture begins later than the sound.
        times_s: Times of the frames; by default 25 a second.
        pix_fmt: Format of the pixels.
        cover: Place of a cover picture among the streams; None for none.
        size: Width and height.
        container: Format; by default that of the ending.
        options: Options of the encoder.
    """
    with av.open(str(path), "w", format=container) as file:
        covers = [_cover_stream(file)] if cover == 0 else []
        picture = file.add_stream(codec, rate=25, options=options)
        picture.width, picture.height, picture.pix_fmt = *size, pix_fmt
        base = Fraction(1, TICKS) if times_s or late_s or start_s else Fraction(1, 25)
        picture.codec_context.time_base = base
        sound = None if path.suffix == ".gif" else _sound_stream(file, path)
        if covers:
            _mux_cover(file, covers[0])
        noise = np.random.default_rng(0).integers(0, 99, (FRAMES, size[1], size[0], 3), np.uint8)
        noise[FLASH] = 255
        for number, pixels in enumerate(noise):
            time_s = start_s + late_s + (times_s[number] if times_s is not None else STEP_S * number)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(time_s / base), base
            file.mux(picture.encode(frame))
        file.mux(picture.encode(None))
        if sound is not None:
            _mux_silence(file, sound, start_s)
    return path


def _sound_stream(file: Any, path: Path) -> Any:
    names = {".webm": "libopus", ".mpg": "mp2", ".mov": "pcm_s16le"}
    rate = 16_000 if path.suffix in (".mp4", ".mkv", ".ts", ".mov", ".avi") else 48_000
    return file.add_stream(names.get(path.suffix, "aac"), rate=rate, layout="mono")


def _mux_silence(file: Any, sound: Any, start_s: float) -> None:
    context, samples = sound.codec_context, 2 * sound.codec_context.sample_rate
    resampler = av.AudioResampler(context.format, context.layout, context.sample_rate, context.frame_size)
    frame = av.AudioFrame.from_ndarray(np.zeros((1, samples), np.int16), format="s16", layout="mono")
    frame.sample_rate, frame.pts = context.sample_rate, round(start_s * context.sample_rate)
    frame.time_base = Fraction(1, context.sample_rate)
    for piece in [*resampler.resample(frame), *resampler.resample(None)]:
        file.mux(sound.encode(piece))
    file.mux(sound.encode(None))


def _cover_stream(file: Any) -> Any:
    cover = file.add_stream("mjpeg", rate=1, width=32, height=32, pix_fmt="yuvj420p")
    if "matroska" not in file.format.name:
        cover.disposition = av.stream.Disposition.attached_pic
    return cover


def _mux_cover(file: Any, cover: Any) -> None:
    file.mux(cover.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), 9, np.uint8), format="rgb24")))
    file.mux(cover.encode(None))


def retagged(path: Path, source: Path, tag: str) -> Path:
    """A copy of a film whose picture has another tag."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        copies = {s.index: new.add_stream_from_template(s, opaque=True) for s in old.streams}
        copies[0].codec_context.codec_tag = tag
        for packet in old.demux():
            if packet.size:
                packet.stream = copies[packet.stream_index]
                new.mux(packet)
    return path


def with_subtitles(path: Path, source: Path) -> Path:
    """A copy of a film in Matroska with a title, chapters and SRT subtitles."""
    srt = path.with_suffix(".srt")
    srt.write_text("1\n00:00:00,500 --> 00:00:01,000\nhello\n", encoding="utf-8")
    with av.open(str(source)) as old, av.open(str(srt)) as text, av.open(str(path), "w") as new:
        copies = {s.index: new.add_stream_from_template(s, opaque=True) for s in old.streams}
        subtitles = new.add_stream_from_template(text.streams[0], opaque=True)
        new.metadata["title"] = "My clip"
        second = Fraction(1, 1000)
        new.set_chapters(
            [
                {"id": i + 1, "start": 1000 * i, "end": 1000 * i + 1000, "time_base": second, "metadata": {}}
                for i in range(2)
            ]
        )
        for packet in [*old.demux(), *text.demux()]:
            if packet.size:
                packet.stream = subtitles if packet.stream.container is text else copies[packet.stream_index]
                new.mux(packet)
    return path


def pictures(path: Path) -> list[tuple[float, bool]]:
    """Time of every frame that a player shows, and whether it is the flash."""
    with av.open(str(path)) as file:
        stream = next(s for s in file.streams.video if not s.disposition & av.stream.Disposition.attached_pic)
        return [(f.time, f.to_ndarray(format="gray").mean() > 200) for f in file.decode(stream)]


def packets(path: Path) -> list[bytes]:
    """The packets of the film, which stands after its cover."""
    with av.open(str(path), options={"advanced_editlist": "0"}) as file:
        films = [s for s in file.streams.video if s.codec_context.name != "mjpeg"]
        stream = (films or file.streams.video)[0]
        return [bytes(packet) for packet in file.demux(stream) if packet.size]


def impulse_s(path: Path) -> float:
    """Time at which a player gives out the loudest sample."""
    best, when = 0.0, -1.0
    with av.open(str(path)) as file:
        for frame in file.decode(audio=0):
            samples = np.abs(frame.to_ndarray()).reshape(-1) / (1 if "flt" in frame.format.name else 32768)
            if len(samples) and samples.max() > best:
                best, when = float(samples.max()), frame.time + samples.argmax() / frame.sample_rate
    return when


def ends_s(path: Path) -> tuple[float, float]:
    """Times at which picture and sound end, of packets and without what an encoder pads.

    The last packet's duration is that of the last frame shown: an mp4 has the time from packet to packet.
    """
    with av.open(str(path)) as file:
        starts: dict[str, float] = {}
        durations: dict[str, float] = {}
        for packet in file.demux(*[s for s in file.streams if s.type in ("video", "audio")]):
            if packet.size and packet.pts is not None:
                kind = packet.stream.type
                starts[kind] = max(starts.get(kind, 0.0), float(packet.pts * packet.time_base))
                durations[kind] = float(packet.duration * packet.time_base)
        return starts["video"] + durations["video"], starts["audio"] + durations["audio"]
