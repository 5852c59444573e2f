"""A network of every registered judge, with random weights: of the published layout, or tiny."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import ClapFeatureExtractor, ClapModel

from stav2a import registry
from stav2a.metrics.judges import cnn14, ms_clap, vggish
from stav2a.metrics.judges.cavp import CAVPTowers
from stav2a.metrics.judges.imagebind import ImageBindTowers
from stav2a.metrics.judges.judge import PublishedJudge
from stav2a.metrics.judges.passt import PatchTransformer
from stav2a.metrics.judges.synchformer import SynchNetwork
from stav2a.metrics.judges.yamnet import YAMNetwork
from tests.metrics.judges import (
    test_audiobox_aesthetics,
    test_cavp_judge,
    test_clap,
    test_imagebind,
    test_synchformer,
)
from tests.metrics.judges.judge_material import filled


def without_last_relu() -> nn.Module:
    network = vggish.network()
    network.embeddings = network.embeddings[:-1]
    return network


def cavp() -> nn.Module:
    network = CAVPTowers(**test_cavp_judge.SIZES)
    network.load_state_dict(filled(network.state_dict()))  # torch's own numbers give all sounds one answer
    return network


def yamnet() -> nn.Module:
    network = YAMNetwork()
    network.load_state_dict(filled(network.state_dict()))
    torch.nn.init.normal_(network.logits.weight, std=1e-8)  # else probabilities are 0 or 1
    return network


def clap() -> nn.Module:
    return ClapModel(test_clap.small())


NETWORKS: dict[str, Callable[[], Any]] = {
    "audiobox_aesthetics": test_audiobox_aesthetics.tiny,
    "cavp": cavp,
    "clap": clap,
    "clap_630k": clap,
    "clap_music_speech": clap,
    "imagebind": partial(ImageBindTowers, **test_imagebind.SIZES),
    "imagebind_clips": partial(ImageBindTowers, **test_imagebind.SIZES),
    "ms_clap": ms_clap.Towers,
    "panns_cnn14": cnn14.network,
    "passt": partial(PatchTransformer, depth=1),
    "synchformer": partial(SynchNetwork, **test_synchformer.TINY),
    "vggish": without_last_relu,
    "yamnet": yamnet,
    "yamnet_windows": yamnet,
}


def judge_of(name: str) -> PublishedJudge:
    """The judge with its network, on the CPU."""
    judge = registry.get("judge", name).factory(weights="none")
    torch.manual_seed(0)
    judge.__dict__["model"] = NETWORKS[name]().eval()
    if name.startswith("clap"):
        judge.__dict__["_ready"] = (None, ClapFeatureExtractor(truncation="rand_trunc", padding="repeatpad"))
    return judge
