"""What the documents say to type: the shell blocks of README.md and docs/, with the marks above them."""

import re
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
DOCUMENTS = (
    REPOSITORY / "README.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
    REPOSITORY / "tfrecords" / "README.md",
)
_SHELLS = {"sh", "bash", "shell", "console"}
#: An indented block has no language: one with a line that begins so is for a shell.
_COMMAND = re.compile(
    r"^(?:\$ |[A-Z_]+=\S|(?:\S*/)?"
    r"(?:python[\d.]*|pip|make|git|docker|openssl|curl|source|tensorboard|mkdocs|"
    r"Orthanc|storescu|echoscu|dcmsend|sudo|apt(?:-get)?|systemctl)\s)"
)
_MARK = re.compile(r"^<!-- (not run here|run by) *:? *(.+?) -->$")


@dataclass(frozen=True)
class Block:
    """Commands that belong together.

    Attributes:
        path: the document.
        line: the block's first line, from 1.
        commands: continued lines joined, without comments.
        not_run: why no test runs them; "" where there is no such mark.
        run_by: the test file that runs them, relative to the repository; "" where there is no such mark.
    """

    path: Path
    line: int
    commands: tuple[str, ...]
    not_run: str = ""
    run_by: str = ""

    @property
    def place(self) -> str:
        """Where it is, for a reader."""
        return f"{document_name(self.path)}:{self.line}"


def document_name(path: Path) -> str:
    """Returns a document's path in the repository."""
    return path.relative_to(REPOSITORY).as_posix()


def shell_blocks(path: Path) -> list[Block]:
    """Returns the blocks that are for a shell: fenced as such, or indented and beginning like a command."""
    lines = path.read_text(encoding="utf-8").splitlines()
    blocks, place = [], 0
    while place < len(lines):
        start = place
        if fence := re.match(r"^ *```(\w*)", lines[place]):
            place = next(each for each in range(start + 1, len(lines)) if lines[each].strip() == "```") + 1
            body, is_shell = lines[start + 1 : place - 1], fence[1] in _SHELLS
            assert fence[1] or not any(map(_is_command, body)), f"{path}:{start + 1}: a block of no language"
        elif lines[place].startswith("    ") and not (place and lines[place - 1].strip()):
            while place < len(lines) and (lines[place].startswith("    ") or not lines[place].strip()):
                place += 1
            body = [each[4:] for each in lines[start:place]]
            is_shell = any(map(_is_command, body))
        else:
            place += 1
            continue
        if is_shell:
            blocks.append(Block(path, start + 1, _commands(body), **_mark_above(lines, start)))
    return blocks


def _is_command(line: str) -> bool:
    return bool(_COMMAND.match(line))


def _commands(lines: list[str]) -> tuple[str, ...]:
    text = "\n".join(lines).replace("\\\n", " ")
    bare = (re.sub(r"(^|\s+)#.*$", "", each).strip() for each in text.splitlines())
    return tuple(" ".join(each.split()) for each in bare if each)


def _mark_above(lines: list[str], start: int) -> dict[str, str]:
    above = next((each.strip() for each in reversed(lines[:start]) if each.strip()), "")
    found = _MARK.match(above)
    return {found[1].replace(" here", "").replace(" ", "_"): found[2]} if found else {}
