"""Small tables as files, line by line."""

from pathlib import Path


def write_table(path: Path, *lines: str) -> Path:
    """Writes the lines, the first of which is the header, and returns the path."""
    path.write_text("\n".join(lines) + "\n")
    return path
