"""How much is read of one file: a small file can hold more than the memory, or more than a day's work."""

from dataclasses import dataclass
from pathlib import Path

from stav2a.data.io.errors import MediaError

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
                f"{path}: pictures of {width}×{height}; a clip's have at most {self.picture_pixels} pixels. "
                "Scale it down first."
            )
        if seconds > self.seconds:
            raise MediaError(
                f"{path}: {seconds:.0f} s long; a clip has at most {self.seconds:g} s. Cut it into clips."
            )
        if frames > self.frames:
            raise MediaError(
                f"{path}: {frames} frames; a clip has at most {self.frames}. Lower its frame rate first."
            )
        if decoded > self.frame_bytes and decoded > self.expansion * held:
            raise MediaError(
                f"{path}: {held} bytes hold {decoded / 1e9:.1f} GB of pictures, {decoded // held}:1, which "
                "no camera makes. Leave it out."
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
