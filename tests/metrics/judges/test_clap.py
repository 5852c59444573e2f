import hashlib
import json
import re

import numpy as np
import pytest
import torch
from transformers import ClapConfig, ClapModel

from stav2a.metrics.judges import clap
from stav2a.metrics.judges.clap import Clap, Clap630k, ClapMusicSpeech
from stav2a.metrics.registered.judged import ClapScore
from stav2a.utils.checkpoints import CheckpointError
from tests.metrics.judges.judge_material import filled, tokenizer

WORDS = ["a", "dog", "barks", "an", "orchestra", "plays", "symphony"]
RATE = 48_000


def small():
    """Sizes of a small ClapModel."""
    return ClapConfig(
        text_config={
            "vocab_size": 16, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 16, "pad_token_id": 0, "projection_dim": 8,
        },
        audio_config={
            "patch_embeds_hidden_size": 8, "depths": [1, 1], "num_attention_heads": [1, 1], "hidden_size": 16,
            "projection_dim": 8,
        },
        projection_dim=8,
    )  # fmt: skip


def save(folder, change=lambda tensors: tensors):
    """A small ClapModel with random weights, and a tokenizer of a few words."""
    model = ClapModel(small())
    model.load_state_dict(change(filled(model.state_dict())))
    model.save_pretrained(folder)
    tokenizer(folder, WORDS)
    return folder


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return Clap(weights=str(save(tmp_path_factory.mktemp("clap") / "clap-htsat-unfused")))


def sound(seconds, seed=0):
    return (0.1 * np.random.default_rng(seed).normal(size=round(seconds * RATE))).astype(np.float32)


def test_sounds_and_captions_have_embeddings_of_unit_length(judge):
    heard, texts = judge(sound(1.0), RATE), judge.read(["a dog barks", "an orchestra plays"])
    assert (heard.shape, texts.shape) == ((8,), (2, 8))
    np.testing.assert_allclose([np.linalg.norm(heard), *np.linalg.norm(texts, axis=1)], 1.0, atol=1e-5)


def test_only_the_first_ten_seconds_are_heard_and_always_alike(judge):
    long = sound(12.0)
    changed = long.copy()
    changed[10 * RATE :] = 0
    assert judge(long, RATE).tobytes() == judge(changed, RATE).tobytes() == judge(long, RATE).tobytes()
    assert judge(long, RATE).tobytes() != judge(sound(12.0, seed=1), RATE).tobytes()


def test_the_front_end_is_the_published_one(judge):
    extractor = judge._ready[1]
    assert (extractor.truncation, extractor.padding) == ("rand_trunc", "repeatpad")
    assert (extractor.frequency_min, extractor.frequency_max) == (50, 14_000)
    assert (extractor.sampling_rate, extractor.hop_length, extractor.fft_window_size) == (48_000, 480, 1024)


def test_a_captions_neighbours_do_not_change_it(judge):
    (alone,), together = (
        judge.read(["a dog barks"]),
        judge.read(["an orchestra plays a symphony", "a dog barks"]),
    )
    assert alone.tobytes() == together[1].tobytes()


def test_weights_that_cannot_tell_captions_apart_are_refused(tmp_path):
    def blind(tensors):
        return {
            n: torch.zeros_like(t) if n == "text_projection.linear1.weight" else t for n, t in tensors.items()
        }

    with pytest.raises(
        CheckpointError, match="'a dog barks' and .* are all but the same to these weights of CLAP"
    ):
        Clap(weights=str(save(tmp_path / "clap", blind)))(sound(0.1), RATE)


def test_weights_of_another_model_are_refused(judge, tmp_path):
    folder = save(tmp_path / "clap")
    config = json.loads((folder / "config.json").read_text())
    config["audio_config"]["depths"] = [2, 1]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="weights of CLAP don't fit a ClapModel"):
        Clap(weights=str(folder)).model  # noqa: B018


def test_a_folder_without_weights_is_told(tmp_path):
    (tmp_path / "clap").mkdir()
    with pytest.raises(CheckpointError, match="no weights of CLAP there. Expected model.safetensors"):
        Clap(weights=str(tmp_path / "clap")).model  # noqa: B018


def test_a_folder_without_a_tokenizer_or_with_a_file_that_is_cut_off_is_told(tmp_path):
    folder = save(tmp_path / "clap")
    (folder / "tokenizer.json").rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="clap: no tokenizer there. Put its tokenizer.json"):
        Clap(weights=str(folder)).prepare()
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="clap: can't be read as a ClapModel"):
        Clap(weights=str(folder)).prepare()


THEIRS = (
    (r"^text_model\.", "text_branch."),
    (r"_projection\.linear1\.", "_projection.0."),
    (r"_projection\.linear2\.", "_projection.2."),
    (r"^(audio_model\..*)\.attention\.output\.dense\.", r"\1.attn.proj."),
    (r"^(audio_model\..*)\.attention\.self\.", r"\1.attn."),
    (r"^(audio_model\..*)\.intermediate\.dense\.", r"\1.mlp.fc1."),
    (r"^(audio_model\..*)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"^(audio_model\..*)\.layernorm_before\.", r"\1.norm1."),
    (r"^(audio_model\..*)\.layernorm_after\.", r"\1.norm2."),
    (r"\.batch_norm\.", ".bn0."),
    (r"^audio_model\.audio_encoder\.", "audio_branch."),
)


def published(state):
    """A ClapModel's tensors under laion_clap's names."""
    found, thirds = {}, {}
    for name, tensor in state.items():
        if name.endswith(("position_ids", "token_type_ids")):
            continue
        for ours, theirs in THEIRS:
            name = re.sub(ours, theirs, name)
        if third := re.search(r"^(audio_branch\..*\.attn)\.(query|key|value)\.(\w+)$", name):
            thirds.setdefault(f"{third[1]}.qkv.{third[3]}", {})[third[2]] = tensor
        else:
            found[name] = tensor
    return found | {
        name: torch.cat([each[part] for part in ("query", "key", "value")]) for name, each in thirds.items()
    }


def test_the_layout_of_htsat_base_is_the_authors():
    """Hash of names and shapes of laion_clap 1.1.7's CLAP with HTSAT-base, but for what is not needed."""
    with torch.device("meta"):
        state = published(ClapModel(ClapConfig(**clap.BASE)).state_dict())
    lines = sorted(f"{name} {tuple(tensor.shape)}" for name, tensor in state.items())
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] == "2e788aaec4885fa4"


@pytest.fixture
def one_file(tmp_path, monkeypatch):
    """A small file as laion_clap's training writes it, with what is not needed beside it."""
    monkeypatch.setattr(clap, "BASE", small().to_dict())
    model = ClapModel(small())
    model.load_state_dict(filled(model.state_dict()))
    beside = {
        "text_transform.sequential.0.weight": torch.zeros(2, 2),
        "audio_branch.head.bias": torch.zeros(2),
    }
    state = {f"module.{name}": tensor for name, tensor in (published(model.state_dict()) | beside).items()}
    path = tmp_path / ClapMusicSpeech.published
    torch.save({"epoch": 15, "state_dict": state}, path)
    return path, model.eval()


def test_a_file_of_the_authors_is_read_as_it_is(one_file):
    path, model = one_file
    judge = ClapMusicSpeech(weights=str(path))
    assert judge.fault == (
        "tokenizer of CLAP music_speech_audioset not found: put a folder roberta-base with the tokenizer of "
        f"huggingface.co/FacebookAI/roberta-base beside it: {path.parent}/roberta-base"
    )
    tokenizer(path.parent / "roberta-base", WORDS)
    assert judge.fault is None
    for name, tensor in model.state_dict().items():
        assert name.endswith("_ids") or torch.equal(judge.model.state_dict()[name], tensor), name
    assert judge(sound(1.0), RATE).shape == (8,) and judge.read(["a dog barks"]).shape == (1, 8)


def test_a_file_of_another_model_is_refused(one_file):
    path, _ = one_file
    tokenizer(path.parent / "roberta-base", WORDS)
    torch.save({"state_dict": {"module.text_projection.0.weight": torch.zeros(2, 2)}}, path)
    with pytest.raises(
        CheckpointError, match="weights of CLAP music_speech_audioset does not fit this model"
    ):
        ClapMusicSpeech(weights=str(path)).model  # noqa: B018


def test_scores_by_other_weights_have_names_of_their_own(monkeypatch):
    monkeypatch.delenv("STAV2A_WEIGHTS", raising=False)
    names = {kind: ClapScore(judge=kind).reporter.name for kind in (Clap, Clap630k, ClapMusicSpeech)}
    assert list(names.values()) == ["clap", "clap_released", "clap_music_speech"]
