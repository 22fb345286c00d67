import pytest

from lumbar_tf.serving.connection import ServerAddress, ServerProtocol, TlsFiles, parse_address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("grader:9000", ServerAddress(ServerProtocol.GRPC, "grader", 9000)),
        ("grader", ServerAddress(ServerProtocol.GRPC, "grader", 8500)),
        ("10.1.2.3:8500", ServerAddress(ServerProtocol.GRPC, "10.1.2.3", 8500)),
        ("[::1]:8500", ServerAddress(ServerProtocol.GRPC, "[::1]", 8500)),
        ("grpc://grader.example", ServerAddress(ServerProtocol.GRPC, "grader.example", 8500)),
        ("grpcs://grader:443", ServerAddress(ServerProtocol.GRPC, "grader", 443, is_secure=True)),
        ("http://grader", ServerAddress(ServerProtocol.REST, "grader", 8501)),
        ("http://grader:80/spine/", ServerAddress(ServerProtocol.REST, "grader", 80, path="/spine")),
        ("https://grader", ServerAddress(ServerProtocol.REST, "grader", 443, is_secure=True)),
    ],
)
def test_an_address_is_read_and_written(text: str, expected: ServerAddress) -> None:
    found = parse_address(text)
    assert found == expected
    assert parse_address(str(found)) == found


@pytest.mark.parametrize(
    "text",
    ["", ":8500", "grader:", "grader:0", "grader:65536", "grader:http", "ftp://grader", "grader:1:2",
     "http://user@grader", "grader:8500/path", "http://grader?x=1", "two words", "grpc://"],
)  # fmt: skip
def test_what_is_no_address_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="Received: "):
        parse_address(text)


def test_files_for_tls_turn_it_on_where_no_scheme_says() -> None:
    assert parse_address("grader:1", is_secure=True).is_secure
    assert not parse_address("grpc://grader:1", is_secure=True).is_secure
    with pytest.raises(ValueError, match="together"):
        TlsFiles(cert=__file__)
