"""Flagfiles, and recipes by name: --recipe=NAME is the flagfile flags/recipes/NAME.flags.

What absl does with --flagfile, with one difference: a flagfile flags/... that is not in the present
folder is that of the package. So recipes, which name others by such paths, work from anywhere.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tf_metalstm import shipped

RECIPE = "recipe"
"""The flag that names a recipe."""

_DIRECTIVE = re.compile(rf"--?(flagfile|{RECIPE})(?:=(.*))?", re.DOTALL)


class FlagfileError(ValueError):
    """A flagfile or a recipe that is not there or cannot be read."""


def expand(arguments: Sequence[str], leave_out: str | None = None) -> list[str]:
    """Returns arguments with the lines of a flagfile in the place of each --flagfile and --recipe.

    Args:
        arguments: of a command line.
        leave_out: the name of files whose lines are left out.

    Raises:
        FlagfileError: a file or recipe is not there, or names itself.
    """
    return list(_expanded(arguments, leave_out, ()))


def recipe_names() -> list[str]:
    """Returns the names of all recipes."""
    return sorted(path.stem for path in _recipes().glob("*.flags"))


def recipe_title(name: str) -> str:
    """Returns what the first lines of a recipe say that it is, or "" where they do not."""
    text = (_recipes() / f"{name}.flags").read_text(encoding="utf-8")
    match = re.match(r"# \| Recipe\s+(.*(?:\n# \|\s{4,}.*)*)", text)
    return re.sub(r"\n# \|\s+", " ", match[1]) if match else ""


def lines_of(path: Path) -> list[str]:
    """Returns the lines of a flagfile without comments.

    Raises:
        FlagfileError: it cannot be read.
    """
    try:
        # Paths in it may be no text, as they may be in a command line.
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise FlagfileError(f"--flagfile={path} cannot be read ({error.strerror}).") from error
    if "\0" in text:
        raise FlagfileError(f"--flagfile={path} is no text in UTF-8.")
    # Not splitlines, to which more than an end of a line is one.
    lines = [line.strip() for line in text.split("\n")]
    return [line for line in lines if line and not line.startswith(("#", "//"))]


def _expanded(
    arguments: Sequence[str], leave_out: str | None, above: tuple[Path, ...]
) -> Iterator[str]:
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        match = _DIRECTIVE.fullmatch(argument)
        if argument == "--":
            yield from (argument, *rest)
            return
        if match is None:
            yield argument
            continue
        flag, value = match.groups()
        if value is None:
            value = rest.pop(0) if rest else ""
        if not value:
            raise FlagfileError(f"--{flag} needs the name of a {flag}.")
        path = _recipe(value) if flag == RECIPE else _flagfile(value, above)
        if path in above:
            raise FlagfileError(f"--flagfile={value} names itself: {' -> '.join(map(str, above))}.")
        if path.name != leave_out:
            yield from _expanded(lines_of(path), leave_out, (*above, path))


def _recipe(name: str) -> Path:
    path = _recipes() / f"{name}.flags"
    if name not in recipe_names():
        near = difflib.get_close_matches(Path(name).stem, recipe_names(), n=3)
        advice = f"did you mean {' or '.join(near)}?" if near else "there is no such recipe."
        raise FlagfileError(
            f"--{RECIPE}={name}: {advice} `python -m tf_metalstm recipes` lists all of them."
        )
    return path.resolve()


def _flagfile(name: str, above: tuple[Path, ...]) -> Path:
    """Returns the flagfile of a name, as the command line or the file above it means it."""
    path = Path(name).expanduser()
    shipped_root = shipped.folder(shipped.FLAGS).resolve()
    ours = shipped_root.joinpath(*path.parts[1:]) if path.parts[:1] == ("flags",) else None
    # One of our flagfiles means those of ours, whatever lies in the present folder.
    from_ours = bool(above) and above[-1].is_relative_to(shipped_root)
    candidates = [ours, path] if from_ours else [path, ours]
    for candidate in candidates:
        if candidate is not None and candidate.is_file():
            return candidate.resolve()
    in_file = f", which {above[-1]} names" if above else ""
    raise FlagfileError(f"--flagfile={name}{in_file}: there is no such file.")


def _recipes() -> Path:
    return shipped.folder(shipped.FLAGS) / "recipes"
