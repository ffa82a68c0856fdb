"""The README's picture: `python -m tests.readme` draws it again."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

from rich.console import Console

from ckptool import list_contents, load_model_spec, open_checkpoint, overview
from ckptool.render.text import inspection
from tests.running import SAMPLES

__all__ = ["PICTURE", "draw"]

PICTURE: Final = Path(__file__).with_name("inspect.svg")
PATH: Final = "left_over_buffer.pt"
MODEL: Final = "specs/my_model.json"
_COLUMNS: Final = 104

# Rich's own frame loads a font from the web; a picture in a README may not.
_FRAME: Final = """\
<svg xmlns="http://www.w3.org/2000/svg" class="rich-terminal" \
viewBox="0 0 {terminal_width} {height}">
<style>
.{unique_id}-matrix {{
  font: {char_height}px/{line_height}px "DejaVu Sans Mono", Menlo, Consolas, monospace;
}}
{styles}
</style>
<defs>{lines}</defs>
<rect width="{terminal_width}" height="{height}" rx="8" fill="#1b1f24"/>
{backgrounds}
<g class="{unique_id}-matrix" transform="translate(16, 12)">
{matrix}
</g>
</svg>
"""


def draw() -> str:
    """Return what `inspect` prints of a sample, as an SVG picture."""
    console = Console(
        file=io.StringIO(), record=True, width=_COLUMNS, force_terminal=True, highlight=False,
        color_system="standard",
    )  # fmt: skip
    console.print(f"$ ckptool inspect {PATH} --model {MODEL}\n")
    model = load_model_spec(SAMPLES / MODEL)
    with open_checkpoint(SAMPLES / PATH) as checkpoint:
        console.print(inspection(overview(list_contents(checkpoint, model=model))))
    return console.export_svg(title="", code_format=_FRAME, unique_id="ckptool")
