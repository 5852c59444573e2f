"""CLAP of LAION [Wu et al., 2023], by transformers: agreement of sounds and captions."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stav2a.metrics.judges.judge import PublishedJudge
from stav2a.registry import register
from stav2a.utils.checkpoints import CheckpointError

FIRST_S = 10.0
UNRELATED = ("a dog barks", "an orchestra plays a symphony")
PARALLEL = 0.99  # cosine of two captions that have nothing to do with one another
NAMES = ("model.safetensors", "pytorch_model.bin")


class LanguageAudio(PublishedJudge):
    """A `ClapModel` with its tokenizer, from a folder that transformers wrote."""

    sample_rate = 48_000

    @property
    def file(self) -> Path:
        folder = super().file
        found = [folder / name for name in NAMES if (folder / name).is_file()]
        if not found:
            raise CheckpointError(
                f"{folder}: no weights of {self.name} there. Expected {' or '.join(NAMES)}."
            )
        return found[0]

    @property
    def front_end(self) -> str:
        return f"48 kHz, the first {FIRST_S:g} s, repeat-padded, 64 mels of 50 to 14000 Hz"

    def load(self) -> Any:
        from transformers import ClapModel

        folder = self.file.parent
        try:
            model, loading = ClapModel.from_pretrained(
                folder, output_loading_info=True, local_files_only=True, dtype="float32"
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{folder}: can't be read as a ClapModel ({error}).") from None
        kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
        wrong = [str(name) for kind in kinds for name in loading[kind]]
        wrong = [name for name in wrong if "position_ids" not in name]  # written by older versions
        if wrong:
            raise CheckpointError(
                f"{folder}: weights of {self.name} don't fit a ClapModel: {', '.join(wrong[:5])}."
            )
        return model

    @functools.cached_property
    def _ready(self) -> tuple[Any, Any]:
        """Tokenizer and feature extractor, after a check that the model distinguishes two captions."""
        from transformers import AutoTokenizer, ClapFeatureExtractor

        tokenizer = AutoTokenizer.from_pretrained(self.file.parent, local_files_only=True)
        extractor = ClapFeatureExtractor(
            truncation="rand_trunc", padding="repeatpad", frequency_min=50, frequency_max=14_000
        )
        one, other = (self._embedded(tokenizer, text) for text in UNRELATED)
        if one @ other > PARALLEL:
            raise CheckpointError(
                f"{self.file.parent}: {UNRELATED[0]!r} and {UNRELATED[1]!r} are all but the same to these "
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


@register("judge", "clap")
class Clap(LanguageAudio):
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
class Clap630k(LanguageAudio):
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
