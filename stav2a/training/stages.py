"""All training stages, and the classifier that is trained like one: one import registers them."""

from stav2a.training.autoencoder import AutoencoderStage
from stav2a.training.classifier import MelCNN
from stav2a.training.contrastive import ContrastiveStage
from stav2a.training.joint import JointStage
from stav2a.training.onset import OnsetStage
from stav2a.training.t2a import T2AFinetune, T2APretrain

__all__ = [
    "AutoencoderStage",
    "ContrastiveStage",
    "JointStage",
    "MelCNN",
    "OnsetStage",
    "T2AFinetune",
    "T2APretrain",
]
