"""Writing of clips and sound files, and new sound for an existing picture. Files appear whole."""

import heapq
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from stav2a.data.media.opening import MediaError, explained, opened, timeline, video_stream
from stav2a.utils.files import atomic
from stav2a.utils.resampling import fit_audio

# Codecs that an mp4 may hold and players show.
MP4_CODECS = ("h264", "hevc", "vp9", "av1", "mpeg4")
AAC_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


@contextmanager
def _replacing(path: Path | str) -> Iterator[Path]:
    """`atomic` in a folder that is made if it is missing.

    Raises:
        MediaError: The file can't be written there.
    """
    path = Path(path)
    with explained(path, "can't be written", "Choose an output folder that can be written to."):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as temporary:
            yield temporary


def _add_aac(container: Any, sample_rate: int, coder: str = "twoloop") -> Any:
    if sample_rate not in AAC_RATES_HZ:
        raise MediaError(f"AAC has no sample rate of {sample_rate} Hz. Use one of {AAC_RATES_HZ}.")
    stream = container.add_stream("aac", rate=sample_rate, options={"aac_coder": coder})
    stream.layout = "mono"
    stream.bit_rate = 4 * sample_rate + 32_000
    stream.time_base = Fraction(1, sample_rate)
    return stream


def _aac_packets(stream: Any, audio: np.ndarray, sample_rate: int, start: int = 0) -> Iterator[Any]:
    """Encode mono sound whose first sample is presented at `start` samples."""
    for first in range(0, len(audio), 1024):
        piece = np.ascontiguousarray(audio[None, first : first + 1024], dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = sample_rate, start + first, Fraction(1, sample_rate)
        yield from stream.encode(frame)
    yield from stream.encode(None)


def write_clip(path: Path | str, frames: np.ndarray, fps: int, audio: np.ndarray, sample_rate: int) -> None:
    """Write an mp4 (H.264 and AAC). The same input gives the same bytes.

    Shapes:
        frames (N, H, W, 3) uint8 RGB, H and W even; audio (S,) in [-1, 1]

    Raises:
        MediaError: If the file can't be written.
    """
    with (
        _replacing(path) as temporary,
        av.open(str(temporary), "w", options={"fflags": "+bitexact"}) as container,
    ):
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "crf": "23"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        sound = _add_aac(container, sample_rate, coder="fast")
        for picture in frames:
            planes = cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode(None))
        container.mux(list(_aac_packets(sound, audio, sample_rate)))


def write_wav(path: Path | str, audio: np.ndarray, sample_rate: int) -> None:
    """Write (S,) or (channels, S) sound in [-1, 1] as a 16-bit wav.

    Raises:
        MediaError: If the file can't be written.
    """
    audio = np.atleast_2d(audio)
    samples = np.round(np.clip(audio, -1, 1) * 32767).astype("<i2")
    with _replacing(path) as temporary, wave.open(str(temporary), "wb") as file:
        file.setnchannels(len(audio))
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(samples.T.tobytes())


def mux(video_path: Path | str, audio: np.ndarray, sample_rate: int, output: Path | str) -> None:
    """Replace the sound of a video, whose picture is copied packet by packet.

    The sound begins with the first frame and is cut, or padded with silence, to the picture's length.

    Shapes:
        audio (S,) in [-1, 1]

    Raises:
        MediaError: If the video can't be read or has a codec that mp4 does not hold, or the output
            can't be written.
    """
    video_path, output = Path(video_path), Path(output)
    check_copyable(video_path)
    if output.suffix.lower() != ".mp4":
        raise MediaError(f"an mp4 is written. Name it {output.with_suffix('.mp4').name}.", output)
    with opened(video_path) as container:
        stream = video_stream(container, video_path)
        stamps, end = timeline(container, stream, video_path)
        start = round(stamps[0] * stream.time_base * sample_rate)
        samples = round((end - stamps[0]) * stream.time_base * sample_rate)
    with _replacing(output) as temporary, opened(video_path) as source:
        _copy_with_sound(source, temporary, fit_audio(np.asarray(audio), samples), sample_rate, start)


def check_copyable(video_path: Path | str) -> None:
    """Make sure, cheaply and before the sound is made, that `mux` can copy the picture.

    Raises:
        MediaError: If the video can't be read, or has a codec that mp4 does not hold.
    """
    with opened(Path(video_path)) as container:
        codec = video_stream(container, Path(video_path)).codec_context.codec.canonical_name
    if codec not in MP4_CODECS:
        raise MediaError(
            f"its picture is {codec}, which can't be copied into an mp4 "
            f"(only {', '.join(MP4_CODECS)}). Convert it first.",
            video_path,
        )


def _copy_with_sound(source: Any, output: Path, audio: np.ndarray, sample_rate: int, start: int) -> None:
    stream = source.streams.video[0]
    # mp4 scales up time bases below 1/10000 unless one is set: keep the picture's own.
    options = {"video_track_timescale": str(stream.time_base.denominator), "fflags": "+bitexact"}
    with av.open(str(output), "w", options=options) as container:
        copy = container.add_stream_from_template(stream, opaque=True)  # copied, so it needs no encoder
        sound = _add_aac(container, sample_rate)
        pictures = _with_decoding_times(source, stream)
        sounds = _aac_packets(sound, audio, sample_rate, start)
        # in the order of decoding; at equal times the sound first
        for packet in heapq.merge(sounds, pictures, key=lambda packet: packet.dts * packet.time_base):
            if packet.stream is stream:
                packet.stream = copy
            container.mux(packet)


def _with_decoding_times(source: Any, stream: Any) -> Iterator[Any]:
    """The packets of a stream. Matroska leaves out the first decoding times; mp4 needs them: count back."""
    early = []
    for packet in source.demux(stream):
        if packet.size == 0:  # the end of the stream
            continue
        if packet.dts is None:
            early.append(packet)
            continue
        step = packet.duration or round(1 / stream.average_rate / stream.time_base)
        for back, waiting in enumerate(reversed(early), start=1):
            waiting.dts = packet.dts - back * step
        yield from early
        early = []
        yield packet
