"""Mean optical flow of the test clips, kept in the store."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from stav2a.data.clip import Clip
from stav2a.data.media import decode
from stav2a.data.optical_flow import motion
from stav2a.slots import OpticalFlow
from stav2a.utils.files import write_json
from stav2a.utils.parallel import parallel
from stav2a.utils.store import Store, load_tensors, save_tensors


def mean_flows(
    clips: Sequence[Clip], flow: OpticalFlow, *, store: Store, key: str
) -> tuple[list[np.ndarray], list[float]]:
    """Mean flow of every clip's own frames, at their own size and rate, and this rate; kept in the store."""

    def make(made: Path) -> None:
        found = list(parallel(partial(_flow, flow), clips, description="optical flow of the test clips"))
        flows = {str(i): torch.from_numpy(flow) for i, (flow, _) in enumerate(found)}
        save_tensors(made / "flows.safetensors", flows)
        write_json(made / "rates.json", [rate for _, rate in found])

    folder = store.obtain("flows", key, make)
    flows = load_tensors(folder / "flows.safetensors")
    return [flows[str(i)].numpy() for i in range(len(clips))], json.loads((folder / "rates.json").read_text())


def _flow(flow: OpticalFlow, clip: Clip) -> tuple[np.ndarray, float]:
    """What worker processes run."""
    decoded = decode(clip.video)
    return decoded.reduction * motion(decoded.frames, flow=flow), decoded.frame_rate_hz
