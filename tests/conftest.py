"""What holds for all tests: compiled modules are kept, and how many examples hypothesis tries.

`HYPOTHESIS_PROFILE=fuzz` asks for many more of these.
"""

from __future__ import annotations

import os
import sys

from hypothesis import HealthCheck, settings

# Some machines ask for no compiled modules. The suite starts more than a thousand processes, and
# each would compile ckptool anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Times on shared machines vary too much to be asserted. CI tries the same examples each time: it
# tells what a change breaks, and chance finds belong to whoever runs `make fuzz`.
settings.register_profile(
    "default",
    max_examples=60,
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("fuzz", settings.get_profile("default"), max_examples=200)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
