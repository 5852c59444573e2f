"""All training stages, and the classifier that is trained like one: one import registers them."""

from stav2a.training.stages.autoencoder import AutoencoderStage
from stav2a.training.stages.classifier import MelCNN
from stav2a.training.stages.contrastive import ContrastiveStage
from stav2a.training.stages.joint import JointStage
from stav2a.training.stages.onset import OnsetStage
from stav2a.training.stages.t2a import T2AFinetune, T2APretrain

__all__ = [
    "AutoencoderStage", "ContrastiveStage", "JointStage", "MelCNN", "OnsetStage", "T2AFinetune",
    "T2APretrain",
]  # fmt: skip
