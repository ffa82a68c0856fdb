"""The models behind the sample checkpoints, whose folder is no package."""

from __future__ import annotations

import sys

from tests.running import SAMPLES

sys.path.insert(0, str(SAMPLES))
import models

__all__ = ["models"]
