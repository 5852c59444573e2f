"""Notes on a clip: what is unusual about its file, and what was done about it."""

from dataclasses import dataclass

TEXTS = {
    "damaged frames": "{:g} damaged frames",
    "picture turned": "picture turned by {:g}°",
    "picture reduced": "picture reduced from {:g}×{:g} to {:g}×{:g} to fit into memory",
    "frames without times": "times of frames missing or not in order: taken as {:g} a second",
    "variable frame rate": "variable frame rate: {:.0f} to {:.0f} ms a frame",
    "channels averaged": "{:g} channels of sound averaged",
    "sound missing": "{:.2f} s missing in the sound, filled with silence",
    "sound late": "sound begins {:.2f} s after the picture: silence before it",
    "sound short": "sound ends {:.2f} s before the picture",
    "sound long": "sound lasts {:.2f} s longer than the picture: cut",
    "cut to duration": "picture and sound cut from {:.2f} s to {:g} s",
    "extended to duration": "last frame repeated from {:.2f} s to {:g} s",
}


@dataclass(frozen=True)
class ClipNote:
    """One note.

    Args:
        kind: Key of `TEXTS`.
        values: Numbers that the text of this kind asks for, in its order.

    Example:
        >>> str(ClipNote("sound short", (0.5,)))
        'sound ends 0.50 s before the picture'
    """

    kind: str
    values: tuple[float, ...] = ()

    def __str__(self) -> str:
        return TEXTS[self.kind].format(*self.values)
