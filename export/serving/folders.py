"""The folders of a support set, as both clients read them. Needs nothing but Python."""

from __future__ import annotations

from pathlib import Path


def class_folders(root: Path) -> dict[str, list[Path]]:
    """Returns the files of each class folder, sorted, without hidden ones."""
    if not root.is_dir():
        raise SystemExit(f"error: --support {root} is not a folder.")
    classes = {folder.name: _visible(folder) for folder in _visible(root) if folder.is_dir()}
    if not classes:
        raise SystemExit(f"error: {root} has no class folders: expected {root}/<class>/<image>.")
    for name, files in classes.items():
        if not files:
            raise SystemExit(f"error: the class folder {root / name} holds no image.")
    return classes


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def read(path: Path) -> bytes:
    """Returns the bytes of a file."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise SystemExit(f"error: {path} cannot be read ({error}).") from error
