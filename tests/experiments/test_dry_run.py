"""The dry run before every run: what can't work is refused in one line, and nothing else is changed."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stav2a import recipe
from stav2a.cli.main import main
from stav2a.data.struck_objects import StruckObjects
from stav2a.experiments.dry_run import ShapesOnly, dry_run
from stav2a.experiments.experiment import Experiment
from stav2a.utils.errors import StaV2AError

ROOT = Path(__file__).parents[2]
SMOKE = ("recipes/cn_onset_gvf.gin", "recipes/scale/smoke.gin")
BARE = ("run.metrics = []", "run.classifier = None")
ALONE = (*BARE, "run.stages = []")


def tried(*bindings: str) -> Any:
    return dry_run(recipe.load(SMOKE, bindings, root=Experiment).build())


def refused(*bindings: str) -> str:
    with pytest.raises(StaV2AError) as error:
        tried(*bindings)
    return str(error.value)


def test_a_recipe_that_works_passes_and_no_random_number_is_drawn():
    state = torch.get_rng_state()
    found = tried()
    assert (found.unchecked, found.left_out, found.remarks) == ([], [], [])
    assert all(parameter.is_meta for parameter in found.model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.slow
@pytest.mark.parametrize("design", sorted(path.stem for path in (ROOT / "recipes/designs").glob("*.gin")))
def test_every_design_passes(design):
    files = (f"recipes/designs/{design}.gin", "recipes/scale/smoke.gin")
    found = dry_run(recipe.load(files, BARE, strict=True, root=Experiment).build())
    assert (found.unchecked, found.remarks) == ([], [])


LORA = "stage.t2a_pretrain.adapter = @adapter.lora"
MEAN, LINEAR = "run.global_pooler = @global_pooler.mean", "run.local_head = @local_head.linear"
CONTROLNET = "run.backbone = @backbone.unet_controlnet"


@pytest.mark.parametrize(
    ("bindings", "random"),
    [
        ([MEAN], "feature_encoder global_pooler"),
        ([LINEAR], ""),  # backbone.unet does not read it
        ([LINEAR, CONTROLNET], "backbone feature_encoder local_head"),
        ([LORA, "run.stages = [@stage.autoencoder, @stage.t2a_pretrain]"], "unet"),
        ([LORA], ""),  # a later stage trains the rest
        (
            [CONTROLNET, LINEAR, "run.stages = [@stage.autoencoder, @stage.joint]"],
            "feature_encoder text_encoder",
        ),
        (
            [
                *(CONTROLNET, LINEAR, "run.stages = [@stage.contrastive, @stage.autoencoder, @stage.joint]"),
                "backbone.unet_controlnet.freeze_unet = True",
            ],
            "text_encoder unet",
        ),
    ],
)
def test_blocks_of_random_weights_that_nothing_trains_are_named(bindings, random):
    files = ("recipes/finetuned_t2a.gin", "recipes/scale/smoke.gin")
    experiment = recipe.load(files, bindings, root=Experiment).build()
    lines = experiment.random_blocks(experiment.model())
    assert [line.split(" keeps random weights: ")[0] for line in lines] == [
        f"run.{each}" for each in random.split()
    ]


@pytest.mark.parametrize(
    ("bindings", "told"),
    [
        (["run.guider = @guider.two_weights"], "stage.joint.video_dropout = 0, expected more, such as 0.1"),
        (["run.guider = @guider.two_weights", "stage.joint.video_dropout = 0.1"], ""),
        (
            [
                *("run.temporal_encoder = @feature_encoder.clip", "run.backbone = @backbone.unet"),
                "run.stages = [@stage.contrastive, @stage.joint]",
            ],
            "run.temporal_encoder has no effect: nothing reads local features",
        ),
        (["run.temporal_encoder = @feature_encoder.clip"], ""),
    ],
)
def test_settings_without_effect_are_named(bindings, told):
    found = recipe.load(SMOKE, bindings, root=Experiment).build().without_effect()
    assert len(found) == bool(told) and all(line.endswith(told) for line in found)


def test_a_stage_whose_blocks_are_finished_is_named():
    order = "run.stages = [@stage.autoencoder, @stage.t2a_pretrain, @stage.text_contrastive]"
    found = dry_run(recipe.load(["recipes/pretrained_t2a.gin", SMOKE[-1]], [order], root=Experiment).build())
    why = "text_encoder came with weights, or an earlier stage has finished with it"
    assert f"stage.text_contrastive trains nothing: {why}" in found.remarks


def test_a_check_names_them(capsys):
    files = ("--gin", "recipes/finetuned_t2a.gin", "--gin", "recipes/scale/smoke.gin")
    main(["run", *files, "--bind", MEAN, "--check"])
    reason = "global_pooler.mean takes no checkpoint, and no stage trains them"
    assert f"# run.global_pooler keeps random weights: {reason}" in capsys.readouterr().out


REFUSED = {
    "local_head.nearest.upsampling = 6.25": (
        "Bind local_head.nearest.upsampling = 4,", ("local_head.nearest.upsampling = 4.0",),
    ),
    "run.backbone = @backbone.unet_controlnet_plain": (
        "bind run.backbone = @backbone.unet_controlnet,", ("run.backbone = @backbone.unet_controlnet",),
    ),
    "sampler.fast.engine = @engine.cuda_graph": (
        "Bind sampler.fast.engine = @engine.eager.", ("sampler.fast.engine = @engine.eager",),
    ),
    "trainer.accelerate.optimizer = @optimizer.adamw_8bit": (
        "Or bind trainer.accelerate.optimizer = @optimizer.adamw.",
        ("trainer.accelerate.optimizer = @optimizer.adamw",),
    ),
    "run.backbone = @backbone.unet_controlnet_xs": (
        "Bind unet.stable_diffusion.layers_per_block = 2.", ("unet.stable_diffusion.layers_per_block = 2",),
    ),
    "unet.stable_diffusion.norm_num_groups = 5": ("unet.stable_diffusion can't be built: ValueError: ", ()),
}  # fmt: skip


@pytest.mark.parametrize(("binding", "told"), REFUSED.items(), ids=list(REFUSED))
def test_parts_that_do_not_fit_are_refused_and_the_advice_works(binding, told):
    advice, cure = told
    more = ("run.local_head = @local_head.nearest",) if "nearest" in binding else ()
    assert advice in refused(*ALONE, *more, binding)
    if cure:
        tried(*ALONE, *more, *([binding] if "xs" in binding else []), *cure)


STAGES = {
    "stage.contrastive": (
        "stage.contrastive.segment_frames = 5", "Bind stage.contrastive.segment_frames = 4.",
    ),
    "stage.autoencoder": ("stage.autoencoder.crop = 500", "Bind stage.autoencoder.crop = 256."),
    "stage.onset": ("run.local_head = @local_head.linear", "Bind run.local_head = @local_head.onset"),
}  # fmt: skip


@pytest.mark.parametrize(("stage", "wrong"), STAGES.items(), ids=list(STAGES))
def test_a_stage_that_can_not_compute_its_loss_is_refused(stage, wrong):
    binding, advice = wrong
    assert advice in refused(*BARE, f"run.stages = [@{stage}]", binding)


@pytest.mark.parametrize("last", ["--check", "--tracking-uri=none"])
def test_check_and_run_agree_and_nothing_is_left_behind(last, tmp_path, capsys):
    """The refusal came at stage 5 of 5 before."""
    recipes = [word for path in SMOKE for word in ("--gin", path)]
    bindings = ["--bind", "run.local_head = @local_head.onset_released", "--bind"]
    bindings += ["local_head.onset_released.upsampling = 6.25", "--output", str(tmp_path / "runs")]
    assert main(["run", *recipes, *bindings, last]) == 2
    error = capsys.readouterr().err
    assert "error: local_head.onset_released.upsampling = 6.25 makes 50 latent frames" in error
    assert "stage " not in error and not list(tmp_path.rglob("run.json"))


def test_a_study_with_a_row_that_can_not_work_is_refused(tmp_path, capsys):
    study = tmp_path / "mine.gin"
    study.write_text(
        "study.rows = {'CN': 'recipes/cn.gin', 'plain': ('recipes/cn.gin', "
        "'run.backbone = @backbone.unet_controlnet_plain', "
        "'backbone.unet_controlnet_plain.channels = (8,)')}\n"
        "study.baseline = 'CN'\nstudy.metrics = {'aa_align': 'higher'}\nstudy.seeds = (0,)\n"
    )
    line = [
        "ablation",
        "--gin",
        str(study),
        "--gin",
        "recipes/scale/smoke.gin",
        "--output",
        str(tmp_path / "o"),
    ]
    assert main(line) == 2
    error = capsys.readouterr().err
    assert "error: Row 'plain' can't run: backbone.unet_controlnet_plain.channels = (8,): 1 halvings" in error
    assert "Bind backbone.unet_controlnet_plain.channels = (8, 16, 32)." in error
    assert not (tmp_path / "o" / "ablations").exists()


class Short(nn.Module):
    """A local head that is one frame short.

    Shapes:
        e_v (B, L, D_v) -> e_lv (B, T - 1, D_l)
    """

    dim = 4

    def __init__(self, in_dim: int, length: int) -> None:
        super().__init__()
        self.length, self.project = length, nn.Linear(in_dim, 4)

    def forward(self, e_v: Tensor) -> Tensor:
        return self.project(e_v)[:, : self.length - 1]


class Nameless(Short):
    """A local head without its width."""

    dim = None  # type: ignore[assignment]


class Crooked(Short):
    """A local head that multiplies what does not fit."""

    def forward(self, e_v: Tensor) -> Tensor:
        return e_v @ e_v


@pytest.mark.parametrize(
    ("head", "told"),
    [
        (Short, "local_head.mine gives e_lv (2, 8, 4) from forward, but its slot promises e_lv "
                "(B, T, D_l) = (2, 32, 4)."),
        (Nameless, "local_head.mine has None as attribute dim, which its slot asks for: int."),
        (Crooked, "local_head.mine fails on e_v (2, 8, 64): RuntimeError: Expected size"),
    ],
)  # fmt: skip
def test_a_block_that_breaks_its_slots_promise_is_named(head, told, scratch_registry):
    scratch_registry.register("local_head", "mine")(head)
    assert told in refused(*ALONE, "run.local_head = @local_head.mine")


class Bare(nn.Module):
    """A denoiser that gives the prediction without a tuple."""

    def __init__(self, latent_channels: int, cond_dim: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(latent_channels, latent_channels, 1)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None = None,
        return_dict: bool = True,
    ) -> Any:
        return self.predict(sample, encoder_hidden_states)

    def predict(self, z_t: Tensor, c: Tensor) -> Any:
        return self.project(z_t)


class Narrow(Bare):
    """A denoiser whose prediction has one frequency less."""

    def predict(self, z_t: Tensor, c: Tensor) -> Any:
        return (self.project(z_t)[..., 1:],)


class Failing(Bare):
    """A denoiser that multiplies what does not fit."""

    def predict(self, z_t: Tensor, c: Tensor) -> Any:
        return (z_t @ c,)


@pytest.mark.parametrize(
    ("unet", "told"),
    [
        (Bare, "unet.mine gives Tensor from forward, but its slot promises a tuple whose first value is the "
               "prediction, with return_dict=False."),
        (Narrow, "unet.mine gives prediction (2, 8, 32, 7) from forward, but its slot promises prediction "
                 "(B, C, T, F) = (2, 8, 32, 8)."),
        (Failing, "unet.mine fails on sample (2, 8, 32, 8), timestep (2,), encoder_hidden_states (2, "),
    ],
)  # fmt: skip
def test_a_denoiser_that_breaks_its_slots_promise_is_named(unet, told, scratch_registry):
    scratch_registry.register("unet", "mine")(unet)
    assert told in refused(*ALONE, "run.backbone = @backbone.unet", "run.unet = @unet.mine")


def test_a_metric_that_gives_no_score_is_refused(scratch_registry):
    @scratch_registry.register("metric", "mine")
    class Mine:
        """A metric that gives a number."""

        def __call__(self, samples: Any) -> float:
            return 0.0

    assert "metric.mine gave float" in refused("run.stages = []", "run.metrics = [@metric.mine]")


def test_tensors_without_numbers_meet_others():
    x = torch.empty(3, 2, device="meta")
    with ShapesOnly():
        y = (x[torch.tensor([0, 2])].to("cpu") + torch.ones(2, 2)).cpu()
        assert y.shape == (2, 2) and y.is_meta and bool((y > 0).all()) and not bool((y > 0).any())
        with pytest.raises(RuntimeError, match="item of a tensor"):
            y.sum().item()


@pytest.mark.parametrize("labelled", [0, 1])
def test_clips_without_labels_are_told_by_a_check(labelled, tmp_path):
    clips = StruckObjects(train_clips=2, validation_clips=1, test_clips=1).clips(tmp_path / "world")
    rows = ["id,caption,split,file,label"]
    for i, clip in enumerate(clips):
        rows.append(f"{clip.id},a sound,{clip.split},{clip.video},{'x' if i < labelled else ''}")
    (tmp_path / "mine.csv").write_text("\n".join(rows))
    found = tried(
        "run.stages = []",
        "run.dataset = @dataset.manifest",
        f"dataset.manifest.file = '{tmp_path / 'mine.csv'}'",
        "run.metrics = [@metric.fd, @metric.class_accuracy, @metric.onset_f1]",
    )
    assert found.left_out == [
        f"{4 - labelled} of 4 clips have no label: no classifier is trained, and what needs it is left out: "
        "fd, class_accuracy"
    ]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_manifest_without_clips_of_a_split_is_refused(split, tmp_path):
    clips = StruckObjects(train_clips=2, validation_clips=1, test_clips=1).clips(tmp_path / "world")
    rows = [f"{each.id},a sound,{each.split},{each.video},x" for each in clips if each.split != split]
    (tmp_path / "mine.csv").write_text("\n".join(["id,caption,split,file,label", *rows]))
    told = refused("run.dataset = @dataset.manifest", f"dataset.manifest.file = '{tmp_path / 'mine.csv'}'")
    assert f"none of {len(rows)} clips is of the split '{split}', which " in told
    assert "Give some clips this split in the manifest" in told and "\n" not in told


def test_a_group_of_processes_that_cannot_be_joined_is_named():
    script = "from stav2a.utils import distributed; distributed.device()"
    alone = {name: value for name, value in os.environ.items() if not name.startswith("MASTER_")}
    environment = {**alone, "WORLD_SIZE": "2", "RANK": "7"}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    told = ended.stderr.splitlines()[-1]
    assert "this process can't join the others that its environment names (WORLD_SIZE, RANK): " in told
    assert told.endswith("Start all of them by torchrun, or unset both variables.")
