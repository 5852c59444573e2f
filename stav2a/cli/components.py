"""`stav2a components`: the components of every slot, or one of them, or the settings of a run explained."""

import json
from typing import Annotated, Any

from typer import Argument, Option

from stav2a.utils.errors import SUCCESS

EXAMPLES = """
  stav2a components                            every slot and what fits it
  stav2a components local_head                 one slot: the place and settings of its components
  stav2a components local_head.onset           one component: shapes, settings, an example
  stav2a components run                        the settings of a run itself, such as run.guidance_scale
"""


def components(
    what: Annotated[
        str | None, Argument(metavar="SLOT[.NAME]", help="one slot, one component, or run")
    ] = None,
    as_json: Annotated[bool, Option("--json", help="print JSON, for programs")] = False,
) -> int:
    """List what can be put into each slot, or explain one component."""
    from stav2a import registry  # not above: help comes at once
    from stav2a.experiments import listing
    from stav2a.slots import SLOTS

    registry.load()
    slot, _, name = (what or "").partition(".")
    if name or slot == listing.ROOT.name:
        entry = registry.get(slot, name) if name else listing.ROOT
        shown: Any = listing.entry_as_json(entry) if as_json else listing.explain(entry)
    elif slot:
        registry.available(slot)  # refuses an unknown slot
        shown = listing.slot_as_json(slot) if as_json else listing.detail_slot(slot)
    else:
        shown = {"slots": [listing.slot_as_json(each) for each in SLOTS]} if as_json else listing.list_all()
    print(json.dumps(shown, indent=2) if as_json else shown)
    return SUCCESS
