"""A second encoder of the video, whose features the local head takes in place of the first one's."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from stav2a import recipe
from stav2a.cli.main import main
from stav2a.components.feature_encoders import CAVP
from stav2a.data.media import Decoded
from stav2a.data.mel import SAMPLE_RATE
from stav2a.data.prepared import PreparedFolder, PreparedFolderError
from stav2a.data.struck_objects import StruckObjects
from stav2a.experiments.dry_run import dry_run
from stav2a.experiments.experiment import Experiment, Keys
from stav2a.experiments.run_folder import load
from stav2a.models import audit
from stav2a.models.stav2a import STAV2A, as_video, encode_captions
from stav2a.recipe.parsing import RecipeError
from stav2a.sampling import FastSampler, ReferenceSampler, ddim
from stav2a.sampling.guiders import TwoWeights
from stav2a.sampling.video_to_audio import video_to_audio
from stav2a.training.corpus import PreparedCorpus, encode_frames
from stav2a.utils.contents import Contents
from stav2a.utils.errors import UsageError
from stav2a.utils.store import Store
from tests import tiny

TIMING = partial(CAVP, width=4, blocks=(1, 1), dim=10, frame_rate_hz=25.0, frame_size=24)
SMOKE = ("recipes/cn_onset_gvf.gin", "recipes/scale/smoke.gin")
COUNTS = [
    f"dataset.struck_objects.{split}_clips = {count}"
    for split, count in {"train": 6, "validation": 2, "test": 2}.items()
]
# Meaning at 2 frames a second of 28 pixels, timing at 12.5 of 32.
TWO = [
    "run.feature_encoder = @feature_encoder.clip",
    "feature_encoder.clip.dim = 24",
    "feature_encoder.clip.width = 64",
    "feature_encoder.clip.layers = 1",
    "feature_encoder.clip.frame_size = 28",
    "run.temporal_encoder = @feature_encoder.cavp",
    "run.stages = [@stage.autoencoder, @stage.t2a_pretrain, @stage.onset, @stage.joint]",
]


def made(**changes: Any) -> STAV2A:
    model = tiny.model(temporal_encoder=TIMING, **changes)
    tiny.shake(model)
    return model


@pytest.fixture(scope="module")
def model() -> STAV2A:
    return made()


def features(model: STAV2A, clips: int = 2) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    lengths = {"feature_encoder": 8, "temporal_encoder": 16}
    return [
        torch.randn(clips, lengths[slot], model.block(slot).dim, generator=rng) for slot in model.encoders
    ]


def test_the_local_head_takes_its_features_and_the_pooler_the_others(model):
    assert model.encoders == ("feature_encoder", "temporal_encoder") and tiny.model().encoders == (
        "feature_encoder",
    )
    e_v, e_tv = features(model)
    tokens = encode_captions(model, tiny.CAPTIONS)
    given = model.condition(e_v, *tokens, e_tv)
    other = model.condition(e_v, *tokens, -e_tv)
    assert torch.equal(given.c, other.c) and not torch.equal(given.e_lv, other.e_lv)
    other = model.condition(-e_v, *tokens, e_tv)
    assert not torch.equal(given.c, other.c) and torch.equal(given.e_lv, other.e_lv)


def test_features_that_are_missing_or_too_many_are_refused(model):
    e_v, e_tv = features(model)
    with pytest.raises(UsageError) as error:
        model.condition(e_v, *encode_captions(model, tiny.CAPTIONS))
    assert str(error.value) == (
        "The model has a temporal encoder, but its features e_tv were not given. "
        "Give the features of each of `model.encoders`."
    )
    one = tiny.model()
    with pytest.raises(UsageError, match="has no temporal encoder, but its features e_tv were given"):
        one.condition(e_v, *encode_captions(one, tiny.CAPTIONS), e_tv)


def test_both_samplers_condition_on_both(model):
    e_v, e_tv = features(model)
    settings: dict[str, Any] = {
        "scheduler": ddim("v_prediction"),
        "num_inference_steps": 3,
        "guidance_scale": 2.0,
        "seeds": [0, 1],
        "guider": TwoWeights(),  # which also needs the branch of no video
    }
    plain, fast = (
        sampler()(model, e_v, tiny.CAPTIONS, e_tv=e_tv, **settings)
        for sampler in (ReferenceSampler, FastSampler)
    )
    torch.testing.assert_close(plain, fast, atol=1e-4, rtol=1e-4)
    other = ReferenceSampler()(model, e_v, tiny.CAPTIONS, e_tv=-e_tv, **settings)
    assert not torch.allclose(plain, other, atol=1e-3)


def film(duration_s: float) -> Decoded:
    """Noise at 50 frames a second."""
    frames = np.random.default_rng(0).integers(0, 255, (round(50 * duration_s), 24, 24, 3), np.uint8)
    times_s, silence = np.arange(len(frames)) / 50, np.zeros(0, np.float32)
    return Decoded(frames, times_s, 50.0, duration_s, silence, SAMPLE_RATE)


def sound(model: STAV2A) -> np.ndarray:
    settings: dict[str, Any] = {"num_inference_steps": 2, "guidance_scale": 1.0}
    (made,) = video_to_audio(
        model, film(1.5), sampler=FastSampler(), scheduler=ddim("v_prediction"), **settings
    )
    return made


def test_a_saved_model_makes_the_same_sound_of_a_long_video(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "temporal_encoder" / "model.safetensors").is_file()
    loaded = STAV2A.from_pretrained(tmp_path / "model")
    assert loaded.encoders == model.encoders and loaded.described == model.described
    assert np.array_equal(sound(loaded), sound(model))
    other = STAV2A.from_pretrained(tmp_path / "model", temporal_encoder=TIMING)
    assert not np.array_equal(sound(other), sound(model))


def test_windows_of_both_encoders_begin_together(model, monkeypatch):
    seen: dict[str, torch.Tensor] = {}
    for slot in model.encoders:
        block = model.block(slot)

        def forward(video: torch.Tensor, slot: str = slot, own: Any = block.forward) -> torch.Tensor:
            seen[slot] = video
            return own(video)

        monkeypatch.setattr(block, "forward", forward)
    brightness = np.arange(75, dtype=np.uint8)[:, None, None, None].repeat(24, 1).repeat(24, 2).repeat(3, 3)
    long = Decoded(brightness, np.arange(75) / 50, 50.0, 1.5, np.zeros(0, np.float32), SAMPLE_RATE)
    settings: dict[str, Any] = {"num_inference_steps": 1, "guidance_scale": 1.0}
    video_to_audio(model, long, sampler=FastSampler(), scheduler=ddim("v_prediction"), **settings)
    starts = {slot: (255 * video[:, 0].mean(dim=(1, 2, 3))).tolist() for slot, video in seen.items()}
    assert seen["feature_encoder"].shape[1:3] == (8, 3) and seen["temporal_encoder"].shape[1:3] == (16, 3)
    assert len(starts["temporal_encoder"]) == 3
    for ours, theirs in zip(starts["feature_encoder"], starts["temporal_encoder"], strict=True):
        assert ours == pytest.approx(theirs, abs=2)  # half a frame of 12.5 a second is two of 50


def test_the_audit_counts_it_once(model):
    counts = audit.parameter_counts(model)
    assert counts["temporal_encoder"] == sum(p.numel() for p in model.temporal_encoder.parameters())
    assert sum(counts.values()) == sum(p.numel() for p in model.parameters())
    assert "temporal_encoder" not in audit.parameter_counts(tiny.model())


@pytest.mark.parametrize(
    ("bindings", "told"),
    [
        (
            ["run.temporal_encoder = @vocoder.griffin_lim"],
            "Write @feature_encoder.NAME with one of: cavp,",
        ),
        (
            ["run.temporal_encoder = @feature_encoder.cavp"],
            "run.temporal_encoder and run.feature_encoder are both feature_encoder.cavp",
        ),
        (
            ["run.feature_encoder = @feature_encoder.clip", "run.temporal_encoder = 'cavp'"],
            "run.temporal_encoder expects Callable[..., Any] | None, but was given 'cavp' (str).",
        ),
    ],
)
def test_a_wrong_one_is_refused(bindings, told):
    with pytest.raises((RecipeError, UsageError)) as error:
        recipe.load(SMOKE, bindings, root=Experiment).build()
    assert told in str(error.value)


def test_encoders_that_nothing_trains_and_that_have_no_weights_are_named():
    def random(*bindings: str) -> list[str]:
        return [
            line.split(" ")[0]
            for line in recipe.load(SMOKE, bindings, root=Experiment).build().random_blocks()
        ]

    assert random() == []
    assert random(*TWO) == ["run.feature_encoder", "run.temporal_encoder"]
    contrast = "run.stages = [@stage.contrastive, @stage.autoencoder, @stage.t2a_pretrain, @stage.joint]"
    assert random(*TWO, contrast) == ["run.temporal_encoder"]
    assert random(*TWO, contrast, "feature_encoder.cavp.checkpoint = 'checkpoints/cavp'") == []
    unread = ("run.local_head = @local_head.none", "run.backbone = @backbone.unet")
    assert random(*TWO, contrast, *unread) == []


def keys(tmp_path: Path, *bindings: str) -> dict[str, str]:
    bound = [*TWO[:-1], *bindings]
    planned = Keys(recipe.load(SMOKE, bound, root=Experiment).build(), Contents(tmp_path / "contents.json"))
    return {each.name: each.key for each in planned.planned} | dict(planned.by_kind)


@pytest.mark.parametrize(
    ("binding", "same"),
    [
        # Each encoder's own stages and features follow from its own settings.
        ("feature_encoder.cavp.dim = 32", {"contrastive", "features", "clips"}),
        ("feature_encoder.clip.dim = 32", {"onset", "temporal_features", "clips"}),
        ("feature_encoder.cavp.frame_size = 24", set()),  # other clips
    ],
)
def test_results_are_shared_where_they_do_not_depend_on_it(binding, same, tmp_path):
    before, after = keys(tmp_path), keys(tmp_path, binding)
    named = {"contrastive", "features", "clips", "onset", "temporal_features", "joint", "sounds"}
    assert {name for name in named if before[name] == after[name]} == same


@pytest.mark.slow
def test_a_run_trains_samples_and_loads_with_both(tmp_path):
    words = [word for path in SMOKE for word in ("--gin", path)]
    words += [word for line in [*TWO, *COUNTS] for word in ("--bind", line)]
    assert main(["run", *words, "--output", str(tmp_path), "--tracking-uri", "none"]) == 0
    (folder,) = tmp_path.glob("cn_onset_gvf-*")
    assert len(list((folder / "sounds").glob("*.flac"))) == 2
    _, model = load(folder)
    assert model.encoders == ("feature_encoder", "temporal_encoder")
    assert model.local_head.onset_logits(torch.zeros(1, 32, model.temporal_encoder.dim)).ndim == 2


@pytest.mark.slow
def test_prepared_clips_hold_what_both_need(tmp_path):
    world = StruckObjects(train_clips=6, validation_clips=2, test_clips=2).clips(tmp_path / "world")
    videos = world[0].video.parents[1]
    weights = recipe.load(SMOKE, TWO, root=Experiment).build().temporal_encoder()
    (tmp_path / "cavp").mkdir()
    save_file(weights.state_dict(), tmp_path / "cavp" / "model.safetensors")
    bindings = [*TWO, f"feature_encoder.cavp.checkpoint = '{tmp_path / 'cavp'}'"]
    words = ["--manifest", str(videos / "manifest.csv"), "--videos", str(videos), "--workers", "1"]
    words += [word for path in SMOKE for word in ("--gin", path)]
    words += [word for line in bindings for word in ("--bind", line)]
    assert main(["prepare", *words, "--output", str(tmp_path / "clips")]) == 0
    folder = PreparedFolder(tmp_path / "clips")
    assert set(folder.kinds) == {"frames", "e_tv", "mel", "onsets"}  # the first has no weights yet

    using = ["run.dataset = @dataset.prepared", f"dataset.prepared.folder = '{folder.folder}'"]
    experiment = recipe.load(SMOKE, [*bindings, *using], root=Experiment).build()
    dry_run(experiment)
    model = experiment.model().eval()
    corpus = PreparedCorpus(
        folder, model, onset_detector=experiment.described("onset_detector"), filters={},
        store=Store(tmp_path / "store"), keys={"features": "0" * 64},
    )  # fmt: skip
    with torch.no_grad():
        video = as_video(encodable(experiment, folder))
        expected = model.temporal_encoder(video)
    torch.testing.assert_close(corpus.features("temporal_encoder")[:1], expected, atol=1e-3, rtol=1e-3)
    assert corpus.features().shape[1:] == (5, 24)
    assert torch.equal(corpus.features()[:2], encode_frames(model, folder.tensor("frames")[:2]))

    slower = recipe.load(
        SMOKE, [*bindings, *using, "feature_encoder.cavp.frame_rate_hz = 6.25"], root=Experiment
    )
    with pytest.raises(
        PreparedFolderError, match=r"temporal_frame_rate_hz is 3\.125 there, 6\.25 here"
    ) as error:
        dry_run(slower.build())
    assert "\n" not in str(error.value)


def encodable(experiment: Experiment, folder: PreparedFolder) -> torch.Tensor:
    """The first prepared clip's frames for the temporal encoder, (1, L, 3, H, W)."""
    from stav2a.data.media import FrameGrid, decode

    encoder = experiment.temporal_encoder
    assert encoder is not None
    grid = FrameGrid.of(encoder(), experiment.duration_s)
    return torch.from_numpy(grid.frames(decode(folder.clips[0].video)))[None]
