"""PANNs' Cnn14 at 16 kHz [Kong et al., 2020]: the classifier of FD, KL and IS."""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from stav2a.metrics.judges.judge import PublishedJudge, padded, records
from stav2a.registry import register
from stav2a.utils.checkpoints import load_state
from stav2a.utils.torch_files import read

CLASSES, WIDTH = 527, 2048
SHORTEST = 5120  # samples: five poolings leave one frame
FRONT_END = {
    "sample_rate": 16_000,
    "window_size": 512,
    "hop_size": 160,
    "mel_bins": 64,
    "fmin": 50,
    "fmax": 8000,
}
OUTPUTS = np.dtype([("embedding", np.float32, WIDTH), ("logits", np.float32, CLASSES)])


@register("judge", "panns_cnn14")
class Cnn14(PublishedJudge):
    """Cnn14 of PANNs for sound at 16 kHz: 2048 numbers after fc1's ReLU, and 527 AudioSet logits.

    Args:
        weights: The file Cnn14_16k_mAP=0.438.pth; None looks for it in the folder of all weights.

    Shapes:
        audio (S,) -> a record (): embedding (2048,), logits (527,)
    """

    name = "PANNs Cnn14 classifier"
    published = "Cnn14_16k_mAP=0.438.pth"
    source = "zenodo.org/records/3987831"
    sample_rate = FRONT_END["sample_rate"]

    @property
    def front_end(self) -> str:
        return "16 kHz, window 512, hop 160, 64 mels of 50 to 8000 Hz"

    def load(self) -> Any:
        model = network()
        load_state(model, read(self.file, ["model"]).tensors, f"{self.file}: weights of {self.name}")
        return model

    def judge_batch(self, sounds: np.ndarray) -> Sequence[np.ndarray]:
        logits: list[Any] = []  # the network gives probabilities alone
        hook = self.model.fc_audioset.register_forward_hook(lambda _, __, out: logits.append(out))
        try:
            found = self.model(self.tensor(padded(sounds, SHORTEST)))
        finally:
            hook.remove()
        return records(OUTPUTS, found["embedding"], logits[0])


def network() -> Any:
    """Cnn14 of the package panns-inference, with random weights."""
    return _models().Cnn14(classes_num=CLASSES, **FRONT_END)


def _models() -> ModuleType:
    """Import the package's models.py alone: the package itself calls wget when it is imported."""
    alone = "_panns_models"
    if alone not in sys.modules:
        found = importlib.util.find_spec("panns_inference")
        if found is None:
            raise ModuleNotFoundError("PANNs' network needs panns-inference: pip install panns-inference")
        package = ModuleType(alone)
        package.__path__ = list(found.submodule_search_locations or ())
        sys.modules[alone] = package
    return importlib.import_module(f"{alone}.models")
