"""Words and short phrases by which a text is searched, and which of them can tell of a person.

Texts and values are cut into words in the same way: runs of letters and digits, without case and accents;
numbers with points in them (decimals, UIDs) and times of day (`10:15:30`) are one word. A value of up to
three words is searched as a whole, a longer text by every three words in a row, so that a part of it is found
too. Looking up phrases in a dictionary takes the same time for ten values and for a million.
"""

import ast
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

#: Longer phrases would miss parts of a text, shorter ones would find common turns of speech.
MAX_WORDS = 3
#: Shorter words are initials, codes and units; a script whose characters are words needs fewer of them.
MIN_LETTERS, MIN_LETTERS_BEYOND_ASCII = 3, 2
#: Letters and digits mixed are mostly codes: of coils, colours, path commands in drawings.
MIN_MIXED = 4
#: Records are full of small numbers: a whole number of fewer digits, leading zeros apart, says nothing.
MIN_DIGITS = 5
#: Several small numbers in a row, such as a telephone number, need more.
MIN_DIGITS_OF_SEVERAL = 7

_WORD = re.compile(r"\d\d:\d\d:\d\d|\d+(?:\.\d+)+|[^\W_]+")
_LETTER = re.compile(r"[^\W\d_]")


def normalise(text: str) -> str:
    """Returns a text without case and accents, in compatibility form (NFKD).

    >>> normalise("MÜLLER")
    'muller'
    """
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    return "".join(each for each in decomposed if not unicodedata.combining(each))


def split_words(text: str) -> list[str]:
    """Cuts a text into words.

    >>> split_words("Doe^Jane_1950, 1.2.840 at 10:15:30")
    ['doe', 'jane', '1950', '1.2.840', 'at', '10:15:30']
    """
    return _WORD.findall(normalise(text))


def extract_phrases(value: str) -> Iterator[str]:
    """Yields the phrases by which a value is searched; none where it tells of nobody.

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
    """Whether words could tell of a person, and so must not be found in what we write.

    One of them must have letters, be long enough and not be one that this program writes by itself
    (`package_words`); or be a long whole number, a UID or a time of day. Or several numbers must be long
    together. Decimal numbers are measures and say nothing, nor do versions.
    """
    if any(_is_telling_word(each) for each in words):
        return True
    numbers = [each for each in words if each.isdecimal()]
    return len(numbers) > 1 and sum(map(len, numbers)) >= MIN_DIGITS_OF_SEVERAL


def _is_telling_word(word: str) -> bool:
    if _LETTER.search(word):
        least = MIN_LETTERS if word.isascii() else MIN_LETTERS_BEYOND_ASCII
        least = least if word.isalpha() else MIN_MIXED
        return len(word) >= least and word not in package_words()
    parts = word.split(".")
    # A UID or a date with points, but no version; of a decimal number the whole part must be long.
    is_long = len(parts) > 2 and sum(map(len, parts)) >= MIN_DIGITS_OF_SEVERAL
    return ":" in word or is_long or len(parts[0].lstrip("0")) >= MIN_DIGITS


@cache
def package_words() -> frozenset[str]:
    """Returns the words that this package itself can write: those of its string constants and field names.

    Found in a manifest or a table they say nothing about anybody, whatever header holds them too:
    `lumbar`, `sagittal`, `siemens`. They are read from the package's source and templates, so that none is
    forgotten; docstrings, which hold examples, are left out.
    """
    package = Path(__file__).resolve().parents[1]
    words: set[str] = set()
    for path in package.rglob("templates/*"):
        words.update(split_words(path.read_text(encoding="utf-8")))
    for path in package.rglob("*.py"):
        words.update(path.stem.split("_"))
        tree = ast.parse(path.read_text(encoding="utf-8"))
        ignored = {id(each.value) for each in ast.walk(tree) if isinstance(each, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in ignored:
                words.update(split_words(node.value))
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                words.update(split_words(node.target.id))
    return frozenset(words)
