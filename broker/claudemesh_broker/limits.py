"""Says who asks too often: a token bucket per rate class and key, with nothing awaited.

``service.py`` takes a token per request under the caller's member, ``session.py`` one per hello
under the address; sizes come from the settings, the clock from ``app.py``.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from claudemesh_wire.errors import TooMuch
from claudemesh_wire.message import Rate

MAX_BUCKETS: Final = 10_000
_LOOKED_AT: Final = 2
_ROUNDING: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much a key may ask in one rate class.

    Args:
        per_s: Requests a second for as long as it likes.
        burst: Requests at once after a pause.
    """

    per_s: float
    burst: int

    @property
    def refill_s(self) -> float:
        """How long an empty bucket takes to be full."""
        return self.burst / self.per_s


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at_s: float


class Limits:
    """The buckets of one broker, in bounded memory.

    Args:
        allowances: What each rate class allows.
        now_s: A clock in seconds that never goes back.
        most: How many buckets are kept; the one left alone for longest gives way.
    """

    def __init__(
        self,
        allowances: Mapping[Rate, Allowance],
        now_s: Callable[[], float],
        most: int = MAX_BUCKETS,
    ) -> None:
        self._allowances = dict(allowances)
        self._now_s = now_s
        self._most = most
        # In the order of their last use.
        self._buckets: dict[tuple[Rate, str], _Bucket] = {}

    def __len__(self) -> int:
        """How many buckets there are."""
        return len(self._buckets)

    def take(self, rate: Rate, key: str) -> None:
        """Take one token.

        Args:
            rate: The rate class of what is asked.
            key: Who asks: a member, an API key, an address.

        Raises:
            TooMuch: ``rate_limited``: none is left; ``retry_after_s`` says when one will be.
        """
        allowance = self._allowances[rate]
        now_s = self._now_s()
        bucket = self._buckets.pop((rate, key), None)
        if bucket is None:
            self._make_room(now_s)
            bucket = _Bucket(allowance.burst, now_s)
        self._buckets[rate, key] = bucket
        gained = max(0.0, now_s - bucket.at_s) * allowance.per_s
        bucket.tokens = min(allowance.burst, bucket.tokens + gained)
        bucket.at_s = now_s
        if bucket.tokens < 1 - _ROUNDING:
            raise _too_often(rate, allowance, (1 - bucket.tokens) / allowance.per_s)
        bucket.tokens = max(0.0, bucket.tokens - 1)

    def _make_room(self, now_s: float) -> None:
        """Drop the longest unused: a full bucket says no more than none, and some must go."""
        for _ in range(_LOOKED_AT):
            oldest = next(iter(self._buckets), None)
            if oldest is None:
                return
            is_full = now_s - self._buckets[oldest].at_s >= self._allowances[oldest[0]].refill_s
            if not is_full and len(self._buckets) < self._most:
                return
            del self._buckets[oldest]


def _too_often(rate: Rate, allowance: Allowance, wait_s: float) -> TooMuch:
    return TooMuch(
        f"More than {allowance.per_s:g} {rate} requests a second.",
        "Wait as long as the answer says; the limits are settings of the broker.",
        code="rate_limited",
        # Rounded up, so that who waits exactly so long is let in.
        retry_after_s=math.ceil(wait_s * 1000) / 1000,
    )
