"""`stav2a run --check`: what a model costs and what is missing for it, at any size, on any machine."""

import json
import re
import shlex
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from stav2a import recipe
from stav2a.cli.main import main
from stav2a.components import backbones
from stav2a.components.condition_fusers import VideoFirst
from stav2a.components.feature_encoders import CAVP, CLIP, VJEPA2, VideoMAE
from stav2a.components.global_poolers import FactorGraphPooler, NoPooler
from stav2a.components.local_heads import NoLocalHead, ReleasedOnsetHead
from stav2a.components.text_encoders import MT5, T5
from stav2a.components.unets import stable_diffusion
from stav2a.experiments import execution
from stav2a.experiments.experiment import Experiment
from stav2a.metrics.judges.clap import Clap, Clap630k
from stav2a.metrics.judges.cnn14 import Cnn14
from stav2a.metrics.judges.ms_clap import MSClap
from stav2a.metrics.judges.vggish import VGGish
from stav2a.models import audit
from stav2a.models.audit import TextStandIn
from stav2a.models.stav2a import BLOCKS
from stav2a.reports import model_cost
from stav2a.utils.checkpoints import CheckpointError, RequestedWeights, no_weights
from tests import tiny

RECIPES = ("pretrained_t2a", "cn_frozen", "cn_onset_gvf")  # the rest differ in filters and training alone
CONTROLNET = {  # at paper scale, in millions of parameters
    "cn_frozen": "363.3",
    "cn_onset_gvf": "363.8",
}
UNET_TRAINED_IN = {  # and what follows in its row, where it is not trained with the rest
    "pretrained_t2a": "frozen 3.5 GB",
    "cn_frozen": "t2a_finetune 13.9",
}
JUDGES: list[Any] = [Cnn14, VGGish, MSClap, Clap630k, Clap]  # in the order of the metrics
LACKING_AT_PAPER_SCALE = [
    "stav2a convert cavp --checkpoint cavp_epoch66.ckpt --output checkpoints/cavp",
    "hf download google/mt5-large",
    "stav2a convert audioldm --checkpoint audioldm-s-full.ckpt --output checkpoints/audioldm",
    "no published U-Net of these sizes predicts epsilon from the tokens of text_encoder.mt5: put your own "
    "there, or bind unet.stable_diffusion.checkpoint = None and give stage.t2a_pretrain steps, or lay "
    "recipes/scale/tango.gin over the recipe to start from tango's, which predicts v_prediction from the "
    "tokens of text_encoder.t5",
    "get the clips (the paper's are VGGSound's), and prepare them with this recipe, or once for all rows of "
    "Table III with recipes/cn_unfiltered.gin in its place: docs/data.md",
]


@pytest.fixture(autouse=True)
def empty_machine(tmp_path, monkeypatch):
    """Neither the folders that recipes name, nor anything in the hub's cache, nor a network to ask."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("--check asked the network")

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STAV2A_WEIGHTS", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("socket.getaddrinfo", refuse)


def found(changes: dict[str, Any], *stages: Any) -> dict[str, audit.BlockAudit]:
    """The audit of the small model with some changes, by slot."""
    model, _ = audit.skeleton(tiny.factories(**changes), duration_s=tiny.DURATION_S)
    return {block.slot: block for block in audit.audit(model, stages).blocks}


def checked(capsys, *arguments: str) -> str:
    assert main(["run", *arguments, "--check"]) == 0
    return capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_audited_at_paper_scale(name, recipes, capsys, tmp_path):
    out = checked(
        capsys, "--gin", str(recipes / f"{name}.gin"), "--gin", str(recipes / "scale" / "paper.gin")
    )
    rows = {line.split()[1]: line.split() for line in out.splitlines() if line.startswith("# ")}
    assert rows["unet"][2:5] == ["UNet2DConditionModel", "865.9", "M"]
    assert rows["feature_encoder"][2:6] == ["CAVP", "32.7", "M", "frozen"]
    assert rows["text_encoder"][2:5] == ["MT5", "unknown", "frozen"]
    assert " ".join(rows["unet"][5:]).startswith(UNET_TRAINED_IN.get(name, "t2a_finetune, joint "))
    if name in CONTROLNET:
        assert rows["backbone"][2:6] == ["UNetControlNet", CONTROLNET[name], "M", "joint"]
    advice = [line[9:] for line in out.splitlines() if line.startswith("#     -> ")]
    assert advice[: -len(JUDGES)] == LACKING_AT_PAPER_SCALE
    for command in (line for line in advice if line.startswith("stav2a convert")):
        assert main(shlex.split(command)[1:]) == 1
        assert f"{shlex.split(command)[4]}: there is no such file" in capsys.readouterr().err
    for line, judge in zip(advice[-len(JUDGES) :], JUDGES, strict=True):
        assert line.startswith(
            f"Put {judge.published}, from {judge.source}, into a folder that the environment "
        )
    assert list(tmp_path.iterdir()) == []
    if name == "cn_onset_gvf":
        page = (recipes.parent / "docs" / "recipes.md").read_text()
        shown = "".join(re.findall(r"^```text\n(.*?)^```$", page, flags=re.M | re.S)).splitlines()
        assert len(shown) == 15 and set(shown) <= set(out.splitlines())


@pytest.mark.slow
def test_a_transformer_is_audited_at_paper_scale(recipes, capsys):
    files = (recipes / "designs" / "mmaudio.gin", recipes / "scale" / "paper.gin")
    out = checked(capsys, *(word for path in files for word in ("--gin", str(path))))
    rows = {line.split()[1]: line.split() for line in out.splitlines() if line.startswith("# ")}
    assert rows["unet"][2:5] == ["MMDiT", "224.0", "M"]
    assert rows["backbone"][2:6] == ["DiTBackbone", "115.6", "k", "joint"]
    assert "unet.mmdit.checkpoint = 'checkpoints/t2a/mmdit': no weights there" in out


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_audited_at_laptop_scale(name, recipes, capsys):
    out = checked(capsys, "--gin", str(recipes / f"{name}.gin"))
    advice = [line for line in out.splitlines() if line.startswith("#     -> ")]
    assert all("pip install 'stav2a[yamnet]'" in line for line in advice)  # an extra, which may be installed
    assert "unknown" not in out.split("# block")[1]


def test_what_is_printed_is_a_recipe_still(recipes, capsys, tmp_path):
    path = str(recipes / "cn_onset.gin")
    loaded = recipe.load([path], root=Experiment)
    out = checked(capsys, "--gin", path)
    assert out.startswith(execution.explain(loaded).split("# block")[0])
    (tmp_path / "printed.gin").write_text(out)
    assert recipe.load([tmp_path / "printed.gin"], root=Experiment).signature() == loaded.signature()


def test_the_u_net_of_tangos_sizes_has_its_parameters_and_operations():
    with torch.device("meta"):
        unet = stable_diffusion(8, 1024)
    assert sum(p.numel() for p in unet.parameters()) == 865_933_768


def test_parameters_are_those_of_the_real_model():
    blocks, real = found({}), tiny.model()
    own = {slot: sum(p.numel() for p in real.block(slot).parameters()) for slot in BLOCKS}
    own["backbone"] -= own["unet"]
    assert {slot: block.parameters for slot, block in blocks.items()} == own


@torch.no_grad()
def test_operations_are_those_of_a_real_step():
    blocks, real = found({}), tiny.model()
    e_v, (e_text, mask) = torch.zeros(1, 8, 16), real.text_encoder(["a drum"])
    conditions = real.condition(e_v, e_text, mask)
    with (
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):  # the CPU's own isn't counted
        real.predict(torch.zeros(1, 4, 8, 8), torch.tensor([5]), conditions)
    counted = [blocks[slot].flops or 0 for slot in BLOCKS]
    assert sum(counted) == counter.get_total_flops() and min(counted[5:7]) > 0


def stage(name: str, trains: tuple[str, ...], **more: Any) -> tuple[str, Any]:
    return name, SimpleNamespace(trains=trains, **more)


def test_memory_is_weights_gradients_moments_and_averages():
    blocks = found({}, stage("onset", ("local_head",)), stage("joint", ("backbone",), ema_decay=0.9))
    head, unet, text = blocks["local_head"], blocks["unet"], blocks["text_encoder"]
    assert head.trained_in == ("onset",) and head.training == head.parameters * (4 + 4 + 8)
    assert unet.trained_in == ("joint",) and unet.training == unet.parameters * (4 + 4 + 8 + 4)
    assert text.trained_in == () and text.training == text.inference == text.parameters * 4


def test_a_sampler_in_half_precision_keeps_half_of_the_denoiser_once_more():
    model, _ = audit.skeleton(tiny.factories(), duration_s=tiny.DURATION_S)
    whole, half = (audit.audit(model, [], precision=each) for each in ("float32", "bfloat16"))
    for block, again in zip(whole.blocks, half.blocks, strict=True):
        copied = block.slot in ("unet", "backbone")
        assert (
            again.inference == block.inference * (1.5 if copied else 1) and again.training == block.training
        )
    assert "and the sampler's copy of unet and backbone in bfloat16" in "\n".join(
        model_cost.audit_lines(half)
    )


def test_a_stage_leaves_what_is_frozen_or_finished():
    frozen_unet = partial(backbones.UNetControlNet, freeze_unet=True)
    stages = [stage("onset", ("local_head",)), stage("joint", ("local_head", "global_pooler", "backbone"))]
    blocks = found({"backbone": frozen_unet}, *stages)
    assert [blocks[slot].trained_in for slot in ("local_head", "global_pooler", "backbone", "unet")] == [
        ("onset",), ("joint",), ("joint",), (),
    ]  # fmt: skip
    with_weights = {"feature_encoder": partial(CAVP, width=4, blocks=(1,), dim=16, checkpoint="nowhere")}
    assert found(with_weights, stage("contrastive", ("feature_encoder",)))["feature_encoder"].trained_in == ()


@pytest.mark.parametrize("name", [name for name in vars(backbones) if name.startswith("UNet")])
def test_the_operations_of_every_backbone_are_counted(name):
    unet = partial(tiny.unet, layers_per_block=2)
    kind = getattr(backbones, name)
    more = {"channels": (4,)} if name == "UNetControlNetPlain" else {}
    changes = {"unet": unet, "backbone": partial(kind, **more)}
    changes["local_head"] = partial(ReleasedOnsetHead, dim=16, upsampling=1.0)
    if name == "UNetControlNetDecoupled":
        changes["condition_fuser"] = VideoFirst
    added = found(changes)["backbone"].flops
    assert (added == 0) == (name == "UNetBackbone")


def test_nothing_costs_nothing():
    changes = {"local_head": NoLocalHead, "global_pooler": NoPooler, "backbone": backbones.UNetBackbone}
    blocks = found(changes)
    assert [blocks[slot].parameters for slot in changes] == [0, 0, 0]


@pytest.mark.parametrize(
    ("kind", "name", "advice"),
    [
        (CLIP, "feature_encoder.clip", "hf download openai/clip-vit-large-patch14 --local-dir nowhere"),
        (VideoMAE, "feature_encoder.videomae", "hf download MCG-NJU/videomae-base --local-dir nowhere"),
        (VJEPA2, "feature_encoder.vjepa2", "hf download facebook/vjepa2-vitl-fpc64-256 --local-dir nowhere"),
    ],
)
def test_encoders_of_transformers_are_built_without_their_folders(kind, name, advice):
    changes = {"feature_encoder": partial(kind, checkpoint="nowhere")}
    model, asked = audit.skeleton(tiny.factories(**changes), duration_s=tiny.DURATION_S)
    assert not any(p.requires_grad for p in model.feature_encoder.parameters())
    (missing,) = audit.missing_weights(asked)
    assert missing.message == f"{name}.checkpoint = 'nowhere': no config.json there."
    assert missing.advice == advice


def test_blocks_of_the_release_are_missing_with_their_command():
    heads = {"local_head": ReleasedOnsetHead, "global_pooler": FactorGraphPooler}
    changes = {slot: partial(kind, checkpoint=f"released/{slot}") for slot, kind in heads.items()}
    _, asked = audit.skeleton(tiny.factories(**changes), duration_s=tiny.DURATION_S)
    lines = model_cost.missing_lines(audit.missing_weights(asked))
    assert lines == [
        "missing on this machine, and what to do:",
        "  local_head.onset_released.checkpoint = 'released/local_head': no weights there",
        "  global_pooler.factor_graph.checkpoint = 'released/global_pooler': no weights there",
        "    -> stav2a convert released --checkpoint pytorch_model_2.bin --output released",
    ]


def test_a_folder_of_a_name_of_its_own_is_to_be_bound_again():
    asked = [
        RequestedWeights(
            "autoencoder.kl.checkpoint", "weights/mine", CheckpointError("autoencoder…: no weights there.")
        )
    ]
    (missing,) = audit.missing_weights(asked)
    assert missing.advice == (
        "stav2a convert audioldm --checkpoint audioldm-s-full.ckpt --output weights/mine, "
        "then bind autoencoder.kl.checkpoint = 'weights/mine/vae'"
    )


@pytest.mark.parametrize(
    ("recipes", "folder", "advice"),
    [
        (
            ["cn_onset_gvf", "scale/paper"],
            "checkpoints/t2a/unet",
            "no published U-Net of these sizes predicts",
        ),
        (["cn_onset_gvf", "scale/tango"], "checkpoints/t2a/unet", "stav2a convert tango --checkpoint"),
        (["released", "scale/released"], "checkpoints/released/unet", "stav2a convert released --checkpoint"),
        (["cn_onset_gvf"], "mine", "no published U-Net of these sizes predicts v_prediction from the tokens"),
        (
            ["designs/mmaudio", "scale/paper"],
            "checkpoints/t2a/mmdit",
            "no published weights are known for unet.mmdit: put your own there, or bind "
            "unet.mmdit.checkpoint = None and give stage.t2a_pretrain steps",
        ),
    ],
)
def test_no_u_net_that_can_not_fit_is_advised(recipes, folder, advice):
    loaded = recipe.load([f"recipes/{name}.gin" for name in recipes], root=Experiment)
    parameter = f"{loaded.build().described('unet')['component']}.checkpoint"
    asked = [RequestedWeights(parameter, folder, CheckpointError("no weights there."))]
    (missing,) = audit.missing_weights(asked, loaded.described()["parameters"])
    assert missing.advice.startswith(advice)
    assert parameter == "unet.stable_diffusion.checkpoint" or "tango" not in missing.advice


def unet_folder(tmp_path, **facts: str) -> list[str]:
    """Options that bind a converted U-Net of these facts."""
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text(json.dumps({"stav2a": {"converted": facts}}))
    recipes = ["--gin", "recipes/cn.gin", "--gin", "recipes/scale/smoke.gin"]
    return [*recipes, "--bind", f"unet.stable_diffusion.checkpoint = '{tmp_path / 'unet'}'"]


TANGO = {"predicts": "v_prediction", "reads": "text_encoder.t5"}


@pytest.mark.parametrize(
    ("facts", "binding", "told"),
    [
        (
            TANGO,
            "run.objective = @objective.epsilon",
            " predicts v_prediction and reads text_encoder.t5; the recipe has run.objective = "
            "@objective.epsilon and run.text_encoder = @text_encoder.tiny_mt5. Bind run.objective = "
            "@objective.v_prediction and run.text_encoder = @text_encoder.t5, or give weights that fit the "
            "recipe.",
        ),
        (
            {"predicts": "v_prediction", "reads": "frames by CLIP and a linear layer"},
            "run.seed = 1",
            " reads frames by CLIP and a linear layer; the recipe has run.text_encoder = "
            "@text_encoder.tiny_mt5. No text encoder has what it reads: give weights that fit the recipe.",
        ),
    ],
)
@pytest.mark.parametrize("more", [["--check"], ["--output", "out", "--tracking-uri", "none"]])
def test_a_u_net_that_predicts_or_reads_something_else_is_refused(
    facts, binding, told, more, tmp_path, capsys
):
    assert main(["run", *unet_folder(tmp_path, **facts), "--bind", binding, *more]) == 2
    error = " ".join(capsys.readouterr().err.split("error: ")[-1].split())
    assert error == f"unet.stable_diffusion.checkpoint = {str(tmp_path / 'unet')!r}{told}"
    assert not list(tmp_path.glob("out/store/stage*"))


def test_a_u_net_that_says_nothing_or_the_same_passes(tmp_path, capsys):
    options = unet_folder(tmp_path, predicts="v_prediction", reads="text_encoder.tiny_mt5")
    assert main(["run", *options, "--check"]) == 0
    (tmp_path / "unet" / "config.json").write_text("{}")
    assert main(["run", *options, "--check"]) == 0


def test_weights_that_are_there_are_compared_and_not_read(tmp_path):
    sizes: dict[str, Any] = {"width": 4, "blocks": (1,), "dim": 16, "frame_size": 16}
    save_file(CAVP(**sizes).state_dict(), tmp_path / "model.safetensors")
    with no_weights() as asked, torch.device("meta"):
        fitting = CAVP(**sizes, checkpoint=str(tmp_path))
        CAVP(**{**sizes, "dim": 8}, checkpoint=str(tmp_path))
    assert all(p.is_meta for p in fitting.parameters())
    assert asked[0].fault is None
    (missing,) = audit.missing_weights(asked)
    assert (
        "model.safetensors does not fit this model: video_project_head.weight is (16, 16)" in missing.message
    )
    assert missing.advice == "Give the sizes of the checkpoint, or another checkpoint."


def test_a_text_encoder_is_as_large_as_its_folder_says(tmp_path):
    from transformers import MT5Config, MT5EncoderModel

    config = MT5Config(vocab_size=32, d_model=24, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    MT5EncoderModel(config).save_pretrained(tmp_path)
    with no_weights() as asked, torch.device("meta"):
        text = TextStandIn(MT5, "text_encoder.mt5.checkpoint", str(tmp_path), 7)
    expected = sum(p.numel() for p in MT5EncoderModel(config).parameters())
    assert (text.dim, text.size_unknown) == (24, False)
    assert sum(p.numel() for p in text.parameters()) == expected
    assert [missing.message for missing in audit.missing_weights(asked)] == [
        f"text_encoder.mt5.checkpoint = {str(tmp_path)!r}: no tokenizer there."
    ]


def test_a_text_encoder_is_found_in_the_hubs_cache(tmp_path):
    from transformers import T5Config

    repository = tmp_path / "hub" / "models--google--tiny"
    T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2).save_pretrained(repository / "snapshots/1")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("1")
    with no_weights() as asked, torch.device("meta"):
        text = TextStandIn(T5, "text_encoder.t5.checkpoint", "google/tiny", 7)
    assert (text.dim, text.size_unknown, audit.missing_weights(asked)) == (8, False, [])


def test_a_text_encoder_of_unknown_size_is_in_no_sum():
    text = partial(TextStandIn, T5, "text_encoder.t5.checkpoint", "nowhere", 7)
    model, asked = audit.skeleton(tiny.factories(text_encoder=text), duration_s=tiny.DURATION_S)
    counted = audit.audit(model, [])
    assert counted.blocks[1].parameters is None and counted.shapes["c"] == (1, 11, 1024)
    lines = model_cost.audit_lines(counted)
    assert [line for line in lines if line.startswith("all")][0].split()[1:3] == ["without", "text_encoder"]
    assert "size unknown without its folder" in audit.missing_weights(asked)[0].message
    assert audit.missing_weights(asked)[0].advice == "hf download google/flan-t5-large --local-dir nowhere"


def test_the_text_encoder_of_a_converted_checkpoint_comes_with_its_u_net():
    asked = [
        RequestedWeights("text_encoder.t5.checkpoint", "t2a/text_encoder", CheckpointError("size unknown."))
    ]
    (missing,) = audit.missing_weights(asked)
    assert missing.advice == "stav2a convert tango --checkpoint pytorch_model_main.bin --output t2a"


@pytest.mark.parametrize("error", [OSError("no such file"), RuntimeError("no meta tensors")])
def test_a_component_that_needs_its_numbers_fails_no_check(error, recipes, capsys, scratch_registry):
    @scratch_registry.register("vocoder", "stubborn")
    class Stubborn(torch.nn.Module):
        """A vocoder that reads its weights, whatever happens.

        Shapes:
            mel (B, 1, Tm, M) -> waveform (B, S)
        """

        def __init__(self) -> None:
            raise error

        def forward(self, mel: torch.Tensor) -> torch.Tensor:
            return mel

    out = checked(capsys, "--gin", str(recipes / "cn.gin"), "--bind", "run.vocoder = @vocoder.stubborn")
    assert f"\n\n# the model can't be built without its weights: {error}\n" in out


def test_data_that_a_recipe_names_is_looked_for(tmp_path):
    (tmp_path / "clips.csv").touch()
    given = {"file": str(tmp_path / "clips.csv"), "videos": "nowhere", "more": "nowhere"}
    (missing,) = audit.missing_data({"component": "dataset.manifest", "parameters": given})
    assert missing.message == "dataset.manifest.videos = 'nowhere': there is no such file or folder"


def test_parts_that_do_not_go_together_are_told_by_a_check(recipes, capsys):
    binding = "run.duration_s = 2.5"
    assert main(["run", "--gin", str(recipes / "cn.gin"), "--bind", binding, "--check"]) == 2
    assert "Choose a multiple of" in capsys.readouterr().err


def test_the_recipe_alone_decides(recipes):
    loaded = recipe.load([recipes / "cn.gin"], root=Experiment)
    experiment: Any = loaded.build()
    factories = {slot: getattr(experiment, slot) for slot in BLOCKS}
    state = torch.get_rng_state()
    first, second = (
        audit.audit(audit.skeleton(factories, duration_s=experiment.duration_s)[0], []) for _ in range(2)
    )
    assert first == second and torch.equal(state, torch.get_rng_state())
