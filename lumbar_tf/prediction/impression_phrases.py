"""Table of the phrases of an impression in English, German, French and Spanish.

A row has the four languages side by side; braces mark what is filled in. The phrases are a Python table
rather than gettext catalogues, which would need Babel and compiled files in the wheel for about forty rows.
"""

from enum import Enum, unique
from typing import Any, Self


class Language(Enum):
    """Language of an impression; the value is its code of RFC 5646.

    Attributes:
        title: its English name.
    """

    ENGLISH = "en", "English"
    GERMAN = "de", "German"
    FRENCH = "fr", "French"
    SPANISH = "es", "Spanish"

    _value_: str
    title: str

    def __new__(cls, value: str, *attributes: Any) -> Self:
        """Makes a member; a call with the value alone looks one up."""
        member = object.__new__(cls)
        member._value_ = value
        (member.title,) = attributes
        return member


def parse_language(text: str) -> Language:
    """Returns the language of a code such as `de`.

    Raises:
        ValueError: the code is not in the table.
    """
    found = {language.value: language for language in Language}.get(text)
    if found is None:
        allowed = ", ".join(language.value for language in Language)
        raise ValueError(f"`language` must be one of {allowed}. Received: {text!r}.")
    return found


@unique
class Phrase(Enum):
    """A phrase; the value has its text in each language, in the order of `Language`.

    Conditions are named after their family and side, limitations after their `Flag`. A condition contains
    its grade, since adjectives have different places in the four languages.
    """

    DRAFT = (
        "Draft of a research system; not a diagnosis.",
        "Entwurf eines Forschungssystems; keine Diagnose.",
        "Ébauche produite par un système de recherche\u00a0; ne constitue pas un diagnostic.",
        "Borrador de un sistema de investigación; no es un diagnóstico.",
    )

    # Sentences.
    LEVEL = (
        "{levels}: {findings}.",
        "{levels}: {findings}.",
        "{levels}\u00a0: {findings}.",
        "{levels}: {findings}.",
    )
    MILD = (
        "{levels}: no more than mild.",
        "{levels}: allenfalls geringgradige Stenosen.",
        "{levels}\u00a0: sténoses tout au plus légères.",
        "{levels}: estenosis a lo sumo leve.",
    )
    PROBABLY_MILD = (
        "{levels}: probably no more than mild.",
        "{levels}: wahrscheinlich allenfalls geringgradige Stenosen.",
        "{levels}\u00a0: sténoses probablement tout au plus légères.",
        "{levels}: estenosis probablemente a lo sumo leve.",
    )
    NOT_GRADED = (
        "Not graded: {findings}.",
        "Nicht beurteilt: {findings}.",
        "Non évalué\u00a0: {findings}.",
        "No valorado: {findings}.",
    )
    LEVEL_SHIFT = (
        "Level uncertain, may be the disc above or below: {findings}.",
        "Höhe unsicher, möglicherweise das Segment darüber oder darunter: {findings}.",
        "Niveau incertain, peut-être le disque sus- ou sous-jacent\u00a0: {findings}.",
        "Nivel incierto, podría ser el disco superior o inferior: {findings}.",
    )
    NO_SAGITTAL_T1 = (
        "Graded without sagittal T1: {findings}.",
        "Ohne sagittale T1-Wichtung beurteilt: {findings}.",
        "Évalué sans séquence sagittale T1\u00a0: {findings}.",
        "Valorado sin secuencia sagital T1: {findings}.",
    )
    NO_SAGITTAL_T2 = (
        "Graded without sagittal T2: {findings}.",
        "Ohne sagittale T2-Wichtung beurteilt: {findings}.",
        "Évalué sans séquence sagittale T2\u00a0: {findings}.",
        "Valorado sin secuencia sagital T2: {findings}.",
    )
    NO_AXIAL_T2 = (
        "Graded without axial T2: {findings}.",
        "Ohne axiale T2-Wichtung beurteilt: {findings}.",
        "Évalué sans séquence axiale T2\u00a0: {findings}.",
        "Valorado sin secuencia axial T2: {findings}.",
    )
    NO_LANDMARK = (
        "Position not found: {findings}.",
        "Position nicht gefunden: {findings}.",
        "Position non trouvée\u00a0: {findings}.",
        "Posición no localizada: {findings}.",
    )
    TRAINED_ON_SYNTHETIC = (
        "The model was trained on synthetic studies. Its grades are not validated on patients.",
        "Das Modell wurde mit synthetischen Untersuchungen trainiert. Seine Einstufungen sind nicht an "
        "Patienten validiert.",
        "Le modèle a été entraîné sur des examens synthétiques. Ses gradations ne sont pas validées chez des "
        "patients.",
        "El modelo se entrenó con estudios sintéticos. Sus gradaciones no están validadas en pacientes.",
    )
    TRAINED_ON = (
        "The model was trained on {data}.",
        "Das Modell wurde trainiert mit: {data}.",
        "Le modèle a été entraîné sur\u00a0: {data}.",
        "El modelo se entrenó con: {data}.",
    )
    TRAINING_UNDOCUMENTED = (
        "The model's training data are not documented.",
        "Die Trainingsdaten des Modells sind nicht dokumentiert.",
        "Les données d'entraînement du modèle ne sont pas documentées.",
        "Los datos de entrenamiento del modelo no están documentados.",
    )

    # Grades, as adjectives of a feminine noun.
    SEVERE = ("severe", "hochgradige", "sévère", "grave")
    MODERATE_TO_SEVERE = (
        "moderate to severe",
        "mittel- bis hochgradige",
        "modérée à sévère",
        "moderada a grave",
    )
    PROBABLY_SEVERE = (
        "probably severe",
        "wahrscheinlich hochgradige",
        "probablement sévère",
        "probablemente grave",
    )
    MODERATE = ("moderate", "mittelgradige", "modérée", "moderada")
    PROBABLY_MODERATE = (
        "probably moderate",
        "wahrscheinlich mittelgradige",
        "probablement modérée",
        "probablemente moderada",
    )
    AT_MOST_MODERATE = (
        "at most moderate",
        "höchstens mittelgradige",
        "tout au plus modérée",
        "a lo sumo moderada",
    )

    # Conditions.
    CANAL = (
        "{grade} canal stenosis",
        "{grade} Spinalkanalstenose",
        "sténose canalaire {grade}",
        "estenosis {grade} del canal",
    )
    FORAMINAL_LEFT = (
        "{grade} left foraminal narrowing",
        "{grade} Neuroforamenstenose links",
        "sténose foraminale gauche {grade}",
        "estenosis foraminal izquierda {grade}",
    )
    FORAMINAL_RIGHT = (
        "{grade} right foraminal narrowing",
        "{grade} Neuroforamenstenose rechts",
        "sténose foraminale droite {grade}",
        "estenosis foraminal derecha {grade}",
    )
    FORAMINAL_BOTH = (
        "{grade} bilateral foraminal narrowing",
        "{grade} Neuroforamenstenose beidseits",
        "sténose foraminale bilatérale {grade}",
        "estenosis foraminal bilateral {grade}",
    )
    SUBARTICULAR_LEFT = (
        "{grade} left subarticular stenosis",
        "{grade} Rezessusstenose links",
        "sténose {grade} du récessus latéral gauche",
        "estenosis {grade} del receso lateral izquierdo",
    )
    SUBARTICULAR_RIGHT = (
        "{grade} right subarticular stenosis",
        "{grade} Rezessusstenose rechts",
        "sténose {grade} du récessus latéral droit",
        "estenosis {grade} del receso lateral derecho",
    )
    SUBARTICULAR_BOTH = (
        "{grade} bilateral subarticular stenosis",
        "{grade} Rezessusstenose beidseits",
        "sténose {grade} des récessus latéraux des deux côtés",
        "estenosis {grade} de ambos recesos laterales",
    )
    ALL_FINDINGS = ("all findings", "alle Befunde", "tous les critères", "todos los hallazgos")

    # Lists.
    LEVEL_RANGE = ("{first} to {last}", "{first} bis {last}", "{first} à {last}", "{first} a {last}")
    SEPARATOR = ("; ", "; ", "\u00a0; ", "; ")

    def fill(self, language: Language, **values: str) -> str:
        """Returns the text in a language with its values.

        >>> Phrase.FORAMINAL_LEFT.fill(Language.GERMAN, grade="hochgradige")
        'hochgradige Neuroforamenstenose links'
        """
        return self.value[list(Language).index(language)].format(**values)
