"""`stav2a demo`: a page that puts sound on films, in a browser of this machine."""

import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

from typer import Option

from stav2a.cli.options import TrustRecipe
from stav2a.utils.errors import SUCCESS, UsageError, printable
from stav2a.utils.network import HOST, check_free

EXAMPLES = """
  stav2a demo --run runs/RUN
  stav2a demo --run runs/ONE --run runs/OTHER
  stav2a demo --model my-model --device cuda

The address of the page is printed; Ctrl-C ends it, and removes all films that were given and made. With two
models or more there is also a blind comparison of two.
"""


def demo(
    run: Annotated[
        list[Path], Option(metavar="RUN_DIR", help="the folder of a finished `stav2a run`; may be repeated")
    ] = [],
    model: Annotated[
        list[str],
        Option(
            metavar="DIR|ID",
            help="a model that `stav2a export` wrote, or its name on the hub; may be repeated",
        ),
    ] = [],
    device: Annotated[
        str, Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:N; auto is the GPU if there is one")
    ] = "auto",
    port: Annotated[int, Option(min=1, max=65535, metavar="P", help="port of the page")] = 8766,
    host: Annotated[
        str, Option(metavar="ADDRESS", help="address to listen on; 0.0.0.0 lets other machines in")
    ] = HOST,
    trust_recipe: TrustRecipe = False,
) -> int:
    """Put sound on videos on a page of this machine, with the models of finished runs, or exported ones."""
    sources = [*map(str, run), *model]
    if not sources:
        raise UsageError("expected --run or --model.", advice="--run takes a run's folder.")
    names = [Path(source).name if Path(source).exists() else source for source in sources]
    if len(set(names)) < len(names):
        names = sources
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"{min(twice)} was given twice. Give each model once.")
    check_free(port, host)
    from stav2a.demo_page import Demo, pages
    from stav2a.pipeline import VideoToAudioPipeline
    from stav2a.utils import distributed
    from stav2a.utils.local_server import LocalServer

    place = distributed.device_named(device)
    pipes = {
        name: VideoToAudioPipeline.from_pretrained(source, trust_recipe=trust_recipe).to(place)
        for name, source in zip(names, sources, strict=True)
    }
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: the films are removed
    with TemporaryDirectory(prefix="stav2a-demo-") as folder:
        shown = Demo(pipes, Path(folder))
        try:
            server = LocalServer(pages(shown), port, host)
            if host != HOST:
                print(
                    f"warning: everyone who reaches {host} port {port} can use this page, without a "
                    "password and without encryption.",
                    file=sys.stderr,
                )
            print(
                f"{printable(', '.join(names))}\nopen {server.address} in a browser (Ctrl-C ends)", flush=True
            )
            server.serve_forever()
        finally:
            shown.close()
    return SUCCESS
