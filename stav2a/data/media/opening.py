"""Video files opened safely, and their facts found out without decoding."""

import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import av

from stav2a.utils.errors import StaV2AError, printable

MAX_PIXELS = 8192 * 4320  # of a picture
FEW_PIXELS = 400_000  # of a picture that one thread decodes faster; worker processes fill the cores anyway
MAX_STREAMS = 64  # of a file
RATES_HZ = (0.1, 1000.0)  # of pictures
SAMPLE_RATES_HZ = (1_000, 768_000)  # of sound

# Files only, and no playlist formats: a file can't make the reader follow an address.
SAFE = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif,wav,flac,mp3,aac",
    "max_streams": "1000",
}
STILLS = ("png", "mjpeg", "bmp", "tiff", "webp", "jpeg2000", "gif")  # codecs of cover pictures
BACK_S = 1.0  # a clock that goes back by more was set anew: streams that were joined


@dataclass(frozen=True)
class MediaKind:
    """A kind of file that is asked for, in words for messages.

    Args:
        name: Its name.
        endings: Usual endings of such files.
    """

    name: str
    endings: str

    @property
    def complete(self) -> str:
        """Advice on a file that is damaged."""
        return f"Give a complete {self.name} file ({self.endings})."


VIDEO = MediaKind("video", "mp4, mov, webm, mkv, …")
SOUND = MediaKind("sound or video", "wav, flac, mp3, mp4, …")
COMPLETE = VIDEO.complete


class MediaError(StaV2AError):
    """A media file that can't be read or written; `place` is its path. One line, whatever the file's name."""

    def __str__(self) -> str:
        return printable(f"{self.place}: {self.message}" if self.place else self.message)


@contextmanager
def explained(path: Path, doing: str, advice: str) -> Iterator[None]:
    """Turn what PyAV and the file system raise into a MediaError."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MediaError(f"{doing} ({reason}). {advice}", path) from error


@dataclass(frozen=True)
class ClipLimits:
    """Limits of a clip that is decoded into memory.

    Args:
        seconds: Longest duration.
        picture_pixels: Most pixels a picture.
        frames: Most pictures.
        frame_bytes: Memory of all pictures; larger ones are reduced until they fit.
        expansion: Most bytes of pictures that one byte of the file may become, where they don't fit as they
            are. A still of 1080 lines with sound becomes some 7,000, a camera's picture far less.
    """

    seconds: float = 120.0
    picture_pixels: int = 4096 * 2304
    frames: int = 30_000
    frame_bytes: int = 2**29
    expansion: int = 10_000

    def check(self, path: Path, size: tuple[int, int], frames: int, seconds: float) -> None:
        """Refuse a clip that passes a limit, before any of it is decoded.

        Raises:
            MediaError: The limit that it passes.
        """
        width, height = size
        decoded, stored = 3 * width * height * frames, path.stat().st_size
        if width * height > self.picture_pixels:
            raise MediaError(
                f"pictures of {width}×{height}; a clip's have at most {self.picture_pixels} pixels. "
                "Scale it down first.",
                path,
            )
        if seconds > self.seconds:
            raise MediaError(
                f"{seconds:.0f} s long; a clip has at most {self.seconds:g} s. Cut it into clips.", path
            )
        if frames > self.frames:
            raise MediaError(
                f"{frames} frames; a clip has at most {self.frames}. Lower its frame rate first.", path
            )
        if decoded > self.frame_bytes and decoded > self.expansion * stored:
            raise MediaError(
                f"{stored} bytes hold {decoded / 1e9:.1f} GB of pictures, {decoded // stored}:1, "
                "which no camera makes. Leave it out.",
                path,
            )

    def fitted(self, size: tuple[int, int], frames: int) -> tuple[int, int]:
        """Largest size at which the pictures fit into memory: the sides divided by a whole number.

        Example:
            >>> [ClipLimits().fitted(size, frames=300) for size in ((340, 256), (1920, 1080))]
            [(340, 256), (960, 540)]
        """
        divisor, (width, height) = 1, size
        while 3 * (width // divisor) * (height // divisor) * frames > self.frame_bytes:
            divisor += 1
        return max(1, width // divisor), max(1, height // divisor)


CLIP = ClipLimits()


@contextmanager
def opened(path: Path, *, hidden: bool = False, kind: MediaKind = VIDEO) -> Iterator[Any]:
    """An open PyAV container.

    Args:
        path: The file.
        hidden: Whether frames that an mp4's edit list hides count as frames.
        kind: The kind of file that is asked for.

    Raises:
        MediaError: The file can't be read, or is no video or sound file.
    """
    _check_file(path, kind)
    with explained(path, f"not a readable {kind.name}, or cut off", kind.complete):
        options = SAFE | ({"advanced_editlist": "0"} if hidden else {})
        with av.open(f"file:{path}", options=options, metadata_errors="ignore") as container:
            if len(container.streams) > MAX_STREAMS:
                raise MediaError(
                    f"{len(container.streams)} streams; at most {MAX_STREAMS} are read. "
                    "Keep one of picture and one of sound.",
                    path,
                )
            yield container


def _check_file(path: Path, kind: MediaKind) -> None:
    with explained(path, "can't be read", "Give a file that you may read."):
        if re.match(r"[a-z][a-z0-9+.-]+:/", str(path)):
            raise MediaError("an address, where a file was expected. Fetch it first.", path)
        if not path.exists():
            raise MediaError(f"no such file. Give the path of a {kind.name} file ({kind.endings}).", path)
        if path.is_dir():
            raise MediaError(f"a folder, where a {kind.name} file was expected. Name the files in it.", path)
        if not path.is_file():  # reading a pipe or a device may never end
            raise MediaError(
                f"a pipe or device, where a {kind.name} file was expected. {kind.complete}", path
            )
        if path.stat().st_size == 0:
            raise MediaError(f"an empty file (0 bytes). {kind.complete}", path)


def video_stream(container: Any, path: Path) -> Any:
    """The picture's stream, ready for decoding.

    Raises:
        MediaError: There is none that can be decoded, or its size or rate passes a limit.
    """
    stream = film_stream(container)
    if stream is None:
        kinds = {"a cover picture" if _is_cover(stream) else stream.type for stream in container.streams}
        found = " and ".join(sorted(kinds)) or "nothing"
        raise MediaError(f"no video stream with frames in it: it holds {found}. {COMPLETE}", path)
    if stream.codec_context is None:
        raise MediaError("its picture has a codec that can't be decoded. Convert it to H.264.", path)
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height == 0:
        raise MediaError(f"the video has no frames. {COMPLETE}", path)
    if width * height > MAX_PIXELS:
        raise MediaError(
            f"{width}×{height} pixels; at most {MAX_PIXELS} are read. Scale it down first.", path
        )
    rate, (slowest, fastest) = stream.average_rate, RATES_HZ
    if not rate:
        raise MediaError("the video has no frame rate. Re-encode it with one, e.g. ffmpeg -r 25.", path)
    if not slowest <= rate <= fastest:
        raise MediaError(
            f"{float(rate):g} frames a second; {slowest:g} to {fastest:g} are read. "
            "Re-encode it, e.g. ffmpeg -r 25.",
            path,
        )
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    stream.codec_context.thread_count = 1 if width * height < FEW_PIXELS else 0
    stream.codec_context.thread_type = "AUTO"
    return stream


def film_stream(container: Any) -> Any | None:
    """The stream of the film, before any still picture: not every file marks its cover as one."""
    streams = [stream for stream in container.streams.video if not _is_cover(stream)]
    films = [s for s in streams if s.codec_context is None or s.codec_context.name not in STILLS]
    return next(iter(films or streams), None)


def _is_cover(stream: Any) -> bool:
    """True for a cover picture, which music files carry as a video of one frame."""
    return stream.type == "video" and bool(stream.disposition & av.stream.Disposition.attached_pic)


def stamp(packet_or_frame: Any) -> Any:
    """The presentation time in ticks, or the decoding time where there is none."""
    return packet_or_frame.pts if packet_or_frame.pts is not None else packet_or_frame.dts


def packets(container: Any, *streams: Any) -> Iterator[Any]:
    """The packets of streams in the file's order, with their times put right.

    Where a clock is set back, as in transport streams that were joined, they continue from the one before.
    An avi holds no presentation times: they follow from the order in which the decoder returns its frames.
    """
    shift: dict[int, int] = defaultdict(int)
    expected: dict[int, int] = {}
    back: dict[int, float] = {}  # in ticks; fractions cost more than all else here, so once a stream
    shown = iter(_avi_times(container.name) if container.format.name == "avi" else ())
    for packet in container.demux(*streams):
        index, dts = packet.stream_index, packet.dts
        if packet.size and dts is not None:
            if index not in back:
                back[index] = BACK_S / float(packet.time_base)
            if index in expected and dts + shift[index] < expected[index] - back[index]:
                shift[index] = expected[index] - dts
            step = packet.duration
            if not step:
                rate = getattr(packet.stream, "average_rate", None)
                step = round(1 / rate / packet.time_base) if rate else 1
            expected[index] = dts + shift[index] + step
            if shift[index]:
                packet.dts = dts + shift[index]
                packet.pts = None if packet.pts is None else packet.pts + shift[index]
            if packet.stream.type == "video":
                packet.pts = next(shown, packet.pts)
        yield packet


@lru_cache(maxsize=16)
def _avi_times(name: str) -> tuple[int, ...]:
    """Presentation times of the packets of an avi, in ticks, in the order of the file."""
    with av.open(name, options=SAFE, metadata_errors="ignore") as container:
        stream = video_stream(container, Path(name))
        stream.codec_context.flags |= av.codec.context.Flags.copy_opaque
        times: list[int] = []
        shown: list[int] = []
        for packet in container.demux(stream):
            if packet.size:
                packet.opaque = len(times)
                times.append(packet.dts)
            shown += [frame.opaque for frame in packet.decode()]
    shown = list(dict.fromkeys([*shown, *range(len(times))]))  # last those that can't be decoded
    return tuple(time for _, time in sorted(zip(shown, times, strict=True)))


def timeline(container: Any, stream: Any, path: Path) -> tuple[list[int], int]:
    """Presentation times of all frames, ascending, and the end of the last, in ticks; read from the packets.

    Raises:
        MediaError: There is no frame, or less than the header promises: a file that is cut off behind its
            index still opens.
    """
    frame_ticks = round(1 / stream.average_rate / stream.time_base)
    seen = (p for p in packets(container, stream) if p.size and stamp(p) is not None and not p.is_discard)
    times = [(stamp(p), p.duration or frame_ticks) for p in seen]  # and no packet is kept
    if not times:
        raise MediaError(f"the video has no frames. {COMPLETE}", path)
    # An mp4 has the time from one packet to the next, so the last one's stands for the last frame shown.
    _, duration = times[-1] if "mp4" in container.format.name else max(times)
    stamps = sorted(start for start, _ in times)
    end = stamps[-1] + duration
    found_s, declared = float((end - stamps[0]) * stream.time_base), declared_s(container, stream)
    if found_s < 0.9 * declared - 2 / stream.average_rate:
        raise MediaError(f"cut off: {found_s:.2f} s of {declared:.2f} s are there. {COMPLETE}", path)
    return stamps, end


def declared_s(container: Any, stream: Any) -> float:
    """Duration of a stream by the header; 0 if there is none."""
    if stream.duration:
        whole_s = float(stream.duration * stream.time_base)
        fragment = "mp4" in container.format.name and not stream.frames  # of a longer film, such as DASH's
        return whole_s - float((stream.start_time or 0) * stream.time_base) if fragment else whole_s
    if "DURATION" in stream.metadata:  # Matroska and WebM: its end, as 00:00:02.560000000
        start_s = float((stream.start_time or 0) * stream.time_base)
        try:
            hours, minutes, seconds = stream.metadata["DURATION"].split(":")
            return 3600 * int(hours) + 60 * int(minutes) + float(seconds) - start_s
        except ValueError:  # not a duration
            return -start_s
    return container.duration / av.time_base if container.duration and len(container.streams) == 1 else 0.0


@dataclass(frozen=True)
class VideoInfo:
    """Facts of a video file that need no decoding.

    Args:
        width: Width of the picture as displayed, in pixels.
        height: Height of the picture as displayed, in pixels.
        frame_rate_hz: Average frames a second.
        frames: Number of frames.
        duration_s: Seconds from the start of the first frame to the end of the last.
        has_audio: Whether there is a sound stream.
        codec: Codec of the picture, e.g. "h264".
    """

    width: int
    height: int
    frame_rate_hz: float
    frames: int
    duration_s: float
    has_audio: bool
    codec: str


def probe(path: Path | str, *, hidden: bool = False) -> VideoInfo:
    """The facts of a video file. Reads every packet, decodes one.

    Args:
        path: A video file.
        hidden: Whether frames that an mp4's edit list hides count as frames.

    Raises:
        MediaError: If this is not a video file with frames and a frame rate.
    """
    path = Path(path)
    with opened(path, hidden=hidden) as container:
        stream = video_stream(container, path)
        stamps, end = timeline(container, stream, path)
        size = (stream.codec_context.width, stream.codec_context.height)
        rate, duration = float(stream.average_rate), float((end - stamps[0]) * stream.time_base)
        codec, has_audio = stream.codec_context.codec.canonical_name, bool(container.streams.audio)
    with opened(path) as container:  # the turn of the picture is only known from a frame
        first = next(container.decode(video_stream(container, path)), None)
    if first is None:
        raise MediaError(f"damaged: no frame of it can be decoded. {COMPLETE}", path)
    turned = first.rotation % 180 != 0
    return VideoInfo(
        width=size[turned],
        height=size[not turned],
        frame_rate_hz=rate,
        frames=len(stamps),
        duration_s=duration,
        has_audio=has_audio,
        codec=codec,
    )
