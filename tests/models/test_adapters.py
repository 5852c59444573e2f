"""LoRA on a block: its output at first, training, files, and merged weights."""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stav2a.models import audit
from stav2a.models.adapters import LoRA, NoAdapter, is_adapter
from stav2a.models.stav2a import STAV2A, PretrainedError
from stav2a.registry import RegistryError
from stav2a.sampling import FastSampler, ReferenceSampler, ddim
from stav2a.training.denoising import Epsilon
from stav2a.training.stages import JointStage, T2AFinetune, T2APretrain
from stav2a.training.train import PlannedStage, train_stages
from stav2a.training.trainer import AccelerateTrainer
from stav2a.utils.checkpoints import CheckpointError
from stav2a.utils.errors import UsageError
from stav2a.utils.store import Store
from tests import tiny

LORA = partial(LoRA, rank=2, alpha=4)
SETTINGS: dict[str, Any] = {
    "data_filter": None,
    "steps": 3,
    "batch_size": 4,
    "validation_clips": 2,
    "learning_rate": 0.01,
}


def predict(model: STAV2A) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    z_t, c = torch.randn(2, 4, 8, 8, generator=rng), torch.randn(2, 3, 16, generator=rng)
    mask, t = torch.ones(2, 3, dtype=torch.bool), torch.tensor([5, 700])
    with torch.no_grad():
        return model.block("unet")(z_t, t, c, encoder_attention_mask=mask, return_dict=False)[0]


def updated(model: STAV2A) -> STAV2A:
    """The model with an adapter that changes its output."""
    model.attach(LORA)
    with torch.no_grad():
        for name, p in model.block("unet").named_parameters():
            if is_adapter(name):
                p.copy_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(len(name))))
    return model


def test_the_output_is_identical_at_first_and_only_the_updates_train():
    model = tiny.model()
    before = predict(model)
    model.attach(LORA)
    assert torch.equal(predict(model), before)
    trained = [name for name, p in model.block("unet").named_parameters() if p.requires_grad]
    assert trained and all(is_adapter(name) for name in trained)
    assert all(name.rsplit(".", 4)[1] in ("to_q", "to_k", "to_v") for name in trained)


def test_merged_weights_give_the_same_output():
    model = tiny.model()
    names, before = list(model.state_dict()), predict(model)
    adapted = predict(updated(model))
    assert (adapted - before).abs().max() > 1e-3
    model.merge_adapters()
    assert list(model.state_dict()) == names and model.adapters == {}
    assert (predict(model) - adapted).abs().max() < 1e-6


def test_both_samplers_give_the_same_with_an_adapter():
    model = updated(tiny.model())
    settings: dict[str, Any] = {"num_inference_steps": 2, "guidance_scale": 2.0, "seeds": [0, 1]}
    e_v = torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(0))
    plain, fast = (
        each()(model, e_v, tiny.CAPTIONS, scheduler=ddim("v_prediction"), **settings)
        for each in (ReferenceSampler, FastSampler)
    )
    torch.testing.assert_close(plain, fast, atol=1e-4, rtol=1e-4)


@pytest.fixture
def base(tmp_path) -> Path:
    """A saved model, whose U-Net is a base."""
    model = tiny.model()
    tiny.shake(model)
    model.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def on(base: Path) -> STAV2A:
    return tiny.model(unet=partial(tiny.unet, checkpoint=str(base / "unet")))


def test_a_folder_holds_the_adapter_alone_and_finds_its_base(base, tmp_path):
    model = updated(on(base))
    model.save_pretrained(tmp_path / "adapted")
    unet = tmp_path / "adapted" / "unet"
    assert sorted(path.name for path in unet.iterdir()) == ["adapter.safetensors", "config.json"]
    numbers = sum(p.numel() for n, p in model.block("unet").named_parameters() if is_adapter(n))
    assert 4 * numbers < (unet / "adapter.safetensors").stat().st_size < 4 * numbers + 10_000
    loaded = STAV2A.from_pretrained(tmp_path / "adapted")
    assert torch.equal(predict(loaded), predict(model))
    loaded.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again/unet/config.json").read_bytes() == (unet / "config.json").read_bytes()
    base.rename(tmp_path / "moved")
    with pytest.raises(CheckpointError, match="no weights there"):
        STAV2A.from_pretrained(tmp_path / "adapted")
    moved = STAV2A.from_pretrained(tmp_path / "adapted", bases={"unet": tmp_path / "moved" / "unet"})
    assert torch.equal(predict(moved), predict(model))
    moved.merge_adapters()
    moved.save_pretrained(tmp_path / "merged")
    whole = STAV2A.from_pretrained(tmp_path / "merged")
    assert whole.adapters == {} and torch.equal(predict(whole), predict(moved))


def test_another_base_is_refused_in_one_line(base, tmp_path):
    updated(on(base)).save_pretrained(tmp_path / "adapted")
    tiny.model(seed=1).save_pretrained(tmp_path / "other")
    with pytest.raises(PretrainedError) as error:
        STAV2A.from_pretrained(tmp_path / "adapted", bases={"unet": tmp_path / "other" / "unet"})
    assert "holds an adapter of other weights than those of" in str(error.value)
    with pytest.raises(PretrainedError, match="holds no adapter, so it takes no base"):
        STAV2A.from_pretrained(base, bases={"unet": base / "unet"})


def test_an_adapter_of_weights_in_no_folder_is_to_be_merged(tmp_path):
    with pytest.raises(PretrainedError) as error:
        updated(tiny.model()).save_pretrained(tmp_path / "model")
    assert str(error.value) == (
        "adapter.lora of the unet was trained on weights that are in no folder. "
        "Merge it: `stav2a export --merge`, or the model's merge_adapters()."
    )
    assert not (tmp_path / "model").exists()


def trained(model: STAV2A, store: Store, *stages: Any) -> STAV2A:
    keys = [f"{number:064}" for number in range(len(stages))]
    planned = [
        PlannedStage(
            f"{number}_{stage.name if hasattr(stage, 'name') else 'joint'}",
            stage,
            keys[number],
            needs=frozenset(keys[:number]),
        )
        for number, stage in enumerate(stages)
    ]
    train_stages(
        planned, model, tiny.corpus(model), store=store, seed=0, objective=Epsilon(),
        trainer=AccelerateTrainer(), log=lambda *loss: None, print_line=lambda line: None,
    )  # fmt: skip
    return model


def test_stages_train_and_store_the_adapter_alone(tmp_path):
    store = Store(tmp_path)
    stages = [T2AFinetune(**SETTINGS, adapter=LORA), JointStage(**SETTINGS, adapter=LORA)]
    before = {name: t.clone() for name, t in tiny.model().block("unet").state_dict().items()}
    first = trained(tiny.model(), store, stages[0])
    for name, tensor in first.block("unet").state_dict().items():
        if not is_adapter(name):
            assert torch.equal(tensor, before[name.replace(".base_layer.", ".")]), name
    assert any(t.abs().max() > 0 for n, t in first.block("unet").state_dict().items() if "lora_B" in n)
    (file,) = tmp_path.glob("stage-0_t2a_finetune-*/model.safetensors")
    assert file.stat().st_size < 0.5 * sum(4 * t.numel() for t in before.values())

    both = trained(tiny.model(), store, *stages)  # the first from the store, then merged
    again = trained(tiny.model(), store, *stages)  # both from the store
    assert all(torch.equal(t, again.state_dict()[name]) for name, t in both.state_dict().items())
    assert list(both.adapters) == ["unet"] and any(
        p.requires_grad for p in both.backbone.controlnet.parameters()
    )


def test_a_stage_without_one_trains_the_merged_weights(tmp_path):
    model = trained(
        tiny.model(), Store(tmp_path), T2AFinetune(**SETTINGS, adapter=LORA), JointStage(**SETTINGS)
    )
    assert model.adapters == {} and not any(is_adapter(name) for name in model.state_dict())


def test_a_frozen_text_encoder_can_be_adapted(tmp_path):
    model = tiny.model()
    model.text_encoder.requires_grad_(False)
    names = [name for name, each in model.text_encoder.named_modules() if isinstance(each, torch.nn.Linear)]
    lora = partial(LoRA, rank=2, targets=(names[0].rpartition(".")[2],), blocks=("text_encoder",))
    trained(model, Store(tmp_path), T2APretrain(**SETTINGS, adapter=lora))
    state = model.text_encoder.state_dict()
    assert any("lora_B" in name and tensor.abs().max() > 0 for name, tensor in state.items())


def test_the_audit_counts_what_the_adapter_trains():
    model, _ = audit.skeleton(tiny.factories(), duration_s=tiny.DURATION_S)
    stage = T2AFinetune(**SETTINGS, adapter=LORA)
    found = audit.audit(model, [("t2a_finetune", stage)])
    numbers = sum(p.numel() for n, p in model.block("unet").named_parameters() if is_adapter(n))
    assert found.stages[0].trained["unet"] == numbers > 0


def test_what_does_not_fit_is_refused():
    for block in ("text_encoder", "backbone"):  # one is not trained, the other new
        with pytest.raises(UsageError) as error:
            JointStage(**SETTINGS, adapter=partial(LoRA, blocks=(block,)))
        assert str(error.value).endswith(
            f"blocks has {block!r}, which stage.joint can't adapt. "
            "It can adapt local_head, global_pooler, condition_fuser, unet."
        )
    with pytest.raises(RegistryError, match=r"adapter was given global_pooler\.attentive"):
        JointStage(**SETTINGS, adapter=tiny.factories()["global_pooler"])
    with pytest.raises(UsageError) as error:
        tiny.model().attach(partial(LoRA, targets=("query",)))
    assert "adapter.lora.targets = ('query',) fits no layer of UNet2DConditionModel" in str(error.value)
    assert "to_q" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"rank": 0}, "adapter.lora.rank = 0: expected 1 or more."),
        ({"alpha": 0}, "adapter.lora.alpha = 0: expected 1 or more."),
        (
            {"blocks": ()},
            "adapter.lora.blocks = (): expected one or more. To train the weights themselves bind",
        ),
        ({"targets": ()}, "adapter.lora.targets = (): expected one or more."),
    ],
)
def test_one_that_changes_nothing_is_refused(settings, told):
    with pytest.raises(UsageError) as error:
        LoRA(**settings)
    assert str(error.value).startswith(told)


def test_a_missing_library_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UsageError) as error:
        tiny.model().attach(LoRA)
    assert str(error.value) == (
        "adapter.lora needs peft, which is not installed. pip install 'stav2a[lora]', or bind @adapter.none."
    )
    tiny.model().attach(NoAdapter)
