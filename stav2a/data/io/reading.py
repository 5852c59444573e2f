"""Reading the pictures of a stretch of a video, of any length, without its sound."""

from pathlib import Path

import numpy as np
from av.video.reformatter import VideoReformatter

from stav2a.data.io.errors import MediaError
from stav2a.data.io.opening import COMPLETE, opened, stamp, timeline, video_stream
from stav2a.data.io.pictures import picture
from stav2a.data.io.resampling import fit_picture, frame_count, nearest


def read_video(
    path: Path | str,
    *,
    frame_rate_hz: float | None = None,
    size: int | tuple[int, int] | None = None,
    start_s: float = 0.0,
    duration_s: float | None = None,
    gray: bool = False,
) -> np.ndarray:
    """Frames of a stretch of a video, never holding more than those asked for.

    Args:
        path: A video file.
        frame_rate_hz: Take the frames nearest to the ticks of this rate; by default every frame.
        size: Squash to this (height, width), or square.
        start_s: Where the stretch begins.
        duration_s: How long it is; by default to the end. With a rate, the last frame is held beyond the end.
        gray: Return luminance instead of RGB.

    Shapes:
        (L, H, W, 3) uint8 RGB, or (L, H, W) uint8 if gray

    Raises:
        MediaError: If the file is not a complete video, or the stretch holds no frame.
    """
    path = Path(path)
    size = (size, size) if isinstance(size, int) else size
    with opened(path) as container:
        stream = video_stream(container, path)
        stamps, end = timeline(container, stream, path)
        tick = float(stream.time_base)
        pts_s = (np.asarray(stamps) - stamps[0]) * tick
        duration_s = (end - stamps[0]) * tick - start_s if duration_s is None else duration_s
        if frame_rate_hz is None:
            inside = (pts_s > start_s - tick / 2) & (pts_s < start_s + duration_s - tick / 2)
            chosen = np.flatnonzero(inside)
        else:
            ticks = np.arange(frame_count(duration_s, frame_rate_hz)) / frame_rate_hz
            chosen = nearest(pts_s, start_s + ticks)
        if len(chosen) == 0 or not 0 <= start_s <= pts_s[-1]:
            raise MediaError(
                f"{path}: no frame from {start_s:g} s on for {duration_s:g} s; the last is at "
                f"{pts_s[-1]:.2f} s. Choose a stretch inside the video."
            )
    pictures = _decode_only(path, {stamps[index] for index in chosen}, size, gray)
    return np.stack([pictures[stamps[index]] for index in chosen])


def _decode_only(
    path: Path, wanted: set[int], size: tuple[int, int] | None, gray: bool
) -> dict[int, np.ndarray]:
    """Decode from the key frame before the first wanted stamp to the last wanted one; keep the wanted."""
    pictures: dict[int, np.ndarray] = {}
    converter = VideoReformatter()
    with opened(path) as container:
        stream = video_stream(container, path)
        container.seek(min(wanted), stream=stream)
        for frame in container.decode(stream):
            if stamp(frame) in wanted:
                pictures[stamp(frame)] = fit_picture(picture(frame, converter), size, gray)
            if len(pictures) == len(wanted):
                return pictures
    raise MediaError(f"{path}: damaged: {len(wanted) - len(pictures)} frames can't be decoded. {COMPLETE}")
