"""What goes wrong with media files, in one line: what came, what was expected, what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av


class MediaError(ValueError):
    """A media file that can't be read or written. Its text is one line, whatever the file is called."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


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
        raise MediaError(f"{path}: {doing} ({reason}). {advice}") from error
