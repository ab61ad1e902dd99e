"""Flagfiles, and recipes by name: --recipe=NAME is the flagfile flags/recipes/NAME.flags.

--flagfile works as in absl, with one difference: if a flagfile flags/... is not in the current
folder, that of the package is used. Recipes name other flagfiles by such paths, so they work in any
folder.
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
    """A flagfile or a recipe does not exist or cannot be read."""


def expand(arguments: Sequence[str], leave_out: str | None = None) -> list[str]:
    """Returns arguments with each --flagfile and --recipe replaced by the lines of its file.

    Args:
        arguments: arguments of a command line.
        leave_out: name of flagfiles whose lines are left out.

    Raises:
        FlagfileError: a file or recipe does not exist, or a file includes itself.
    """
    return list(_expanded(arguments, leave_out, ()))


def recipe_names() -> list[str]:
    """Returns the names of all recipes."""
    return sorted(path.stem for path in _recipes().glob("*.flags"))


def recipe_title(name: str) -> str:
    """Returns the title in the header of a recipe, or "" if it has no title."""
    text = (_recipes() / f"{name}.flags").read_text(encoding="utf-8")
    match = re.match(r"# \| Recipe\s+(.*(?:\n# \|\s{4,}.*)*)", text)
    return re.sub(r"\n# \|\s+", " ", match[1]) if match else ""


def lines_of(path: Path) -> list[str]:
    """Returns the lines of a flagfile without comments.

    Raises:
        FlagfileError: the file cannot be read.
    """
    try:
        # A path in the file may have bytes that are not UTF-8, as on a command line.
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise FlagfileError(f"--flagfile={path} cannot be read ({error.strerror}).") from error
    if "\0" in text:
        raise FlagfileError(f"--flagfile={path} is not UTF-8 text: save it as UTF-8.")
    # splitlines would also split at other characters than the end of a line.
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
            raise FlagfileError(f"--{flag} needs the name of a {flag}, as --{flag}=NAME.")
        path = _recipe(value) if flag == RECIPE else _flagfile(value, above)
        if path in above:
            chain = " -> ".join(map(str, above))
            raise FlagfileError(f"--flagfile={value} includes itself: {chain}.")
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
    """Returns the path of a flagfile that the command line or another flagfile names."""
    try:
        path = Path(name).expanduser()
    except RuntimeError as error:
        raise FlagfileError(f"--flagfile={name}: there is no home folder of that name.") from error
    shipped_root = shipped.folder(shipped.FLAGS).resolve()
    ours = shipped_root.joinpath(*path.parts[1:]) if path.parts[:1] == ("flags",) else None
    # A flagfile of the package includes flagfiles of the package, not those of the current folder.
    from_ours = bool(above) and above[-1].is_relative_to(shipped_root)
    candidates = [ours, path] if from_ours else [path, ours]
    for candidate in candidates:
        if candidate is not None and candidate.is_file():
            return candidate.resolve()
    in_file = f" in {above[-1]}" if above else ""
    raise FlagfileError(f"--flagfile={name}{in_file}: there is no such file.")


def _recipes() -> Path:
    return shipped.folder(shipped.FLAGS) / "recipes"
