"""Which files of a set are images by their names, and which look like data that nobody reads; imports no torch."""

from __future__ import annotations

# What Pillow reads. A file of such a name that it cannot read stops its job by name.
IMAGE_SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".j2k", ".webp", ".avif", ".gif", ".bmp", ".dib"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".pcx", ".ico"),
)

# Pictures of other kinds, arrays, and what has to be unpacked first. A README or a list of classes is none of these.
UNREAD_SUFFIXES = frozenset(
    {
        *(".heic", ".heif", ".jxl", ".svg", ".psd", ".dng", ".cr2", ".nef", ".arw", ".exr", ".hdr", ".npy", ".npz"),
        *(".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".rar", ".part", ".crdownload"),
    }
)
