"""The contract that sessions and broker both speak: pure, with no I/O, clock or logging."""

from typing import Final

VERSION: Final = "0.1.0"
