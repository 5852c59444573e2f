"""Whole runs with other front ends than AudioLDM's, from the clips to the sound of a film; and mismatches."""

import shutil
import wave

import pytest

from stav2a import recipe
from stav2a.cli.main import main
from stav2a.data.media import probe, read_audio
from stav2a.data.prepared import PreparedFolder, PreparedFolderError
from stav2a.data.struck_objects import StruckObjects
from stav2a.experiments.dry_run import dry_run
from stav2a.experiments.experiment import Experiment, Keys
from stav2a.experiments.run_folder import load
from stav2a.models.stav2a import STAV2A
from stav2a.training.corpus import check_prepared
from stav2a.utils.contents import Contents
from stav2a.utils.errors import StaV2AError

SMOKE = ("recipes/cn_onset_gvf.gin", "recipes/scale/smoke.gin")
COUNTS = {"train_clips": 4, "validation_clips": 2, "test_clips": 2}
SMALL = [f"dataset.struck_objects.{name} = {count}" for name, count in COUNTS.items()]
SMALL += ["run.metrics = []", "run.num_inference_steps = 1"]
MMAUDIO = [
    "run.front_end = @front_end.mmaudio_mel",
    "run.autoencoder = @autoencoder.mmaudio",
    "autoencoder.mmaudio.latent_channels = 4",
    "autoencoder.mmaudio.hidden_channels = 8",
    "autoencoder.mmaudio.mel_mean = -5.0",
    "run.vocoder = @vocoder.bigvgan",
    "vocoder.bigvgan.upsample_initial_channel = 64",
    "run.duration_s = 2.554195",  # 220 frames of 512 samples
]
OOBLECK = [
    "run.front_end = @front_end.waveform",
    "front_end.waveform.sample_rate = 24000",
    "run.autoencoder = @autoencoder.oobleck",
    "autoencoder.oobleck.hidden_size = 8",
    "autoencoder.oobleck.downsampling_ratios = (4, 8, 16)",
    "autoencoder.oobleck.channel_multiples = (1, 2, 2)",
    "autoencoder.oobleck.sample_rate = 24000",
    "stage.autoencoder.crop = 4096",
    "run.vocoder = @vocoder.none",
]
KINDS = {"mmaudio": (MMAUDIO, 44_100, (4, 110, 1)), "oobleck": (OOBLECK, 24_000, (4, 120, 1))}


def experiment(*bindings: str) -> Experiment:
    return recipe.load(SMOKE, bindings, root=Experiment).build()


def command(*bindings: str) -> list[str]:
    words = [word for path in SMOKE for word in ("--gin", path)]
    return words + [word for binding in bindings for word in ("--bind", binding)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_another_rate_is_trained_and_makes_the_sound_of_a_film(kind, tmp_path):
    bindings, rate, latent_shape = KINDS[kind]
    place = ["--output", str(tmp_path / "runs"), "--tracking-uri", "none"]
    assert main(["run", *command(*SMALL, *bindings), *place]) == 0
    (run,) = (path.parent for path in (tmp_path / "runs").glob("*/run.json"))
    assert load(run)[1].latent_shape == latent_shape
    for wav in (run / "samples").glob("*.wav"):
        with wave.open(str(wav)) as file:
            assert file.getframerate() == rate and file.getnframes() == pytest.approx(2.56 * rate, rel=0.01)
    film = next((run / "samples").glob("*.mp4"))
    shutil.copy(film, tmp_path / "film.mp4")
    assert main(["export", "--run", str(run), "--output", str(tmp_path / "model")]) == 0
    assert f", {rate} Hz, mono" in (tmp_path / "model/README.md").read_text()
    made = tmp_path / "made"
    given = [str(tmp_path / "film.mp4"), "--model", str(tmp_path / "model"), "--output", str(made)]
    assert main(["generate", *given]) == 0
    with wave.open(str(made / "film.wav")) as file:
        assert file.getframerate() == rate
        assert file.getnframes() == round(probe(tmp_path / "film.mp4").duration_s * rate)
    assert abs(read_audio(made / "film.wav", rate)).max() > 0


def keys(*bindings: str) -> dict[str, str]:
    return Keys(experiment(*bindings), Contents()).by_kind


def test_another_front_end_has_clips_of_its_own_in_the_store():
    plain, other = keys(), keys("run.front_end = @front_end.mmaudio_mel_16k")
    shared = {"dataset", "flows"}  # files of the clips, and the flow of their pictures
    assert {kind for kind in plain if plain[kind] == other[kind]} == shared
    rates = [
        keys("run.front_end = @front_end.waveform", f"front_end.waveform.sample_rate = {rate}")
        for rate in (16_000, 24_000)
    ]
    assert rates[0]["clips"] != rates[1]["clips"]


WRONG = {
    "bins": (
        ["run.autoencoder = @autoencoder.mmaudio", "autoencoder.mmaudio.hidden_channels = 8"],
        "autoencoder.mmaudio is made for 128 bins, and front_end.audioldm_mel gives 64 bins. Bind the "
        "run.front_end that this autoencoder is made for, or another run.autoencoder.",
    ),
    "rate": (
        ["run.vocoder = @vocoder.bigvgan", "vocoder.bigvgan.upsample_initial_channel = 64"],
        "vocoder.bigvgan is made for sound at 44100 Hz, and front_end.audioldm_mel gives sound at 16000 Hz. "
        "Bind the run.front_end that this vocoder is made for, or another run.vocoder.",
    ),
    "hop": (
        [
            "run.front_end = @front_end.mmaudio_mel_16k",
            "run.vocoder = @vocoder.hifigan",
            "vocoder.hifigan.upsample_initial_channel = 32",
        ],
        "vocoder.hifigan is made for a hop of 160 samples, and front_end.mmaudio_mel_16k gives a hop of 256 "
        "samples. Bind the run.front_end that this vocoder is made for, or another run.vocoder.",
    ),
    "division": (
        [*OOBLECK, "run.autoencoder = @autoencoder.kl"],
        "front_end.waveform gives 1 bins, which the autoencoder's downsampling of 8 does not divide. Bind "
        "another run.front_end or run.autoencoder.",
    ),
    "sampler": (
        [
            "run.front_end = @front_end.mmaudio_mel_16k",
            "run.feature_encoder = @feature_encoder.cavp_two_towers",
            "run.sampler = @sampler.similarity_guided",
            "run.duration_s = 3.072",
        ],
        "sampler.similarity_guided embeds decoded mels of front_end.audioldm_mel; the model has "
        "front_end.mmaudio_mel_16k. Bind run.front_end = @front_end.audioldm_mel, or another sampler.",
    ),
    "spectrograms": (
        [*OOBLECK, "run.vocoder = @vocoder.griffin_lim"],
        "vocoder.griffin_lim needs mel spectrograms; Waveform gives none. Bind run.vocoder = @vocoder.none "
        "for a front end of waveforms.",
    ),
}


@pytest.mark.parametrize(("bindings", "told"), WRONG.values(), ids=list(WRONG))
def test_parts_for_another_front_end_are_refused_in_one_line(bindings, told):
    with pytest.raises(StaV2AError) as error:
        dry_run(experiment("run.metrics = []", "run.classifier = None", "run.stages = []", *bindings))
    assert str(error.value) == told


def test_a_duration_that_is_told_divides():
    with pytest.raises(StaV2AError, match="220 frames.* such as 2.60064") as error:
        experiment("run.front_end = @front_end.mmaudio_mel").model()
    better = str(error.value).rsplit(" ", 1)[-1].rstrip(".")
    model = experiment("run.front_end = @front_end.mmaudio_mel", f"run.duration_s = {better}").model()
    assert model.latent_shape[1:] == (28, 16)


def test_a_model_of_another_front_end_comes_back(tmp_path):
    model = experiment(*OOBLECK).model()
    model.save_pretrained(tmp_path / "model")
    loaded = STAV2A.from_pretrained(tmp_path / "model")
    assert loaded.front_end.sample_rate == 24_000 and loaded.latent_shape == model.latent_shape


@pytest.mark.slow
def test_prepared_clips_have_what_the_front_end_gives_and_what_the_classifier_reads(tmp_path):
    world = StruckObjects(train_clips=1, validation_clips=1, test_clips=1)
    folder = world.clips(tmp_path / "world")[0].video.parents[1]
    output = tmp_path / "prepared"
    place = ["--manifest", str(folder / "manifest.csv"), "--videos", str(folder), "--output", str(output)]
    assert main(["prepare", *place, *command(*MMAUDIO), "--workers", "1"]) == 0
    prepared = PreparedFolder(output)
    assert prepared.tensor("mel").shape[1:] == (1, 220, 128)
    assert prepared.tensor("spectrogram").shape[1:] == (1, 255, 64)
    asked = {"onset_detector": prepared.settings["onset_detector"], "audio_peak": None, "filters": {}}
    assert check_prepared(prepared, experiment(*MMAUDIO).model(), **asked) == {}
    told = "front_end is front_end.mmaudio_mel there, front_end.audioldm_mel here"
    with pytest.raises(PreparedFolderError, match=told):
        check_prepared(prepared, experiment().model(), **asked)
