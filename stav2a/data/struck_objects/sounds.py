"""The sounds of the objects: modes of bars, plates, shells and membranes, bubbles, and rubbed grains.

Ratios of modes are those of the literature: [FR] Fletcher and Rossing, The Physics of Musical Instruments,
2nd edition 1998; [C] the table "Modal Frequency Ratios" of the Csound manual. A mode of frequency f decays in
1 / (pi f loss) by the loss factor of its material, or faster, by its support and the air. Bubbles follow
Minnaert (1933) and van den Doel, Physically based models for liquid sounds (2005).
"""

import functools
from collections.abc import Callable

import numpy as np
from scipy import fft, signal

DURATION_S = 2.56
SAMPLE_RATE = 16_000
SAMPLES = round(DURATION_S * SAMPLE_RATE)
HEARD_HZ = (20.0, 7600.0)
BLOCK = 128  # samples
NOISE_S = 12.0  # of noise that all sounds take their pieces of

FREE_BAR = (1, 2.756, 5.404, 8.933, 13.344)  # [FR] 2.15
WOODEN_BAR = (1, 2.572, 4.644, 6.984, 9.723)  # [C]
WOODEN_PLATE = (1, 1.47, 2.09, 2.56)  # [C], red cedar
WINE_GLASS = (1, 2.32, 4.25, 6.63, 9.38)  # [C]
MEMBRANE = (1, 1.594, 2.136, 2.296, 2.653, 2.918, 3.156, 3.501, 3.600, 3.652, 4.060, 4.154)  # [FR] 3.3
CHURCH_BELL = (0.5, 1, 1.2, 1.5, 2, 2.5, 3, 4, 5.33)  # [FR] 21.4, from the hum to the upper octave

Burst = Callable[[float], np.ndarray]  # strength 0..1 -> sound (S,) of one blow


def ringing(hz: np.ndarray, level: np.ndarray, decay_s: np.ndarray) -> np.ndarray:
    """(M,) modes -> (S,) sum of damped sines, until the last has fallen by 60 dB.

    Samples are taken in blocks: exp(a (b + j)) = exp(a b) exp(a j), so that the sum is a product of matrices.
    """
    heard = (hz > HEARD_HZ[0]) & (hz < HEARD_HZ[1])
    hz, level, decay_s = hz[heard], level[heard], decay_s[heard]
    longest_s = min(6.9 * decay_s.max(initial=0.001), DURATION_S)
    blocks = int(np.ceil(longest_s * SAMPLE_RATE / BLOCK))
    rate = (-1 / decay_s + 2j * np.pi * hz) / SAMPLE_RATE
    inside = np.exp(np.outer(rate, np.arange(BLOCK))) * level[:, None]
    between = np.exp(np.outer(np.arange(blocks) * BLOCK, rate))
    sound: np.ndarray = (between @ inside).imag.ravel()
    return sound


def decays(hz: np.ndarray, loss: float, longest_s: float) -> np.ndarray:
    """Decay times of modes (M,), by the loss factor of the material, and by support and air."""
    times: np.ndarray = 1 / (np.pi * hz * loss + 1 / longest_s)
    return times


@functools.cache
def _band(low_hz: float, high_hz: float) -> np.ndarray:
    sections: np.ndarray = signal.butter(2, (low_hz, high_hz), "bandpass", fs=SAMPLE_RATE, output="sos")
    return sections


@functools.cache
def _noise(low_hz: float, high_hz: float) -> np.ndarray:
    """Noise in a band, of standard deviation 1. Pieces of it are as good as new noise, and far cheaper."""
    white = np.random.default_rng(0).normal(size=round(NOISE_S * SAMPLE_RATE))
    band: np.ndarray = signal.sosfilt(_band(low_hz, high_hz), white)
    return band / band.std()


def noise(rng: np.random.Generator, low_hz: float, high_hz: float, length: int) -> np.ndarray:
    """(length,) a piece of noise in a band, of standard deviation 1."""
    band = _noise(low_hz, high_hz)
    start = int(rng.integers(2000, len(band) - length))
    return band[start : start + length]


def hiss(rng: np.random.Generator, low_hz: float, high_hz: float, decay_s: float) -> np.ndarray:
    """(S,) a burst of noise in a band that decays."""
    length = round(6 * decay_s * SAMPLE_RATE)
    return noise(rng, low_hz, high_hz, length) * np.exp(-np.arange(length) / (decay_s * SAMPLE_RATE))


def add(total: np.ndarray, part: np.ndarray, start: int = 0) -> np.ndarray:
    """`total` with a part added in place from a sample on; what lies beyond its end is lost."""
    part = part[: max(0, len(total) - start)]
    total[start : start + len(part)] += part
    return total


def _struck(
    rng: np.random.Generator,
    hz: np.ndarray,
    level: np.ndarray,
    decay_s: np.ndarray,
    contact_hz: float,
    attack: Callable[[], np.ndarray],
) -> Burst:
    """Modes set ringing by a blow, and the noise of its contact.

    The harder the blow, the shorter its contact, and the higher the modes that it reaches: `contact_hz` is
    the frequency beyond which the hardest reaches little. No two blows fall on quite the same spot, so that
    levels vary.
    """

    def burst(strength: float) -> np.ndarray:
        reached = 1 / (1 + (hz / (contact_hz * (0.6 + 0.6 * strength))) ** 2)
        body, noise_of_contact = (
            ringing(hz, level * reached * rng.uniform(0.5, 1.2, len(hz)), decay_s),
            attack(),
        )
        return add(np.pad(body, (0, max(0, len(noise_of_contact) - len(body)))), noise_of_contact)

    return burst


def strike_wood(rng: np.random.Generator) -> Burst:
    """A hollow block: a bar of wood over a box, whose walls are supported plates ([FR] 3.5)."""
    f0, aspect = 330 * rng.uniform(0.8, 1.25), rng.uniform(1.2, 1.7)
    m, n = np.meshgrid(np.arange(1, 6), np.arange(1, 5))
    box = np.sort(((m**2 + (aspect * n) ** 2) / (1 + aspect**2)).ravel())
    hz = np.concatenate([f0 * np.array(WOODEN_BAR), 0.44 * f0 * box]) * rng.uniform(0.97, 1.03, 25)
    level = np.concatenate([[1, 0.7, 0.5, 0.3, 0.2], 0.63 * rng.uniform(0.3, 1, 20)]) * (f0 / hz) ** 0.68
    attack = functools.partial(hiss, rng, 1500, 3500, 0.006)
    return _struck(rng, hz, level, decays(hz, 0.04, 0.026), 1560, lambda: 1.16 * attack())


def strike_metal(rng: np.random.Generator) -> Burst:
    """A free bar of steel; its modes come in two directions of slightly different stiffness."""
    hz = np.outer((1, 1.0046), 1770 * rng.uniform(0.8, 1.25) * np.array(FREE_BAR)).ravel()
    hz = hz * rng.uniform(0.998, 1.002, 10)
    level = np.outer((1, 0.5), (1, 0.9, 0.7, 0.5, 0.3)).ravel()
    attack = functools.partial(hiss, rng, 2000, 7500, 0.004)
    return _struck(rng, hz, level, decays(hz, 0.0002, rng.uniform(0.8, 1.2)), 3800, lambda: 0.67 * attack())


def strike_glass(rng: np.random.Generator) -> Burst:
    """A bottle: a shell's modes, each of them twice, as no shell is quite round, and those of its neck."""
    f0 = 2400 * rng.uniform(0.85, 1.2)
    ratios = np.array([*WINE_GLASS, 1.55, 1.9, 2.75, 3.3])
    hz = np.outer((1, 1.012), f0 * ratios).ravel() * rng.uniform(0.98, 1.02, 18)
    level = rng.uniform(0.4, 1, 18) * (hz / f0) ** 0.3
    attack = functools.partial(hiss, rng, 2000, 7500, 0.003)
    return _struck(rng, hz, level, decays(hz, 0.0055, rng.uniform(0.2, 0.35)), 9000, lambda: 1.05 * attack())


def strike_drum(rng: np.random.Generator) -> Burst:
    """A membrane."""
    hz = 65 * rng.uniform(0.85, 1.2) * np.array(MEMBRANE) * rng.uniform(0.99, 1.01, 12)
    attack = functools.partial(hiss, rng, 230, 2500, 0.025)
    level = np.array(MEMBRANE) ** -0.5
    return _struck(rng, hz, level, decays(hz, 0.0197, rng.uniform(0.11, 0.16)), 920, lambda: 0.26 * attack())


def strike_tambourine(rng: np.random.Generator) -> Burst:
    """Pairs of brass discs, which clash at the blow and many times after it."""
    discs = 4460 * rng.uniform(1, 1.29, 7)
    modes_hz = np.outer((1, 1.015, 1.28), discs).ravel()

    def clash() -> np.ndarray:
        hz = rng.choice(modes_hz[modes_hz < HEARD_HZ[1]], 4)
        tone = ringing(hz, rng.uniform(0.3, 1, 4), decays(hz, 0.0016, 0.2))
        return add(tone, 0.645 * hiss(rng, 3700, 7500, 0.013))

    clashes = [clash() for _ in range(8)]

    def burst(strength: float) -> np.ndarray:
        total = np.zeros(round(0.8 * SAMPLE_RATE))
        for each in clashes[:3]:
            add(total, each)
        for number, delay_s in enumerate(rng.exponential(0.105, 25)):
            level = rng.uniform(0.3, 1) * np.exp(-delay_s / 0.16)
            add(total, level * clashes[number % 8], round(delay_s * SAMPLE_RATE))
        return total

    return burst


BUBBLE_MM = np.geomspace(0.4, 6.3, 48)  # radii


@functools.cache
def _bubbles() -> list[list[np.ndarray]]:
    """Sounds of bubbles, by radius and by how fast they near the surface, which raises their pitch."""
    made = []
    for radius_m in BUBBLE_MM / 1000:
        damping = 0.13 / radius_m + 0.0072 * radius_m**-1.5  # a second, by radiation and by heat
        t = np.arange(round(6 / damping * SAMPLE_RATE)) / SAMPLE_RATE
        phases = [3 / radius_m * t * (1 + 0.5 * rise * damping * t) for rise in (0, 0.1, 0.3, 0.6)]
        made.append([np.sin(2 * np.pi * phase) * np.exp(-damping * t) for phase in phases])
    return made


def add_bubbles(
    total: np.ndarray,
    rng: np.random.Generator,
    starts: np.ndarray,
    radii_mm: tuple[float, float],
    exponent: float,
) -> np.ndarray:
    """Bubbles of random sizes added in place; the level grows with the radius to the power of `exponent`."""
    low, high = np.searchsorted(BUBBLE_MM, radii_mm)
    sizes, rises = rng.integers(low, high, len(starts)), rng.integers(4, size=len(starts))
    levels = rng.uniform(0.2, 1, len(starts)) * (BUBBLE_MM[sizes] / 2) ** exponent
    bank = _bubbles()
    for start, size, rise, level in zip(starts.tolist(), sizes, rises, levels, strict=True):
        add(total, level * bank[size][rise], start)
    return total


def strike_water(rng: np.random.Generator) -> Burst:
    """A blow on water: a faint splash, the cavity of air that closes below it, and a few small bubbles."""
    cavity = int(np.searchsorted(BUBBLE_MM, 3.9 * rng.uniform(0.85, 1.15)))

    def burst(strength: float) -> np.ndarray:
        total = add(np.zeros(round(0.4 * SAMPLE_RATE)), 0.06 * hiss(rng, 310, 7100, 0.036))
        add(total, 2.9 * _bubbles()[cavity][2], round(0.006 * SAMPLE_RATE))
        delays = rng.exponential(0.01, rng.integers(3, 8))
        return add_bubbles(total, rng, (delays * SAMPLE_RATE).astype(int), (1.0, 1.7), 1.5)

    return burst


def rub_sandpaper(rng: np.random.Generator, speed: np.ndarray) -> np.ndarray:
    """Grains that are torn off, as many as the speed gives, and the board that they set ringing.

    Shapes:
        speed (S,) in parts of the highest -> (S,)
    """
    grains = 0.5 + 2.15 * (rng.random(len(speed), dtype=np.float32) < 0.054 * speed)
    rough = noise(rng, 20, 7900, len(speed)) * grains
    low = signal.sosfilt(_band(330, 6300), rough) * speed**1.18
    total = low + 0.4 * signal.sosfilt(_band(3400, 7600), rough) * speed**2.18
    for ratio in WOODEN_PLATE:
        b, a = signal.iirpeak(430 * ratio * rng.uniform(0.85, 1.15), 7, fs=SAMPLE_RATE)
        total = total + 2.35 * signal.lfilter(b, a, low)
    return total


@functools.cache
def _brook() -> np.ndarray:
    """Three hundred small bubbles a second, of standard deviation 1; taken in pieces, as noise is."""
    rng, length = np.random.default_rng(3), round(NOISE_S * SAMPLE_RATE)
    starts = rng.integers(0, length, round(300 * NOISE_S))
    bubbles = add_bubbles(np.zeros(length), rng, starts, (0.42, 1.85), 0.0)
    return bubbles / bubbles.std()


def pour_water(rng: np.random.Generator, speed: np.ndarray) -> np.ndarray:
    """Bubbles and noise as loud as the flow gives, and the column of air in the glass.

    Shapes:
        speed (S,): flow in parts of the highest -> (S,)
    """
    start = int(rng.integers(len(_brook()) - len(speed)))
    bubbles = _brook()[start : start + len(speed)]
    total = (bubbles + 0.4 * noise(rng, 430, 4900, len(speed))) * speed
    b, a = signal.iirpeak(600 * rng.uniform(0.8, 1.2), 5.3, fs=SAMPLE_RATE)
    sound: np.ndarray = total + 3.5 * signal.lfilter(b, a, total)
    return sound


def strike_bell(rng: np.random.Generator) -> Burst:
    """A church bell far away: the sound that no picture shows."""
    hz = rng.uniform(480, 620) * np.array(CHURCH_BELL) * rng.uniform(0.998, 1.002, 9)
    level = np.array([0.5, 1, 0.8, 0.4, 1, 0.3, 0.5, 0.3, 0.2])
    return _struck(rng, hz, level, decays(hz, 0.0004, 1.2), 4000, lambda: np.zeros(1))


ROOMS = 16


@functools.cache
def _room(number: int) -> np.ndarray:
    """Spectrum of a small room's answer: the direct sound, and echoes of 0.15 to 0.35 s (to -60 dB)."""
    rng = np.random.default_rng([number, 1])
    t = np.arange(round(0.35 * SAMPLE_RATE)) / SAMPLE_RATE
    answer = rng.normal(size=len(t)) * np.exp(-6.9 * t / rng.uniform(0.15, 0.35)) * (t > 0.004)
    answer *= 0.25 / np.sqrt((answer**2).sum())
    answer[0] = 1
    spectrum: np.ndarray = fft.rfft(answer.astype(np.float32), _fast_length())
    return spectrum


@functools.cache
def _fast_length() -> int:
    return int(fft.next_fast_len(SAMPLES + round(0.35 * SAMPLE_RATE), real=True))


@functools.cache
def _hum() -> np.ndarray:
    """Noise of a quiet room, which falls by 3 dB an octave, of standard deviation 1."""
    hz = fft.rfftfreq(round(NOISE_S * SAMPLE_RATE), 1 / SAMPLE_RATE)
    white = np.random.default_rng(1).normal(size=round(NOISE_S * SAMPLE_RATE))
    pink = fft.irfft(fft.rfft(white) / np.sqrt(np.maximum(hz, 60)))
    return (pink / pink.std()).astype(np.float32)


def in_a_room(rng: np.random.Generator, sound: np.ndarray, hum: float) -> np.ndarray:
    """A sound (SAMPLES,) with the echoes of a small room and its noise."""
    spectrum = fft.rfft(sound.astype(np.float32), _fast_length()) * _room(int(rng.integers(ROOMS)))
    start = int(rng.integers(len(_hum()) - SAMPLES))
    heard: np.ndarray = fft.irfft(spectrum, _fast_length())[:SAMPLES] + hum * _hum()[start : start + SAMPLES]
    return heard
