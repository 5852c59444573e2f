"""What MkDocs calls while it builds the site: pages from outside docs/, their links, a check of the result.

Pages are written for the repository, with links relative to their file. Here each linked file gets a page of
the site: Markdown as it is, a notebook as its text and code, other text as a page of code with numbered
lines. The gallery of components and the API reference are made anew at each build, and have no file.
"""

import ast
import html
import json
import os
import posixpath
import re
import urllib.parse
from pathlib import Path

import gallery
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
HOME = {"README.md": "index.md", "docs/index.md": "contents.md"}
ASSETS = ("website/iframe-worker.js", "website/site.css")
COPIED = {".csv", ".jpg", ".mp4", ".png", ".svg", ".wav"}
LANGUAGES = {".py": "python", ".gin": "gin", ".toml": "toml", ".yml": "yaml"}

LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<path>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")
FENCE = re.compile(r"^(`{3,}).*?^\1`*$", flags=re.M | re.S)
SELECTOR = re.compile(r"(?<![\[`])`(\w+)\.(\w+)(?:\.\w+)?`(?![\]`])")  # of a component, or its parameter

API = {
    "pipeline": ["stav2a.pipeline.VideoToAudioPipeline", "stav2a.pipeline.AudioPipelineOutput"],
    "model": ["stav2a.models.stav2a.STAV2A"],
    "registry": [
        "stav2a.registry.register",
        "stav2a.registry.get",
        "stav2a.registry.available",
        "stav2a.registry.Entry",
        "stav2a.registry.Parameter",
        "stav2a.registry.RegistryError",
        "stav2a.experiments.contract.faults_of",
    ],
    "slots": ["stav2a.slots"],
    "metrics": [
        "stav2a.metrics.score.EvaluationSet",
        "stav2a.metrics.score.Score",
        "stav2a.metrics.reporter.MetricReporter",
    ],
    "training": [
        "stav2a.training.objective.TrainingContext",
        "stav2a.training.objective.TrainingSpec",
        "stav2a.training.objective.Group",
        "stav2a.training.stages.TrainingStage",
    ],
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Navigation: the pages in the order of docs/index.md's first table, the gallery, the API."""
    table = (ROOT / "docs/index.md").read_text().partition("\n## ")[0]
    places = [page_of(os.path.normpath(f"docs/{path}")) for _, path, _ in LINK.findall(table)]
    guide = [HOME["docs/index.md"], *(place for place in places if place != HOME["README.md"])]
    slots = [{"All slots": "gallery/index.md"}, *({slot: f"gallery/{slot}.md"} for slot in gallery.SLOTS)]
    reference = [{name.capitalize(): f"api/{name}.md"} for name in API]
    config.nav = [{"Home": "index.md"}, {"Guide": guide}, {"Components": slots}, {"API": reference}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """All pages of the site: generated ones, the project's Markdown, and every file that these link to."""
    for page in list(files.documentation_pages()):
        files.remove(page)
    paths = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
    texts = {path: (ROOT / path).read_text() for path in paths}
    texts["README.md"] = "---\nhide: [navigation]\n---\n" + texts["README.md"]
    texts |= gallery.pages() | {f"api/{name}.md": reference(name) for name in API}
    waiting = list(texts)
    while waiting:
        path = waiting.pop()
        place = page_of(path)
        if Path(path).suffix in COPIED:
            files.append(File.generated(config, place, content=(ROOT / path).read_bytes()))
            continue
        text, linked = translated(path, texts[path])
        files.append(File.generated(config, place, content=text))
        for other in linked - texts.keys():
            texts[other] = "" if Path(other).suffix in COPIED else readable(other)
            waiting.append(other)
    for path in ASSETS:
        content = (ROOT / path).read_bytes()
        files.append(File.generated(config, f"assets/{Path(path).name}", content=content))
    return files


def page_of(path: str) -> str:
    """Place in the site of a file of the repository, or of a generated page."""
    if Path(path).suffix in (".md", ".ipynb"):
        return HOME.get(path, str(Path(path.removeprefix("docs/")).with_suffix(".md")))
    return path if Path(path).suffix in COPIED else f"source/{path}.md"


def readable(path: str) -> str:
    """Markdown of a file: its own, that of a notebook, or its text as code with numbered lines.

    Raises:
        PluginError: There is no such file.
    """
    file = ROOT / path
    if not file.is_file():
        raise PluginError(f"{path}: a page links to it, and there is no such file. Mend the link.")
    if file.suffix == ".md":
        return file.read_text()
    if file.suffix == ".ipynb":
        cells = [
            ("".join(cell["source"]), cell["cell_type"]) for cell in json.loads(file.read_text())["cells"]
        ]
        return "\n\n".join(text if kind == "markdown" else f"```python\n{text}\n```" for text, kind in cells)
    language = LANGUAGES.get(file.suffix, "text")
    head = "---\nsearch: {exclude: true}\nhide: [navigation, toc]\n---\n"
    return f'{head}# {path}\n\n`````{language} linenums="1"\n{file.read_text().rstrip()}\n`````\n'


def translated(path: str, text: str) -> tuple[str, set[str]]:
    """A page's text with links between pages of the site, and the files that it links to.

    Args:
        path: Its file in the repository, to which its links are relative; those of a generated page are
            relative to the root.
        text: Its Markdown.
    """
    generated = not (ROOT / path).is_file()
    linked: set[str] = set()

    def link(target: str, anchor: str) -> str:
        if target.startswith(("gallery/", "api/")):
            place = target
        else:
            linked.add(target)
            place = page_of(target)
        anchor = re.sub(r"^#L(\d+)$", r"#__codelineno-0-\1", anchor)
        return posixpath.relpath(place, posixpath.dirname(page_of(path)) or ".") + anchor

    def relinked(found: re.Match[str]) -> str:
        target, anchor = found["path"], found["anchor"] or ""
        if "://" in target or target.startswith("mailto:"):
            return found[0]
        if not generated:
            target = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        return f"[{found['text']}]({link(target, anchor or line_of(target, found['text']))})"

    def named(found: re.Match[str]) -> str:
        slot, name = found.groups()
        if not gallery.has(slot, name):
            return found[0]
        return f"[{found[0]}]({link(f'gallery/{slot}.md', f'#{name}')})"

    parts, end = [], 0
    for fence in [*FENCE.finditer(text), None]:
        prose = text[end : fence.start() if fence else len(text)]
        prose = LINK.sub(relinked, prose)
        parts.append(
            "\n".join(
                line if line.startswith("#") else SELECTOR.sub(named, line) for line in prose.split("\n")
            )
        )
        if fence:
            parts.append(fence[0])
            end = fence.end()
    return "".join(parts), linked


def line_of(path: str, text: str) -> str:
    """Anchor of the line that defines the name in a link's text; empty where a file has no such line."""
    if Path(path).suffix != ".py":
        return ""
    body, line = ast.parse((ROOT / path).read_text()).body, 0
    for part in text.strip("`").split("."):
        found = [each for each in body if getattr(each, "name", None) == part]
        if not found:
            return ""
        body, line = found[0].body, found[0].lineno
    return f"#L{line}"


def reference(name: str) -> str:
    """A page of the API reference, for mkdocstrings."""
    options = "    options:\n      show_root_toc_entry: true\n"
    return f"# {name.capitalize()}\n\n" + "\n".join(f"::: {path}\n{options}" for path in API[name])


def on_post_build(config: MkDocsConfig) -> None:
    """Check the built site.

    Raises:
        PluginError: A link leads nowhere, or a page loads something from another server.
    """
    site = Path(config.site_dir)
    pages = {path.relative_to(site).as_posix(): path.read_text() for path in site.rglob("*.html")}
    anchors = {path: set(re.findall(r'\b(?:id|name)="?([^"\s>]+)', text)) for path, text in pages.items()}
    faults = []
    for path, text in pages.items():
        loaded = re.findall(r'<(?:script|img|iframe|source|audio|video)\b[^>]*\bsrc="?([^"\s>]+)', text)
        loaded += re.findall(
            r'<link\b[^>]*\brel="?(?:stylesheet|preconnect|icon)"?[^>]*\bhref="?([^"\s>]+)', text
        )
        faults += [f"{path} loads {url}" for url in loaded if re.match(r"(https?:)?//", url)]
        for url in set(re.findall(r'\b(?:href|src)="([^"]+)"', text)) if path != "404.html" else ():
            parts = urllib.parse.urlsplit(html.unescape(url))
            if parts.scheme or parts.netloc:
                continue
            target = posixpath.normpath(
                posixpath.join(posixpath.dirname(path), urllib.parse.unquote(parts.path))
            )
            target = target if parts.path else path
            if not (site / target).is_file():
                faults.append(f"{path} links to {target}, which is not there")
            elif parts.fragment and parts.fragment not in anchors.get(target, {parts.fragment}):
                faults.append(f"{path} links to {target}#{parts.fragment}, which has no such heading")
    if faults:
        raise PluginError("The site has faults:\n  " + "\n  ".join(sorted(set(faults))))
