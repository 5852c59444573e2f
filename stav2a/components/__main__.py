"""`stav2a components`, which is `python -m stav2a.components`: list what there is, or explain one of it."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from stav2a import listing, registry
from stav2a.errors import guarded
from stav2a.slots import SLOTS


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="stav2a components", description="List what can be put into each slot, or explain one component."
    )
    parser.add_argument("what", nargs="?", metavar="SLOT[.NAME]", help="one slot, or one component")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    return parser


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    """Print every slot, one slot, or one component; 2 if there is none of that name."""
    arguments = build_parser().parse_args(argv)
    registry.load()
    slot, _, name = (arguments.what or "").partition(".")
    shown = _for_programs(slot, name) if arguments.json else _for_people(slot, name)
    print(json.dumps(shown, indent=2) if arguments.json else shown)
    return 0


def _for_people(slot: str, name: str) -> str:
    if name:
        return listing.explain(registry.get(slot, name))
    registry.available(slot or None)  # refuses an unknown slot
    return listing.detail_slot(slot) if slot else listing.list_all()


def _for_programs(slot: str, name: str) -> Any:
    if name:
        return listing.entry_as_json(registry.get(slot, name))
    registry.available(slot or None)
    return listing.slot_as_json(slot) if slot else {"slots": [listing.slot_as_json(each) for each in SLOTS]}


if __name__ == "__main__":
    sys.exit(main())
