from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from stav2a import recipe
from stav2a.data.filters import KeepAll
from stav2a.experiments.experiment import Experiment, Keys
from stav2a.training.denoising import Epsilon
from stav2a.training.stages import AutoencoderStage, JointStage, OnsetStage
from stav2a.training.train import PlannedStage, load_part, train_stages
from stav2a.training.trainer import AccelerateTrainer
from stav2a.utils.contents import Contents
from stav2a.utils.store import Store
from tests import tiny

STAGES = {"autoencoder", "contrastive", "text_contrastive", "t2a_pretrain", "t2a_finetune", "onset", "joint"}
WAVEFORMS = "run.num_waveforms_per_clip"
LATENT_STAGES = {"autoencoder", "t2a_pretrain", "t2a_finetune", "joint"}


@pytest.fixture
def planned(recipes: Path, tmp_path: Path) -> Callable[..., Keys]:
    def plan(*bindings: str, variant: str = "cn_onset_gvf") -> Keys:
        loaded = recipe.load(recipes / f"{variant}.gin", bindings, root=Experiment)
        experiment = loaded.build()
        return Keys(experiment, Contents(tmp_path / "contents.json"))

    return plan


def stage_keys(keys: Keys) -> dict[str, str]:
    return {each.name: each.key for each in keys.planned}


@pytest.mark.parametrize(
    ("binding", "changed"),
    [
        ("run.global_pooler = @global_pooler.none", {"joint"}),
        ("global_pooler.attentive.tokens = 6", {"joint"}),
        ("stage.joint.data_filter = @data_filter.none", {"joint"}),
        ("stage.onset.steps = 7", {"onset", "joint"}),
        ("local_head.onset.windows = (1,)", {"onset", "joint"}),
        ("feature_encoder.cavp.dim = 32", {"contrastive", "onset", "joint"}),
        ("run.audio_peak = 0.5", STAGES),
        ("stage.contrastive.steps = 7", {"contrastive", "onset", "joint"}),
        ("autoencoder.kl.latent_channels = 4", LATENT_STAGES),
        ("stage.autoencoder.steps = 7", LATENT_STAGES),
        ("text_encoder.tiny_mt5.layers = 1", {"text_contrastive", "t2a_pretrain", "t2a_finetune", "joint"}),
        ("stage.t2a_finetune.steps = 7", {"t2a_finetune", "joint"}),
        ("unet.stable_diffusion.layers_per_block = 2", {"t2a_pretrain", "t2a_finetune", "joint"}),
        ("backbone.unet_controlnet.freeze_unet = True", {"joint"}),
        ("run.seed = 1", STAGES),
        ("dataset.struck_objects.seed = 1", STAGES),
        ("run.duration_s = 1.28", STAGES),
        ("run.num_inference_steps = 11", set()),
        ("run.num_waveforms_per_clip = 2", set()),
        ("run.guidance_scale = 1.0", set()),
        ("run.scheduler = @scheduler.dpm_solver", set()),
        ("run.guider = @guider.apg", set()),
        ("stage.joint.video_dropout = 0.1", {"joint"}),
        ("run.objective = @objective.epsilon", {"t2a_pretrain", "t2a_finetune", "joint"}),
        ("objective.v_prediction.min_snr_gamma = 5.0", {"t2a_pretrain", "t2a_finetune", "joint"}),
        ("run.vocoder = @vocoder.hifigan", set()),
        ("run.metrics = []", set()),
        ("classifier.mel_cnn.steps = 7", set()),
    ],
)
def test_a_setting_changes_the_keys_of_the_stages_that_depend_on_it(planned, binding, changed):
    before, after = stage_keys(planned()), stage_keys(planned(binding))
    assert set(before) == set(after) == STAGES
    assert {name for name in STAGES if before[name] != after[name]} == changed


def test_more_sounds_of_a_clip_have_a_key_of_their_own_and_one_sound_has_the_key_it_had(planned):
    before, one, two = (planned(*each) for each in ((), [f"{WAVEFORMS} = 1"], [f"{WAVEFORMS} = 2"]))
    assert one.by_kind["sounds"] == before.by_kind["sounds"] != two.by_kind["sounds"]
    assert one.run == before.run != two.run


def test_variants_share_all_but_what_they_differ_in(planned):
    ours = stage_keys(planned(variant="cn_onset_gvf"))
    for variant in ("pretrained_t2a", "finetuned_t2a", "cn", "cn_onset"):
        theirs = stage_keys(planned(variant=variant))
        own = {name for name, key in theirs.items() if ours[name] != key}
        assert own == {"joint"} & set(theirs), variant


MANIFEST = "id,caption,split,file\n"


@pytest.fixture
def files(planned, tmp_path) -> Callable[[], Keys]:
    """Keys of a recipe with a manifest, two videos and weights that lie in files."""
    (tmp_path / "clips.csv").write_text(f"{MANIFEST}a,a drum,train,a.mp4\nb,a bell,test,b.mp4\n")
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "model.safetensors").write_bytes(b"weights")
    return lambda: planned(
        "run.dataset = @dataset.manifest",
        f"dataset.manifest.file = '{tmp_path / 'clips.csv'}'",
        "run.autoencoder = @autoencoder.kl",
        f"autoencoder.kl.checkpoint = '{tmp_path / 'vae'}'",
    )


@pytest.mark.parametrize(
    ("name", "content", "same"),
    [
        ("a.mp4", "other picture and sound", set()),
        ("clips.csv", f"{MANIFEST}a,a gong,train,a.mp4\nb,a bell,test,b.mp4\n", set()),
        ("clips.csv", f"{MANIFEST}b,a bell,test,b.mp4\n", set()),
        ("vae/model.safetensors", "other", {"contrastive", "onset", "clips", "features"}),
    ],
)
def test_other_content_under_the_same_name_makes_other_keys(files, tmp_path, name, content, same):
    def found(keys: Keys) -> dict[str, str]:
        return stage_keys(keys) | keys.by_kind | {"run": keys.run}

    before = found(files())
    assert found(files()) == before
    (tmp_path / name).write_text(content)
    after = found(files())
    assert {each for each in before if before[each] == after[each]} >= same
    assert before["run"] != after["run"] and before["latents"] != after["latents"]


def test_a_filter_with_weights_of_its_own_goes_by_their_content(planned, tmp_path, scratch_registry):
    @scratch_registry.register("data_filter", "learnt")
    class Learnt(KeepAll):
        """Keep what weights say."""

        def __init__(self, *, weights: str) -> None:
            self.weights = weights

    weights = tmp_path / "a.bin"
    weights.write_bytes(b"one")

    def found(path: Path) -> tuple[dict[str, str], set[str]]:
        learnt = f"data_filter.learnt.weights = '{path}'"
        keys = planned("stage.joint.data_filter = @data_filter.learnt", learnt)
        return stage_keys(keys), set(keys.filters)

    before = found(weights)
    moved = weights.rename(tmp_path / "b.bin")
    assert found(moved) == before
    moved.write_bytes(b"two")
    after = found(moved)
    assert len(after[1] & before[1]) == len(before[1]) - 1
    assert {name for name in STAGES if before[0][name] != after[0][name]} == {"joint"}


def test_a_dataset_at_another_place_has_the_same_keys(files, tmp_path, planned):
    before = files()
    (tmp_path / "moved").mkdir()
    for name in ("clips.csv", "a.mp4", "b.mp4"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    after = planned(
        "run.dataset = @dataset.manifest", f"dataset.manifest.file = '{tmp_path / 'moved' / 'clips.csv'}'"
    )
    assert after.by_kind["clips"] == before.by_kind["clips"]


def test_keys_do_not_depend_on_the_process(planned):
    assert stage_keys(planned()) == stage_keys(planned())


def test_a_stage_of_no_steps_is_left_out(planned):
    assert set(stage_keys(planned("stage.contrastive.steps = 0"))) == STAGES - {"contrastive"}


def test_a_stage_after_the_joint_one_depends_on_it(planned):
    order = "run.stages = [@stage.autoencoder, @stage.t2a_pretrain, @stage.joint, @stage.t2a_finetune]"
    before, after = stage_keys(planned(order)), stage_keys(planned(order, "stage.joint.steps = 7"))
    assert before["t2a_finetune"] != after["t2a_finetune"]


def test_what_a_block_makes_of_the_data_depends_on_the_stages_that_train_it(planned):
    before = planned().by_kind
    after = planned("stage.contrastive.steps = 7").by_kind
    assert before["features"] != after["features"]
    assert before["latents"] == after["latents"]
    assert before["features"] != planned("dataset.struck_objects.seed = 1").by_kind["features"]


@pytest.mark.parametrize(
    "binding", ["run.guider = @guider.apg", "run.guidance_scale = 1.0", "run.scheduler = @scheduler.unipc"]
)
def test_sounds_depend_on_how_they_are_sampled(planned, binding):
    before, after = planned().by_kind, planned(binding).by_kind
    assert {kind for kind in before if before[kind] != after[kind]} == {"sounds"}


def test_what_an_untrained_block_makes_of_the_data_depends_on_the_seed(planned):
    keys = [planned("stage.contrastive.steps = 0", f"run.seed = {seed}").by_kind for seed in (0, 1)]
    assert keys[0]["features"] != keys[1]["features"]


def test_part_of_the_weights_leaves_the_rest_alone():
    source, model = tiny.model(seed=1), tiny.model(seed=2)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    part = {name: t for name, t in source.state_dict().items() if name.startswith("local_head.")}
    load_part(model, part)
    for name, t in model.state_dict().items():
        assert torch.equal(t, part.get(name, before[name]))


def test_weights_that_the_model_lacks_are_refused():
    with pytest.raises(ValueError, match=r"hold 1 tensors that this model lacks, first local_head\.extra"):
        load_part(tiny.model(), {"local_head.extra": torch.zeros(1)})


def test_stages_are_trained_once_and_then_taken_from_the_store(tmp_path, caplog):
    stages = {
        "autoencoder": AutoencoderStage(data_filter=KeepAll, steps=2, batch_size=4, crop=32),
        "onset": OnsetStage(data_filter=KeepAll, steps=2),
        "joint": JointStage(data_filter=KeepAll, steps=2, batch_size=4),
    }
    planned = [PlannedStage(name, stage, f"key of {name}") for name, stage in stages.items()]
    ends, histories, printed = [], [], []

    def train(model, lines):
        return train_stages(
            planned, model, tiny.corpus(model), store=Store(tmp_path), seed=0, objective=Epsilon(),
            trainer=AccelerateTrainer(), log=lambda name, value, step: None, print_line=lines.append,
        )  # fmt: skip

    for _ in range(2):
        model, lines = tiny.model(), []
        histories.append(train(model, lines))
        ends.append({name: t.clone() for name, t in model.state_dict().items()})
        printed.append(lines)
    assert printed[0] == [f"stage {i}/3  {name}: training" for i, name in enumerate(stages, start=1)]
    assert printed[1] == [f"stage {i}/3  {name}: from the store" for i, name in enumerate(stages, start=1)]
    assert all(torch.equal(t, ends[1][name]) for name, t in ends[0].items())
    assert any(not torch.equal(t, tiny.model().state_dict()[name]) for name, t in ends[0].items())
    assert histories[0] == histories[1]
    assert set(histories[0]) == set(stages)
    (damaged,) = tmp_path.glob("stage-onset-*/history.json")
    damaged.write_text("{}")
    train(tiny.model(), [])
    assert [message.partition(" is damaged")[0] for message in caplog.messages] == [str(damaged.parent)]
