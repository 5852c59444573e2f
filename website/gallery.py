"""Pages of all registered components, one for each slot, made of what `stav2a components` shows."""

import inspect
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from stav2a import registry
from stav2a.experiments import listing
from stav2a.recipe import describing
from stav2a.registry import REQUIRED, Entry, Parameter
from stav2a.slots import ROLES, SLOTS

ROOT = Path(__file__).parents[1]


def entries(slot: str) -> list[Entry]:
    """Components of this package; those of installed plugins are left out."""
    return [each for each in registry.available(slot) if each.factory.__module__.startswith("stav2a.")]


def has(slot: str, name: str) -> bool:
    """Whether there is a component of this name."""
    return slot in SLOTS and any(each.name == name for each in entries(slot))


def pages() -> dict[str, str]:
    """Markdown by place in the site; links are relative to the root of the repository."""
    registry.load()
    uses = bindings()
    return {"gallery/index.md": overview()} | {f"gallery/{slot}.md": slot_page(slot, uses) for slot in SLOTS}


def overview() -> str:
    """Every slot with its contract and its components."""
    lines = ["# Components", "", "All components by slot. A recipe takes one by its name, `@slot.name`.", ""]
    lines += ["| slot | contract | components |", "|---|---|---|"]
    for slot in SLOTS:
        names = ", ".join(f"[{each.name}](gallery/{slot}.md#{each.name})" for each in entries(slot))
        lines.append(f"| [{slot}](gallery/{slot}.md) | {cell(listing.contract(slot))} | {names} |")
    return "\n".join(lines) + "\n"


def slot_page(slot: str, uses: dict[str, list[str]]) -> str:
    """A slot's contract and all of its components."""
    asked, found = SLOTS[slot], entries(slot)
    description = (inspect.getdoc(asked.contract) or "").partition("\n\nAttributes:")[0]
    lines = [f"# {slot}", "", prose(description), ""]
    roles = [role for role, filled in ROLES.items() if filled == slot]
    wired = [f"`{name}`" for name in asked.wired] + [f"`{name}` if it is taken" for name in asked.offered]
    lines += [f"Supplied by the assembly: {', '.join(wired) or 'nothing'}."]
    lines += [f"Also fills `run.{role}`." for role in roles]
    calls = "\n".join(listing.calls(slot))
    lines += ["", f"Methods of a component:\n\n```text\n{calls}\n```\n" if calls else ""]
    if attributes := listing.attributes(slot):
        lines += ["| attribute | type | meaning |", "|---|---|---|"]
        lines += [f"| `{name}` | `{kind}` | {cell(text)} |" for name, (kind, text) in attributes.items()]
    lines += ["", *(f"- [{each.name}](#{each.name}): {prose(summary(each))}" for each in found)]
    return "\n".join(lines) + "\n\n" + "\n\n".join(component(each, uses[each.selector]) for each in found)


def component(entry: Entry, uses: list[str]) -> str:
    """One component: description, signature, parameters, shapes, example, source and uses."""
    parts = listing.sections(inspect.getdoc(entry.factory) or "")
    file = Path(entry.file).relative_to(ROOT).as_posix()
    docs = listing.argument_docs(entry)
    parameters = sorted(entry.parameters.values(), key=lambda each: each.wired)
    blocks = [f"## {entry.name} {{ #{entry.name} }}", prose(parts.pop(""))]
    blocks.append(f"```python\n{signature(entry)}\n```")
    if parameters:
        rows = ["| parameter | type | default | |", "|---|---|---|---|"]
        rows += [
            f"| `{each.name}` | {code(each.annotation)} | {default(each)} | {cell(docs.get(each.name, ''))} |"
            for each in parameters
        ]
        blocks.append("\n".join(rows))
    parts.pop("Args", None)
    parts.pop("Attributes", None)
    for heading, body in parts.items():
        language = {"Shapes": "text", "Example": "pycon"}.get(heading)
        blocks.append(f"**{heading}**\n\n" + (f"```{language}\n{body}\n```" if language else prose(body)))
    recipe = "\n".join(listing.example(entry))
    blocks.append(f"**In a recipe**\n\n```gin\n{recipe}\n```")
    used = f"**Used in** {', '.join(uses)}" if uses else "**Used in** no recipe of this package."
    line = f"#L{entry.line}" if entry.line else ""
    blocks.append(f"**Source** [{file}{line.replace('#L', ':')}]({file}{line})")
    return "\n\n".join([*blocks, used])


def signature(entry: Entry) -> str:
    """The constructor as Python has it."""
    called = entry.factory.__init__ if inspect.isclass(entry.factory) else entry.factory
    kinds = {name: each.kind for name, each in inspect.signature(called).parameters.items()}
    taken = []
    for declared in entry.parameters.values():
        if kinds[declared.name] is inspect.Parameter.KEYWORD_ONLY and "*" not in taken:
            taken.append("*")
        kind = f": {declared.annotation}" if declared.annotation else ""
        value = "" if declared.default is REQUIRED else f" = {describing.format_value(declared.default)}"
        taken.append(f"{declared.name}{kind}{value}")
    line = f"{entry.factory.__name__}({', '.join(taken)})"
    if len(line) <= 80:
        return line
    return f"{entry.factory.__name__}(\n" + "".join(f"    {each},\n" for each in taken) + ")"


def bindings() -> dict[str, list[str]]:
    """Lines of recipes and studies that take a component, and parameters that have it as their default."""
    found: dict[str, list[str]] = defaultdict(list)
    for owner, parameter in _parameters():
        chosen = registry.entry_of(parameter.default)
        if chosen is not None:
            found[chosen.selector].append(f"`{owner.selector}.{parameter.name}` (default)")
    for path in sorted([*(ROOT / "recipes").rglob("*.gin"), *(ROOT / "ablations").glob("*.gin")]):
        place = path.relative_to(ROOT).as_posix()
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            for selector in sorted(set(re.findall(r"@(\w+\.\w+)", line.partition("#")[0]))):
                found[selector].append(f"[{place}:{number}]({place}#L{number})")
    return found


def _parameters() -> Iterator[tuple[Entry, Parameter]]:
    for owner in [listing.ROOT, *(each for slot in SLOTS for each in entries(slot))]:
        for parameter in owner.settable.values():
            yield owner, parameter


def summary(entry: Entry) -> str:
    """First paragraph of the docstring."""
    return " ".join((inspect.getdoc(entry.factory) or "").split("\n\n")[0].split())


def prose(text: str) -> str:
    """A docstring as Markdown: pages that it names are links, and its lists of attributes are lists."""
    text = re.sub(r"(?<![\w/(])docs/(\w+)\.md", r"[\1](docs/\1.md)", text.replace("<", "&lt;"))
    text = re.sub(r"^(Attributes|Raises):\n", r"**\1**\n\n", text, flags=re.M)
    return re.sub(r"^ {4}(\w+): ", r"- `\1`: ", text, flags=re.M)


def cell(text: str) -> str:
    """Text in a cell of a table."""
    return prose(" ".join(text.split())).replace("|", "\\|")


def code(text: str) -> str:
    """Code in a cell of a table."""
    return f"`{text}`" if text else ""


def default(parameter: Parameter) -> str:
    """A parameter's default, or who gives its value."""
    if parameter.wired:
        return "*wired*"
    return "*required*" if parameter.default is REQUIRED else code(describing.format_value(parameter.default))
