"""From a trained model to sounds on the held-out clips, and to all that is measured on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from stav2a.assembly import STAV2A
from stav2a.data import mel as front_end
from stav2a.data.clip import Clip
from stav2a.metrics.sets import Classified, EvaluationSet
from stav2a.metrics.sounds import Arrays
from stav2a.processes import device
from stav2a.sampling import to_audio

BATCH = 32
LOUDEST = 0.99


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


def generate(
    model: STAV2A,
    e_v: Tensor,
    captions: Sequence[str],
    *,
    sampler: Any,
    scheduler: Any,
    num_inference_steps: int,
    guidance_scale: float,
    seed: int,
) -> np.ndarray:
    """Sounds for many clips, in batches: clip i has the noise of seed (seed, i), whatever the batches.

    Shapes:
        e_v (N, L, D_v) -> audio (N, S)
    """
    model.eval()
    parts = []
    for start in tqdm(range(0, len(captions), BATCH), desc="sampling", unit="batch", leave=False):
        rows = slice(start, start + BATCH)
        seeds = [seed * 1_000_003 + 2 * i for i in range(start, min(start + BATCH, len(captions)))]
        z = sampler(
            model,
            e_v[rows].to(device()),
            captions[rows],
            scheduler=scheduler,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            seeds=seeds,
        )
        parts.append(to_audio(model, z)[1].cpu().numpy())
    return np.concatenate(parts).clip(-LOUDEST, LOUDEST)


@torch.no_grad()
def classified(classifier: Any, made: Generated, *, name: str) -> Classified:
    """What the dataset's own classifier says of both sides."""
    classifier.eval()
    sides = [classifier(log_mels(audio).to(device())) for audio in (made.audio, made.references)]
    (ours, our_embeddings), (theirs, their_embeddings) = sides
    return Classified(
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
    classifier: Classified | None,
    classes: Sequence[str],
    flow: str = "Farneback",
) -> EvaluationSet:
    """All that metrics may ask about the held-out clips."""
    clips = made.clips
    known = all(clip.onsets_s is not None for clip in clips)
    return EvaluationSet(
        ids=[clip.id for clip in clips],
        sounds=Arrays(
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
