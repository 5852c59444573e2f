"""What goes wrong with media files, in one line: what came, what was expected, what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av


class MediaError(ValueError):
    """A media file that can't be read or written."""


@contextmanager
def explained(path: Path, doing: str, advice: str) -> Iterator[None]:
    """Turn what PyAV and the file system raise into a MediaError."""
    try:
        yield
    except MediaError:
        raise
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MediaError(f"{path}: {doing} ({reason}). {advice}") from error
