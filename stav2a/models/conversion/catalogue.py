"""Published weights that `stav2a fetch` downloads: addresses, licences, and where they are looked for.

A revision or a sha256 stands here where it is known from several independent sources; nothing could be
downloaded where this was written. Files without one are recorded by the first download.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from stav2a.utils.downloads import RemoteFile

CHECKPOINTS = "checkpoints"  # the folder that recipes/scale/ names
UNKNOWN = "unknown to us"
CAVP = RemoteFile(
    "cavp_epoch66.ckpt",
    "SimianLuo/Diff-Foley/diff_foley_ckpt/cavp_epoch66.ckpt",
    revision="b17ddbe76e6d42f4b4135eeb443b1c1644267e3e",
    sha256="3472c2217a9481f530a96e32611c9e4611766f10b7f0d185a1ce35be7b7f9c80",
    size=1_361_483_035,
)


@dataclass(frozen=True)
class PublishedWeights:
    """Weights of one model.

    Args:
        purpose: What they are for.
        licence: Licence of the weights, as far as it is known.
        page: Page that states it.
        files: Files to download. With a `kind` the first one is converted, and the others are put beside it.
        kind: Kind of `stav2a convert`; empty for files that are read as they are.
        folder: Folder of what is converted.
        judge: True where they are looked for in the folder of all judges' weights.
        blocks: Folders of other weights that are copied into this one, by their names here.
        with_sampling: True for a whole model, whose settings of sampling are written too.
    """

    purpose: str
    licence: str
    page: str
    files: tuple[RemoteFile, ...]
    kind: str = ""
    folder: str = ""
    judge: bool = False
    blocks: Mapping[str, str] = field(default_factory=dict)
    with_sampling: bool = False

    @property
    def size(self) -> int:
        """Bytes of the weights; 0 where it is not known."""
        return self.files[0].size

    @property
    def targets(self) -> tuple[str, ...]:
        """Files and folders that there are afterwards."""
        if self.kind:
            return (self.folder,)
        return tuple(dict.fromkeys(file.name.split("/")[0] for file in self.files))

    @property
    def needs(self) -> tuple[str, ...]:
        """Other weights that are fetched before."""
        return tuple(dict.fromkeys(folder.split("/")[0] for folder in self.blocks.values()))


def _from_repository(repository: str, names: str, folder: str, revision: str = "") -> tuple[RemoteFile, ...]:
    return tuple(RemoteFile(f"{folder}/{name}", f"{repository}/{name}", revision) for name in names.split())


def _from_hub(repository: str) -> str:
    return f"https://huggingface.co/{repository}"


CATALOGUE: dict[str, PublishedWeights] = {
    "released": PublishedWeights(
        "the authors' whole model: stav2a generate --model released; recipes/scale/released.gin",
        f"{UNKNOWN}; of the tokenizer Apache-2.0 (google/mt5-large)",
        _from_hub("y-ren16/STAV2A"),
        (
            RemoteFile("pytorch_model_2.bin", "y-ren16/STAV2A/STA-V2A/best/pytorch_model_2.bin"),
            *_from_repository(
                "google/mt5-large",
                "spiece.model special_tokens_map.json tokenizer_config.json",
                "text_encoder",
            ),
        ),
        kind="released",
        folder="released",
        blocks={"autoencoder": "audioldm/vae", "vocoder": "audioldm/vocoder"},
        with_sampling=True,
    ),
    "cavp": PublishedWeights(
        "feature_encoder.cavp at the paper's scale",
        "Apache-2.0 (Diff-Foley)",
        _from_hub("SimianLuo/Diff-Foley"),
        (CAVP,),
        kind="cavp",
        folder="cavp",
    ),
    "audioldm": PublishedWeights(
        "autoencoder.kl and vocoder.hifigan at the paper's scale",
        UNKNOWN,
        _from_hub("haoheliu/AudioLDM-S-Full"),
        (RemoteFile("audioldm-s-full.ckpt", "haoheliu/AudioLDM-S-Full/audioldm-s-full"),),
        kind="audioldm",
        folder="audioldm",
    ),
    "tango": PublishedWeights(
        "unet.stable_diffusion and text_encoder.t5 of recipes/scale/tango.gin",
        f"{UNKNOWN}; of the tokenizer Apache-2.0 (google/flan-t5-large)",
        _from_hub("declare-lab/tango"),
        (
            RemoteFile("pytorch_model_main.bin", "declare-lab/tango/pytorch_model_main.bin"),
            *_from_repository(
                "google/flan-t5-large",
                "spiece.model special_tokens_map.json tokenizer_config.json tokenizer.json",
                "text_encoder",
            ),
        ),
        kind="tango",
        folder="t2a",
    ),
    "panns_cnn14": PublishedWeights(
        "metrics fd, kl, is, kad",
        UNKNOWN,
        "https://zenodo.org/records/3987831",
        (
            RemoteFile(
                "Cnn14_16k_mAP=0.438.pth",
                "https://zenodo.org/records/3987831/files/Cnn14_16k_mAP=0.438.pth",
                sha256="e2ee543a27919542c2ea03eabaa70b24dcd4e6c8e05621de6b67a94e4c5058e6",
                size=358_668_570,
            ),
        ),
        judge=True,
    ),
    "vggish": PublishedWeights(
        "metric fad",
        UNKNOWN,
        "https://github.com/harritaylor/torchvggish",
        (
            RemoteFile(
                "vggish-10086976.pth",
                "https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth",
                sha256="10086976",  # by torch.hub's convention the name has its beginning
            ),
        ),
        judge=True,
    ),
    "clap": PublishedWeights(
        "metric clap",
        "Apache-2.0 by its model card",
        _from_hub("laion/clap-htsat-unfused"),
        (
            RemoteFile(
                "clap-htsat-unfused/pytorch_model.bin",
                "laion/clap-htsat-unfused/pytorch_model.bin",
                revision="8fa0f1c6d0433df6e97c127f64b2a1d6c0dcda8a",
                sha256="1cd3c601bc4afe0fa87be3de4c13dd2cfadd249fac1e29acf74a9b296c3219bb",
                size=614_525_833,
            ),
            *_from_repository(
                "laion/clap-htsat-unfused",
                "config.json merges.txt special_tokens_map.json tokenizer.json tokenizer_config.json "
                "vocab.json",
                "clap-htsat-unfused",
                "8fa0f1c6d0433df6e97c127f64b2a1d6c0dcda8a",
            ),
        ),
        judge=True,
    ),
    "clap_music_speech": PublishedWeights(
        "metric clap_music_speech",
        f"{UNKNOWN}; the code is CC0-1.0; of the tokenizer MIT (FacebookAI/roberta-base)",
        _from_hub("lukewys/laion_clap"),
        (
            RemoteFile(
                "music_speech_audioset_epoch_15_esc_89.98.pt",
                "lukewys/laion_clap/music_speech_audioset_epoch_15_esc_89.98.pt",
            ),
            *_from_repository(
                "FacebookAI/roberta-base",
                "config.json merges.txt tokenizer.json tokenizer_config.json vocab.json",
                "roberta-base",
            ),
        ),
        judge=True,
    ),
    "ms_clap": PublishedWeights(
        "metric pam",
        f"{UNKNOWN}; of the tokenizer MIT (openai-community/gpt2)",
        _from_hub("microsoft/msclap"),
        (
            RemoteFile(
                "CLAP_weights_2023.pth",
                "microsoft/msclap/CLAP_weights_2023.pth",
                revision="c47d441165daa21986ead0850660917636a81775",
                sha256="2cef4016d47d00eb28d153d522f397222057f95000e9bad6b9583c631284a1e6",
                size=689_950_036,
            ),
            *_from_repository(
                "openai-community/gpt2",
                "config.json merges.txt tokenizer.json tokenizer_config.json vocab.json",
                "gpt2",
                "607a30d783dfa663caf39e06633721c8d4cfcd7e",
            ),
        ),
        judge=True,
    ),
    "cavp_score": PublishedWeights(
        "metric cavp_score: the file of cavp, with its sound tower",
        "Apache-2.0 (Diff-Foley)",
        _from_hub("SimianLuo/Diff-Foley"),
        (CAVP,),
        judge=True,
    ),
    "imagebind": PublishedWeights(
        "metric imagebind",
        "CC-BY-NC-SA 4.0 by its model card, CC-BY-NC 4.0 by its README: not for commercial use",
        "https://github.com/facebookresearch/ImageBind",
        (RemoteFile("imagebind_huge.pth", "https://dl.fbaipublicfiles.com/imagebind/imagebind_huge.pth"),),
        judge=True,
    ),
    "audiobox_aesthetics": PublishedWeights(
        "metrics production_quality, production_complexity, content_enjoyment, content_usefulness",
        "CC-BY 4.0 by its package",
        "https://github.com/facebookresearch/audiobox-aesthetics",
        (
            RemoteFile(
                "audiobox-aesthetics.pt", "https://dl.fbaipublicfiles.com/audiobox-aesthetics/checkpoint.pt"
            ),
        ),
        judge=True,
    ),
    "passt": PublishedWeights(
        "metrics fd_passt, kl_passt, is_passt",
        f"{UNKNOWN}; the code is Apache-2.0",
        "https://github.com/kkoutini/PaSST",
        (
            RemoteFile(
                "passt-s-f128-p16-s10-ap.476-swa.pt",
                "https://github.com/kkoutini/PaSST/releases/download/v0.0.1-audioset/"
                "passt-s-f128-p16-s10-ap.476-swa.pt",
                sha256="302903fa8c4aee817b11dc982da0b29aaf8d11a3e722420476d0a12c9db70c2c",
                size=344_665_734,
            ),
        ),
        judge=True,
    ),
    "synchformer": PublishedWeights(
        "metric desync",
        UNKNOWN,
        "https://github.com/hkchengrex/MMAudio",
        (
            RemoteFile(
                "synchformer_state_dict.pth",
                "https://github.com/hkchengrex/MMAudio/releases/download/v0.1/synchformer_state_dict.pth",
                sha256="8aff082f2df5c3bc52759db0c865c7ee772ae6400b860d1b7e90413f2defb67c",
                size=950_058_171,
            ),
        ),
        judge=True,
    ),
    "yamnet": PublishedWeights(
        "judge.yamnet; needs the extra keras, for h5py",
        "Apache-2.0 (YAMNet's authors)",
        "https://github.com/tensorflow/models/tree/master/research/audioset/yamnet",
        (RemoteFile("yamnet.h5", "https://storage.googleapis.com/audioset/yamnet.h5"),),
        kind="yamnet",
        folder="yamnet",
        judge=True,
    ),
}
