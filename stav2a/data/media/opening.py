"""Opening video files safely, and finding out what is in them without decoding."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from stav2a.utils.errors import StaV2AError


class MediaError(StaV2AError):
    """A media file that can't be read or written; `place` is its path. One line, whatever the file's name."""

    def text(self) -> str:
        return printable(f"{self.place}: {self.message}" if self.place else self.message)


def printable(text: str) -> str:
    r"""The text on one line that any terminal and file takes: line ends and the like are written out.

    Example:
        >>> printable("two\nlines.mp4")
        'two\\nlines.mp4'
    """
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return safe.encode("utf-8", "backslashreplace").decode()


@contextmanager
def explained(path: Path, doing: str, advice: str) -> Iterator[None]:
    """Turn what PyAV and the file system raise into a MediaError."""
    try:
        yield
    except MediaError:
        raise
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MediaError(f"{doing} ({reason}). {advice}", path) from error


MAX_PIXELS = 8192 * 4320  # of a picture
MAX_STREAMS = 64  # of a file
RATES_HZ = (0.1, 1000.0)  # of pictures
SAMPLE_RATES_HZ = (1_000, 768_000)


@dataclass(frozen=True)
class ClipLimits:
    """How much of a clip is decoded into memory.

    Args:
        seconds: How long it may be.
        picture_pixels: How large a picture may be.
        frames: How many pictures it may have.
        frame_bytes: How much memory its pictures take; larger ones are reduced until they fit.
        expansion: How many bytes of pictures one byte of the file may become, where they don't fit as they
            are. A still of 1080 lines with sound becomes some 7,000, what a camera sees far less.
    """

    seconds: float = 120.0
    picture_pixels: int = 4096 * 2304
    frames: int = 30_000
    frame_bytes: int = 2**29
    expansion: int = 10_000

    def check(self, path: Path, size: tuple[int, int], frames: int, seconds: float) -> None:
        """Refuse a clip that is too much, before any of it is decoded.

        Raises:
            MediaError: It passes a limit; names it.
        """
        width, height = size
        decoded, held = 3 * width * height * frames, path.stat().st_size
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
        if decoded > self.frame_bytes and decoded > self.expansion * held:
            raise MediaError(
                f"{held} bytes hold {decoded / 1e9:.1f} GB of pictures, {decoded // held}:1, which "
                "no camera makes. Leave it out.",
                path,
            )

    def fitted(self, size: tuple[int, int], frames: int) -> tuple[int, int]:
        """The size at which so many pictures fit into the memory: the sides divided by a whole number.

        Example:
            >>> [ClipLimits().fitted(size, frames=300) for size in ((340, 256), (1920, 1080))]
            [(340, 256), (960, 540)]
        """
        divisor, (width, height) = 1, size
        while 3 * (width // divisor) * (height // divisor) * frames > self.frame_bytes:
            divisor += 1
        return max(1, width // divisor), max(1, height // divisor)


CLIP = ClipLimits()


# Files only, and no playlist formats: a file can't make the reader follow an address.
SAFE = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg,gif,wav,flac,mp3,aac",
    "max_streams": "1000",
}
COMPLETE = "Give a complete video file (mp4, mov, webm, mkv, …)."


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds, without decoding it.

    Args:
        width: Of the picture as displayed, in pixels.
        height: Of the picture as displayed, in pixels.
        frame_rate_hz: Average frames a second.
        frames: Number of frames.
        duration_s: From the start of the first frame to the end of the last.
        has_audio: Whether there is a sound stream.
        codec: Of the video, e.g. "h264".
    """

    width: int
    height: int
    frame_rate_hz: float
    frames: int
    duration_s: float
    has_audio: bool
    codec: str


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    _check_file(path)
    with explained(path, "not a readable video, or cut off", COMPLETE):
        with av.open(f"file:{path}", options=SAFE, metadata_errors="ignore") as container:
            if len(container.streams) > MAX_STREAMS:
                raise MediaError(
                    f"{len(container.streams)} streams; at most {MAX_STREAMS} are read. "
                    "Keep one of picture and one of sound.",
                    path,
                )
            yield container


def _check_file(path: Path) -> None:
    with explained(path, "can't be read", "Give a file that you may read."):
        if re.match(r"[a-z][a-z0-9+.-]+:/", str(path)):
            raise MediaError("an address, where a file was expected. Fetch it first.", path)
        if not path.exists():
            raise MediaError("no such file. Give the path of a video file (mp4, mov, webm, mkv, …).", path)
        if path.is_dir():
            raise MediaError("a folder, where a video file was expected. Name the files in it.", path)
        if not path.is_file():  # reading a pipe or a device may never end
            raise MediaError(f"a pipe or device, where a video file was expected. {COMPLETE}", path)
        if path.stat().st_size == 0:
            raise MediaError(f"an empty file (0 bytes). {COMPLETE}", path)


def video_stream(container: Any, path: Path) -> Any:
    streams = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not streams:
        kinds = {"a cover picture" if _is_cover(stream) else stream.type for stream in container.streams}
        held = " and ".join(sorted(kinds)) or "nothing"
        raise MediaError(f"no video stream with frames in it: it holds {held}. {COMPLETE}", path)
    stream = streams[0]
    if stream.codec_context is None:
        raise MediaError("its picture has a codec that can't be decoded. Convert it to H.264.", path)
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height == 0:
        raise MediaError(f"the video has no frames. {COMPLETE}", path)
    if width * height > MAX_PIXELS:
        raise MediaError(
            f"{width}×{height} pixels; at most {MAX_PIXELS} are read. Scale it down first.", path
        )
    _check_rate(stream.average_rate, path)
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    # Small pictures decode faster on one thread; worker processes fill the cores anyway.
    stream.codec_context.thread_count = 1 if width * height < 400_000 else 0
    stream.codec_context.thread_type = "AUTO"
    return stream


def _is_cover(stream: Any) -> bool:
    """Whether it is the picture on a record's sleeve, which music files carry as a video of one frame."""
    return stream.type == "video" and bool(stream.disposition & av.stream.Disposition.attached_pic)


def _check_rate(rate: Any, path: Path) -> None:
    if not rate:
        raise MediaError("the video has no frame rate. Re-encode it with one, e.g. ffmpeg -r 25.", path)
    slowest, fastest = RATES_HZ
    if not slowest <= rate <= fastest:
        raise MediaError(
            f"{float(rate):g} frames a second; {slowest:g} to {fastest:g} are read. "
            "Re-encode it, e.g. ffmpeg -r 25.",
            path,
        )


def check_complete(path: Path, container: Any, stream: Any, frames: int, found_s: float) -> None:
    """A file cut off behind its index still opens: compare what came with what its header promised."""
    if frames == 0:
        raise MediaError(f"the video has no frames. {COMPLETE}", path)
    declared_s = _declared_s(container, stream)
    if found_s < 0.9 * declared_s - 2 / stream.average_rate:
        raise MediaError(f"cut off: {found_s:.2f} s of {declared_s:.2f} s are there. {COMPLETE}", path)


def _declared_s(container: Any, stream: Any) -> float:
    """How long the picture lasts by the header; 0 if it does not say."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    if "DURATION" in stream.metadata:  # Matroska and WebM: when it ends, as 00:00:02.560000000
        return _seconds(stream.metadata["DURATION"]) - float((stream.start_time or 0) * stream.time_base)
    return container.duration / av.time_base if container.duration and len(container.streams) == 1 else 0.0


def _seconds(clock: str) -> float:
    """Seconds of "hours:minutes:seconds"; 0 where something else stands there."""
    try:
        hours, minutes, seconds = clock.split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except ValueError:
        return 0.0


def probe(path: Path | str) -> VideoInfo:
    """What is in a video file. Reads every packet, decodes one.

    Raises:
        MediaError: If this is not a video file with frames and a frame rate.
    """
    path = Path(path)
    with opened(path) as container:
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


def stamp(packet_or_frame: Any) -> Any:
    return packet_or_frame.pts if packet_or_frame.pts is not None else packet_or_frame.dts


def timeline(container: Any, stream: Any, path: Path) -> tuple[list[int], int]:
    """The presentation times of all frames, ascending, and the end of the last; read from the packets."""
    packets = (p for p in container.demux(stream) if p.size and stamp(p) is not None and not p.is_discard)
    times = [(stamp(p), end_of(p, stream)) for p in packets]  # and no packet is kept
    stamps, end = sorted(start for start, _ in times), max((end for _, end in times), default=0)
    found_s = float((end - stamps[0]) * stream.time_base) if stamps else 0.0
    check_complete(path, container, stream, len(times), found_s)
    return stamps, end


def end_of(packet: Any, stream: Any) -> int:
    return stamp(packet) + (packet.duration or round(1 / stream.average_rate / stream.time_base))
