"""CLAP of LAION [Wu et al., 2023], by transformers: agreement of sounds and captions."""

import functools
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError

from stav2a.metrics.judges.judge import PublishedJudge, TokenizerBeside, tokenizer_in
from stav2a.registry import register
from stav2a.utils.checkpoints import CheckpointError, load_state
from stav2a.utils.torch_files import read

if TYPE_CHECKING:
    from torch import Tensor

FIRST_S = 10.0
UNRELATED = ("a dog barks", "an orchestra plays a symphony")
PARALLEL = 0.99  # cosine of two captions that have nothing to do with one another
NAMES = ("model.safetensors", "pytorch_model.bin")
BASE = {  # HTSAT-base, of which transformers' own configuration is the tiny one; RoBERTa-base
    "audio_config": {"patch_embeds_hidden_size": 128, "depths": [2, 2, 12, 2], "hidden_size": 1024},
    "text_config": {"layer_norm_eps": 1e-5},
}

# laion_clap's names -> transformers'.
RENAMED = (
    (r"^text_branch\.", "text_model."),
    (r"^audio_branch\.", "audio_model.audio_encoder."),
    (r"_projection\.0\.", "_projection.linear1."),
    (r"_projection\.2\.", "_projection.linear2."),
    (r"^(audio_model\..*)\.attn\.proj\.", r"\1.attention.output.dense."),
    (r"^(audio_model\..*)\.attn\.", r"\1.attention.self."),
    (r"^(audio_model\..*)\.mlp\.fc1\.", r"\1.intermediate.dense."),
    (r"^(audio_model\..*)\.mlp\.fc2\.", r"\1.output.dense."),
    (r"^(audio_model\..*)\.norm1\.", r"\1.layernorm_before."),
    (r"^(audio_model\..*)\.norm2\.", r"\1.layernorm_after."),
    (r"\.bn0\.", ".batch_norm."),
)

# Front ends and masks that every version makes for itself, and heads that no embedding needs.
UNNEEDED = re.compile(
    r"^(text|audio)_transform\.|^audio_branch\.(spectrogram_extractor|logmel_extractor|tscam_conv|head)\."
    r"|\.attn_mask$"
)
COUNTS = re.compile(r"\.(position|token_type)_ids$")  # 0, 1, 2 …, in files of some versions alone


class LanguageAudio(PublishedJudge):
    """A `ClapModel` with its tokenizer."""

    sample_rate = 48_000

    @property
    @abstractmethod
    def tokenizer_folder(self) -> Path:
        """Folder of the tokenizer, as transformers reads it."""

    @property
    def front_end(self) -> str:
        return f"48 kHz, the first {FIRST_S:g} s, repeat-padded, 64 mels of 50 to 14000 Hz"

    @functools.cached_property
    def _ready(self) -> tuple[Any, Any]:
        """Tokenizer and feature extractor, after a check that the model distinguishes two captions."""
        from transformers import ClapFeatureExtractor

        tokenizer = tokenizer_in(self.tokenizer_folder)
        extractor = ClapFeatureExtractor(
            truncation="rand_trunc", padding="repeatpad", frequency_min=50, frequency_max=14_000
        )
        one, other = (self._embedded(tokenizer, text) for text in UNRELATED)
        if one @ other > PARALLEL:
            raise CheckpointError(
                f"{self.file}: {UNRELATED[0]!r} and {UNRELATED[1]!r} are all but the same to these "
                f"weights of {self.name} (cosine {one @ other:.3f}). They were not loaded as they should be."
            )
        return tokenizer, extractor

    def prepare(self) -> None:
        super().prepare()
        self._ready  # noqa: B018

    def judge_batch(self, sounds: np.ndarray) -> Sequence[np.ndarray]:
        extractor = self._ready[1]
        first = list(sounds[:, : round(FIRST_S * self.sample_rate)])
        features = extractor(first, sampling_rate=self.sample_rate, return_tensors="pt")
        return list(self.model.get_audio_features(**features.to(self.device)).pooler_output.cpu().numpy())

    def read(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of captions.

        Shapes:
            N texts -> (N, D), of unit length
        """
        return np.stack([self._embedded(self._ready[0], text) for text in texts])

    def _embedded(self, tokenizer: Any, text: str) -> np.ndarray:
        import torch

        with torch.no_grad():  # one by one: padding would change the last digits
            tokens = tokenizer(text, return_tensors="pt", truncation=True, max_length=77)
            return self.model.get_text_features(**tokens.to(self.device)).pooler_output[0].cpu().numpy()


class FolderOfClap(LanguageAudio):
    """The same from a folder that transformers wrote."""

    @property
    def tokenizer_folder(self) -> Path:
        return self.file.parent

    @property
    def file(self) -> Path:
        folder = super().file
        found = [folder / name for name in NAMES if (folder / name).is_file()]
        if not found:
            raise CheckpointError(
                f"{folder}: no weights of {self.name} there. Expected {' or '.join(NAMES)}."
            )
        return found[0]

    def load(self) -> Any:
        from transformers import ClapModel

        folder = self.file.parent
        try:
            model, loading = ClapModel.from_pretrained(
                folder, output_loading_info=True, local_files_only=True, dtype="float32"
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise CheckpointError(f"{folder}: can't be read as a ClapModel ({error}).") from None
        kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
        wrong = [str(name) for kind in kinds for name in loading[kind]]
        wrong = [name for name in wrong if "position_ids" not in name]  # written by older versions
        if wrong:
            raise CheckpointError(
                f"{folder}: weights of {self.name} don't fit a ClapModel: {', '.join(wrong[:5])}."
            )
        return model


@register("judge", "clap")
class Clap(FolderOfClap):
    """LAION's CLAP without fusion, laion/clap-htsat-unfused.

    Args:
        weights: Folder of the weights; None looks for clap-htsat-unfused in the folder of all weights.

    Shapes:
        audio (S,) -> (512,), of unit length
    """

    name = "CLAP"
    published = "clap-htsat-unfused"
    source = "huggingface.co/laion/clap-htsat-unfused"


@register("judge", "clap_630k")
class Clap630k(FolderOfClap):
    """LAION's CLAP of the paper, 630k-best.pt, converted to a folder for transformers.

    Args:
        weights: Folder of the weights; None looks for clap-630k-best in the folder of all weights.

    Shapes:
        audio (S,) -> (512,), of unit length
    """

    name = "CLAP 630k-best"
    published = "clap-630k-best"
    source = (
        "huggingface.co/lukewys/laion_clap (630k-best.pt, converted by transformers 4's "
        "convert_clap_original_pytorch_to_hf.py)"
    )


@register("judge", "clap_music_speech")
class ClapMusicSpeech(TokenizerBeside, LanguageAudio):
    """LAION's CLAP of music, speech and AudioSet, with HTSAT-base: av-benchmark's.

    Args:
        weights: The file music_speech_audioset_epoch_15_esc_89.98.pt, with a folder roberta-base beside it
            that holds RoBERTa's tokenizer; None looks for both in the folder of all weights.

    Shapes:
        audio (S,) -> (512,), of unit length
    """

    name = "CLAP music_speech_audioset"
    published = "music_speech_audioset_epoch_15_esc_89.98.pt"
    source = "huggingface.co/lukewys/laion_clap"
    tokenizer_name, tokenizer_source = "roberta-base", "huggingface.co/FacebookAI/roberta-base"

    def load(self) -> Any:
        from transformers import ClapConfig, ClapModel

        model = ClapModel(ClapConfig(**BASE))
        own = {name: tensor for name, tensor in model.state_dict().items() if COUNTS.search(name)}
        tensors = renamed(read(self.file, ["state_dict"]).tensors) | own
        load_state(model, tensors, f"{self.file}: weights of {self.name}")
        return model


def renamed(tensors: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """A state dict of laion_clap under transformers' names, with queries, keys and values apart."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if UNNEEDED.search(name) or COUNTS.search(name):
            continue
        for pattern, replacement in RENAMED:
            name = re.sub(pattern, replacement, name)
        if ".attention.self.qkv." in name:
            for part, own in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                found[name.replace("qkv", part)] = own
        else:
            found[name] = tensor
    return found
