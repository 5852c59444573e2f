"""Data filters: which clips are worth learning from (sec. III-A)."""

from stav2a.data.filters.alignment import AVAlignFilter
from stav2a.data.filters.captions import SpeechCaptions, speech_in
from stav2a.data.filters.clips import Duration, KeepAll, Silence, Static
from stav2a.data.filters.decision import Decision
from stav2a.data.filters.several import AllOf

__all__ = [
    "AVAlignFilter",
    "AllOf",
    "Decision",
    "Duration",
    "KeepAll",
    "Silence",
    "SpeechCaptions",
    "Static",
    "speech_in",
]
