"""Published files: downloaded in parts that can be continued, and checked by their sha256."""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from stav2a.utils.contents import file_hash
from stav2a.utils.errors import StaV2AError

SHA256_DIGITS = 64
REFUSED = (401, 403)
BEYOND_THE_END = 416  # the answer to the request for what follows a whole file


class DownloadError(StaV2AError):
    """A published file that can't be had, or is another one.

    Attributes:
        resumable: True where the received part is good, and the next attempt resumes after it.
    """

    def __init__(self, message: str, *, advice: str = "", resumable: bool = False) -> None:
        super().__init__(message, advice=advice)
        self.resumable = resumable


@dataclass(frozen=True)
class RemoteFile:
    """A published file.

    Args:
        name: Path below the folder that it is put into.
        address: An https address; or OWNER/REPOSITORY/PATH on the Hugging Face hub.
        revision: Commit on the hub; empty for the newest.
        sha256: Hash of its bytes, or the beginning of it; empty where it is not known.
        size: Number of bytes; 0 where it is not known.
    """

    name: str
    address: str
    revision: str = ""
    sha256: str = ""
    size: int = 0

    @property
    def repository(self) -> str:
        """Repository on the hub; empty for another address."""
        return "" if "://" in self.address else "/".join(self.address.split("/")[:2])

    @property
    def page(self) -> str:
        """Address to open in a browser."""
        return f"https://huggingface.co/{self.repository}" if self.repository else self.address


@dataclass(frozen=True)
class DownloadedFile:
    """Facts of a file that was downloaded.

    Args:
        address: Address that it came from.
        revision: Commit on the hub; empty for another address.
        sha256: Hash of its bytes.
        size: Number of bytes.
        announced: True where the hub named this hash before.
    """

    address: str
    revision: str
    sha256: str
    size: int
    announced: bool


@dataclass(frozen=True)
class _Source:
    url: str
    headers: dict[str, str]
    revision: str = ""
    sha256: str = ""
    size: int | None = None


def size_text(size: int) -> str:
    """A number of bytes with its unit.

    Example:
        >>> size_text(1_361_483_035), size_text(950_058), size_text(0)
        ('1.36 GB', '950 kB', 'not known')
    """
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size} B" if size else "not known"


def download(file: RemoteFile, path: Path, *, sha256: str = "") -> DownloadedFile:
    """Download a file, or the rest of it where a part lies there from before.

    Args:
        file: The file.
        path: Path to write; a part of it has `.part` at its end.
        sha256: Hash that is expected, where `file` has none.

    Raises:
        DownloadError: It can't be had, or has another hash; a file of another hash is removed.
    """
    expected = file.sha256 or sha256
    with _told(file, path):
        source = _locate(file)
        if source.sha256 and not source.sha256.startswith(expected):
            raise _wrong(file, f"the hub announces sha256 {source.sha256}", expected)
        if not path.is_file():
            part = path.with_name(f"{path.name}.part")
            part.parent.mkdir(parents=True, exist_ok=True)
            _check_room(file, source, part)
            _transfer(source, part)
            part.replace(path)
        found = file_hash(path)
    if not found.startswith(expected) or found != (source.sha256 or found):
        path.unlink()
        raise _wrong(file, f"what came has sha256 {found}", expected or source.sha256)
    return DownloadedFile(
        file.address, source.revision, found, path.stat().st_size, announced=bool(source.sha256)
    )


def _locate(file: RemoteFile) -> _Source:
    """The address to download from, and what the hub says of the file."""
    if not file.repository:
        return _Source(file.address, {}, size=file.size or None)
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    within = file.address.removeprefix(f"{file.repository}/")
    url = hf_hub_url(file.repository, within, revision=file.revision or None)
    found = get_hf_file_metadata(url)
    etag = found.etag or ""
    # The token is for the hub alone, not for the servers that it sends on to.
    headers = build_hf_headers() if urlsplit(found.location).netloc == urlsplit(url).netloc else {}
    sha256 = etag if len(etag) == SHA256_DIGITS else ""  # of large files; of others it is git's hash
    return _Source(found.location, headers, found.commit_hash or "", sha256, found.size)


def _transfer(source: _Source, part: Path) -> None:
    """Write the file to `part`, from its end on; connections that break are made again a few times."""
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.file_download import http_get

    def write() -> None:
        with part.open("ab") as opened:
            done = opened.tell()
            http_get(source.url, opened, resume_size=done, headers=source.headers, expected_size=source.size)

    try:
        write()
    except HfHubHTTPError as error:
        if error.response.status_code != BEYOND_THE_END:
            raise
        part.unlink()  # whole, or longer than the file is: it was not this file's
        write()


def _check_room(file: RemoteFile, source: _Source, part: Path) -> None:
    have = part.stat().st_size if part.is_file() else 0
    if (source.size or 0) - have > shutil.disk_usage(part.parent).free:
        raise _no_room(file, part, source.size or 0)


@contextlib.contextmanager
def _told(file: RemoteFile, path: Path) -> Iterator[None]:
    """Errors of the connection and of the disk as one line of what to do."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in REFUSED and file.repository:
            raise DownloadError(
                f"the hub does not give {file.address} ({status}): its authors ask for an agreement, "
                "or it is private.",
                advice=f"Open {file.page}, agree to its terms, log in with `hf auth login`, and try again.",
            ) from None
        raise _interrupted(file, f"the server answers {status}") from None
    except (HTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise _no_room(file, path, file.size) from None
        raise _interrupted(file, reason(error)) from None


def reason(error: BaseException) -> str:
    """First line of an error of the hub, or its kind."""
    return next((line for line in str(error).splitlines() if line), type(error).__name__)


def _interrupted(file: RemoteFile, why: str) -> DownloadError:
    advice = "What has come is kept: the same command goes on with it."
    return DownloadError(f"{file.address} can't be downloaded: {why}.", advice=advice, resumable=True)


def _no_room(file: RemoteFile, path: Path, size: int) -> DownloadError:
    free, name = size_text(shutil.disk_usage(path.parent).free), Path(file.name).name
    return DownloadError(
        f"no room for {name}: its size is {size_text(size)}, {free} are free in {path.parent}.",
        advice="Make room, or give an --output on another disk; the same command goes on.",
        resumable=True,
    )


def _wrong(file: RemoteFile, found: str, expected: str) -> DownloadError:
    return DownloadError(
        f"{file.address} is not the file that was expected: {found}, expected {expected}. It was not kept.",
        advice="Try once more; if it stays so, the authors published another file.",
    )
