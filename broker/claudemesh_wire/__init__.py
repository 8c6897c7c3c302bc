"""The contract that sessions and broker both speak: pure, with no I/O, clock or logging."""

from typing import Final

VERSION: Final = "0.1.0"
DATA_VERSION: Final = 6
"""The broker's database layout that this version writes."""
