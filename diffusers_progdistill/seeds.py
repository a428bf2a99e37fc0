"""Seeds of torch generators. On a CPU torch uses the low 32 bits only, so numbers are hashed, never shifted."""

import hashlib


def derive_seed(*numbers: int) -> int:
    """A generator's seed from several numbers, such as (seed, stage, update): neighbours share nothing."""
    digest = hashlib.blake2b(",".join(map(str, numbers)).encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big")
