"""STA-V2A: semantically and temporally aligned sound for silent video, with every part swappable by recipe.

Importing the package imports nothing heavy; `stav2a --help` lists what can be done from a shell.
"""

__version__ = "0.1.0"
__all__ = ["VideoToAudioPipeline", "__version__"]  # noqa: F822 - imported when it is asked for


def __getattr__(name: str) -> object:
    if name != "VideoToAudioPipeline":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from stav2a.pipeline import VideoToAudioPipeline

    return VideoToAudioPipeline
