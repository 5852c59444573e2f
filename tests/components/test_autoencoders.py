import pytest
import torch

from stav2a.components.autoencoders import MelVAE, MMAudioMelVAE, Oobleck, WhitenedVAE
from stav2a.data.front_ends import MMAudioMel, Waveform
from stav2a.utils.errors import UsageError
from tests import tiny


def small(**changes) -> MelVAE:
    torch.manual_seed(0)
    sizes = {"block_out_channels": (8, 16), "latent_channels": 4, "layers_per_block": 1, "patch": 2}
    return MelVAE(**{**sizes, "mel_mean": -5.0, "mel_std": 2.0, **changes}).eval()


@pytest.fixture(scope="module")
def mel() -> torch.Tensor:
    return tiny.clips()[1]


@torch.no_grad()
@pytest.mark.parametrize(
    ("patch", "channels", "downsampling"), [(1, (8, 16), 2), (2, (8, 16), 4), (4, (8,), 4), (4, (8, 16), 8)]
)
def test_the_patch_and_every_further_resolution_shrink_time_and_frequency(mel, patch, channels, downsampling):
    vae = small(patch=patch, block_out_channels=channels)
    assert vae.downsampling == downsampling
    mean, std = vae.encode(mel)
    assert mean.shape == std.shape == (len(mel), 4, 64 // downsampling, 64 // downsampling)
    assert (std > 0).all()
    assert vae.decode(mean).shape == mel.shape


@torch.no_grad()
def test_whitened_latents_have_zero_mean_and_unit_deviation(mel):
    vae = small()
    tiny.shake(vae)

    def sampled() -> torch.Tensor:
        mean, std = vae.encode(mel)
        return mean + std * torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))

    assert (sampled().std(dim=(0, 2, 3)) - 1).abs().max() > 0.3  # or there would be nothing to whiten
    vae.whiten(mel)
    z = sampled()
    torch.testing.assert_close(z.mean(dim=(0, 2, 3)), torch.zeros(4), rtol=0, atol=0.05)
    torch.testing.assert_close(z.std(dim=(0, 2, 3)), torch.ones(4), rtol=0.05, atol=0)


@torch.no_grad()
def test_decoding_undoes_the_whitening(mel):
    vae = small()
    before = vae.decode(vae.encode(mel)[0])
    posterior = vae.posterior(mel)
    vae.whiten(mel)
    mean, std = vae.encode(mel)
    torch.testing.assert_close(vae.decode(mean), before, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mean * vae.scale + vae.shift, posterior.mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(std * vae.scale, posterior.std, rtol=1e-4, atol=1e-5)


def test_whitening_is_kept_with_the_weights(mel):
    vae, other = small(), small()
    vae.whiten(mel)
    other.load_state_dict(vae.state_dict())
    assert torch.equal(other.shift, vae.shift) and torch.equal(other.scale, vae.scale)
    assert not torch.equal(vae.scale, torch.ones(4, 1, 1))


@torch.no_grad()
def test_log_mels_are_brought_to_the_networks_range_and_back(mel):
    plain, scaled = small(mel_mean=0.0, mel_std=1.0), small()
    torch.testing.assert_close(scaled.encode(mel)[0], plain.encode((mel + 5) / 2)[0])
    z = scaled.encode(mel)[0]
    torch.testing.assert_close(scaled.decode(z), plain.decode(z) * 2 - 5)


@torch.no_grad()
def test_what_lies_below_the_floor_is_not_told_apart(mel):
    vae = small(mel_floor=-7.0)
    torch.testing.assert_close(vae.encode(mel)[0], vae.encode(mel.clamp(min=-7.0))[0])
    assert (vae.encode(mel)[0] - small().encode(mel)[0]).abs().max() > 1e-3
    assert vae.floored(mel).min() == -7.0 and torch.equal(vae.floored(mel).clamp(min=-3), mel.clamp(min=-3))


def others(kind: str) -> tuple[WhitenedVAE, torch.Tensor]:
    """A small autoencoder of another front end, and what that gives of half a second of noise."""
    torch.manual_seed(0)
    audio = 0.3 * torch.randn(2, 22_528)
    if kind == "mmaudio":
        return MMAudioMelVAE(latent_channels=4, hidden_channels=8, mel_mean=-5.0).eval(), MMAudioMel()(audio)
    sizes = {"hidden_size": 8, "downsampling_ratios": (4, 8, 16), "channel_multiples": (1, 2, 2)}
    return Oobleck(**sizes).eval(), Waveform()(audio)


@torch.no_grad()
@pytest.mark.parametrize(("kind", "shape"), [("mmaudio", (2, 4, 22, 1)), ("oobleck", (2, 4, 44, 1))])
def test_other_autoencoders_have_latents_of_one_bin_and_are_whitened_alike(kind, shape):
    vae, given = others(kind)
    tiny.shake(vae)
    before = vae.decode(vae.encode(given)[0])
    assert before.shape == given.shape and vae.encode(given)[0].shape == shape
    assert (vae.latent_channels, given.shape[2] // vae.downsampling, vae.latent_bins) == shape[1:]
    vae.whiten(given)
    mean, std = vae.encode(given)
    torch.testing.assert_close(mean.mean(dim=(0, 2, 3)), torch.zeros(4), rtol=0, atol=1e-4)
    torch.testing.assert_close(mean.var(dim=(0, 2, 3)) + std.square().mean(dim=(0, 2, 3)), torch.ones(4))
    torch.testing.assert_close(vae.decode(mean), before, rtol=1e-3, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["mmaudio", "oobleck"])
def test_other_autoencoders_give_what_those_of_diffusers_give(kind):
    vae, given = others(kind)
    posterior = vae.posterior(given)
    if kind == "mmaudio":
        moments = vae.vae.encode(given[:, 0].transpose(1, 2))
        theirs = moments.chunk(2, dim=1)[0], (moments.chunk(2, dim=1)[1] / 2).exp()
        decoded = vae.vae.decode(posterior.mean[..., 0]).transpose(1, 2)[:, None]
    else:
        stereo = vae.vae.encode(given[..., 0].repeat(1, 2, 1)).latent_dist
        theirs = stereo.mean, stereo.std
        decoded = vae.vae.decode(posterior.mean[..., 0]).sample.mean(dim=1)[:, None, :, None]
    torch.testing.assert_close(posterior.mean[..., 0], theirs[0])
    torch.testing.assert_close(posterior.std[..., 0], theirs[1])
    torch.testing.assert_close(vae.decode_raw(posterior.mean), decoded)


def test_an_odd_ratio_is_refused():
    with pytest.raises(UsageError, match=r"downsampling_ratios = \(4, 5\): 5 is odd. Give even numbers."):
        Oobleck(hidden_size=8, downsampling_ratios=(4, 5), channel_multiples=(1, 2))
