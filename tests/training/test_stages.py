"""Every stage on real, tiny parts and clips made by hand."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stav2a.components.backbones import UNetBackbone, UNetControlNet
from stav2a.components.feature_encoders import TwoTowerCAVP
from stav2a.components.global_poolers import NoPooler
from stav2a.components.local_heads import LinearHead
from stav2a.data.filters import KeepAll
from stav2a.models.stav2a import STAV2A, encode_captions
from stav2a.registry import RegistryError
from stav2a.training import loop
from stav2a.training.classifier import MelCNN
from stav2a.training.objective import Batch, TrainingSpec, generator
from stav2a.training.stages import DiffusionStage
from stav2a.training.trainer import AccelerateTrainer
from stav2a.utils.audio_tower import AudioTower
from stav2a.utils.errors import UsageError
from tests import tiny
from tests.training.stage_settings import STAGES

BY_HEART = {"contrastive"}  # so few clips are learnt by heart


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in module.state_dict().items()}


def changed(before: dict[str, Tensor], module: nn.Module) -> set[str]:
    return {name for name, t in module.state_dict().items() if not torch.equal(t, before[name])}


def blocks_changed(before: dict[str, Tensor], model: STAV2A) -> set[str]:
    names = changed(before, model)
    inner = {name for name in names if name.startswith("backbone.unet.")}
    return ({"unet"} if inner else set()) | {name.split(".")[0] for name in names - inner}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("autoencoder", {"autoencoder"}),
        ("contrastive", {"feature_encoder"}),
        ("t2a_pretrain", {"text_encoder", "unet"}),
        ("t2a_finetune", {"unet"}),
        ("onset", {"local_head"}),
        ("joint", {"local_head", "global_pooler", "unet", "backbone"}),
    ],
)
def test_a_stage_learns_and_changes_its_own_blocks_alone(name, expected, tmp_path):
    model = tiny.model()
    before = weights(model)
    history = STAGES[name]().run(tiny.work(model, tmp_path))
    losses = [value for _, value in history["loss" if name in BY_HEART else "validation_loss"]]
    assert losses[-1] < 0.97 * losses[0], losses
    assert blocks_changed(before, model) == expected
    assert not any(leaf.training for leaf in model.modules() if not list(leaf.children()))


def test_captions_and_their_sounds_come_together(tmp_path):
    model = tiny.model()
    before = weights(model)
    history = STAGES["text_contrastive"]().run(tiny.work(model, tmp_path))
    losses = [value for _, value in history["loss"]]
    assert math.log(3) < losses[-1] < 1.2 < math.log(6)  # of six clips three have one caption
    assert blocks_changed(before, model) == {"text_encoder"}


@pytest.mark.parametrize(
    ("name", "block"), [("text_contrastive", "text_encoder"), ("contrastive", "feature_encoder")]
)
def test_a_contrast_leaves_an_encoder_that_is_finished_as_it_is(name, block, tmp_path):
    model = tiny.model()
    before = weights(model)
    assert STAGES[name]().run(tiny.work(model, tmp_path, frozen=frozenset({block}))) == {}
    assert blocks_changed(before, model) == set()


@pytest.mark.parametrize("parameter", ["batch_size", "validation_clips"])
def test_a_caption_needs_others_to_be_told_from(parameter):
    with pytest.raises(UsageError, match=f"stage.text_contrastive.{parameter} was given 1|{parameter} = 1"):
        STAGES["text_contrastive"](**{parameter: 1})


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_gives_the_same_bits_again_also_when_it_was_stopped(name, tmp_path, monkeypatch):
    ends = []
    for number in range(2):
        torch.manual_seed(number)  # what ran before must not matter
        model = tiny.model()
        torch.manual_seed(number)
        folder = tmp_path / str(number)
        folder.mkdir()
        if number:  # stopped after three steps
            monkeypatch.setattr(loop, "CHECKPOINT_S", 0.0)
            monkeypatch.setattr(loop, "SAVING", math.inf)
            stopped = tiny.model()
            steps = iter(range(3))
            _stop_when_done(monkeypatch, steps)
            with pytest.raises(KeyboardInterrupt):
                STAGES[name](steps=8).run(tiny.work(stopped, folder))
            monkeypatch.undo()
            assert (folder / f"{name}.safetensors").is_file()
        STAGES[name](steps=8).run(tiny.work(model, folder))
        ends.append(weights(model))
    assert all(torch.equal(t, ends[1][key]) for key, t in ends[0].items())


def _stop_when_done(monkeypatch, steps) -> None:
    """Ctrl-C at the start of the step after the last of `steps`."""

    def step(run: Any) -> float:
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return taken(run)

    taken = loop.TrainingRun.step
    monkeypatch.setattr(loop.TrainingRun, "step", step)


def test_activations_computed_again_change_nothing(tmp_path):
    ends = []
    for again in (False, True):
        model, folder = tiny.model(), tmp_path / str(again)
        folder.mkdir()
        trainer = AccelerateTrainer(gradient_checkpointing=again)
        history = STAGES["joint"](steps=3).run(tiny.work(model, folder, trainer=trainer))
        unet: Any = model.block("unet")
        assert unet.is_gradient_checkpointing == again
        ends.append((history, weights(model)))
    (history, kept), (same, computed) = ends
    assert history["validation_loss"] == same["validation_loss"]
    assert all(torch.equal(t, computed[name]) for name, t in kept.items())


def test_channels_last_changes_rounding_alone(tmp_path):
    ends = []
    for memory_format in ("contiguous_format", "channels_last"):
        model, folder = tiny.model(), tmp_path / memory_format
        folder.mkdir()
        trainer = AccelerateTrainer(memory_format=memory_format)
        history = STAGES["joint"](steps=3).run(tiny.work(model, folder, trainer=trainer))
        ends.append((history, weights(model)))
    (history, kept), (other, computed) = ends
    assert other["validation_loss"][-1][1] == pytest.approx(history["validation_loss"][-1][1], rel=1e-5)
    assert any(not torch.equal(t, computed[name]) for name, t in kept.items())
    assert all(t.is_contiguous() for t in computed.values())


def test_channels_last_leaves_convolutions_over_time_alone(tmp_path):
    trainer = AccelerateTrainer(memory_format="channels_last")
    assert STAGES["contrastive"](steps=1).run(tiny.work(tiny.model(), tmp_path, trainer=trainer))


def test_the_autoencoder_ends_whitened(tmp_path):
    model = tiny.model()
    STAGES["autoencoder"]().run(tiny.work(model, tmp_path))
    mean, std = (part[: tiny.TRAIN] for part in tiny.corpus(model).latents())
    z = mean + std * torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(z.mean(dim=(0, 2, 3)), torch.zeros(4), rtol=0, atol=0.1)
    torch.testing.assert_close(z.std(dim=(0, 2, 3)), torch.ones(4), rtol=0.1, atol=0)


def test_the_onset_stage_needs_a_head_that_predicts_onsets(tmp_path):
    model = tiny.model(local_head=partial(LinearHead, dim=8))
    with pytest.raises(RegistryError) as error:
        STAGES["onset"]().run(tiny.work(model, tmp_path))
    assert str(error.value) == (
        "stage.onset needs a local head with an onset pretext task; LinearHead has no method onset_logits. "
        "Bind run.local_head = @local_head.onset, or leave the stage out."
    )


def test_a_head_that_the_onset_stage_trained_stays_as_it_is(tmp_path):
    model = tiny.model()
    before = weights(model)
    STAGES["joint"](steps=3).run(tiny.work(model, tmp_path, frozen=frozenset({"local_head"})))
    assert blocks_changed(before, model) == {"global_pooler", "unet", "backbone"}


def test_a_frozen_unet_stays_as_it_is(tmp_path):
    model = tiny.model(backbone=partial(UNetControlNet, freeze_unet=True))
    before = weights(model)
    STAGES["joint"](steps=3).run(tiny.work(model, tmp_path))
    assert blocks_changed(before, model) == {"local_head", "global_pooler", "backbone"}


def test_the_joint_stage_runs_without_a_controlnet_and_without_a_pooler(tmp_path):
    variants: list[dict[str, Any]] = [{"backbone": UNetBackbone}, {"global_pooler": NoPooler}]
    for number, changes in enumerate(variants):
        model, folder = tiny.model(**changes), tmp_path / str(number)
        before = weights(model)
        STAGES["joint"](steps=3).run(tiny.work(model, folder))
        assert "unet" in blocks_changed(before, model)


def test_the_joint_stage_starts_the_controlnet_from_the_trained_unet(tmp_path):
    model = tiny.model()
    tiny.shake(model.block("unet"))
    STAGES["joint"](steps=1, learning_rate=0.0, unet_learning_rate=0.0).run(tiny.work(model, tmp_path))
    backbone: Any = model.backbone
    assert torch.equal(backbone.controlnet.conv_in.weight, backbone.unet.conv_in.weight)


def test_a_pretrained_text_encoder_is_not_trained(tmp_path):
    model = tiny.model()
    before = weights(model)
    work = tiny.work(model, tmp_path, frozen=frozenset({"text_encoder"}))
    STAGES["t2a_pretrain"](steps=3).run(work)
    assert blocks_changed(before, model) == {"unet"}


def test_the_classifier_learns_the_classes(tmp_path):
    torch.manual_seed(0)
    classifier = MelCNN(2, data_filter=KeepAll, steps=40, batch_size=8)
    model = tiny.model()
    before = weights(model)
    classifier.fit(tiny.work(model, tmp_path))
    _, mel, _, labels = tiny.clips()
    logits, embedding = classifier.eval()(mel[tiny.TRAIN :])
    assert embedding.shape == (tiny.VALIDATION, 64)
    assert logits.argmax(dim=1).tolist() == labels[tiny.TRAIN :].tolist()
    assert not changed(before, model)


def test_an_encoder_with_two_towers_keeps_the_sounds(tmp_path):
    encoder = partial(TwoTowerCAVP, width=4, blocks=(1, 1, 1, 1), dim=16, frame_rate_hz=12.5, frame_size=16)
    model = tiny.model(feature_encoder=encoder)
    before = weights(model.feature_encoder)
    STAGES["contrastive"](steps=2).run(tiny.work(model, tmp_path))
    learnt = {name for name, _ in model.feature_encoder.named_parameters()}
    assert learnt <= changed(before, model.feature_encoder)
    assert any(name.startswith("audio_tower.") for name in learnt)


def test_the_audio_tower_gives_a_feature_for_every_video_frame():
    assert AudioTower(64, 16)(torch.randn(2, 1, 64, 64), 8).shape == (2, 8, 16)


class Zero:
    """A denoiser that notes what it is asked and predicts nothing."""

    def __init__(self) -> None:
        self.asked: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def __call__(self, z_t: Tensor, t: Tensor, rows: Tensor, drop: Tensor) -> Tensor:
        self.asked.append((z_t, t, rows, drop))
        return torch.zeros_like(z_t)


def diffusion(
    tmp_path, predict: Any, rows: Sequence[int] = range(8), text_dropout: float = 0.1, **settings: Any
) -> TrainingSpec:
    """The plan of a stage that trains on some rows."""
    work: Any = replace(
        tiny.work(tiny.model(), tmp_path), trainer=SimpleNamespace(fit=lambda plan, work: plan)
    )
    chosen = {"train": torch.tensor(list(rows)), "validation": torch.tensor([12, 13])}
    work.corpus.rows = lambda split, data_filter: chosen[split]
    stage = DiffusionStage(data_filter=KeepAll, steps=1, batch_size=64, learning_rate=1.0, **settings)
    plan: Any = stage.fit(
        work, "toy", lambda rows, drop: (rows, drop), predict, groups=[], text_dropout=text_dropout
    )
    return plan


def loss_of(objective: TrainingSpec, batch: Batch) -> Tensor:
    return objective.loss(*objective.fetch(*batch))


def test_predicting_nothing_costs_the_noises_variance(tmp_path):
    objective = diffusion(tmp_path, Zero())
    assert loss_of(objective, objective.draw(generator(0, "x", 0))).item() == pytest.approx(1.0, abs=0.05)


def test_training_draws_all_timesteps_and_its_own_rows(tmp_path):
    zero = Zero()
    objective = diffusion(tmp_path, zero, rows=(3, 5))
    for step in range(20):
        loss_of(objective, objective.draw(generator(0, "x", step)))
    t = torch.cat([times for _, times, _, _ in zero.asked])
    assert (t.min() < 20) and (t.max() > 979) and abs(t.float().mean() - 500) < 30
    assert {int(row) for _, _, rows, _ in zero.asked for row in rows} == {3, 5}


def test_validation_asks_the_same_every_time(tmp_path):
    zero = Zero()
    objective = diffusion(tmp_path, zero)
    first, second = (loss_of(objective, objective.held_out()) for _ in range(2))
    assert torch.equal(first, second)
    (z_t, t, rows, _), (again, same_t, same_rows, _) = zero.asked
    assert torch.equal(z_t, again) and torch.equal(t, same_t) and torch.equal(rows, same_rows)
    assert rows.unique().tolist() == [12, 13] and (t[0], t[-1]) == (0, 999)


def test_captions_are_dropped_at_the_asked_rate_and_never_in_validation(tmp_path):
    objective = diffusion(tmp_path, Zero())
    dropped = torch.cat([objective.draw(generator(0, "x", step))[2] for step in range(300)])
    assert dropped.float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert diffusion(tmp_path, Zero(), text_dropout=1.0).draw(generator(0, "x", 0))[2].all()
    assert objective.held_out and not objective.held_out()[2].any()


def test_videos_are_left_out_at_the_asked_rate_and_never_in_validation(tmp_path):
    without, with_it = (
        planned_joint(tmp_path / name, video_dropout=p) for name, p in (("0", 0.0), ("1", 0.3))
    )
    for step in range(20):
        ours, theirs = (plan.draw(generator(0, "joint", step)) for plan in (with_it, without))
        assert len(theirs) == 4 and all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=False))
        rows, *_, no_video = ours
        e_v, plain = with_it.fetch(*ours)[4], without.fetch(*theirs)[4]
        assert no_video.any() and not e_v[no_video].any() and torch.equal(e_v[~no_video], plain[~no_video])
    dropped = torch.cat([with_it.draw(generator(0, "joint", step))[4] for step in range(100)])
    assert dropped.float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert with_it.held_out and not with_it.held_out()[4].any()


def planned_joint(folder: Any, **settings: Any) -> TrainingSpec:
    """The plan of the joint stage."""
    trainer: Any = SimpleNamespace(fit=lambda plan, work: plan)
    plan: Any = STAGES["joint"](batch_size=64, **settings).run(
        replace(tiny.work(tiny.model(), folder), trainer=trainer)
    )
    return plan


def test_the_joint_stage_trains_without_some_videos(tmp_path):
    model = tiny.model()
    before = weights(model)
    STAGES["joint"](steps=3, video_dropout=0.5).run(tiny.work(model, tmp_path))
    assert blocks_changed(before, model) == {"local_head", "global_pooler", "unet", "backbone"}
    with pytest.raises(UsageError, match=r"stage.joint.video_dropout = 1.5: expected 0 to 1\."):
        STAGES["joint"](video_dropout=1.5)


def test_the_null_text_takes_the_place_of_dropped_captions():
    model = tiny.model()
    texts = tiny.corpus(model).texts(torch.tensor([0, 1, 1]), torch.tensor([False, True, False]))
    expected = encode_captions(model, [tiny.CAPTIONS[0], "", tiny.CAPTIONS[1]])
    assert tiny.clips()[3][:2].tolist() == [0, 1]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(texts, expected, strict=True))


def test_epochs_are_whole_batches_of_the_clips_that_the_filter_keeps():
    """40 epochs of the paper's 53,293 clips in batches of 160 are 40 x 334 steps."""
    clips: Any = SimpleNamespace(rows=lambda split, data_filter: torch.arange(53_293))
    settings = {"data_filter": KeepAll, "batch_size": 160, "learning_rate": 3e-5}
    assert DiffusionStage(steps=None, epochs=40, **settings).count_steps(clips) == 13_360
    assert DiffusionStage(steps=7, **settings).count_steps(clips) == 7


@pytest.mark.parametrize("name", STAGES)
def test_a_length_in_epochs_gives_the_bits_of_as_many_steps(name, tmp_path):
    batch, ends = STAGES[name]().batch_size, []
    steps = 2 * math.ceil(tiny.TRAIN / batch)
    for number, length in enumerate(({"steps": None, "epochs": 2}, {"steps": steps})):
        model = tiny.model()
        STAGES[name](**length).run(tiny.work(model, tmp_path / str(number)))
        ends.append(weights(model))
    assert all(torch.equal(tensor, ends[1][key]) for key, tensor in ends[0].items())


@pytest.mark.parametrize(
    ("length", "fault"),
    [
        ({"steps": 3, "epochs": 2}, "stage.joint.steps = 3 and stage.joint.epochs = 2: expected one of them"),
        ({"steps": None}, "stage.joint.steps = None and stage.joint.epochs = None: expected one of them"),
        ({"steps": None, "epochs": -1}, "stage.joint.epochs = -1: expected 0 or more."),
        ({"validation_clips": 0}, "stage.joint.validation_clips = 0: expected 1 or more."),
        ({"validation_times": 0}, "stage.joint.validation_times = 0: expected 1 or more."),
    ],
)
def test_a_length_is_given_once(length, fault):
    with pytest.raises(UsageError) as told:
        STAGES["joint"](**length)
    assert str(told.value).startswith(fault)


def test_the_validation_loss_is_of_as_many_clips_and_times_as_asked(tmp_path):
    plan = diffusion(tmp_path, Zero(), validation_clips=1, validation_times=5)
    assert plan.held_out is not None
    rows, times, *_ = plan.held_out()
    assert (rows.tolist(), times.tolist()) == ([12] * 5, [0, 249, 499, 749, 999])
