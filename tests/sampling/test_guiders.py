"""Guiders: their algebra, and that both samplers carry them out alike."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from stav2a.models.stav2a import encode_captions
from stav2a.sampling import (
    AdaptiveProjected,
    ClassifierFree,
    ControlEvery,
    FastSampler,
    GuidanceInterval,
    NullText,
    ReferenceSampler,
    TwoWeights,
)
from stav2a.sampling.guiders import BOTH, NOTHING, VIDEO, Branch
from stav2a.sampling.reference import branch_conditions
from stav2a.slots import Guider
from stav2a.utils.errors import UsageError
from tests.sampling.given import CAPTIONS, error, features, made, sample
from tests.sampling.test_fast import BACKBONES

GUIDERS: dict[str, Guider] = {
    "classifier_free": ClassifierFree(),
    "two_weights": TwoWeights(video_scale=1.5),
    "apg": AdaptiveProjected(eta=0.3, norm_threshold=0.5),
    "null_text": NullText(),
}
every_guider = pytest.mark.parametrize("guider", GUIDERS.values(), ids=GUIDERS)
both_samplers = pytest.mark.parametrize("sampler", [ReferenceSampler(), FastSampler()])


def predictions(count: int) -> tuple[Tensor, ...]:
    return torch.randn(count, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0)).unbind()


@every_guider
@pytest.mark.parametrize("name", BACKBONES)
def test_the_fast_sampler_gives_the_references_latents(guider, name):
    model = made(**BACKBONES[name])
    settings: Any = {"guider": guider, "negative_captions": ["a bell", "", "a bell that rings for long"]}
    expected = sample(ReferenceSampler(), model, **settings)
    assert error(sample(FastSampler(), model, **settings), expected) <= 1e-5


@every_guider
@both_samplers
def test_a_guider_changes_the_result(guider, sampler):
    model = made()
    others = [sample(sampler, model, guider=each) for each in GUIDERS.values() if each is not guider]
    found = sample(sampler, model, guider=guider)
    assert all(error(found, other) > 1e-3 for other in others)


def test_one_sampler_serves_all_guiders_in_turn():
    sampler, model = FastSampler(), made()
    for guider in [*GUIDERS.values(), TwoWeights(video_scale=3.0), ClassifierFree()]:
        for w in (2.0, 5.0):
            expected = sample(ReferenceSampler(), model, guider=guider, guidance_scale=w)
            assert error(sample(sampler, model, guider=guider, guidance_scale=w), expected) <= 1e-5


@both_samplers
def test_equation_7_is_the_default_to_the_bit(sampler):
    model = made()
    assert torch.equal(sample(sampler, model, guider=ClassifierFree()), sample(sampler, model))
    null, conditional = predictions(2)
    found = ClassifierFree().combine((null, conditional), 3.0)
    assert torch.equal(found, null + 3.0 * (conditional - null))


@both_samplers
def test_without_text_no_caption_changes_the_sound(sampler):
    model = made()
    without = sample(sampler, model, guider=NullText(), guidance_scale=5.0)
    assert torch.equal(sample(sampler, model, guider=NullText(), captions=["a bell"] * 3), without)
    null = sample(sampler, model, captions=[""] * 3, guidance_scale=1.0)
    assert error(without, null) <= 1e-5


def test_a_guider_names_the_branches_that_a_weight_needs():
    for guider in (ClassifierFree(), AdaptiveProjected()):
        assert tuple(guider.branches(1.0)) == (BOTH,) and tuple(guider.branches(2.0)) == (VIDEO, BOTH)
    assert tuple(TwoWeights(video_scale=1.0).branches(1.0)) == (BOTH,)
    for video_scale, w in ((1.0, 2.0), (2.0, 1.0), (2.0, 2.0)):
        assert tuple(TwoWeights(video_scale=video_scale).branches(w)) == (NOTHING, VIDEO, BOTH)


@torch.no_grad()
def test_a_branch_without_video_has_features_of_zeros_and_one_without_text_the_null_text():
    model, e_v, null = made(), features(), ["", "a bell", ""]
    branches = (Branch(video=False), VIDEO, BOTH)
    found = branch_conditions(model, e_v, CAPTIONS, branches, null)
    expected = [
        model.condition(video, *encode_captions(model, texts))
        for video, texts in ((0 * e_v, CAPTIONS), (e_v, null), (e_v, CAPTIONS))
    ]
    for rows, one in zip(found.e_lv.chunk(3), expected, strict=True):
        assert torch.equal(rows, one.e_lv)
    for rows, one in zip(found.c.chunk(3), expected, strict=True):
        assert torch.equal(rows[:, -4:], one.c[:, -4:])  # the tokens of the video, after those of the text


def test_two_weights_reduce_to_what_algebra_says():
    nothing, video, both = given = predictions(3)
    close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)
    close(TwoWeights(video_scale=3.0).combine(given, 3.0), nothing + 3 * (both - nothing))
    close(TwoWeights(video_scale=1.0).combine(given, 3.0), ClassifierFree().combine((video, both), 3.0))
    close(TwoWeights(video_scale=3.0).combine(given, 1.0), both + 2 * (video - nothing))
    close(TwoWeights(video_scale=1.0).combine(given, 1.0), both)
    close(TwoWeights(video_scale=0.0).combine(given, 0.0), nothing)


@both_samplers
def test_two_weights_of_one_are_the_plain_model_and_a_video_weight_of_one_is_equation_7(sampler):
    model = made()
    plain = sample(sampler, model, guidance_scale=1.0)
    assert torch.equal(sample(sampler, model, guidance_scale=1.0, guider=TwoWeights(video_scale=1.0)), plain)
    through_all = sample(sampler, model, guidance_scale=1.0, guider=TwoWeights(video_scale=1.0 + 1e-7))
    assert error(through_all, plain) <= 1e-5
    of_text = sample(sampler, model, guider=TwoWeights(video_scale=1.0))
    assert error(of_text, sample(sampler, model)) <= 1e-5


@both_samplers
def test_without_weights_neither_video_nor_text_has_an_effect(sampler):
    model, nothing = made(), TwoWeights(video_scale=0.0)
    one = sample(sampler, model, guidance_scale=0.0, guider=nothing)
    settings: Any = {"guidance_scale": 0.0, "guider": nothing, "e_v": features().flip(1)}
    other = sample(sampler, model, CAPTIONS[::-1], **settings)  # as many tokens: a ControlNet sees padding
    assert error(one, other) <= 1e-5


def test_all_of_the_difference_without_a_limit_is_equation_7():
    given = predictions(2)
    found = AdaptiveProjected(eta=1.0).combine(given, 3.0)
    torch.testing.assert_close(found, ClassifierFree().combine(given, 3.0), rtol=1e-5, atol=1e-5)
    model = made()
    expected = sample(ReferenceSampler(), model)
    assert error(sample(ReferenceSampler(), model, guider=AdaptiveProjected(eta=1.0)), expected) <= 1e-5


def test_projected_guidance_keeps_a_share_of_the_parallel_part():
    null, conditional = predictions(2)
    unit = torch.nn.functional.normalize(conditional.flatten(1))

    def parallel(eta: float) -> Tensor:
        update = AdaptiveProjected(eta=eta).combine((null, conditional), 2.0) - conditional
        return (update.flatten(1) * unit).sum(dim=1)

    assert parallel(0.0).abs().max() < 1e-4 < parallel(1.0).abs().min()
    torch.testing.assert_close(parallel(0.25), 0.25 * parallel(1.0), rtol=1e-4, atol=1e-4)


def test_the_difference_is_limited_for_each_clip_alone():
    null, conditional = predictions(2)
    null[0] = conditional[0] + 0.001
    plain, limited = (
        AdaptiveProjected(eta=1.0, norm_threshold=most).combine((null, conditional), 2.0) - conditional
        for most in (None, 2.0)
    )
    torch.testing.assert_close(limited[0], plain[0])
    torch.testing.assert_close(limited[1:].flatten(1).norm(dim=1), torch.full((2,), 2.0))
    assert torch.equal(AdaptiveProjected(norm_threshold=2.0).combine((null, null), 3.0), null)  # no NaN
    zeros = torch.zeros_like(null)
    assert not AdaptiveProjected(norm_threshold=2.0).combine((zeros, zeros), 3.0).any()


@every_guider
def test_a_combination_is_one_graph(guider):
    given = predictions(len(guider.branches(3.0)))
    compiled = torch.compile(guider.combine, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(given, torch.tensor(3.0)), guider.combine(given, 3.0))


def test_shortcuts_serve_three_branches():
    model, guider = made(), TwoWeights(video_scale=1.5)
    never = FastSampler(shortcut=partial(GuidanceInterval, low=0.9999, high=1.0))
    plain = sample(ReferenceSampler(), model, guidance_scale=1.0)
    assert error(sample(never, model, guider=guider), plain) <= 1e-5
    always = FastSampler(shortcut=partial(ControlEvery, steps=1))
    expected = sample(ReferenceSampler(), model, guider=guider)
    assert error(sample(always, model, guider=guider), expected) <= 1e-5


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            partial(TwoWeights, video_scale=-1.0),
            "guider.two_weights.video_scale = -1.0: expected 0 to 1000.0",
        ),
        (partial(AdaptiveProjected, eta=2.0), "guider.apg.eta = 2.0: expected 0 to 1."),
        (partial(AdaptiveProjected, norm_threshold=-1.0), "guider.apg.norm_threshold = -1.0: expected 0 or"),
    ],
)
def test_settings_that_can_not_be_are_refused(make, told):
    with pytest.raises(UsageError, match=told):
        make()
