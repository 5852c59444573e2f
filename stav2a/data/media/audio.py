"""The sound of a file, mono or stereo, on the time axis of its picture."""

import os
import struct
from pathlib import Path
from typing import Any

import av
import numpy as np

from stav2a.data.media.clip_notes import ClipNote
from stav2a.data.media.opening import (
    SAMPLE_RATES_HZ,
    SOUND,
    MediaError,
    declared_s,
    film_stream,
    opened,
    packets,
)
from stav2a.utils.resampling import resample_audio

GAP_S = 0.05  # a hole in the sound longer than this is filled, or all that follows would come early
LONGEST_GAP_S = 120.0
LOUD = 0.05  # part of the samples that may lie beyond full scale, as codecs let loud music
PADDING_S = 0.25  # sound that lasts longer than the picture by no more is the codec's padding
ESTIMATED = ("mp3", "aac")  # formats whose duration FFmpeg may have guessed from the bit rate
STREAMED = 0x7FFF0000  # bytes of a wav from which on they are no length: a program that wrote to a pipe
CHUNKS = 1000  # parts of a wav that are looked at
PLANES = 7  # of a frame that are taken as they are: reading eight ends the process (PyAV 18.1)
COUNTED = 64  # bytes by which programs that count a wav's header too are wrong
RE_ENCODE = "Re-encode it, e.g. ffmpeg -ar 44100."


class AudioCollector:
    """Sound of a file, put together from decoded frames on the picture's time axis.

    Args:
        path: The file, for messages.
        stereo: Whether the sound gets two channels, (2, S), in place of one, (S,).
    """

    def __init__(self, path: Path, *, stereo: bool = False) -> None:
        self.path, self.stereo = path, stereo
        self.pieces: list[np.ndarray] = []
        self.start_s = self.filled_s = self.last_s = 0.0
        self.sample_rate = self.samples = self.channels = 0
        self.format = ""

    def add(self, frame: Any, until_s: float = float("inf")) -> None:
        """Take one decoded frame, unless it begins after `until_s` and the codec's padding.

        Raises:
            MediaError: Its format is odd or not that of the first, or a sample is not a finite number.
        """
        time_s = frame.time if frame.time is not None else self._end_s
        self.last_s = time_s + frame.samples / frame.sample_rate
        if time_s > until_s + PADDING_S:
            return
        if not self.pieces:
            low, high = SAMPLE_RATES_HZ
            if not low <= frame.sample_rate <= high:
                raise MediaError(
                    f"its sound has {frame.sample_rate} samples a second; {low} to {high} are "
                    f"read. {RE_ENCODE}",
                    self.path,
                )
            two = "stereo" if self.stereo and frame.layout.nb_channels > 1 else None  # else as many as it has
            count, kind = frame.layout.nb_channels, frame.format.name
            whole = kind == "fltp" and count <= PLANES and two in (None, frame.layout.name)  # as most codecs
            self.converter = None if whole else av.AudioResampler("flt", two)
            self.start_s, self.sample_rate, self.format = time_s, frame.sample_rate, _format(frame)
            self.channels = 2 if two else count
        if self.format != _format(frame):
            raise MediaError(
                f"its sound changes from {self.format} to {_format(frame)} on the way. {RE_ENCODE}",
                self.path,
            )
        if (gap_s := time_s - self._end_s) > LONGEST_GAP_S:
            raise MediaError(f"a gap of {gap_s:.0f} s in its sound. {RE_ENCODE}", self.path)
        if gap_s > GAP_S:
            self._append(self._silence(round(gap_s * self.sample_rate)))
            self.filled_s += gap_s
        for channels in self._floats(frame):
            if self.stereo:
                self._append(np.repeat(channels, 2, axis=0) if self.channels == 1 else channels)
            else:
                self._append(channels[0] if self.channels == 1 else channels.mean(axis=0))

    def _floats(self, frame: Any) -> list[np.ndarray]:
        """Samples (C, S) of a frame, in the channels of the result or of the mean."""
        if self.converter is None:
            return [frame.to_ndarray()]
        packed = (piece.to_ndarray() for piece in self.converter.resample(frame))
        return [np.ascontiguousarray(each.reshape(-1, self.channels).T) for each in packed]

    @property
    def _end_s(self) -> float:
        return self.start_s + (self.samples / self.sample_rate if self.sample_rate else 0.0)

    def _silence(self, samples: int) -> np.ndarray:
        return np.zeros((2, samples) if self.stereo else samples, np.float32)

    def _append(self, samples: np.ndarray) -> None:
        if not np.isfinite(samples).all():
            raise MediaError("its sound holds samples that are not finite numbers. Leave it out.", self.path)
        self.pieces.append(samples)
        self.samples += samples.shape[-1]

    def since(self, zero_s: float) -> np.ndarray:
        """(S,) or (2, S) float32 in [-1, 1] from this time on; silence up to where the sound begins.

        Raises:
            MediaError: More of it lies beyond full scale than codecs give.
        """
        audio = np.concatenate(self.pieces or [self._silence(0)], axis=-1)
        late = round((self.start_s - zero_s) * self.sample_rate)
        if np.count_nonzero(np.abs(audio) > 1) > LOUD * audio.size:
            raise MediaError(
                f"{np.mean(np.abs(audio) > 1):.0%} of its sound lies beyond full scale (up to "
                f"{np.abs(audio).max():.3g}, where 1 is the most). Scale it to -1 to 1.",
                self.path,
            )
        audio = audio[..., -late:] if late < 0 else np.concatenate([self._silence(late), audio], axis=-1)
        return np.clip(audio, -1, 1).astype(np.float32)

    def between(
        self, zero_s: float, end_s: float, *, picture_ends: bool
    ) -> tuple[np.ndarray, list[ClipNote]]:
        """The sound from zero_s to end_s, with the codec's padding if the picture ends, and unusual facts.

        Raises:
            MediaError: There is no sound in this time.
        """
        if not self.pieces or self._end_s <= zero_s:
            raise MediaError("no sound while there is a picture. Leave it out.", self.path)
        notes = [ClipNote("channels averaged", (self.channels,))] if self.channels > 2 else []
        if self.filled_s:
            notes.append(ClipNote("sound missing", (self.filled_s,)))
        if self.start_s - zero_s > PADDING_S:
            notes.append(ClipNote("sound late", (self.start_s - zero_s,)))
        if end_s - self._end_s > PADDING_S:
            notes.append(ClipNote("sound short", (end_s - self._end_s,)))
        audio = self.since(zero_s)
        longer_s = self.last_s - end_s
        if picture_ends and longer_s > PADDING_S:
            notes.append(ClipNote("sound long", (longer_s,)))
        if not picture_ends or longer_s > PADDING_S:
            audio = audio[: round((end_s - zero_s) * self.sample_rate)]
        return audio, notes


def _format(frame: Any) -> str:
    return f"{frame.sample_rate} Hz {frame.layout.name} {frame.format.name}"


def read_audio(path: Path | str, sample_rate: int, *, stereo: bool = False) -> np.ndarray:
    """The sound of a video or audio file: (S,) float32 mono in [-1, 1] at this rate, or (2, S) stereo.

    Time 0 is where the picture begins or, without one, the sound. Of more channels mono is the mean, and
    stereo FFmpeg's mix of them.

    Raises:
        MediaError: If the file can't be read, has no sound, or is a sound file that is cut off.
    """
    path = Path(path)
    with opened(path, kind=SOUND) as container:
        if not container.streams.audio:
            raise MediaError("no sound stream in it. Give a file with sound.", path)
        stream, sound = container.streams.audio[0], AudioCollector(path, stereo=stereo)
        first = film_stream(container) or stream
        for packet in packets(container, stream):
            for frame in packet.decode():
                sound.add(frame)
        zero_s = float((first.start_time or 0) * first.time_base)
        alone = first is stream and container.format.name not in ESTIMATED
        declared, found = declared_s(container, stream) if alone else 0.0, sound.last_s - sound.start_s
        if container.format.name == "wav":
            _check_wav(path)
    if not sound.pieces:
        raise MediaError("the sound stream is empty. Give a file with sound.", path)
    if found < 0.9 * declared - PADDING_S:
        raise MediaError(f"cut off: {found:.2f} s of {declared:.2f} s are there. {SOUND.complete}", path)
    return resample_audio(sound.since(zero_s), sound.sample_rate, sample_rate)


def _check_wav(path: Path) -> None:
    """Refuse a wav that holds less than its header says: FFmpeg takes what is there for the whole."""
    with path.open("rb") as file:
        riff, _, form = struct.unpack("<4sI4s", file.read(12))
        if (riff, form) != (b"RIFF", b"WAVE"):  # RF64, whose lengths are elsewhere
            return
        for _ in range(CHUNKS):
            head = file.read(8)
            if len(head) < 8:
                return
            name, size = struct.unpack("<4sI", head)
            if name == b"data":
                there = path.stat().st_size - file.tell()
                if there + COUNTED < size < STREAMED:
                    raise MediaError(
                        f"cut off: {there} of {size} bytes of sound are there. {SOUND.complete}", path
                    )
                return
            file.seek(size + size % 2, os.SEEK_CUR)
