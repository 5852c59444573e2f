"""Captions that speak of human speech. The paper leaves such clips out (sec. III-A)."""

import re

from stav2a.data.filters.decision import Decision
from stav2a.data.io import Decoded
from stav2a.registry import register

# Verbs, each with its endings -, -e, -s, -es, -ed, -ing.
VERBS = """
    announc argu ask babbl chat chatt chatter commentat convers discuss exclaim explain gossip interview
    lectur mumbl murmur mutter narrat pray preach recit say shout speak talk tell whisper yell
""".split()
WORDS = """
    announcement announcements announcer announcers argument arguments auctioneer commentary commentaries
    commentator commentators conversation conversations dialog dialogs dialogue dialogues discussion
    discussions explanation interviewer lecturer monologue monologues narration narrations narrator narrators
    newscaster newsreader podcast preacher replied replies reply said sermon sermons speech speeches spoke
    spoken storyteller told vocal vocalist vocals voice voices voiceover voiceovers
""".split()
ANIMALS = "bird|crow|dolphin|magpie|mynah?|parrot|raven|chipmunk|monkey|squirrel|chimpanzee"
WATER = "brook|creek|fountain|river|stream|water"
WIND = "breeze|grass|leaves|pines|sea|trees|waves|winds?"
SPOKEN = "speak(s|ing)?|speech|talk(s|ing)?|voices?|vocals?|narration|conversation|commentary|dialogue"
# Phrases with such a word in which nobody speaks. Devices need none: a "loudspeaker" is another word.
HARMLESS = (
    rf"(no|not|nobody|none|without)( (any|anyone|audible|human|is|are|more|one|people))* ({SPOKEN})",
    r"talking (drum|clock|doll|robot|toy)s?|talk ?box(es)?",
    rf"(talking|chattering|speaking|whispering) ({ANIMALS})s?",
    rf"({ANIMALS})s?( \w+)? (talk|chat|chatter|argu|babbl|murmur|whisper)(e|s|es|ed|ing)?",
    r"teeth( \w+)? chatter(s|ed|ing)?|chattering (of )?teeth",
    rf"({WATER})( \w+)? (babbl|murmur|whisper|chatter)(e|s|es|ed|ing)?",
    rf"(babbling|murmuring|chattering) ({WATER})s?",
    rf"({WIND})( \w+)? (whisper|murmur)(s|ed|ing)?|(whispering|murmuring) ({WIND})",
    r"(voices? (sings?|singing)|singing voices?|voices? of (a|the) choir|choir voices?)",
    r"vocal (sac|cord|fold|sack)s?|(so to|needless to|that is to) (speak|say)",
)
_HARMLESS = re.compile(rf"\b({'|'.join(HARMLESS)})\b")
_SPEECH = re.compile(rf"\b(({'|'.join(VERBS)})(e|s|es|ed|ing)?|{'|'.join(WORDS)}|voice-overs?)\b")


def speech_in(caption: str) -> str | None:
    """The word by which a caption speaks of human speech; None if it does not.

    Example:
        >>> speech_in("A man is speaking over a car engine"), speech_in("A loudspeaker plays music")
        ('speaking', None)
    """
    text = _HARMLESS.sub(" ", " ".join(caption.lower().split()))
    found = _SPEECH.search(text)
    return found[0] if found else None


@register("data_filter", "speech_captions")
class SpeechCaptions:
    """Keep clips whose caption speaks of no human speech: nobody talks, narrates, whispers (sec. III-A).

    English captions, by word lists. Singing is no speech, but "vocals" and "voices" are.
    """

    def __call__(self, clip: Decoded) -> Decision:
        word = speech_in(clip.caption)
        if word is None:
            return Decision(True, None, "kept: the caption speaks of no speech", "speech_captions")
        return Decision(False, None, f'rejected: speech in the caption ("{word}")', "speech_captions")
