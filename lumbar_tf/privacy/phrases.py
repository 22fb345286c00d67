"""Phrases of identifying values, and their search in texts and bytes.

Texts and values are split into words in the same way: sequences of letters and digits, without case and
accents; numbers with points (decimals, UIDs) and times of day (`10:15:30`) are one word. A value of up to
three words is searched as a whole, a longer text by every three consecutive words, so that parts of it are
found too. Phrases are looked up in a dictionary, so that the time does not depend on their number.
"""

import ast
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from pathlib import Path

#: Longer phrases would miss parts of a text, shorter ones would match common expressions.
MAX_WORDS = 3
#: Shorter words are initials, codes and units; words in scripts such as Chinese are shorter.
MIN_LETTERS, MIN_LETTERS_BEYOND_ASCII = 3, 2
#: Shorter mixtures of letters and digits are codes of coils, colours or drawing commands.
MIN_MIXED = 4
#: Shorter whole numbers, without leading zeros, are common in records.
MIN_DIGITS = 5
#: Minimum of several consecutive numbers, such as a telephone number.
MIN_DIGITS_OF_SEVERAL = 7

_WORD = re.compile(r"\d\d:\d\d:\d\d|\d+(?:\.\d+)+|[^\W_]+")
_LETTER = re.compile(r"[^\W\d_]")
#: Shorter phrases are not searched for in bytes: random data contain them.
MIN_BYTES = 6

_CRC_BYTES = 4

#: Text among bytes: printable ASCII and well-formed UTF-8 of two or three bytes, or ASCII as UTF-16.
_TEXT = re.compile(
    rb"(?:[\x20-\x7e\t\r\n]|[\xc2-\xdf][\x80-\xbf]|[\xe1-\xef][\x80-\xbf]{2}){%d,}" % MIN_BYTES
)
_WIDE_TEXT = re.compile(rb"(?:[\x20-\x7e]\x00){%d,}" % MIN_BYTES)


def normalise(text: str) -> str:
    """Returns a text without case and accents, in compatibility form (NFKD).

    >>> normalise("MÜLLER")
    'muller'
    """
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    return "".join(character for character in decomposed if not unicodedata.combining(character))


def split_words(text: str) -> list[str]:
    """Splits a text into words.

    >>> split_words("Doe^Jane_1950, 1.2.840 at 10:15:30")
    ['doe', 'jane', '1950', '1.2.840', 'at', '10:15:30']
    """
    return _WORD.findall(normalise(text))


def extract_phrases(value: str) -> Iterator[str]:
    """Yields the phrases of a value that are searched for; none if it does not identify anyone.

    >>> [list(extract_phrases(value)) for value in ("Doe^Jane", "00512", "Sagittal T2/STIR")]
    [['doe jane'], [], []]
    >>> list(extract_phrases("Mrs Doe fell from her horse"))
    ['mrs doe fell', 'doe fell from', 'fell from her', 'from her horse']
    """
    words = split_words(value)
    for start in range(max(1, len(words) - MAX_WORDS + 1)):
        phrase = words[start : start + MAX_WORDS]
        if is_identifying(phrase):
            yield " ".join(phrase)


def is_identifying(words: Sequence[str]) -> bool:
    """Whether words could identify a person and must not occur in outputs.

    At least one word must have enough letters and not be a word of this package (`package_words`), or be a
    long whole number, a UID or a time of day; or several numbers must be long together. Decimal numbers are
    measurements; neither they nor versions identify anyone.
    """
    if any(_is_identifying_word(word) for word in words):
        return True
    numbers = [word for word in words if word.isdecimal()]
    return len(numbers) > 1 and sum(map(len, numbers)) >= MIN_DIGITS_OF_SEVERAL


def _is_identifying_word(word: str) -> bool:
    if _LETTER.search(word):
        least = MIN_LETTERS if word.isascii() else MIN_LETTERS_BEYOND_ASCII
        least = least if word.isalpha() else MIN_MIXED
        return len(word) >= least and word not in package_words()
    parts = word.split(".")
    # A UID or a date with points, but not a version; a decimal number needs a long integer part.
    is_long = len(parts) > 2 and sum(map(len, parts)) >= MIN_DIGITS_OF_SEVERAL
    return ":" in word or is_long or len(parts[0].lstrip("0")) >= MIN_DIGITS


@cache
def package_words() -> frozenset[str]:
    """Returns the words in string constants, field names and templates of this package.

    Such words (`lumbar`, `sagittal`, `siemens`) occur in every output and do not identify anyone, even if
    they are in a header. They are read from the source, without docstrings, which contain examples.
    """
    package = Path(__file__).resolve().parents[1]
    words: set[str] = set()
    for path in package.rglob("templates/*"):
        words.update(split_words(path.read_text(encoding="utf-8")))
    for path in package.rglob("*.py"):
        words.update(path.stem.split("_"))
        tree = ast.parse(path.read_text(encoding="utf-8"))
        ignored = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in ignored:
                words.update(split_words(node.value))
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                words.update(split_words(node.target.id))
    return frozenset(words)


class PhraseSearch:
    """Search for a set of phrases, which are words separated by spaces; see `extract_phrases`.

    >>> search = PhraseSearch({"doe jane", "19500131"})
    >>> list(search.in_text("born 19500131: DOE^JANE, not 119500131"))
    ['19500131', 'doe jane']
    """

    def __init__(self, phrases: Collection[str]) -> None:
        self._phrases = frozenset(phrases)
        self._first_words = frozenset(phrase.partition(" ")[0] for phrase in phrases)
        self._by_start: dict[str, list[str]] = defaultdict(list)
        for phrase in phrases:
            if len(phrase) >= MIN_BYTES:
                self._by_start[phrase[:MIN_BYTES]].append(phrase)

    def in_text(self, text: str) -> Iterator[str]:
        """Yields the phrases among a text's words, each as often as it occurs."""
        words = split_words(text)
        for place, word in enumerate(words):
            if word in self._first_words:
                phrase = ""
                for other in words[place : place + MAX_WORDS]:
                    phrase = f"{phrase} {other}" if phrase else other
                    if phrase in self._phrases:
                        yield phrase
            if "." in word and (whole := word.partition(".")[0]) in self._phrases:
                # A date before a time, or an id before a file extension.
                yield whole

    def in_bytes(self, data: bytes) -> Iterator[str]:
        """Yields the phrases in texts among bytes.

        File formats have lengths before and checksums after texts, which can look like letters: one
        additional letter or digit before a phrase, and four after it, are allowed.
        """
        for match in _TEXT.finditer(data):
            yield from self._in_run(match[0].decode("utf-8", "replace"))
        for match in _WIDE_TEXT.finditer(data):
            yield from self._in_run(match[0].decode("utf-16-le"))

    def _in_run(self, text: str) -> Iterator[str]:
        line = " ".join(split_words(text))
        start = 0
        while start < len(line):
            for place in (start, start + 1):
                for phrase in self._by_start.get(line[place : place + MIN_BYTES], ()):
                    if line.startswith(phrase, place) and _ends_there(line, place + len(phrase)):
                        yield phrase
            start = line.find(" ", start) + 1 or len(line)


def _ends_there(line: str, end: int) -> bool:
    """Whether a word ends at a position or up to four characters, the size of a CRC, after it."""
    return len(line) <= end + _CRC_BYTES or any(
        character in " ." for character in line[end : end + _CRC_BYTES + 1]
    )
