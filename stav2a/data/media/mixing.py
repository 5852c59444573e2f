"""The sound of a film from a new one and the film's own: rate, level, mix, loudness."""

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.filter import Graph

from stav2a.data.media.audio import read_audio
from stav2a.data.media.opening import MediaError, probe
from stav2a.utils.resampling import fit_audio, resample_audio

DUCK_S = 0.1  # over which the level is taken that lowers another sound
SILENT_LUFS = -70.0  # the gate of BS.1770: nothing below it counts
METER_HZ = 48_000  # for which BS.1770 gives its filters; at 16 kHz noise comes out up to 0.3 LU louder
LAYOUTS = {1: "mono", 2: "stereo"}
TRUE_PEAK_DB = -1.0  # most that a sound is raised to, as EBU R 128 has it


@dataclass(frozen=True)
class MixedSound:
    """The sound of a film.

    Args:
        whole: All of it, (S,) or (2, S) in [-1, 1].
        new: The new sound alone: the whole, where the film's own is not in it.
        sample_rate: Rate of both in Hz.
        remarks: Descriptions of what could not be as asked for.
    """

    whole: np.ndarray
    new: np.ndarray
    sample_rate: int
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MixSettings:
    """Settings of a film's sound; by default the new sound as it is.

    Args:
        sample_rate: Rate in Hz to which all sound is resampled; None leaves the new sound's.
        stereo: Whether it has two channels, which are equal in the new sound.
        gain_db: Change of the new sound's level.
        own_gain_db: Change of the level of the film's own sound, which is mixed in; None leaves that out.
        duck_db: Most by which the own sound is lowered further, see `mix_sounds`.
        loudness_lufs: Integrated loudness of the whole; None leaves it.
    """

    sample_rate: int | None = None
    stereo: bool = False
    gain_db: float = 0.0
    own_gain_db: float | None = None
    duck_db: float = 0.0
    loudness_lufs: float | None = None

    def own_sound(self, film: Path) -> np.ndarray | None:
        """The film's own sound (S,) or (2, S), if it is to be mixed in, which needs a `sample_rate`.

        Raises:
            MediaError: The file can't be read, has no sound, or its edit list hides frames.
        """
        if self.own_gain_db is None or self.sample_rate is None:
            return None
        check_own_sound(film)
        return read_audio(film, self.sample_rate, stereo=self.stereo)

    def __call__(self, new: np.ndarray, sample_rate: int, own: np.ndarray | None) -> MixedSound:
        """The film's sound.

        Args:
            new: The new sound (S,) in [-1, 1].
            sample_rate: Its rate in Hz.
            own: What `own_sound` gave.
        """
        rate_hz = self.sample_rate or sample_rate
        new = resample_audio(new, sample_rate, rate_hz) * np.float32(_factor(self.gain_db))
        if self.stereo:
            new = np.stack([new, new])
        peak = max(1.0, float(np.abs(new).max(initial=0.0)))
        alone, remarks = new / np.float32(peak), []
        if self.gain_db > 0 and peak > 1:
            raised_db = self.gain_db - _decibels(peak)
            remarks.append(
                f"the new sound's level is changed by {raised_db:.1f} dB, not {self.gain_db:g}: full scale"
            )
        if own is None:
            whole = alone
        else:
            whole = mix_sounds(new, own, rate_hz, own_gain_db=self.own_gain_db or 0.0, duck_db=self.duck_db)
        if self.loudness_lufs is not None:
            whole, more = at_loudness(whole, rate_hz, self.loudness_lufs)
            remarks += more
        return MixedSound(whole, whole if own is None else alone, rate_hz, tuple(remarks))


def check_own_sound(film: Path) -> None:
    """Refuse a film without sound, or whose own sound does not lie on the frames that `mux` shows.

    Raises:
        MediaError: It has no sound, or its edit list hides frames.
    """
    found = probe(film)
    if not found.has_audio:
        raise MediaError("no sound stream in it. Give a file with sound.", film)
    if found.duration_s != probe(film, hidden=True).duration_s:
        raise MediaError(
            "its edit list hides frames, so its own sound can't be kept in time. Re-encode it.", film
        )


def mix_sounds(
    new: np.ndarray, own: np.ndarray, sample_rate: int, *, own_gain_db: float = 0.0, duck_db: float = 0.0
) -> np.ndarray:
    """A new sound together with a film's own, at the length of the new one, at most 1 anywhere.

    The own sound is lowered while the new one sounds: by `duck_db` where that is loudest, elsewhere by less
    in proportion to its level, the root of its mean square over 0.1 s. A sum beyond full scale is scaled
    down.

    Args:
        new: The new sound (S,) or (channels, S), in [-1, 1].
        own: The film's own sound, with as many channels at the same rate; cut or padded with silence.
        sample_rate: Rate of both in Hz.
        own_gain_db: Change of the own sound's level.
        duck_db: Most by which it is lowered further.

    Example:
        >>> print(mix_sounds(np.zeros(2), np.full(2, 0.5), 10, own_gain_db=-20.0).round(3))
        [0.05 0.05]
    """
    width, samples = max(1, round(DUCK_S * sample_rate)), new.shape[-1]
    power = np.square(new, dtype=np.float64) if new.ndim == 1 else np.square(new, dtype=np.float64).mean(0)
    level = np.sqrt(np.convolve(power, np.full(width, 1 / width), mode="same")[:samples])
    loudest = level.max(initial=0.0)
    lowered_db = duck_db * level / loudest if loudest > 0 else np.zeros(samples)
    mixed = new + fit_audio(own, samples) * 10 ** ((own_gain_db - lowered_db) / 20)
    return (mixed / max(1.0, np.abs(mixed).max(initial=0.0))).astype(np.float32)


def at_loudness(audio: np.ndarray, sample_rate: int, target_lufs: float) -> tuple[np.ndarray, list[str]]:
    """A sound at an integrated loudness, by one gain, with true peaks of at most -1 dB; and remarks.

    Shapes:
        audio (S,) or (channels, S), and the same again
    """
    measured_lufs, peak = _measured(audio, sample_rate)
    if measured_lufs <= SILENT_LUFS:
        return audio, [f"silent, or shorter than 0.4 s: not brought to {target_lufs:g} LUFS"]
    gain_db = target_lufs - measured_lufs
    room_db = TRUE_PEAK_DB - _decibels(peak)
    remarks = []
    if gain_db > room_db:
        gain_db = room_db
        remarks.append(
            f"{measured_lufs + gain_db:.1f} LUFS, not {target_lufs:g}: its peaks reach {TRUE_PEAK_DB:g} dB"
        )
    return (audio * _factor(gain_db)).astype(np.float32), remarks


def loudness_lufs(audio: np.ndarray, sample_rate: int) -> float:
    """Integrated loudness by ITU-R BS.1770 (EBU R 128), in LUFS; -70 of a silent sound, or below 0.4 s.

    Shapes:
        audio (S,) or (2, S), in [-1, 1]

    Example:
        >>> tone = 0.5 * np.sin(2 * np.pi * 997 * np.arange(48_000) / 48_000)
        >>> round(loudness_lufs(tone, 48_000), 1), round(loudness_lufs(np.stack([tone, tone]), 48_000), 1)
        (-9.0, -6.0)
    """
    return _measured(audio, sample_rate)[0]


def _measured(audio: np.ndarray, sample_rate: int) -> tuple[float, float]:
    """Integrated loudness, and the true peak as a factor of full scale, by FFmpeg's filter `ebur128`."""
    peak = float(np.abs(audio).max(initial=0.0))
    audio = resample_audio(np.atleast_2d(audio), sample_rate, METER_HZ)
    tenth = METER_HZ // 10  # of a second: the filter measures whole ones
    audio, layout = fit_audio(audio, -(-audio.shape[-1] // tenth) * tenth), LAYOUTS[len(audio)]
    graph, base = Graph(), Fraction(1, METER_HZ)
    source = graph.add_abuffer(sample_rate=METER_HZ, format="fltp", layout=layout, time_base=base)
    meter, sink = graph.add("ebur128", "metadata=1:peak=true:framelog=quiet"), graph.add("abuffersink")
    source.link_to(meter)
    meter.link_to(sink)
    graph.configure()
    found: dict[str, str] = {}
    for first in range(0, audio.shape[-1], METER_HZ):
        piece: Any = np.ascontiguousarray(audio[:, first : first + METER_HZ])
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = METER_HZ, first, base
        graph.push(frame)
        found = _last_metadata(graph) or found
    graph.push(None)
    found = _last_metadata(graph) or found
    true_peak = float(found.get("lavfi.r128.true_peak", 0.0))
    return float(found.get("lavfi.r128.I", SILENT_LUFS)), max(peak, true_peak)


def _last_metadata(graph: Graph) -> dict[str, str]:
    """Metadata of the last of the frames that are ready."""
    found: dict[str, str] = {}
    while True:
        try:
            found = graph.pull().metadata
        except (av.BlockingIOError, av.EOFError):
            return found


def _factor(decibels: float) -> float:
    return float(10 ** (decibels / 20))


def _decibels(factor: float) -> float:
    return 20 * math.log10(factor)
