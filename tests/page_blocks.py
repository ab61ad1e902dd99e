"""Finds the shell commands and the Python code in the pages."""

import ast
import dataclasses
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "models/README.md")),
    *sorted(page for page in ROOT.glob("docs/**/*.md") if page.parent.name != "notebooks"),
]
PROGRAMS = ("cp", "export", "make", "npm", "pip", "python", "source", "tensorboard", "tf-metalstm")
_TYPED = re.compile(rf"(?:{'|'.join(PROGRAMS)}) ")


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of code in a page: `kind` is "shell", "python" or "text"."""

    kind: str
    text: str


def name_of(page):
    return str(page.relative_to(ROOT))


def blocks(markdown):
    """Returns the fenced and the indented blocks of a page, in order."""
    found, lines, fence, indent = [], [], None, None
    for line in [*markdown.splitlines(), "end"]:
        stripped = line.strip()
        if fence is None and stripped.startswith("```"):
            fence = []
        elif fence is not None and stripped == "```":
            found.append("\n".join(fence))
            fence = None
        elif fence is not None:
            fence.append(line)
        elif not stripped:
            lines += [""] if indent is not None else []
        elif line.startswith("    ") and (indent is not None or not lines):
            indent = indent or re.match(" +", line).group()
            lines.append(line.removeprefix(indent))
        else:
            if indent is not None:
                found.append("\n".join(lines).strip("\n"))
            lines, indent = [], None
    return [Block(kind_of(text), text) for text in found]


def kind_of(text):
    if _TYPED.match(text):
        return "shell"
    try:
        ast.parse(text)
    except SyntaxError:
        return "text"
    return "python" if re.search(r"[(=]", text) else "text"


def commands(text):
    """Returns the commands of a block of shell, one line each, without comments and prompts."""
    joined = re.sub(r"\\\n\s*", "", text)
    lines = [re.sub(r"\s+#.*", "", line) for line in joined.splitlines()]
    quoted = "\n".join(line for line in lines if line.strip() and not line.startswith("#"))
    return re.split(rf"\n(?={_TYPED.pattern})", quoted) if quoted else []


def inline_commands(markdown):
    """Returns the commands in the running text, in code type."""
    text = re.sub(r"```.*?```", "", markdown, flags=re.DOTALL)
    return [each for each in re.findall(r"`([^`\n]+)`", text) if _TYPED.match(each)]
