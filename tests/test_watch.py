"""Command line of `watch`, and of `predict` with an archive."""

import pytest

from lumbar_tf.cli.command import parse_options
from lumbar_tf.interop import grading_options
from lumbar_tf.predict import PredictOptions
from lumbar_tf.watch import WatchOptions
from tests.command_line import run_in_process

ARCHIVE = "--dicomweb=https://pacs/dicom-web"


@pytest.mark.parametrize(
    "words",
    [
        [ARCHIVE],
        [ARCHIVE, "--store", "--days=0", "--match=wirbel", "--dicomweb-user-file=u", "--once"],
        [
            ARCHIVE,
            "--dicomweb-token-file=t",
            "--dicomweb-ca=ca.pem",
            "--server=grader:8500",
            "--tls-ca=ca.pem",
        ],
        ["--listen=11112"],
        ["--listen=0.0.0.0:104", "--ae-title=AI", "--send-to=PACS@pacs:104", "--calling=MR1,MR2"],
    ],
)
def test_a_valid_call_is_accepted(words: list[str]) -> None:
    options = parse_options(WatchOptions, words)
    assert (options.dicomweb is None) == (ARCHIVE not in words)
    assert (options.listen is None) == (ARCHIVE in words)


@pytest.mark.parametrize(
    ("words", "formats"),
    [
        (["--listen=104"], ["sheets", "report"]),
        (["--listen=104", "--send-to=A@b:1"], ["sheets", "report", "sr", "sc"]),
        (["--listen=104", "--send-to=A@b:1", "--formats=pdf,sr"], ["sr", "pdf"]),
        ([ARCHIVE, "--store"], ["sheets", "report", "sr", "sc"]),
        ([ARCHIVE, "--store", "--formats=sr", "--formats=gsps,fhir"], ["sr", "gsps", "fhir"]),
        ([ARCHIVE, "--formats=pdf"], ["pdf"]),
        ([ARCHIVE, "--formats="], []),
    ],
)
def test_formats_are_those_named_or_else_the_usual_ones_with_those_to_store(
    words: list[str], formats: list[str]
) -> None:
    options = parse_options(WatchOptions, words)
    assert [each.value for each in options.chosen_formats()] == formats


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "one of --dicomweb and --listen"),
        ([ARCHIVE, "--listen=104"], "one of --dicomweb and --listen"),
        (["--listen=104", "--store"], "--store must come with --dicomweb"),
        (["--listen=104", "--days=3"], "--days must come with --dicomweb"),
        ([ARCHIVE, "--send-to=A@b:1"], "--send-to must come with --listen"),
        ([ARCHIVE, "--tls-ca=x"], "--tls-ca must come with --server"),
        ([ARCHIVE, "--model=m", "--server=s"], "must not be given together"),
        ([ARCHIVE, "--dicomweb-user-file=u", "--dicomweb-token-file=t"], "must not be given together"),
        (["--dicomweb=http://u:s3cret@pacs/"], "must not contain a user or password"),
        (["--dicomweb=http://pacs", "--dicomweb-ca=ca.pem"], "https://"),
        ([ARCHIVE, "--dicomweb-cert=c.pem"], "must be given together"),
        ([ARCHIVE, "--match=("], "regular expression"),
        ([ARCHIVE, "--every-s=0"], "every_s"),
        ([ARCHIVE, "--store", "--formats=report,fhir"], "--formats must have one of sr, gsps, pdf, sc"),
        (["--listen=104", "--send-to=A@b:1", "--formats="], "--formats must have one of sr, gsps, pdf, sc"),
        ([ARCHIVE, "--formats=srr"], r"Received: 'srr' \(did you mean sr\?\)"),
    ],
)
def test_an_invalid_call_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_options(WatchOptions, words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--study=Doe/Jane", ARCHIVE], "must be a StudyInstanceUID"),
        (["--study=1.2.3", "--store"], "--store must come with --dicomweb"),
        (["--study=1.2.3", ARCHIVE, "--store", "--pseudonym-key-file=k"], "does not have the pseudonyms"),
        (["--study=1.2.3", "--dicomweb=http://u:s3cret@pacs/"], "must not contain a user or password"),
    ],
)
def test_predict_refuses_options_that_exclude_each_other(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_options(PredictOptions, words)


def test_a_password_in_the_url_is_not_repeated_on_the_terminal() -> None:
    done = run_in_process("watch", "--dicomweb=http://u:s3cret@pacs/")
    assert done.returncode == 2 and "--dicomweb-user-file" in done.stderr
    assert "s3cret" not in done.stderr + done.stdout


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grading_options, "find_spec", lambda name: None if name == "pynetdicom" else name)
    with pytest.raises(ValueError, match=r"pip install 'lumbar_tf\[pacs\]'.*without pynetdicom"):
        grading_options.check_pacs_extra()
