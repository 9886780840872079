"""The hash of everything that has an identity: jobs, checkpoints, data sets."""

from __future__ import annotations

import hashlib
import json


def stable_hash(value: object) -> str:
    """SHA-256 (hex) of a JSON-serialisable value, independent of key order.

    Examples:
        >>> stable_hash({"a": 1, "b": 2}) == stable_hash({"b": 2, "a": 1})
        True
        >>> stable_hash([])[:12]
        '4f53cda18c2b'
    """
    text = json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
