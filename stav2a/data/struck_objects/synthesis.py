"""The sound: modal synthesis, one struck body a clip, of random pitch and decay."""

from collections.abc import Callable

import numpy as np

from stav2a.data.struck_objects.scene import DURATION_S, SAMPLE_RATE, Performance

NOISE_FLOOR = 1e-3  # -60 dB
FADE = 800  # samples at the end, else a ringing bar cut off sounds like an onset
Struck = tuple[np.ndarray, np.ndarray]  # what rings, and the attack that grows faster with strength


def render_sound(performance: Performance) -> np.ndarray:
    """(S,) float32 in [-1, 1]; every strike begins exactly at its time."""
    rng = performance.details(2)
    audio = rng.normal(0, NOISE_FLOOR, round(DURATION_S * SAMPLE_RATE))
    ringing, attack = BODIES[performance.label](rng)
    loudest = np.abs(ringing + attack).max()
    for time_s, strength in zip(performance.heard_s, performance.heard_strengths, strict=True):
        start = round(time_s * SAMPLE_RATE)
        burst = 0.7 * strength * (ringing + strength * attack) / loudest
        audio[start : start + len(burst)] += burst[: len(audio) - start]
    audio[-FADE:] *= np.linspace(1, 0, FADE)
    return np.tanh(audio).astype(np.float32)


def _time(duration_s: float) -> np.ndarray:
    return np.arange(round(duration_s * SAMPLE_RATE)) / SAMPLE_RATE


def _modes(
    rng: np.random.Generator, f0: float, ratios: tuple[float, ...], decay_s: float, damping: float
) -> np.ndarray:
    """Damped sines; a mode decays the faster, and is the weaker, the higher it is."""
    t = _time(min(6 * decay_s, DURATION_S))
    total = np.zeros_like(t)
    for ratio in ratios:
        frequency = f0 * ratio * rng.uniform(0.99, 1.01)
        if frequency < 0.47 * SAMPLE_RATE:
            level = rng.uniform(0.6, 1) * ratio**-0.6
            total += level * np.exp(-t / decay_s * ratio**damping) * np.sin(2 * np.pi * frequency * t)
    return total * np.minimum(1, t / 0.0005)


def _noise(
    rng: np.random.Generator, low_hz: float, high_hz: float, decay_s: float, length: int
) -> np.ndarray:
    """A burst of noise in a band, decaying, of peak about 1."""
    spectrum = np.fft.rfft(rng.normal(size=length))
    hz = np.fft.rfftfreq(length, 1 / SAMPLE_RATE)
    band = 1 / (1 + (low_hz / np.maximum(hz, 1)) ** 8) / (1 + (hz / high_hz) ** 8)
    noise = np.fft.irfft(spectrum * band, length)
    return noise / np.abs(noise).max() * np.exp(-np.arange(length) / SAMPLE_RATE / decay_s)


def _wood(rng: np.random.Generator) -> Struck:
    ringing = _modes(rng, rng.uniform(500, 1000), (1, 2.57, 4.2), rng.uniform(0.02, 0.045), 0.5)
    return ringing, 0.5 * _noise(rng, 800, 4000, 0.004, len(ringing))


def _metal(rng: np.random.Generator) -> Struck:
    # A free bar's modes.
    ringing = _modes(rng, rng.uniform(420, 900), (1, 2.756, 5.404, 8.933), rng.uniform(0.3, 0.7), 0.5)
    return ringing, 0.4 * _noise(rng, 3000, 7500, 0.005, len(ringing))


def _glass(rng: np.random.Generator) -> Struck:
    ringing = _modes(rng, rng.uniform(1900, 2900), (1, 1.44, 2.03, 2.61), rng.uniform(0.07, 0.16), 0.4)
    return ringing, 0.3 * _noise(rng, 4000, 7500, 0.004, len(ringing))


def _drum(rng: np.random.Generator) -> Struck:
    # A membrane's modes, its pitch falling by a third as the stretched skin relaxes.
    f0, decay_s = rng.uniform(70, 140), rng.uniform(0.09, 0.18)
    t = _time(6 * decay_s)
    phase = 2 * np.pi * f0 * (t + 0.5 * 0.04 * (1 - np.exp(-t / 0.04)))
    ratios = (1, 1.593, 2.136, 2.653)
    ringing = sum(r**-0.8 * np.exp(-t / decay_s * r**0.7) * np.sin(phase * r) for r in ratios)
    return ringing * np.minimum(1, t / 0.001), 0.5 * _noise(rng, 100, 1500, 0.015, len(t))


def _tambourine(rng: np.random.Generator) -> Struck:
    decay_s = rng.uniform(0.06, 0.13)
    length = len(_time(6 * decay_s))
    jingles = 0.25 * _modes(rng, rng.uniform(4500, 5500), (1, 1.13, 1.27, 1.39), decay_s, 0)[:length]
    return _noise(rng, 3500, 7600, decay_s, length) + jingles, 0.3 * _noise(rng, 300, 2000, 0.01, length)


def _water(rng: np.random.Generator) -> Struck:
    # Bubbles: each a tone that rises as the bubble nears the surface; and a splash.
    decay_s, f0, rise = rng.uniform(0.05, 0.09), rng.uniform(300, 520), rng.uniform(6, 11)
    t = _time(6 * decay_s)
    ringing = np.zeros_like(t)
    for delay, ratio, level in ((0, 1, 1), (0.012, 1.5, 0.6), (0.02, 2.1, 0.35)):
        s = np.maximum(0, t - delay)
        tone = np.sin(2 * np.pi * f0 * ratio * (s + rise * s**2 / 2)) * np.exp(-s / decay_s)
        ringing += level * tone * np.minimum(1, s / 0.002)
    return ringing, 0.35 * _noise(rng, 400, 2500, 0.02, len(t))


BODIES: dict[str, Callable[[np.random.Generator], Struck]] = {
    "wood": _wood,
    "metal": _metal,
    "glass": _glass,
    "drum": _drum,
    "tambourine": _tambourine,
    "water": _water,
}
