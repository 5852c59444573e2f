"""Hostile media files, each made from nothing: what scraped collections hold, and what attackers send."""

import os
import re
import sys
import tempfile
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from stav2a.data.media import MediaError, decode

SIZE, RATE, FRAMES = (64, 64), 25, 30
Maker = Callable[[Path], Path]


@dataclass(frozen=True)
class Hostile:
    """A file that comes in, and what happens to it.

    Args:
        came: What it is, in words.
        make: Writes it into a folder, and returns the path that is asked for.
        told: What the refusal says, or one of the notes where it is read; None: read without a note.
        read: Whether it is read.
    """

    came: str
    make: Maker
    told: str | None
    read: bool = False


def write(
    path: Path,
    *,
    codec: str = "libx264",
    size: tuple[int, int] = SIZE,
    frames: int = FRAMES,
    rate: int | Fraction = RATE,
    stamps: Sequence[int] | None = None,
    sound: np.ndarray | None = None,
    sound_rate: int = 16_000,
    sound_codec: str = "aac",
    layout: str = "mono",
    sound_start: int = 0,
    turn: int = 0,
    noise: bool = True,
) -> Path:
    """A video with sound; `stamps` are presentation times in 1/1000 s."""
    generator = np.random.default_rng(0)
    blank = np.zeros((size[1], size[0], 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options={"preset": "ultrafast"})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv444p" if size[0] % 2 or size[1] % 2 else "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000) if stamps else 1 / Fraction(rate)
        if turn:
            stream.set_display_rotation(turn)
        heard = _add_sound(container, sound, sound_rate, sound_codec, layout)
        for index in range(frames):
            picture = generator.integers(0, 255, blank.shape, np.uint8) if noise else blank
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = stamps[index] if stamps else index
            frame.time_base = stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if heard is not None:
            _mux_sound(container, heard, np.atleast_2d(sound), sound_rate, layout, sound_start)
    return path


def _add_sound(container, sound, sound_rate, codec, layout):
    if sound is None:
        return None
    stream = container.add_stream(codec, rate=sound_rate)
    stream.layout = layout
    return stream


def _mux_sound(container, stream, sound, sound_rate, layout, start) -> None:
    packed = stream.codec_context.format.is_packed or len(sound) > 7  # PyAV fills no more planes
    for first in range(0, sound.shape[1], 1024):
        piece = np.ascontiguousarray(sound[:, first : first + 1024], np.float32)
        piece = piece.T.reshape(1, -1) if packed else piece
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(piece), format="flt" if packed else "fltp", layout=layout
        )
        frame.sample_rate, frame.pts, frame.time_base = sound_rate, start + first, Fraction(1, sound_rate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def tone(duration_s: float = FRAMES / RATE, rate: int = 16_000) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * 440 * np.arange(round(duration_s * rate)) / rate)).astype(np.float32)


def text(name: str, content: str) -> Maker:
    def make(folder: Path) -> Path:
        (folder / name).write_text(content)
        return folder / name

    return make


def video(name: str = "x.mp4", **options) -> Maker:
    options.setdefault("sound", tone())
    return lambda folder: write(folder / name, **options)


def ordinary(folder: Path) -> Path:
    return write(folder / "ordinary.mp4", sound=tone())


def cut(folder: Path) -> Path:
    whole = ordinary(folder).read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    return folder / "cut.mp4"


def cut_behind_its_index(folder: Path) -> Path:
    whole = write(folder / "whole.mkv", sound=tone()).read_bytes()
    (folder / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    return folder / "cut.mkv"


def damaged(folder: Path) -> Path:
    """Half of the bytes between the headers are overwritten."""
    data = bytearray(ordinary(folder).read_bytes())
    middle = slice(len(data) // 4, len(data) // 2)
    data[middle] = np.random.default_rng(0).bytes(middle.stop - middle.start)
    (folder / "damaged.mp4").write_bytes(data)
    return folder / "damaged.mp4"


def random_bytes(folder: Path) -> Path:
    (folder / "random.mp4").write_bytes(np.random.default_rng(0).bytes(100_000))
    return folder / "random.mp4"


def sound_only(folder: Path) -> Path:
    with wave.open(str(folder / "sound.mp4"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(32_000))
    return folder / "sound.mp4"


def music_with_cover(folder: Path) -> Path:
    with av.open(str(folder / "song.m4a"), "w", format="mp4") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        heard = _add_sound(container, tone(), 16_000, "aac", "mono")
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        container.mux(cover.encode(picture))
        container.mux(cover.encode(None))
        _mux_sound(container, heard, tone()[None], 16_000, "mono", 0)
    return folder / "song.m4a"


def bomb(folder: Path) -> Path:
    """A black picture of 4096×2160, and 400 times that it stays as it was: 10 GB of pictures."""
    once = write(folder / "once.mp4", size=(4096, 2160), frames=2, noise=False)
    with av.open(str(once)) as source, av.open(str(folder / "bomb.mp4"), "w") as container:
        first, same = (p for p in source.demux(video=0) if p.size)
        copy = container.add_stream_from_template(source.streams.video[0])
        heard = _add_sound(container, tone(16), 16_000, "aac", "mono")
        step = round(1 / first.time_base / RATE)
        for index in range(401):
            packet = same if index else first
            packet.stream, packet.pts, packet.dts = copy, index * step, index * step
            container.mux(packet)
        _mux_sound(container, heard, tone(0.1)[None], 16_000, "mono", 0)
    return folder / "bomb.mp4"


def many_streams(folder: Path) -> Path:
    with av.open(str(folder / "streams.mkv"), "w") as container:
        streams = [_add_sound(container, tone(), 16_000, "pcm_s16le", "mono") for _ in range(500)]
        for stream in streams:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 160), np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
            container.mux(stream.encode(frame))
    return folder / "streams.mkv"


def joined(name: str, first: dict, second: dict) -> Maker:
    """Two transport streams one after the other, which is one file for every player."""

    def make(folder: Path) -> Path:
        parts = [write(folder / f"{i}.ts", **kind) for i, kind in enumerate((first, second))]
        (folder / name).write_bytes(b"".join(part.read_bytes() for part in parts))
        return folder / name

    return make


def named(name: str) -> Maker:
    def make(folder: Path) -> Path:
        return ordinary(folder).rename(folder / name)

    return make


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.mp4")
    return folder / "pipe.mp4"


def a_folder(folder: Path) -> Path:
    (folder / "folder.mp4").mkdir()
    return folder / "folder.mp4"


def loop(folder: Path) -> Path:
    (folder / "loop.mp4").symlink_to(folder / "loop.mp4")
    return folder / "loop.mp4"


def no_rate(folder: Path) -> Path:
    """An mp4 whose picture has a time scale of 0."""
    data = bytearray(ordinary(folder).read_bytes())
    place = data.index(b"mdhd") + 16
    data[place : place + 4] = bytes(4)
    (folder / "scale.mp4").write_bytes(data)
    return folder / "scale.mp4"


LATE = [40 * i + 1000 * (i > 15) for i in range(FRAMES)]
NOT_A_NUMBER = np.where(np.arange(19_200) == 9000, np.nan, tone())
PLAYLIST = "#EXTM3U\n#EXTINF:1,\nhttp://localhost/x.ts\n#EXT-X-ENDLIST\n"
HTML = "<!DOCTYPE html><html><body>404: this video is private</body></html>\n"

FILES = [
    Hostile("an ordinary clip", ordinary, None, read=True),
    Hostile("an address", lambda folder: Path("http://localhost/x.mp4"), "an address"),
    Hostile("an address of another kind", lambda folder: Path("concat:/etc/passwd"), "an address"),
    Hostile("a playlist", text("list.m3u8", PLAYLIST), "not a readable video"),
    Hostile("a playlist named .mp4", text("list.mp4", PLAYLIST), "not a readable video"),
    Hostile(
        "a list of files to join",
        text("list.mp4", "ffconcat version 1.0\nfile /etc/passwd\n"),
        "not a readable video",
    ),
    Hostile("an error page named .mp4", text("page.mp4", HTML), "not a readable video"),
    Hostile("text named .mp4", text("text.mp4", "not a video\n"), "not a readable video"),
    Hostile("random bytes", random_bytes, "not a readable video"),
    Hostile("zero bytes", text("empty.mp4", ""), "an empty file"),
    Hostile("a missing file", lambda folder: folder / "missing.mp4", "no such file"),
    Hostile("a folder named .mp4", a_folder, "a folder"),
    Hostile("a named pipe, which nobody writes to", pipe, "a pipe or device"),
    Hostile("a device without end", lambda folder: Path("/dev/zero"), "a pipe or device"),
    Hostile("a link to itself", loop, "no such file"),
    Hostile("an mp4 cut off", cut, "not a readable video"),
    Hostile("an mkv cut off", cut_behind_its_index, "cut off"),
    Hostile("an mp4 overwritten in the middle", damaged, "not a readable video"),
    Hostile("an mp4 with a time scale of 0", no_rate, "frames a second"),
    Hostile("a decode bomb: 401 pictures of 4096×2160", bomb, "which no camera makes"),
    Hostile(
        "8K pictures",
        video("8k.mp4", size=(7680, 4320), frames=1, noise=False),
        "pictures of 7680×4320",
    ),
    Hostile("200 s long", video("long.mp4", rate=1, frames=200), "200 s long"),
    Hostile("10,000 frames a second", video("fast.mp4", rate=10_000), "10000 frames a second"),
    Hostile("sound without picture", sound_only, "it holds audio"),
    Hostile("music with a cover picture", music_with_cover, "it holds a cover picture and audio"),
    Hostile("picture without sound", video("mute.mp4", sound=None), "no sound stream"),
    Hostile("500 streams", many_streams, "500 streams"),
    Hostile(
        "NaN in the sound",
        video("nan.mkv", sound=NOT_A_NUMBER, sound_codec="pcm_f32le"),
        "samples that are not finite",
    ),
    Hostile(
        "the size of the picture changes",
        joined("sizes.ts", {"sound": tone()}, {"sound": tone(), "size": (96, 96)}),
        "its picture changes from 64×64 to 96×96",
    ),
    Hostile(
        "the rate of the sound changes",
        joined("rates.ts", {"sound": tone()}, {"sound": tone(rate=44_100), "sound_rate": 44_100}),
        "its sound changes",
    ),
    Hostile(
        "sound only after the picture's end",
        video("late.mkv", sound_start=80_000),
        "no sound while there is a picture",
    ),
    Hostile("silence", video("silent.mp4", sound=np.zeros(19_200)), None, read=True),
    Hostile("one frame", video("one.mp4", frames=1), "sound lasts", read=True),
    Hostile(
        "times from -0.4 s on",
        video("negative.mp4", stamps=[40 * i - 400 for i in range(FRAMES)]),
        "sound lasts 0.42",
        read=True,
    ),
    Hostile(
        "times from 11 days on",
        video("days.mkv", stamps=[10**9 + 40 * i for i in range(FRAMES)], sound_start=16 * 10**9),
        None,
        read=True,
    ),
    Hostile("a pause of 1 s in the frames", video("vfr.mp4", stamps=LATE), "variable frame rate", read=True),
    Hostile("an odd size", video("odd.mp4", size=(63, 47)), None, read=True),
    Hostile("a turned picture", video("turned.mp4", turn=90), "picture turned by 90°", read=True),
    Hostile("stereo", video("stereo.mp4", sound=np.stack([tone()] * 2), layout="stereo"), None, read=True),
    Hostile("5.1", video("5.1.mp4", sound=np.stack([tone()] * 6), layout="5.1"), "6 channels", read=True),
    Hostile("7.1", video("7.1.mp4", sound=np.stack([tone()] * 8), layout="7.1"), "8 channels", read=True),
    Hostile(
        "sound longer than the picture", video("longer.mp4", sound=tone(3)), "sound lasts 1.8", read=True
    ),
    Hostile(
        "sound shorter than the picture", video("shorter.mp4", sound=tone(0.5)), "sound ends 0.6", read=True
    ),
    Hostile(
        "sound that begins late",
        video("begins.mp4", sound=tone(0.6), sound_start=9600),
        "sound begins 0.54",
        read=True,
    ),
    Hostile("a name in many scripts", named("Ünïcödé 视频 🎬.mp4"), None, read=True),
    Hostile("a line end in the name", named("two\nlines.mp4"), None, read=True),
    Hostile(
        "a missing file with a line end in its name", lambda folder: folder / "two\nlines.mp4", "no such file"
    ),
    Hostile("a name that is no text", named(os.fsdecode(b"\xff\xfe.mp4")), None, read=True),
    Hostile("a name like a pattern", named("-i %03d.mp4"), None, read=True),
]


def outcome(path: Path) -> tuple[bool, str]:
    """Whether a file is read, and the notes or the reason."""
    try:
        return True, "; ".join(map(str, decode(path).notes))
    except MediaError as error:
        return False, str(error)


def table() -> str:
    """What happens to every file, as a table for docs/hostile.md."""
    lines = ["| what came | what happens | what is told |", "|---|---|---|"]
    for hostile in FILES:
        with tempfile.TemporaryDirectory() as folder:
            path = hostile.make(Path(folder))
            read, told = outcome(path)
        lines.append(
            f"| {hostile.came} | {'read' if read else 'refused'} | {told.replace(folder + '/', '')} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
    # Not getrusage: its peak is inherited from the process that started this one.
    peak = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]
    print(f"peak memory {int(peak) / 1024:.0f} MB", file=sys.stderr)
