"""How zip archives are laid out, for those that read and write them: PKWARE's APPNOTE 6.3."""

from __future__ import annotations

import struct
from typing import Final

__all__ = [
    "CENTRAL",
    "CENTRAL_MAGIC",
    "DEFLATED",
    "DESCRIPTOR",
    "DESCRIPTOR64",
    "DESCRIPTOR_FOLLOWS",
    "DESCRIPTOR_MAGIC",
    "ENCRYPTED",
    "END",
    "END64",
    "END64_MAGIC",
    "END_MAGIC",
    "IN_EXTRA_16",
    "IN_EXTRA_32",
    "LOCAL",
    "LOCAL_MAGIC",
    "LOCATOR64",
    "LOCATOR64_MAGIC",
    "NAMES_ARE_UTF8",
    "STORED",
    "ZIP64_EXTRA",
]

LOCAL_MAGIC: Final = b"PK\x03\x04"
CENTRAL_MAGIC: Final = b"PK\x01\x02"
DESCRIPTOR_MAGIC: Final = b"PK\x07\x08"
END_MAGIC: Final = b"PK\x05\x06"
END64_MAGIC: Final = b"PK\x06\x06"
LOCATOR64_MAGIC: Final = b"PK\x06\x07"

# Each begins with its magic number; names and extra fields follow the first two.
LOCAL: Final = struct.Struct("<4s5H3I2H")
CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
DESCRIPTOR: Final = struct.Struct("<4s3I")
DESCRIPTOR64: Final = struct.Struct("<4sI2Q")
END: Final = struct.Struct("<4s4H2IH")
LOCATOR64: Final = struct.Struct("<4sIQI")
END64: Final = struct.Struct("<4sQ2H2I4Q")

STORED, DEFLATED = 0, 8
ENCRYPTED, DESCRIPTOR_FOLLOWS, NAMES_ARE_UTF8 = 0x1, 0x8, 0x800

IN_EXTRA_16, IN_EXTRA_32 = 0xFFFF, 0xFFFFFFFF
"""What stands in place of a number that only the ZIP64 extra field has room for."""
ZIP64_EXTRA: Final = 1
