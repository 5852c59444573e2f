"""From a trained model to sounds on the held-out clips, and to all that is measured on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stav2a.data import mel as front_end
from stav2a.data.clip import Clip
from stav2a.metrics.score import ArraySounds, ClassifierOutputs, EvaluationSet
from stav2a.utils.distributed import device


@dataclass(frozen=True)
class Generated:
    """Sounds made for the held-out clips, and the clips' own.

    Args:
        clips: The clips, in the rows' order.
        audio: Generated sounds (N, S) at the front end's rate.
        references: The clips' sounds (N, S).
    """

    clips: Sequence[Clip]
    audio: np.ndarray
    references: np.ndarray


@torch.no_grad()
def classified(classifier: Any, made: Generated, *, name: str) -> ClassifierOutputs:
    """What the dataset's own classifier says of both sides."""
    classifier.eval()
    sides = [classifier(log_mels(audio).to(device())) for audio in (made.audio, made.references)]
    (ours, our_embeddings), (theirs, their_embeddings) = sides
    return ClassifierOutputs(
        name=name,
        generated_logits=ours.cpu().numpy(),
        reference_logits=theirs.cpu().numpy(),
        generated_embeddings=our_embeddings.cpu().numpy(),
        reference_embeddings=their_embeddings.cpu().numpy(),
    )


def log_mels(audio: np.ndarray) -> Tensor:
    """Waveforms (N, S) -> log-mels (N, 1, Tm, M)."""
    return front_end.log_mel(torch.from_numpy(np.ascontiguousarray(audio, dtype=np.float32)))


def evaluation_set(
    made: Generated,
    flows: Sequence[np.ndarray],
    rates_hz: Sequence[float],
    classifier: ClassifierOutputs | None,
    classes: Sequence[str],
    flow: str = "Farneback",
) -> EvaluationSet:
    """All that metrics may ask about the held-out clips."""
    clips = made.clips
    known = all(clip.onsets_s is not None for clip in clips)
    return EvaluationSet(
        ids=[clip.id for clip in clips],
        sounds=ArraySounds(
            generated=list(made.audio), references=list(made.references), sample_rate=front_end.SAMPLE_RATE
        ),
        flows=list(flows),
        frame_rate_hz=list(rates_hz),
        flow_definition=f"{flow} at the native size and rate",
        true_onsets_s=[np.array(clip.onsets_s) for clip in clips] if known else None,
        labels=np.array([classes.index(clip.label) for clip in clips if clip.label]) if classifier else None,
        vague=np.array([bool(clip.vague) for clip in clips]),
        captions=[clip.caption for clip in clips],
        classifier=classifier,
    )
