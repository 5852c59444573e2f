"""Several filters as one."""

from collections.abc import Callable, Sequence

from stav2a.data.filters.decision import Decision
from stav2a.data.io import Decoded
from stav2a.errors import UsageError
from stav2a.registry import expect, register
from stav2a.slots import DataFilter


@register("data_filter", "all_of")
class AllOf:
    """Keep what several filters keep, asked in order; the first that rejects a clip decides.

    Put cheap ones first: what they reject is not asked further.

    Args:
        filters: Other filters; the paper's are `[@data_filter.speech_captions, @data_filter.av_align]`.
    """

    def __init__(self, *, filters: Sequence[Callable[[], DataFilter]]) -> None:
        if not filters:
            raise UsageError("data_filter.all_of was given no filter. Name some, or take @data_filter.none.")
        self.filters = [expect("data_filter", each)() for each in filters]

    def __call__(self, clip: Decoded) -> Decision:
        for data_filter in self.filters:
            decision: Decision = data_filter(clip)
            if not decision.keep:
                break
        return decision
