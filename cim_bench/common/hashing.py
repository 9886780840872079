"""One hash for everything that has an identity."""

from __future__ import annotations

import hashlib
import json


def stable_hash(value: object) -> str:
    """SHA-256 (hex) of a JSON-serialisable value, independent of key order."""
    text = json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
