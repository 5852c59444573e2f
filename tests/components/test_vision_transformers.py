"""CLIP, VideoMAE and V-JEPA 2: each with its own eyes, all with one answer a frame."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stav2a.components.feature_encoders import CLIP, VJEPA2, VideoMAE
from stav2a.utils.checkpoints import CheckpointError

SMALL: dict[str, Callable[..., Any]] = {
    "clip": partial(CLIP, dim=8, width=16, layers=1, frame_size=28),
    "videomae": partial(VideoMAE, dim=16, layers=1, frames=4, frame_size=32),
    "vjepa2": partial(VJEPA2, dim=16, layers=1, frame_size=32),
}
each = pytest.mark.parametrize("name", SMALL)


def make(name: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    return SMALL[name](**changes).eval()


def video(encoder: Any, frames: int, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(2, frames, 3, encoder.frame_size, encoder.frame_size, generator=rng)


def save(encoder: Any, name: str, folder: Any) -> None:
    """The folder of the whole public model, as transformers writes it."""
    from transformers import VJEPA2Config, VJEPA2Model

    if name == "vjepa2":
        whole = VJEPA2Model(VJEPA2Config(**encoder.encoder.config.to_diff_dict()))
        whole.encoder.load_state_dict(encoder.encoder.state_dict())
        whole.save_pretrained(folder)
    else:
        encoder.encoder.save_pretrained(folder)


@torch.no_grad()
@each
@pytest.mark.parametrize("frames", [1, 4, 7])
def test_every_frame_has_one_vector_of_unit_length(name, frames):
    encoder = make(name)
    e_v = encoder(video(encoder, frames))
    assert e_v.shape == (2, frames, encoder.dim)
    torch.testing.assert_close(e_v.norm(dim=-1), torch.ones(2, frames))
    assert (e_v[0] - e_v[1]).abs().max() > 1e-3


@torch.no_grad()
@each
def test_a_clip_does_not_depend_on_its_batch(name):
    encoder = make(name)
    clips = video(encoder, 5)
    torch.testing.assert_close(encoder(clips)[1:], encoder(clips[1:]), rtol=1e-5, atol=1e-6)


def frames_that_change(encoder: Any, frames: int, changed: int) -> list[int]:
    before = video(encoder, frames)
    after = before.clone()
    after[:, changed] = video(encoder, frames, seed=1)[:, changed]
    moved = (encoder(before) - encoder(after)).abs().amax(dim=(0, 2))
    return (moved > 1e-6).nonzero().flatten().tolist()


@torch.no_grad()
def test_clip_looks_at_single_frames():
    assert frames_that_change(make("clip"), 5, 2) == [2]


@torch.no_grad()
def test_videomae_looks_at_one_piece_at_a_time():
    assert frames_that_change(make("videomae"), 10, 5) == [4, 5, 6, 7]


@torch.no_grad()
def test_vjepa2_looks_at_the_whole_clip():
    assert frames_that_change(make("vjepa2"), 7, 5) == list(range(7))


@torch.no_grad()
@pytest.mark.parametrize("name", ["videomae", "vjepa2"])
def test_both_frames_of_a_pair_have_the_same_feature(name):
    encoder = make(name)
    e_v = encoder(video(encoder, 7))
    assert torch.equal(e_v[:, 0:6:2], e_v[:, 1:7:2])
    assert (e_v[:, 2] - e_v[:, 4]).abs().max() > 1e-4


@torch.no_grad()
@each
def test_a_missing_half_of_a_pair_is_the_last_frame_again(name):
    encoder = make(name)
    clips = video(encoder, 7)
    held = torch.cat([clips, clips[:, -1:]], dim=1)
    torch.testing.assert_close(encoder(clips), encoder(held)[:, :7])


@torch.no_grad()
@each
def test_the_colours_are_normalised_as_the_public_processors_do(name):
    from transformers.utils import constants

    kind = "OPENAI_CLIP" if name == "clip" else "IMAGENET_DEFAULT"
    mean, std = (torch.tensor(getattr(constants, f"{kind}_{part}")).view(3, 1, 1) for part in ("MEAN", "STD"))
    encoder, seen = make(name), []
    first = next(part for part in encoder.modules() if isinstance(part, nn.Conv2d | nn.Conv3d))
    first.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    clips = video(encoder, 4)
    encoder(clips)
    given = seen[0].unflatten(0, (2, 4)) if name == "clip" else seen[0].transpose(1, 2)
    torch.testing.assert_close(given, (clips - mean) / std)


@torch.no_grad()
@each
def test_a_checkpoint_gives_the_same_features_and_is_frozen(name, tmp_path):
    saved = make(name)
    save(saved, name, tmp_path)
    torch.manual_seed(1)
    loaded = SMALL[name](checkpoint=str(tmp_path)).eval()
    assert torch.equal(loaded(video(saved, 4)), saved(video(saved, 4)))
    assert not any(p.requires_grad for p in loaded.parameters())
    assert all(p.requires_grad for p in saved.parameters())


@each
def test_a_checkpoint_of_another_size_is_refused(name, tmp_path):
    save(make(name), name, tmp_path)
    with pytest.raises(CheckpointError) as error:
        make(name, layers=2, checkpoint=str(tmp_path))
    assert str(error.value) == (
        f"feature_encoder.{name}.checkpoint = '{tmp_path}': the checkpoint has 1 where "
        f"feature_encoder.{name}.layers = 2. Bind feature_encoder.{name}.layers = 1, or give another "
        "checkpoint."
    )


@each
def test_a_folder_without_a_checkpoint_is_told(name, tmp_path):
    with pytest.raises(CheckpointError) as error:
        make(name, checkpoint=str(tmp_path))
    where = f"feature_encoder.{name}.checkpoint = '{tmp_path}'"
    advice = "Give a folder with config.json and model.safetensors, or bind None to train from nothing."
    assert str(error.value) == f"{where}: no config.json there. {advice}"
    save(make(name), name, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError) as error:
        make(name, checkpoint=str(tmp_path))
    assert str(error.value).startswith(f"{where} can't be loaded: ")
    assert str(error.value).endswith(advice)


def test_a_checkpoint_without_some_of_the_weights_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    save(make("clip"), "clip", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError) as error:
        make("clip", checkpoint=str(tmp_path))
    assert str(error.value) == (
        f"feature_encoder.clip.checkpoint = '{tmp_path}' lacks 1 of the weights of "
        "CLIPVisionModelWithProjection, first visual_projection.weight. "
        "Give the folder of such a model, as transformers saves it."
    )


@torch.no_grad()
def test_clip_takes_its_half_of_a_whole_clip_model(tmp_path):
    """The public folders hold the text's tower as well."""
    from transformers import CLIPConfig, CLIPModel

    vision = make("clip").encoder.config.to_diff_dict()
    text = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    whole = CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=8)).eval()
    whole.save_pretrained(tmp_path)
    encoder = make("clip", checkpoint=str(tmp_path))
    clips = video(encoder, 1)
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    pixels = (clips[:, 0] - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    expected = whole.get_image_features(pixel_values=pixels).pooler_output
    torch.testing.assert_close(encoder(clips)[:, 0], nn.functional.normalize(expected, dim=-1))
