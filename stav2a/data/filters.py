"""Data filters: which clips are fit to train on, and the decisions that record why."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from stav2a.data.media import Decoded
from stav2a.data.onsets import Librosa
from stav2a.data.optical_flow import Farneback, clip_motion
from stav2a.metrics.alignment import aa_align, video_peaks_s
from stav2a.metrics.judges.judge import judges_on
from stav2a.metrics.judges.yamnet import LIKELY, YAMNetWindows
from stav2a.recipe import describing
from stav2a.registry import expect, register
from stav2a.slots import DataFilter, OnsetDetector, OpticalFlow
from stav2a.utils.checkpoints import CheckpointError
from stav2a.utils.contents import Contents
from stav2a.utils.errors import UsageError

FLOOR_DB = -120.0  # level of silence


@dataclass(frozen=True)
class Decision:
    """A filter's decision on one clip.

    Args:
        keep: Whether the clip is kept.
        score: Figure behind the decision; None where there is none.
        reason: The decision in words.
        rule: Name of the filter that decided.
    """

    keep: bool
    score: float | None
    reason: str
    rule: str = ""


def at_least(bound: float, score: float, unit: str, rule: str) -> Decision:
    """Keep a clip whose score reaches a bound; the reason says so: "rejected: 1.20 < 2 s"."""
    keep = bool(score >= bound)
    word, sign = ("kept", "≥") if keep else ("rejected", "<")
    return Decision(keep, float(score), f"{word}: {score:.2f} {sign} {bound:g} {unit}", rule)


def at_most(bound: float, score: float, unit: str, rule: str) -> Decision:
    """Keep a clip whose score does not exceed a bound; the reason says so: "rejected: 0.45 > 0.1 of it"."""
    keep = bool(score <= bound)
    word, sign = ("kept", "≤") if keep else ("rejected", ">")
    return Decision(keep, float(score), f"{word}: {score:.2f} {sign} {bound:g} {unit}", rule)


def filter_key(factory: Callable[..., object], contents: Contents | None = None) -> str:
    """Key of a filter's decisions in the store: the signature of its description, files by their content."""
    return describing.signature(describing.describe(factory, contents))


@register("data_filter", "none")
class KeepAll:
    """Keep every clip."""

    def __call__(self, clip: Decoded) -> Decision:
        return Decision(True, None, "kept: no filter", "none")


@register("data_filter", "duration")
class Duration:
    """Keep clips that are long enough and not too long.

    Args:
        shortest_s: Shortest duration of picture and sound, in seconds.
        longest_s: Longest duration of the picture, in seconds.
    """

    def __init__(self, *, shortest_s: float = 2.0, longest_s: float = 60.0) -> None:
        self.shortest_s, self.longest_s = shortest_s, longest_s

    def __call__(self, clip: Decoded) -> Decision:
        if clip.duration_s > self.longest_s:
            reason = f"rejected: {clip.duration_s:.2f} > {self.longest_s:g} s"
            return Decision(False, float(clip.duration_s), reason, "duration")
        common_s = min(clip.duration_s, len(clip.audio) / clip.sample_rate)
        return at_least(self.shortest_s, common_s, "s", "duration")


@register("data_filter", "silence")
class Silence:
    """Keep clips that are not silent: the loudest tenth of a second is above a level.

    Args:
        threshold_db: The lowest level that is kept, in dB below full scale (root mean square).
    """

    def __init__(self, *, threshold_db: float = -50.0) -> None:
        self.threshold_db = threshold_db

    def __call__(self, clip: Decoded) -> Decision:
        return at_least(self.threshold_db, loudest_db(clip.audio, clip.sample_rate), "dB", "silence")


def loudest_db(audio: np.ndarray, sample_rate: int) -> float:
    """Root mean square of the loudest tenth of a second, in dB of full scale; -120 at least.

    Example:
        >>> loudest_db(np.full(1000, 0.1), 1000)
        -20.0
    """
    size = max(1, min(len(audio), sample_rate // 10))
    pieces = audio[: len(audio) // size * size].reshape(-1, size).astype(np.float64)
    power = float((pieces**2).mean(axis=1).max(initial=0.0))
    return round(max(FLOOR_DB, 10 * math.log10(max(power, 1e-12))), 2)


@register("data_filter", "static")
class Static:
    """Keep clips whose picture changes, to leave out slide shows and still pictures with music.

    A picture has changed if, at 64 pixels' width, some part differs from the one before by more than the
    noise of cameras and codecs.

    Args:
        change: Least difference of a changed part, in grey levels of 255.
        fraction: The lowest fraction of pictures that have changed, of those that follow another.
    """

    def __init__(self, *, change: float = 2.0, fraction: float = 0.05) -> None:
        self.change, self.fraction = change, fraction

    def __call__(self, clip: Decoded) -> Decision:
        changed = changes(clip.frames) > self.change
        score = float(changed.mean()) if len(changed) else 0.0
        return at_least(self.fraction, score, "of the pictures changed", "static")


def changes(frames: np.ndarray) -> np.ndarray:
    """Difference between successive pictures in the part that changes most, in grey levels.

    Shapes:
        frames (N, H, W, 3) uint8 -> (N - 1,)
    """
    height, width = frames.shape[1:3]
    size = (64, max(1, round(64 * height / width)))
    grey = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames)
    small = [cv2.resize(each, size, interpolation=cv2.INTER_AREA) for each in grey]
    return np.array(
        [cv2.absdiff(a, b).max() for a, b in zip(small, small[1:], strict=False)], dtype=np.float64
    )


@register("data_filter", "av_align")
class AVAlignFilter:
    """Keep clips whose sound begins when the picture moves: AV-Align of at least a threshold [17].

    Args:
        threshold: The lowest score that is kept.
        detector: Onset detector of the sound; librosa's is the metric's definition.
        flow: Optical flow of the picture; Farneback's is the metric's definition.
        flow_size: Shorter side to which pictures are reduced before; None is the native size, the definition.
        tolerance_frames: Distance within which an onset matches a peak of motion, exclusive; 1 is the
            definition.
    """

    def __init__(
        self,
        *,
        threshold: float = 0.2,
        detector: Callable[[], OnsetDetector] = Librosa,
        flow: Callable[[], OpticalFlow] = Farneback,
        flow_size: int | None = None,
        tolerance_frames: float = 1.0,
    ) -> None:
        self.threshold, self.detect = threshold, expect("onset_detector", detector)()
        self.flow, self.flow_size = expect("optical_flow", flow)(), flow_size
        self.tolerance_frames = tolerance_frames

    def __call__(self, clip: Decoded) -> Decision:
        if len(clip.frames) < 3:
            reason = f"rejected: {len(clip.frames)} frames, too few for motion"
            return Decision(False, None, reason, "av_align")
        onsets = self.detect(clip.audio, clip.sample_rate)
        motion = clip_motion(clip, self.flow_size, self.flow)
        peaks = video_peaks_s(motion, clip.frame_rate_hz, times_s=clip.times_s)
        tolerance_s = self.tolerance_frames / clip.frame_rate_hz
        score = aa_align(onsets, peaks, tolerance_s=tolerance_s, matching="released")
        if math.isnan(score):
            return Decision(False, None, "rejected: no onset and no motion", "av_align")
        found = f"({len(onsets)} onsets, {len(peaks)} peaks of motion)"
        return at_least(self.threshold, score, found, "av_align")


# Verbs of speaking, each with its endings -, -e, -s, -es, -ed, -ing.
VERBS = """
    announc argu ask babbl banter bicker chat chatt chatter comment commentat communicat convers debat
    describ dictat discuss enunciat exclaim explain gossip inquir instruct interview lectur mumbl murmur
    mutter narrat orat pray preach pronounc recit remark say shout speak talk tell whisper yell
""".split()
WORDS = """
    announcement announcements announcer announcers argument arguments auctioneer commentary commentaries
    commentator commentators conversation conversations dialog dialogs dialogue dialogues discussion
    discussions eulogy explanation instructions interviewer lecturer monologue monologues narration
    narrations narrator narrators newscaster newsreader podcast preacher replied replies said sermon
    sermons speech speeches spoke spoken storyteller told vocal vocalist vocals voice voices voiceover
    voiceovers
""".split()
# Verbs that mean speech where a human is the subject: "a boy calls out", but no bird.
HUMAN = """
    adult anchor announcer astronaut auctioneer boy boys captain child children coach commentator crew
    dispatcher doctor driver emcee father female gentleman girl girls guide guy guys he host hostess
    instructor judge kid kids ladies lady lawyer leader male man manager mc men mother narrator nurse
    officer operator people person persons pilot player politician presenter priest referee reporter
    sergeant she soldiers somebody someone speaker student teacher they trainer vendor voice woman women
""".split()
SPOKEN_BY_HUMANS = "|".join(
    (
        r"address(es|ed|ing)",
        r"(present|question|report|utter)(s|ed|ing)",
        r"(greet|respond)(s|ed|ing)?(?! with (applause|cheers|laughter))",
        r"answer(s|ed|ing)?",
        r"(introduc|reassur)(e|es|ed|ing)",
        r"call(s|ed|ing)? out",
        r"count(s|ed|ing)? (down|to|aloud|out|from)",
        r"read(s|ing)? (aloud|out|a|an|the|from|to)",
        r"exchang(e|es|ed|ing) (words|greetings|pleasantries)",
        r"(bark|giv|shout)(s|es|ed|ing)? (orders|commands)",
        r"(plead|recount|swear)(s|ed|ing)?",
        r"tak(e|es|ing) bids",
        r"radio(s|ed|ing)",
    )
)
ANIMALS = (
    "animal|bird|budgie|canary|cat|chicken|chimpanzee|chipmunk|cricket|crow|dog|dolphin|duck|frog|goose|geese|"
    "gull|hen|husky|insect|jay|kitten|magpie|monkey|mynah?|owl|parrot|pigeon|puppy|raven|sparrow|squirrel|whale"
)
MACHINES = "bell|clock|drill|engine|fan|gear|guitar|gun|key|machine|motor|printer|rifle|synth|tool|typewriter"
WATER = "brook|creek|fountain|river|stream|water"
WIND = "breeze|rain|grass|leaves|pines|sea|trees|waves|winds?"
SPOKEN = "speak(s|ing)?|speech|talk(s|ing)?|voices?|vocals?|narration|conversation|commentary|dialogue"
MADE = "talk|chat|chatter|argu|babbl|communicat|convers|exclaim|gossip|murmur|mutter|mumbl|tell|whisper"

# Phrases with such a word that are not about speech. Devices need none: a "loudspeaker" is another word.
HARMLESS = (
    rf"(no|not|nobody|none|without)( (any|anyone|audible|human|is|are|more|one|people))* ({SPOKEN})",
    r"talking (drum|clock|doll|robot|toy)s?|talk ?box(es)?",
    rf"(talking|chattering|speaking|whispering|murmuring) ({ANIMALS})s?",
    rf"({ANIMALS}|{MACHINES})s?( (is|are|\w+ly))? ({MADE})(e|s|es|ed|ing)?",
    r"(baby|babies|infants?)( \w+)? babbl(e|es|ed|ing)",
    r"teeth( \w+)? chatter(s|ed|ing)?|chattering (of )?teeth",
    rf"({WATER})( \w+)? (babbl|murmur|whisper|chatter)(e|s|es|ed|ing)?",
    rf"(babbling|murmuring|chattering) ({WATER})s?",
    rf"({WIND})( \w+)? (whisper|murmur)(s|ed|ing)?|(whispering|murmuring) ({WIND})",
    r"(voices? (sings?|singing)|singing voices?|voices? of (a|the) (choir|wind|sea)|choir('s)? voices?)",
    r"vocal (sac|cord|fold|sack)s?|(so to|needless to|that is to) (speak|say)",
    r"praying mantis(es)?|heart murmurs?|(bicycle|bike|wheel) spoke|lecture (hall|room|theater|theatre)",
    r"comment (box|card|section)|speaking (tube|clock)|announc(e|es|ed|ing) (itself|themselves)",
)
_HARMLESS = re.compile(rf"\b({'|'.join(HARMLESS)})\b")
_SPEECH = re.compile(rf"\b(({'|'.join(VERBS)})(e|s|es|ed|ing)?|{'|'.join(WORDS)}|voice-overs?|phone call)\b")
_BY_HUMANS = re.compile(
    rf"\b({'|'.join(HUMAN)})(?! (nobody|no one))( (?!and\b|as\b|while\b|then\b)\w+){{0,4}}? "
    rf"(?P<verb>{SPOKEN_BY_HUMANS})\b"
)


def speech_in(caption: str) -> str | None:
    """The word of a caption that names human speech; None if there is none.

    Example:
        >>> speech_in("A man is speaking over a car engine"), speech_in("A loudspeaker plays music")
        ('speaking', None)
    """
    text = _HARMLESS.sub(" ", " ".join(caption.lower().split()))
    if found := _SPEECH.search(text):
        return found[0]
    by_humans = _BY_HUMANS.search(text)
    return by_humans["verb"] if by_humans else None


@register("data_filter", "speech_captions")
class SpeechCaptions:
    """Keep clips whose caption names no human speech, such as talking, narrating, whispering (sec. III-A).

    English captions, by word lists. Singing is no speech, but "vocals" and "voices" are.
    """

    version = "2"  # raise it with every change of the lists

    def __call__(self, clip: Decoded) -> Decision:
        word = speech_in(clip.caption)
        if word is None:
            return Decision(True, None, "kept: the caption speaks of no speech", "speech_captions")
        return Decision(False, None, f'rejected: speech in the caption ("{word}")', "speech_captions")


@register("data_filter", "speech_sound")
class SpeechSound:
    """Keep clips whose sound contains little human speech, by the share of windows with speech.

    It finds speech that a caption leaves out. Singing is no speech.

    Args:
        judge: Model that gives each window's probability of speech.
        threshold: Probability above which a window counts as speech.
        share: The largest share of such windows that is kept.

    Raises:
        CheckpointError: The judge lacks its weights, or they belong to another model.
        UsageError: The judge gives no windows of speech.
    """

    def __init__(
        self,
        *,
        judge: Callable[[], Any] = YAMNetWindows,
        threshold: float = LIKELY,
        share: float = 0.1,
    ) -> None:
        with judges_on("cpu"):  # filters run in many processes
            self.judge = expect("judge", judge)()
        self.threshold, self.share = threshold, share
        if self.judge.fault:
            what, advice = getattr(self.judge, "missing", None) or (self.judge.fault, "")
            raise CheckpointError(
                f"data_filter.speech_sound: {what}.", advice=advice and f"{advice[0].upper()}{advice[1:]}."
            )
        # A damaged file, or a judge of something else, is told now and not as a fault of every clip.
        getattr(self.judge, "prepare", lambda: None)()
        self._speech(np.zeros(16_000, np.float32), 16_000)  # a second of silence

    def _speech(self, audio: np.ndarray, sample_rate: int) -> np.ndarray:
        """Probability of speech in each window (W,)."""
        found = np.asarray(self.judge(audio, sample_rate))
        if "speech" not in (found.dtype.names or ()):
            raise UsageError(
                f"data_filter.speech_sound was given judge {self.judge.name}, which gives {found.dtype}; "
                "expected records with a field speech."
            )
        return found["speech"]

    def __call__(self, clip: Decoded) -> Decision:
        heard = self._speech(clip.audio, clip.sample_rate) > self.threshold
        return at_most(self.share, float(heard.mean()), "of the windows have speech", "speech_sound")


@register("data_filter", "all_of")
class AllOf:
    """Keep clips that several filters keep, applied in order; the first that rejects a clip decides.

    Put cheap ones first: later ones do not see the clips that they reject.

    Args:
        filters: Other filters; the paper's are `[@data_filter.speech_captions, @data_filter.av_align]`.
    """

    def __init__(self, *, filters: Sequence[Callable[[], DataFilter]]) -> None:
        if not filters:
            raise UsageError("data_filter.all_of was given no filter. Name some, or take @data_filter.none.")
        self.filters = [expect("data_filter", each)() for each in filters]

    def __call__(self, clip: Decoded) -> Decision:
        for data_filter in self.filters:
            decision: Decision = data_filter(clip)
            if not decision.keep:
                break
        return decision
