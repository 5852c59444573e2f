"""The registry as text and as JSON: slots, their contracts, and the components that fill them."""

import dataclasses
import inspect
import textwrap
import typing
from collections.abc import Iterator
from typing import Any

from stav2a import registry
from stav2a.experiments.experiment import Experiment
from stav2a.recipe import describing
from stav2a.registry import Entry, Parameter
from stav2a.slots import SLOTS

ROOT = describing.root_entry(Experiment)


def sections(doc: str) -> dict[str, str]:
    """A docstring's parts by their headings; what comes before the first is under "".

    Example:
        >>> sections("Pool.\\n\\nShapes:\\n    e_v -> e_gv")
        {'': 'Pool.', 'Shapes': 'e_v -> e_gv'}
    """
    parts: dict[str, list[str]] = {"": []}
    for line in doc.splitlines():
        if line.endswith(":") and line[:-1].isalpha():
            parts[line[:-1]] = []
        else:
            parts[next(reversed(parts))].append(line)
    return {heading: textwrap.dedent("\n".join(lines)).strip() for heading, lines in parts.items()}


def argument_docs(entry: Entry) -> dict[str, str]:
    """Each argument's line in the docstring's Args, or in those of the dataclasses that it inherits from."""
    bases = inspect.getmro(entry.factory)[:0:-1] if inspect.isclass(entry.factory) else ()
    inherited = [base.__doc__ or "" for base in bases if dataclasses.is_dataclass(base)]
    docs: dict[str, str] = {}
    for doc in (*map(inspect.cleandoc, inherited), entry.doc):
        docs |= _described(sections(doc).get("Args", ""))
    return docs


def _described(lines: str) -> dict[str, str]:
    """Texts by name of a docstring's section; lines that are indented go on."""
    docs: dict[str, str] = {}
    for line in lines.splitlines():
        name, colon, text = line.partition(":")
        if colon and not line.startswith(" "):
            docs[name] = text.strip()
        elif docs:
            docs[next(reversed(docs))] += f" {line.strip()}"
    return docs


def contract(slot: str) -> str:
    """Promise of a slot, in one paragraph."""
    doc = inspect.getdoc(SLOTS[slot].contract) or ""
    return " ".join(doc.split("\n\n")[0].split())


def list_all() -> str:
    """Every slot with its contract and its components, a line each."""
    blocks = []
    for slot in SLOTS:
        entries = registry.available(slot)
        width = max((len(entry.name) for entry in entries), default=0)
        lines = [f"  {entry.name:{width}}  {entry.summary}" for entry in entries]
        blocks.append("\n".join([f"{slot}: {contract(slot)}", *(lines or ["  (no component is installed)"])]))
    return "\n\n".join(
        [*blocks, "More: stav2a components SLOT, or SLOT.NAME; settings of a run: stav2a components run"]
    )


def attributes(slot: str) -> dict[str, tuple[str, str]]:
    """Attributes that a slot asks for: the type of each, and its description."""
    asked = SLOTS[slot].contract
    docs = _described(sections(inspect.getdoc(asked) or "").get("Attributes", ""))
    kinds = typing.get_type_hints(asked)
    return {name: (registry.short(kind), docs.get(name, "")) for name, kind in kinds.items()}


def calls(slot: str) -> list[str]:
    """Methods that a slot asks for, with the shapes of what they take and give, where these are checked."""
    lines = []
    for name, method in vars(SLOTS[slot].contract).items():
        if not inspect.isfunction(method) or (name.startswith("_") and name != "__call__"):
            continue
        shapes = SLOTS[slot].shapes.get(name)
        if shapes is None:
            lines.append(f"{name}({', '.join(list(inspect.signature(method).parameters)[1:])})")
        else:
            takes, gives = (
                ", ".join(f"{symbol} ({', '.join(shape)})" for symbol, shape in side.items())
                for side in (shapes.takes, shapes.gives)
            )
            lines.append(f"{name}: {takes} -> {gives}")
    return lines


def detail_slot(slot: str) -> str:
    """A slot's contract, and the place and the parameters of each of its components."""
    supplied = [*SLOTS[slot].wired, *(f"{name} if it is taken" for name in SLOTS[slot].offered)]
    wired = ", ".join(supplied) or "nothing"
    asked = [f"  {line}" for line in calls(slot)]
    asked += [f"  {name}: {kind}  {text}".rstrip() for name, (kind, text) in attributes(slot).items()]
    head = [
        f"{slot}: {contract(slot)}",
        f"Supplied by the assembly: {wired}.",
        "Asked of a component:",
        *asked,
    ]
    blocks = ["\n".join(head)]
    for entry in registry.available(slot):
        lines = [entry.selector, f"  {entry.summary}"]
        lines += [f"  {_declared(parameter)}" for parameter in _ordered(entry) if not parameter.wired]
        blocks.append("\n".join([*lines, f"  {_place(entry)}"]))
    return "\n\n".join(blocks)


def explain(entry: Entry) -> str:
    """All there is to know of one component."""
    text = sections(entry.doc)
    blocks = [f"{entry.selector}\n\n{textwrap.indent(text.pop(''), '  ')}"]
    docs = argument_docs(entry)
    if entry.parameters:
        lines = (f"  {_declared(each)}\n      {docs.get(each.name, '')}" for each in _ordered(entry))
        blocks.append("\n".join(["Parameters:", *lines]))
    text.pop("Args", None)
    blocks += [f"{heading}:\n{textwrap.indent(body, '  ')}" for heading, body in text.items()]
    if entry.slot:
        blocks.append(f"Slot:\n  {entry.slot}: {contract(entry.slot)}")
        blocks.append("In a recipe:\n" + "\n".join(f"  {line}" for line in example(entry)))
    return "\n\n".join([*blocks, _place(entry)])


def example(entry: Entry) -> list[str]:
    """Lines of a recipe that use the component: what takes it, what it requires, and another parameter."""
    lines = [next(_uses(entry), f"... = @{entry.selector}")] if entry.slot else []
    required = [each for each in entry.settable.values() if each.default is registry.REQUIRED]
    others = [each for each in entry.settable.values() if each.default is not registry.REQUIRED]
    lines += [f"{entry.selector}.{each.name} = {_placeholder(each)}" for each in required]
    return lines + [f"{entry.selector}.{each.name} = {_default(each)}" for each in others[:1]]


def slot_as_json(slot: str) -> dict[str, Any]:
    """A slot and its components for programs."""
    return {
        "slot": slot,
        "contract": contract(slot),
        "wired": list(SLOTS[slot].wired),
        "methods": calls(slot),
        "attributes": [
            {"name": name, "type": kind, "help": text} for name, (kind, text) in attributes(slot).items()
        ],
        "components": [entry_as_json(entry) for entry in registry.available(slot)],
    }


def entry_as_json(entry: Entry) -> dict[str, Any]:
    """One component for programs. Defaults are written as in a recipe."""
    docs = argument_docs(entry)
    return {
        "slot": entry.slot,
        "name": entry.name,
        "summary": entry.summary,
        "shapes": sections(entry.doc).get("Shapes"),
        "parameters": [
            {
                "name": each.name,
                "type": each.annotation,
                "default": None if each.default is registry.REQUIRED else _default(each),
                "required": each.default is registry.REQUIRED,
                "wired": each.wired,
                "help": docs.get(each.name, ""),
            }
            for each in entry.parameters.values()
        ],
        "doc": entry.doc,
        "example": example(entry),
        "file": entry.file,
        "line": entry.line,
    }


def _uses(entry: Entry) -> Iterator[str]:
    """Bindings that take components of this slot: the root's first, then those of other components."""
    for owner in [ROOT, *registry.available()]:
        if entry.slot in owner.settable:
            yield f"{owner.selector}.{entry.slot} = @{entry.selector}"
        if f"{entry.slot}s" in owner.settable:
            yield f"{owner.selector}.{entry.slot}s = [@{entry.selector}]"


def _ordered(entry: Entry) -> list[Parameter]:
    """The parameters: those that a recipe must set, those that it may, and those that it can't."""
    order = sorted(entry.parameters.values(), key=lambda each: each.default is not registry.REQUIRED)
    return sorted(order, key=lambda each: each.wired)


def _placeholder(parameter: Parameter) -> str:
    """A value to be replaced, as a recipe writes the kind."""
    singular = parameter.name.removesuffix("s")
    if parameter.name in SLOTS:
        return f"@{parameter.name}.NAME"
    if singular in SLOTS:
        return f"[@{singular}.NAME]"
    return "'...'" if parameter.annotation.startswith(("str", "Path")) else "..."


def _declared(parameter: Parameter) -> str:
    """The parameter as Python declares it, and whether a recipe may set it."""
    kind = f": {parameter.annotation}" if parameter.annotation else ""
    if parameter.wired:
        return f"{parameter.name}{kind}  (supplied by the assembly)"
    if parameter.default is registry.REQUIRED:
        return f"{parameter.name}{kind}  (required)"
    return f"{parameter.name}{kind} = {_default(parameter)}"


def _default(parameter: Parameter) -> str:
    return describing.format_value(parameter.default)


def _place(entry: Entry) -> str:
    return f'In file "{entry.file}"' + (f", line {entry.line}" if entry.line else "")
