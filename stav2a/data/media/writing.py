"""Writing of clips and sound files, and new sound for an existing picture. Files appear whole."""

import heapq
import io
import shutil
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import soundfile
from av.video.reformatter import VideoReformatter

from stav2a.data.media.mixing import LAYOUTS, check_own_sound
from stav2a.data.media.opening import (
    COMPLETE,
    MediaError,
    explained,
    opened,
    packets,
    stamp,
    timeline,
    video_stream,
)
from stav2a.utils.files import atomic, temporary_beside
from stav2a.utils.resampling import fit_audio

# Codecs that a container may hold and players show; Matroska is asked for all others.
HOLDS = {
    ".mp4": ("h264", "hevc", "vp9", "av1", "mpeg4"),
    ".mov": ("prores", "dnxhd", "mjpeg", "gif", "qtrle", "png"),
}
SUBTITLES = {".mkv": ("subrip", "srt", "ass", "ssa", "webvtt", "dvdsub", "dvd_subtitle", "pgssub")}
SOUNDS = {
    ".mp4": ("aac", "mp3", "ac3", "eac3", "alac", "flac", "opus"),
    ".mov": ("aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s24le", "pcm_s16be", "pcm_s24be"),
    ".mkv": ("aac", "mp3", "ac3", "eac3", "alac", "flac", "opus", "vorbis", "mp2", "pcm_s16le", "pcm_s24le"),
}  # of which a film's own sound is copied
PREPARING_S = 0.1  # before time 0, of which decoders of sound need packets that are not played
COVERS = ("png", "mjpeg", "bmp")
OF_THE_FILE = "major_brand minor_version compatible_brands encoder duration vendor_id handler_name".split()
FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
ADVICE = "Choose an output folder that can be written to."
CRF = "18"  # of H.264 by --reencode: no difference is seen by most
AAC_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


@contextmanager
def _replacing(path: Path | str) -> Iterator[Path]:
    """`atomic` in a folder that is made if it is missing.

    Raises:
        MediaError: The file can't be written there.
    """
    path = Path(path)
    with explained(path, "can't be written", ADVICE):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as temporary:
            yield temporary


def _add_aac(container: Any, sample_rate: int, coder: str = "twoloop", channels: int = 1) -> Any:
    if sample_rate not in AAC_RATES_HZ:
        raise MediaError(f"AAC has no sample rate of {sample_rate} Hz. Use one of {AAC_RATES_HZ}.")
    stream = container.add_stream("aac", rate=sample_rate, options={"aac_coder": coder})
    stream.layout = LAYOUTS[channels]
    stream.bit_rate = channels * (4 * sample_rate + 32_000)
    stream.time_base = Fraction(1, sample_rate)
    return stream


def _encoded_sound(stream: Any, audio: np.ndarray, sample_rate: int) -> Iterator[Any]:
    """Packets of sound (S,) or (channels, S), from time 0 on."""
    audio = np.atleast_2d(audio)
    sample = stream.codec_context.format.name  # "s16" of FLAC, "fltp" of AAC
    if sample == "s16":
        audio = np.round(np.clip(audio, -1, 1) * 32767)
    for first in range(0, audio.shape[-1], 1024):
        piece: Any = audio[:, first : first + 1024]
        piece = piece.T.reshape(1, -1).astype(np.int16) if sample == "s16" else piece.astype(np.float32)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(piece), format=sample, layout=LAYOUTS[len(audio)]
        )
        frame.sample_rate, frame.pts, frame.time_base = sample_rate, first, Fraction(1, sample_rate)
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
        av.open(f"file:{temporary}", "w", options={"fflags": "+bitexact"}) as container,
    ):
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "crf": "23"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        sound = _add_aac(container, sample_rate, coder="fast")
        for picture in frames:
            planes = cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420)
            container.mux(stream.encode(av.VideoFrame.from_numpy_buffer(planes, format="yuv420p")))  # no copy
        container.mux(stream.encode(None))
        container.mux(list(_encoded_sound(sound, audio, sample_rate)))


def write_wav(path: Path | str, audio: np.ndarray, sample_rate: int) -> None:
    """Write (S,) or (channels, S) sound in [-1, 1] as a 16-bit wav.

    Raises:
        MediaError: If the file can't be written.
    """
    with _replacing(path) as temporary:
        temporary.write_bytes(wav_bytes(audio, sample_rate))


def wav_bytes(audio: np.ndarray, sample_rate: int) -> bytes:
    """Content of a 16-bit wav file of (S,) or (channels, S) sound in [-1, 1]."""
    audio = np.atleast_2d(audio)
    samples = np.round(np.clip(audio, -1, 1) * 32767).astype("<i2")
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(len(audio))
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(samples.T.tobytes())
    return content.getvalue()


def write_flac(path: Path | str, audio: np.ndarray, sample_rate: int) -> None:
    """Write (S,) sound in [-1, 1] as a 16-bit flac.

    Raises:
        MediaError: If the file can't be written.
    """
    content = io.BytesIO()
    soundfile.write(
        content, np.round(np.clip(audio, -1, 1) * 32767).astype(np.int16), sample_rate, format="FLAC"
    )
    with _replacing(path) as temporary:
        temporary.write_bytes(content.getvalue())


def container_for(video_path: Path | str, *, reencode: bool = False) -> str:
    """Ending of the file that `mux` writes: a container that holds the picture as it is.

    Args:
        video_path: A video file.
        reencode: Whether a picture that mp4 does not hold is encoded as H.264 instead.

    Raises:
        MediaError: If the video can't be read, or no container holds its picture.
    """
    path = Path(video_path)
    with opened(path) as container:
        stream = video_stream(container, path)
        codec = stream.codec_context.codec.canonical_name
        suffix = next((suffix for suffix, codecs in HOLDS.items() if codec in codecs), ".mkv")
        if reencode or suffix == ".mp4":
            return ".mp4"
        with av.open(io.BytesIO(), "w", format=FORMATS[suffix]) as trial:
            try:
                trial.add_stream_from_template(stream, opaque=True)
                trial.start_encoding()  # writes the header, which some codecs have no place in
            except ValueError:  # also FFmpeg's
                raise MediaError(
                    f"its picture is {codec}, which can't be copied into an mp4, mov or mkv. "
                    "Encode it as H.264: --reencode.",
                    path,
                ) from None
    return suffix


def check_output(path: Path, size: int) -> None:
    """Make sure, before the sound is made, that a file can be written.

    Args:
        path: The file.
        size: Bytes that it will take, about.

    Raises:
        MediaError: Its name can't be a file's, or the disk is too full.
    """
    with explained(path, "can't be written", ADVICE):
        if path.is_dir():  # raises where the name is too long
            raise MediaError(f"is a folder, where a file is to be written. {ADVICE}", path)
        probe = temporary_beside(path)
        probe.touch()
        probe.unlink()
        free = shutil.disk_usage(path.parent).free
    if free < size:
        raise MediaError(
            f"can't be written: {size / 1e6:.1f} MB are needed, {free / 1e6:.1f} are free. {ADVICE}", path
        )


def mux(
    video_path: Path | str,
    audio: np.ndarray,
    sample_rate: int,
    output: Path | str,
    *,
    reencode: bool = False,
    hidden: bool = False,
    own_tracks: bool = False,
) -> list[str]:
    """Replace the sound of a video, whose picture is copied packet by packet.

    The output begins at 0 with the first frame, whatever the video's own clock says; the sound is cut, or
    padded with silence, to the picture's length. Further pictures, cover, subtitles, chapters and metadata
    are kept where the container can hold them.

    Args:
        video_path: A video file.
        audio: The sound (S,) or (2, S), in [-1, 1].
        sample_rate: Its rate in Hz.
        output: File with the ending that `container_for` gives.
        reencode: Whether a picture that mp4 does not hold is encoded as H.264.
        hidden: Whether frames that an mp4's edit list hides are shown, and the sound begins with them.
        own_tracks: Whether the video's own tracks of sound are copied too, behind the new one.

    Returns:
        Descriptions of what was left out or is shown anew.

    Raises:
        MediaError: If the video can't be read, or the output can't be written; with `own_tracks`, if it has
            no sound, or its edit list hides frames.
    """
    video_path, output = Path(video_path), Path(output)
    suffix = container_for(video_path, reencode=reencode)
    if output.suffix.lower() != suffix:
        raise MediaError(f"an {suffix[1:]} is written. Name it {output.with_suffix(suffix).name}.", output)
    with opened(video_path) as container:
        shown, _ = timeline(container, video_stream(container, video_path), video_path)
    if own_tracks:
        check_own_sound(video_path)
        hidden = False  # there are none; and only so is what its sound's edit list hides known
    with opened(video_path, hidden=hidden) as source:
        stream = video_stream(source, video_path)
        stamps, end = timeline(source, stream, video_path)
        samples = round((end - stamps[0]) * stream.time_base * sample_rate)
        copied = not reencode or stream.codec_context.codec.canonical_name in HOLDS[".mp4"]
    with opened(video_path, hidden=hidden) as source:  # in an avi, whose times are made, decoding is late
        found = packets(source, video_stream(source, video_path))
        late = max((p.dts - p.pts for p in found if None not in (p.dts, p.pts)), default=0)
    more = len(stamps) - len(shown)
    remarks = [f"{more} frames that its edit list hides are shown"] if more > 0 else []
    with _replacing(output) as temporary, opened(video_path, hidden=hidden) as source:
        stream = video_stream(source, video_path)
        writer = _Writer(temporary, suffix, source, stream, stamps[0], end, max(0, late), video_path)
        with explained(output, "can't be written", ADVICE):
            sound = fit_audio(np.asarray(audio), samples)
            remarks += writer.write(sound, sample_rate, copied, own_tracks)
    return remarks


@dataclass
class _Writer:
    """One output of `mux`: a film's packets, its new sound, and what else the container holds.

    Args:
        file: The file to write.
        suffix: Ending of its final name.
        source: The open video.
        stream: Stream of its picture.
        zero: Time of the first frame, in ticks of the stream.
        end: Time at which the last frame ends.
        late: Ticks by which decoding comes too late for presentation.
        path: The video's path, for messages.
    """

    file: Path
    suffix: str
    source: Any
    stream: Any
    zero: int
    end: int
    late: int
    path: Path

    @cached_property
    def covers(self) -> frozenset[int]:
        """Indices of the streams that become cover pictures."""
        if self.suffix == ".mkv":
            return frozenset()
        others = [each for each in self.source.streams.video if each is not self.stream]
        return frozenset(
            each.index for each in others if each.codec_context and each.codec_context.name in COVERS
        )

    def write(self, audio: np.ndarray, sample_rate: int, copied: bool, own_tracks: bool) -> list[str]:
        stream, base = self.stream, self.stream.time_base
        channels = 1 if audio.ndim == 1 else len(audio)
        # mp4 scales up time bases below 1/10000 unless one is set: keep the picture's own.
        options = {"fflags": "+bitexact"}
        if self.suffix != ".mkv":
            options["video_track_timescale"] = str(base.denominator)
        file, kind = f"file:{self.file}", FORMATS[self.suffix]
        with av.open(file, "w", format=kind, options=options, metadata_errors="ignore") as container:
            copy = self._copied(container) if copied else self._encoder(container)
            copy.metadata.update(_plain(stream.metadata))
            if self.suffix == ".mkv":  # exact, and without the delay that an AAC decoder has to know of
                sound = container.add_stream("flac", rate=sample_rate, layout=LAYOUTS[channels], format="s16")
                sound.time_base = Fraction(1, sample_rate)
            else:
                sound = _add_aac(container, sample_rate, channels=channels)
            kept, left_out = self._others(container, own_tracks)
            container.metadata.update(_plain(self.source.metadata))
            container.set_chapters(list(self._chapters()))
            pictures = self._packets(copy, kept) if copied else self._encoded(copy, kept)
            sounds = _encoded_sound(sound, audio, sample_rate)
            # in the order of decoding; at equal times the sound first
            for packet in heapq.merge(sounds, pictures, key=lambda packet: packet.dts * packet.time_base):
                container.mux(packet)
        return left_out

    def _copied(self, container: Any) -> Any:
        copy = container.add_stream_from_template(self.stream, opaque=True)  # copied, so it needs no encoder
        tag = self.stream.codec_context.codec_tag
        # QuickTime's players need hvc1, and the kind of ProRes is in its tag.
        if "mp4" in self.source.format.name and (tag == "hvc1" or self.suffix == ".mov"):
            copy.codec_context.codec_tag = tag
        return copy

    def _encoder(self, container: Any) -> Any:
        stream, context = self.stream, self.stream.codec_context
        options = {"crf": CRF, "preset": "medium"}
        encoded = container.add_stream("libx264", rate=stream.average_rate, options=options)
        encoded.width, encoded.height = context.width + context.width % 2, context.height + context.height % 2
        encoded.pix_fmt, encoded.time_base = "yuv420p", stream.time_base
        encoded.codec_context.time_base = stream.time_base
        if context.sample_aspect_ratio:
            encoded.codec_context.sample_aspect_ratio = context.sample_aspect_ratio
        with opened(self.path) as again:
            first = next(again.decode(video_stream(again, self.path)), None)
        if first is not None and first.rotation:
            encoded.set_display_rotation(first.rotation)
        return encoded

    def _encoded(self, encoded: Any, kept: dict[int, Any]) -> Iterator[Any]:
        """Packets of the picture, encoded anew, and of other streams, from time 0 on."""
        reformatter = VideoReformatter()
        size = {"width": encoded.width, "height": encoded.height}
        with explained(self.path, "can't be read to its end", COMPLETE):
            for packet in self._found(kept):
                if packet.stream is not self.stream:
                    yield from self._other(packet, kept)
                    continue
                for frame in packet.decode():
                    picture = reformatter.reformat(frame, format="yuv420p", **size)
                    picture.pts, picture.time_base = stamp(frame) - self.zero, self.stream.time_base
                    yield from encoded.encode(picture)
            yield from encoded.encode(None)

    def _packets(self, copy: Any, kept: dict[int, Any]) -> Iterator[Any]:
        """The packets of the picture and of other streams, from time 0 on."""
        last = None
        with explained(self.path, "can't be read to its end", COMPLETE):
            for packet in _with_decoding_times(self._found(kept), self.stream):
                if packet.stream is not self.stream:
                    yield from self._other(packet, kept)
                    continue
                packet.pts = stamp(packet) - self.zero
                packet.dts = packet.dts - self.zero - self.late
                packet.dts = last = packet.dts if last is None else max(packet.dts, last + 1)
                packet.stream = copy
                yield packet

    def _found(self, kept: dict[int, Any]) -> Iterator[Any]:
        return packets(self.source, self.stream, *(self.source.streams[index] for index in kept))

    def _other(self, packet: Any, kept: dict[int, Any]) -> Iterator[Any]:
        """A packet of another stream, unless it lies outside of the picture's time."""
        if packet.size == 0:
            return
        kind, base = packet.stream.type, self.stream.time_base
        zero = round(self.zero * base / packet.time_base)
        if packet.stream_index in self.covers:
            packet.pts = packet.dts = 0
        else:
            packet.pts = (stamp(packet) or 0) - zero
            packet.dts = packet.dts - zero if kind == "video" and packet.dts is not None else packet.pts
        if kind == "audio":
            if not -PREPARING_S <= packet.pts * packet.time_base < (self.end - self.zero) * base:
                return
        elif packet.pts < 0:
            return
        packet.stream = kept[packet.stream_index]
        yield packet

    def _others(self, container: Any, own_tracks: bool) -> tuple[dict[int, Any], list[str]]:
        """Copies of other streams by their index, and what the container can't hold."""
        kept, left_out = {}, []
        chapters = len(self.source.chapters())
        for other in self.source.streams:
            if other is self.stream or (other.type == "audio" and not own_tracks):
                continue
            if (
                other.type == "data"
            ):  # of these FFmpeg makes two anew, from the picture's metadata and the chapters
                timecode = "timecode" in self.stream.metadata and "timecode" in other.metadata
                if timecode or other.frames == chapters > 0:
                    continue
            context, cover = other.codec_context, other.index in self.covers
            codec = context.name if context else "no known codec"
            if context and other.type in ("audio", "video"):
                held = SOUNDS[self.suffix] if other.type == "audio" else HOLDS.get(self.suffix, HOLDS[".mp4"])
                fits = cover or context.codec.canonical_name in held
            else:
                fits = other.type == "subtitle" and codec in SUBTITLES.get(self.suffix, ("mov_text",))
            if fits:
                kept[other.index] = copy = container.add_stream_from_template(other, opaque=True)
                copy.metadata.update(_plain(other.metadata))
                copy.disposition = other.disposition
                if cover:
                    copy.disposition = av.stream.Disposition.attached_pic
                elif other.type == "audio":  # players take the new one
                    copy.disposition = other.disposition & ~av.stream.Disposition.default
            else:
                left_out.append(f"{other.type} ({codec}), which {FORMATS[self.suffix]} can't hold")
        return kept, left_out

    def _chapters(self) -> Iterator[Any]:
        zero_s = self.zero * self.stream.time_base
        for chapter in self.source.chapters():
            zero = round(zero_s / chapter["time_base"])
            yield {**chapter, "start": max(0, chapter["start"] - zero), "end": max(1, chapter["end"] - zero)}


def _plain(metadata: dict[str, str]) -> dict[str, str]:
    """Metadata of the film, without what describes its old file."""
    return {name: text for name, text in metadata.items() if name.lower() not in OF_THE_FILE}


def _with_decoding_times(found: Iterator[Any], stream: Any) -> Iterator[Any]:
    """The packets, each with a decoding time. Matroska leaves out the first, which mp4 needs: count back."""
    early = []
    for packet in found:
        if packet.size == 0:  # the end of a stream
            continue
        if packet.stream is not stream:
            yield packet
            continue
        step = packet.duration or round(1 / stream.average_rate / stream.time_base)
        packet.duration = step
        if packet.dts is None:
            early.append(packet)
            continue
        for back, waiting in enumerate(reversed(early), start=1):
            waiting.dts = packet.dts - back * step
        yield from early
        early = []
        yield packet
    for packet in early:  # a film of so few frames that none has a decoding time
        packet.dts = packet.pts
        yield packet
