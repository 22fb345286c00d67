"""Finds phrases in texts and in bytes, at the same speed for ten of them and for a million."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator

from lumbar_tf.privacy.phrases import MAX_WORDS, split_words

#: In bytes only longer ones are looked for: shorter ones are found in any noise.
MIN_BYTES = 6

_CRC_BYTES = 4

#: Text among bytes: printable ASCII and well-formed UTF-8 of two or three bytes, or ASCII as UTF-16.
_TEXT = re.compile(
    rb"(?:[\x20-\x7e\t\r\n]|[\xc2-\xdf][\x80-\xbf]|[\xe1-\xef][\x80-\xbf]{2}){%d,}" % MIN_BYTES
)
_WIDE_TEXT = re.compile(rb"(?:[\x20-\x7e]\x00){%d,}" % MIN_BYTES)


class PhraseSearch:
    """A set of phrases to look for. Phrases are words with a space between them, as `phrases_of` gives them.

    >>> search = PhraseSearch({"doe jane", "19500131"})
    >>> list(search.in_text("born 19500131: DOE^JANE, not 119500131"))
    ['19500131', 'doe jane']
    """

    def __init__(self, phrases: Collection[str]) -> None:
        self._phrases = frozenset(phrases)
        self._first_words = frozenset(each.partition(" ")[0] for each in phrases)
        self._by_start: dict[str, list[str]] = defaultdict(list)
        for each in phrases:
            if len(each) >= MIN_BYTES:
                self._by_start[each[:MIN_BYTES]].append(each)

    def in_text(self, text: str) -> Iterator[str]:
        """Yields the phrases among a text's words, as often as they come."""
        words = split_words(text)
        for place, word in enumerate(words):
            if word in self._first_words:
                phrase = ""
                for other in words[place : place + MAX_WORDS]:
                    phrase = f"{phrase} {other}" if phrase else other
                    if phrase in self._phrases:
                        yield phrase
            if "." in word and (whole := word.partition(".")[0]) in self._phrases:
                # A date before a time, an id before an ending.
                yield whole

    def in_bytes(self, data: bytes) -> Iterator[str]:
        """Yields the phrases in the texts that lie among bytes.

        Formats put a length before a text and a checksum behind it, which can look like letters: a phrase
        may have one further letter or digit before it, and four behind it.
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
    """Whether a word ends at a place or up to four characters behind it, as many as a CRC has."""
    return len(line) <= end + _CRC_BYTES or any(each in " ." for each in line[end : end + _CRC_BYTES + 1])
