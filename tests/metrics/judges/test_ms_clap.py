"""MS-CLAP with random weights under msclap's own names.

The golden numbers are those of msclap 1.3.4's code with the same tensors (see `filled`), on the same signals.
"""

import numpy as np
import pytest
import torch

from stav2a.metrics.judges.ms_clap import RATE, MSClap, Towers, renamed, segments
from stav2a.utils.checkpoints import CheckpointError
from tests.metrics.judges.judge_material import filled, tokenizer

pytestmark = pytest.mark.slow

PROMPT = torch.tensor([[464, 2128, 318, 1598, 13, 220, 50256]])
GOLDEN = {
    "7 s": [-1.2605, 0.5128, 1.4072, -1.8055],
    "10 s": [-1.2632, 0.4733, 1.4129, -1.8115],
    "3 s": [-1.2602, 0.6069, 1.3982, -1.7957],
    "text": [-0.1814, 0.3476, 0.6963, 1.1178],
}


def published(towers: Towers) -> dict[str, torch.Tensor]:
    """Our tensors under msclap's names, with what its file holds besides."""
    names = [
        ("front_end.", "audio_encoder.base.htsat."),
        ("tower.", "audio_encoder.base.htsat."),
        ("audio_projection.", "audio_encoder.projection."),
        ("text.", "caption_encoder.base."),
        ("text_projection.", "caption_encoder.projection."),
        (".attention.output.dense.", ".attn.proj."),
        (".attention.self.", ".attn."),
        (".intermediate.dense.", ".mlp.fc1."),
        (".layernorm_before.", ".norm1."),
        (".layernorm_after.", ".norm2."),
        ("htsat.batch_norm.", "htsat.bn0."),
    ]
    found: dict[str, torch.Tensor] = {}
    parts: dict[str, list[torch.Tensor]] = {}
    for name, tensor in towers.state_dict().items():
        for ours, theirs in names[:5]:
            name = theirs + name.removeprefix(ours) if name.startswith(ours) else name
        for ours, theirs in names[5:]:
            name = name.replace(ours, theirs)
        if "htsat.layers" in name and ".output.dense." in name:
            name = name.replace(".output.dense.", ".mlp.fc2.")
        kind = next((k for k in ("query", "key", "value") if f".attn.{k}." in name), None)
        if kind and "htsat" in name:
            parts.setdefault(name.replace(kind, "qkv"), []).append(tensor)
        else:
            found[name] = tensor
    found |= {name: torch.cat(tensors) for name, tensors in parts.items()}
    unneeded = {
        "audio_encoder.base.htsat.head.weight": torch.zeros(527, 527),
        "audio_encoder.base.htsat.tscam_conv.bias": torch.zeros(527),
        "caption_encoder.base.h.0.attn.bias": torch.ones(1, 1, 2, 2, dtype=torch.bool),
        "caption_encoder.base.h.0.attn.masked_bias": torch.tensor(-1e4),
    }
    return found | unneeded


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ms_clap")
    torch.save({"model": filled(published(Towers()))}, folder / "CLAP_weights_2023.pth")
    tokenizer(
        folder / "gpt2", ["the", "sound", "is", "clear", "and", "clean.", "noisy", "with", "artifacts."]
    )
    yield MSClap(weights=str(folder / "CLAP_weights_2023.pth"))
    (folder / "CLAP_weights_2023.pth").unlink()  # 640 MB


def tone(seconds):
    t = np.arange(7 * RATE) / RATE
    decay = (0.3 * np.sin(2 * np.pi * 440 * t) * np.exp(-t)).astype(np.float32)
    return np.concatenate([decay, decay[::-1]])[: round(seconds * RATE)]


@pytest.mark.parametrize("seconds", [3, 7, 10])
def test_sounds_are_embedded_as_by_msclap(judge, seconds):
    found = judge.model.features(torch.from_numpy(tone(seconds).copy())[None])[0, :4]
    assert found.tolist() == pytest.approx(GOLDEN[f"{seconds} s"], abs=2e-4)


def test_texts_are_embedded_as_by_msclap(judge):
    assert judge.model.read(PROMPT)[0, :4].tolist() == pytest.approx(GOLDEN["text"], abs=2e-4)


def test_a_sound_is_heard_in_segments_again_and_again(judge):
    heard = judge(tone(10), RATE)
    assert heard.shape == (2, 1024)
    assert heard.tobytes() == judge(tone(10), RATE).tobytes()
    assert MSClap(weights=str(judge.path), segment_s=10.0).front_end == "44.1 kHz, segments of 10 s, 64 mels"


def test_prompts_are_read_by_their_last_token(judge):
    texts = judge.read(["the sound is clear and clean.", "the sound is noisy and with artifacts."])
    assert texts.shape == (2, 1024)
    assert np.abs(texts[0] - texts[1]).max() > 0.01
    assert judge.scale == pytest.approx(np.exp(2.0))


def test_a_missing_tokenizer_is_told(judge, tmp_path):
    (tmp_path / "CLAP_weights_2023.pth").symlink_to(judge.path)
    with pytest.raises(CheckpointError, match="gpt2: no tokenizer there. Put its tokenizer.json"):
        MSClap(weights=str(tmp_path / "CLAP_weights_2023.pth")).read(["a"])
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "gpt2" / "config.json").write_text('{"model_type": "gpt2"}')  # an empty one, to transformers
    with pytest.raises(CheckpointError, match="gpt2: no tokenizer there. Put its tokenizer.json"):
        MSClap(weights=str(tmp_path / "CLAP_weights_2023.pth")).read(["a"])
    (tmp_path / "gpt2" / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="gpt2: no tokenizer there .*Put its tokenizer.json"):
        MSClap(weights=str(tmp_path / "CLAP_weights_2023.pth")).read(["a"])


def test_weights_of_another_model_are_refused(tmp_path):
    torch.save({"model": {"audio_encoder.projection.linear1.weight": torch.zeros(2, 2)}}, tmp_path / "x.pth")
    tokenizer(tmp_path / "gpt2", ["a"])
    with pytest.raises(CheckpointError, match="weights of MS-CLAP 2023 does not fit this model: missing"):
        MSClap(weights=str(tmp_path / "x.pth")).model  # noqa: B018


def test_every_published_name_has_a_place():
    model = Towers()
    assert set(renamed(published(model))) == set(model.state_dict())
    assert segments(np.arange(10.0), 4).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [6, 7, 8, 9]]
