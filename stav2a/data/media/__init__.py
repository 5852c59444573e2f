"""Reading and writing of video and sound files, by PyAV. Bad files give a one-line `MediaError`."""

from stav2a.data.media.audio import read_audio
from stav2a.data.media.clip_notes import ClipNote
from stav2a.data.media.mixing import MixedSound, MixSettings, check_own_sound, loudness_lufs, mix_sounds
from stav2a.data.media.opening import ClipLimits, MediaError, VideoInfo, probe
from stav2a.data.media.shots import find_cuts
from stav2a.data.media.video import (
    Decoded,
    FrameGrid,
    decode,
    frame_count,
    frame_times,
    frames_at,
    probe_times,
    read_video,
    resample_frames,
)
from stav2a.data.media.writing import (
    check_output,
    container_for,
    mux,
    wav_bytes,
    write_clip,
    write_flac,
    write_wav,
)

__all__ = [
    "ClipLimits", "ClipNote", "Decoded", "FrameGrid", "MediaError", "MixSettings", "MixedSound", "VideoInfo",
    "check_output", "check_own_sound", "container_for", "decode", "find_cuts", "frame_count", "frame_times",
    "frames_at", "loudness_lufs", "mix_sounds", "mux", "probe", "probe_times", "read_audio", "read_video",
    "resample_frames", "wav_bytes", "write_clip", "write_flac", "write_wav",
]  # fmt: skip
