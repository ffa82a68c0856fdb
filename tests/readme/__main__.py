"""Make what the README shows anew: `python -m tests.readme`."""

from __future__ import annotations

from tests.readme.blocks import README, rewritten
from tests.readme.picture import PICTURE, draw

README.write_text(rewritten(README.read_text()))
PICTURE.write_text(draw())
