"""Training data of an ensemble, as its description states them, and the note on them in every result."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Key of the training data in an ensemble's description.
TRAINING_KEY = "training"
#: A note of this length fits on one line of a sheet.
MAX_ORIGIN_CHARACTERS = 150


@dataclass(frozen=True)
class TrainingData:
    """Studies that an ensemble was trained on.

    Attributes:
        origin: their origin, one line of printable text; empty if it is not documented.
        is_synthetic: whether they are synthetic.
    """

    origin: str = ""
    is_synthetic: bool = False

    @property
    def note(self) -> str:
        """Sentences at the top of every result.

        >>> TrainingData("RSNA 2024, training set").note
        'The model was trained on RSNA 2024, training set.'
        >>> TrainingData().note
        "The model's training data are not documented."
        """
        if self.is_synthetic:
            return "The model was trained on synthetic studies. Its grades are not validated on patients."
        if self.origin:
            return f"The model was trained on {self.origin.rstrip('.')}."
        return "The model's training data are not documented."


def summarise_origin(text: str) -> str:
    r"""Returns a text as one line of at most `MAX_ORIGIN_CHARACTERS` printable characters.

    >>> summarise_origin(" SPIDER,\n88 studies\t")
    'SPIDER, 88 studies'
    """
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    if len(line) <= MAX_ORIGIN_CHARACTERS:
        return line
    return line[: MAX_ORIGIN_CHARACTERS - 3].rstrip() + "..."


def training_to_json(training: TrainingData) -> dict[str, Any]:
    """Returns the entry `TRAINING_KEY` of a description."""
    return {"data": training.origin, "is_synthetic": training.is_synthetic}


def parse_training(description: Mapping[str, Any]) -> TrainingData:
    """Returns the training data that a description states; undocumented for one without them.

    The note is derived from the entry and is no part of it, so that a bundle cannot bring a text of its own
    for synthetic studies.

    Raises:
        ValueError: the entry has values of other types, or a text that is too long or not printable.
    """
    if TRAINING_KEY not in description:  # an old bundle
        return TrainingData()
    entry = description[TRAINING_KEY]
    if not isinstance(entry, dict):
        raise ValueError(f"its {TRAINING_KEY} must be an object. Received: a {type(entry).__name__}.")
    origin, is_synthetic = entry.get("data"), entry.get("is_synthetic")
    if not isinstance(is_synthetic, bool):
        raise ValueError(f"its {TRAINING_KEY} must have is_synthetic, true or false.")
    if not isinstance(origin, str) or not origin.isprintable() or len(origin) > MAX_ORIGIN_CHARACTERS:
        raise ValueError(
            f"its {TRAINING_KEY} must have data, at most {MAX_ORIGIN_CHARACTERS} printable characters."
        )
    return TrainingData(origin, is_synthetic)
