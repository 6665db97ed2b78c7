"""Randomness by address: the same seed and key give the same draws, on any machine, in any process.

Nothing carries a generator from one call to the next, so there is no random state to save: trial 17 of
a study draws from `generator(seed, 17, "screen")` whether or not the process was restarted in between.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(seed: int, *key: int | str) -> int:
    """A 63-bit seed for the stream at `key`; any change in the key changes every bit with chance 1/2."""
    address = "/".join([str(seed), *(str(part) for part in key)])
    digest = hashlib.blake2b(address.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(seed: int, *key: int | str, device: str = "cpu") -> torch.Generator:
    """A new generator for the stream at `key`, for one purpose only."""
    import torch

    return torch.Generator(device=device).manual_seed(derive(seed, *key))
