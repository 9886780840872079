"""WebDataset shards with random access and exact counts: their tar headers are indexed once."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

from cim_bench.data.folders import check_text
from cim_bench.data.suffixes import IMAGE_SUFFIXES

SHARD_IMAGE_SUFFIXES = frozenset(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES)


@dataclass(frozen=True)
class ShardMember:
    """One image inside a shard."""

    shard: Path
    key: str
    offset: int
    size: int


class WebDatasetReader:
    """Samples of ``*.tar`` shards as pairs ``KEY.jpg`` and ``KEY.cls``, in shard and key order.

    Offers the interface of timm's readers; timm's own WebDataset reader is a stream without length.

    Raises:
        ValueError: If there is no shard, one is damaged, or an image has no ``.cls`` or the other way round.
    """

    def __init__(self, folder: Path) -> None:
        shards = sorted(folder.glob("*.tar"))
        if not shards:
            raise ValueError(f"{folder} holds no *.tar shard")
        self.samples = [sample for shard in shards for sample in _index(shard)]
        self.class_to_idx = {str(label): label for label in range(1 + max((s[1] for s in self.samples), default=-1))}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[io.BytesIO, int]:
        member, label = self.samples[index]
        with member.shard.open("rb") as file:
            file.seek(member.offset)
            return io.BytesIO(file.read(member.size)), label

    def filename(self, index: int) -> str:
        """``SHARD/KEY`` of a sample."""
        member = self.samples[index][0]
        return f"{member.shard.name}/{member.key}"


def _index(shard: Path) -> list[tuple[ShardMember, int]]:
    try:
        return _scan(shard)
    except (tarfile.TarError, ValueError) as error:
        raise ValueError(f"cannot read {shard}: {error}") from error


def _scan(shard: Path) -> list[tuple[ShardMember, int]]:
    images: dict[str, ShardMember] = {}
    labels: dict[str, int] = {}
    with tarfile.open(shard) as tar:
        for entry in tar:
            folder, slash, name = entry.name.rpartition("/")
            stem, _, suffix = name.partition(".")
            key = folder + slash + stem
            if suffix.lower() in SHARD_IMAGE_SUFFIXES:
                images[key] = ShardMember(shard, key, entry.offset_data, entry.size)
            elif suffix == "cls":
                text = tar.extractfile(entry)
                assert text is not None
                labels[key] = int(text.read())
    if lost := sorted(images.keys() - labels.keys()):
        raise ValueError(f"{len(lost)} images have no .cls label, the first is {lost[0]}")
    if lost := sorted(labels.keys() - images.keys()):
        raise ValueError(f"{len(lost)} labels have no image beside them, the first is {lost[0]}.cls")
    for key in images:
        check_text(key)
    return [(member, labels[key]) for key, member in sorted(images.items())]
