"""The videos that are served: copies under names that tell nothing, all of a clip heard for one duration."""

import hashlib
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from stav2a.data.io import atomic, mux, probe, read_audio
from stav2a.listen.errors import ListenError
from stav2a.listen.systems import Material

BROWSER_CODECS = ("h264", "vp9", "av1")  # that every current browser plays in an mp4
RATE_HZ = 48_000  # of the sound that is put on a picture of --videos
_LENGTH_RATE_HZ = 8_000  # enough to tell how long a sound is
_CUT_S = 0.25  # less is the padding of codecs


@dataclass(frozen=True)
class Video:
    """One system's version of a clip.

    Args:
        token: Its name in the folder and in the browser, random.
        clip: Its clip.
        system: Its system.
        seconds: How much of it is played: as long as the shortest version of the clip.
        source: Hash of what it was made of.
    """

    token: str
    clip: str
    system: str
    seconds: float
    source: str


def prepare(material: Material, clips: Sequence[str], folder: Path) -> tuple[list[Video], list[str]]:
    """Copy the chosen clips of all systems.

    Returns:
        The videos, and sentences on what a listener could tell systems apart by.

    Raises:
        ListenError: A file that browsers don't play.
        MediaError: A file that can't be read, or has no sound.
    """
    folder.mkdir(parents=True, exist_ok=True)
    videos: list[Video] = []
    remarks: list[str] = []
    for clip in tqdm(clips, desc="videos", unit="clip", leave=False):
        tokens = {system: secrets.token_hex(16) for system in material.files}
        made = {
            system: _make(material, clip, system, folder / f"{token}.mp4") for system, token in tokens.items()
        }
        lengths = {system: seconds for system, (seconds, _) in made.items()}
        seconds = min(lengths.values())
        videos += [
            Video(token, clip, system, seconds, source(material, clip, system))
            for system, token in tokens.items()
        ]
        remarks += _remarks(clip, lengths, {system: size for system, (_, size) in made.items()})
    return videos, remarks


def source(material: Material, clip: str, system: str) -> str:
    """Hash of the contents that a video is made of."""
    files = [material.files[system][clip], *([material.pictures[clip]] if material.pictures else [])]
    digest = hashlib.sha256()
    for path in files:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _make(material: Material, clip: str, system: str, target: Path) -> tuple[float, tuple[int, int]]:
    """Write one video, and return how long it is to be heard, and its size."""
    own = material.files[system][clip]
    picture = material.pictures[clip] if material.pictures else own
    info = probe(picture)
    if info.codec not in BROWSER_CODECS:
        raise ListenError(
            f"{picture}: its picture is {info.codec}, which browsers don't play. "
            f"Convert it to one of {', '.join(BROWSER_CODECS)}."
        )
    if material.pictures:
        sound = read_audio(own, RATE_HZ)
        mux(picture, sound, RATE_HZ, target)
        sound_s = len(sound) / RATE_HZ
    else:
        sound_s = len(read_audio(own, _LENGTH_RATE_HZ)) / _LENGTH_RATE_HZ
        with atomic(target) as temporary:
            shutil.copyfile(own, temporary)
    return min(info.duration_s, sound_s), (info.width, info.height)


def _remarks(clip: str, lengths: Mapping[str, float], sizes: Mapping[str, tuple[int, int]]) -> list[str]:
    found = []
    shortest = min(lengths, key=lambda system: lengths[system])
    if max(lengths.values()) - lengths[shortest] > _CUT_S:
        found.append(f"{clip}: all versions end after {lengths[shortest]:.2f} s, like that of {shortest}.")
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{system} {width}×{height}" for system, (width, height) in sizes.items())
        found.append(
            f"{clip}: the pictures differ in size ({told}), and listeners may tell systems by it. "
            "--videos DIR puts all sounds on the same picture."
        )
    return found
