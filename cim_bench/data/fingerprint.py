"""The fingerprint of an image set: names, labels, sizes and contents of its images, and its class names.

Contents are hashed once on a machine and then looked up in the user's cache folder by path, size and times of the
file. Of a set of more than `FULL` images, `SAMPLE` images that are spread evenly over it are hashed; its fingerprint
begins with `SAMPLED`, so that every record that rests on it says so.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from cim_bench.common.cores import own_cores
from cim_bench.common.files import write_atomic
from cim_bench.common.progress import Meter
from cim_bench.data.photos.crops import cache_folder

FULL = 100_000  # images of the largest set whose contents are all hashed: ImageNet's 50,000, and not its 1,281,167
SAMPLE = 1_024
SAMPLED = "sampled:"
UNKNOWN = -1
SETTLED_NS = 2 * 10**9  # a file that changed so recently could change again within one tick of its clock
LONG = 2**28  # bytes to hash from which on progress is shown
SAVE_EVERY_S = 30.0  # hashing that is stopped goes on from there
DIGEST = 16  # bytes of a key or digest in the cache
Stats = dict[str, tuple[int, int, int]]


class Source(NamedTuple):
    """Where an image lies.

    Attributes:
        file: The image's own, or the tar file, shard or table that holds it; empty where none is known.
        offset: In bytes; of a table, the number of the image.
        size: In bytes; `UNKNOWN` for an image that only its reader can find.
        changed: When the file was written and when its entry changed, in ns.
    """

    file: str
    offset: int
    size: int
    changed: tuple[int, int]

    @property
    def key(self) -> bytes:
        """What digests are looked up by: it changes whenever the file is written, replaced or moved."""
        text = "\0".join(map(str, (os.path.abspath(self.file), *self[1:])))  # noqa: PTH100  as fast as can be
        return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=DIGEST).digest()


def fingerprint(
    reader: Any, indices: Sequence[int], classes: Sequence[str], labels: Mapping[int, int] | None, title: str
) -> str:
    """Fingerprint of a set, the same wherever it lies, in a folder or in a tar file.

    Args:
        reader: As of `cim_bench.data.readers.open_reader`.
        indices: The images that belong to the set, in order.
        classes: Class names in label order.
        labels: By index, where they are others than the reader's.
        title: Of the set, for progress.

    Raises:
        OSError: Naming a file that cannot be read.
        ValueError: Naming one that is no regular file.
    """
    few = len(indices) <= FULL
    chosen = range(len(indices)) if few else {place * len(indices) // SAMPLE for place in range(SAMPLE)}
    listed = hashlib.sha256(json.dumps(list(classes)).encode())
    hashed: list[Source] = []
    for place, (index, (name, label, source)) in enumerate(zip(indices, _entries(reader, indices), strict=True)):
        row = f"\n{name}\0{label if labels is None else labels[index]}\0{source.size}"
        listed.update(row.encode(errors="surrogateescape"))
        if place in chosen:
            hashed.append(source)
    for digest in _digests(reader, hashed, title):
        listed.update(digest)
    return ("" if few else SAMPLED) + listed.hexdigest()


def join_fingerprints(prints: Sequence[str]) -> str:
    """One fingerprint of several sets; `SAMPLED` if one of them is."""
    joined = hashlib.sha256("\n".join(prints).encode()).hexdigest()
    return (SAMPLED if any(one.startswith(SAMPLED) for one in prints) else "") + joined


def _entries(reader: Any, indices: Sequence[int]) -> Iterator[tuple[str, int | None, Source]]:
    """Name, label and place of each image; where no samples are listed, labels are hashed with the contents."""
    held = getattr(reader, "dataset", reader)  # torchvision's and Hugging Face's own
    samples = next((found for name in ("samples", "imgs") if (found := getattr(held, name, None)) is not None), None)
    if samples is None:
        table = _table(held)
        yield from ((reader.filename(index), None, table._replace(offset=index)) for index in indices)
        return
    targets = getattr(reader, "targets", None)
    prefix = os.path.join(str(getattr(reader, "root", "")), "")  # noqa: PTH118  as the reader joins
    stats: Stats = {}
    for index in indices:
        sample = samples[index]
        label = int(sample[1] if targets is None else targets[index])
        if isinstance(sample[0], str | Path):
            file = str(sample[0])
            size, *changed = _stat(file)
            # timm's filename() takes as long as the rest of this loop
            name = file.removeprefix(prefix) if file.startswith(prefix) else reader.filename(index)
            yield name, label, Source(file, 0, size, (changed[0], changed[1]))
        else:
            yield reader.filename(index), label, _member(reader, sample, stats)


def _member(reader: Any, sample: Any, stats: Stats) -> Source:
    """Place of an image in a shard of ours, in timm's tar file, or in a tar file that this holds."""
    if hasattr(sample[0], "shard"):
        file, offset, size = str(sample[0].shard), sample[0].offset, sample[0].size
    else:
        member, tar, inner = sample
        file = os.path.join(reader.root, tar) if tar else str(reader.root)  # noqa: PTH118
        offset, size = member.offset_data + (inner.offset_data if inner is not None else 0), member.size
    if file not in stats:
        stats[file] = _stat(file)
    return Source(file, offset, size, stats[file][1:])


def _table(held: Any) -> Source:
    """The files behind a Hugging Face set as one; nothing of a set that torchvision holds in memory."""
    files = [entry["filename"] for entry in getattr(held, "cache_files", ())]
    stats = [_stat(file) for file in files]
    changed = max((found[1] for found in stats), default=0), max((found[2] for found in stats), default=0)
    return Source(files[0] if files else "", 0, UNKNOWN, changed)


def _stat(file: str) -> tuple[int, int, int]:
    """Size and times of a file.

    Raises:
        ValueError: Naming one that is no regular file.
    """
    found = os.stat(file)  # noqa: PTH116  a Path for each of a million files takes longer
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{file} is not a regular file; remove it, or list it in --data.bad-files")
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _digests(reader: Any, sources: Sequence[Source], title: str) -> Iterator[bytes]:
    """One digest for each source, in order: looked up, or made."""
    folders = [Path(source.file).absolute().parent for source in (sources[0], sources[-1])]
    cache = _Cache(os.path.commonpath(folders)) if sources[0].file else None
    known = cache.known if cache else {}
    keys = [source.key for source in sources]
    todo = {key: source for key, source in zip(keys, sources, strict=True) if key not in known}
    made: dict[bytes, bytes] = {}
    by_reader = sources[0].size == UNKNOWN
    digest: Callable[[Source], bytes] = partial(_digest_by_reader, reader) if by_reader else _digest
    size = sum(source.size for source in todo.values())
    is_main = os.environ.get("RANK", "0") == "0"
    with (
        Meter(f"hash {title}", len(todo), show=is_main and (by_reader or size > LONG)) as meter,
        ThreadPoolExecutor(1 if by_reader else own_cores()) as pool,
    ):
        settled = time.time_ns() - SETTLED_NS
        for (key, source), found in zip(todo.items(), pool.map(digest, todo.values()), strict=True):
            made[key] = found
            if cache and max(source.changed) < settled:
                cache.add(key, found)
            meter.step()
    if cache:
        cache.save()
    yield from (made[key] if key in made else known[key] for key in keys)


def _digest(source: Source) -> bytes:
    """Digest of an image's bytes, as they are stored."""
    with open(source.file, "rb") as file:  # noqa: PTH123  a Path for each of 50,000 files takes as long as reading them
        file.seek(source.offset)
        return hashlib.sha256(file.read(source.size)).digest()[:DIGEST]


def _digest_by_reader(reader: Any, source: Source) -> bytes:
    """Digest of an image's label and of its bytes as stored, or of its pixels where the reader decodes it."""
    image, label, *_ = reader[source.offset]
    digest = hashlib.sha256(f"{label}\0".encode())
    if isinstance(image, Image.Image):
        digest.update(f"{image.mode}{image.size}".encode())
        digest.update(image.tobytes())
    else:
        with image:
            digest.update(image.read())
    return digest.digest()[:DIGEST]


class _Cache:
    """Digests by `Source.key` of the images below one place: pairs of `DIGEST` bytes in a file of the cache folder."""

    def __init__(self, place: str) -> None:
        name = hashlib.sha256(place.encode(errors="surrogateescape")).hexdigest()[:16]
        self.file = cache_folder() / "contents" / name
        self.known: dict[bytes, bytes] = {}
        with contextlib.suppress(OSError):
            content = self.file.read_bytes()  # of a damaged one, nothing that is asked for fits
            both = [content[i : i + 2 * DIGEST] for i in range(0, len(content), 2 * DIGEST)]
            self.known = {pair[:DIGEST]: pair[DIGEST:] for pair in both}
        self.saved_at, self.saved = time.monotonic(), len(self.known)

    def add(self, key: bytes, digest: bytes) -> None:
        """Know one more, and save now and then."""
        self.known[key] = digest
        if time.monotonic() - self.saved_at > SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Write what is new; a folder that cannot be written costs time alone."""
        if len(self.known) > self.saved:
            with contextlib.suppress(OSError):
                write_atomic(self.file, b"".join(key + digest for key, digest in self.known.items()))
        self.saved_at, self.saved = time.monotonic(), len(self.known)
