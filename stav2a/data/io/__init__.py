"""Reading and writing of video and sound files, by PyAV. Bad files give a one-line `MediaError`."""

from stav2a.data.io.decoding import Decoded, decode, resample_frames
from stav2a.data.io.errors import MediaError
from stav2a.data.io.limits import ClipLimits
from stav2a.data.io.opening import VideoInfo, probe
from stav2a.data.io.reading import read_video
from stav2a.data.io.resampling import fit_audio, frame_count, resample_audio
from stav2a.data.io.sound import read_audio
from stav2a.data.io.writing import atomic, check_copyable, mux, write_clip, write_wav

__all__ = [
    "ClipLimits",
    "Decoded",
    "MediaError",
    "VideoInfo",
    "atomic",
    "check_copyable",
    "decode",
    "fit_audio",
    "frame_count",
    "mux",
    "probe",
    "read_audio",
    "read_video",
    "resample_audio",
    "resample_frames",
    "write_clip",
    "write_wav",
]
