import hashlib
import hmac

import pytest

import spiketrain.serving.rpc.tokens
from spiketrain.serving.errors import ConfigError, PermissionDenied, Unauthenticated
from spiketrain.serving.rpc.tokens import CertificatesAlone, read_tokens

SERVICES = frozenset({"Generation", "Models"})
ALICE, BOB = "alice-0123456789abcdef", "bob-0123456789abcdef"
GOOD = f"""
[callers.alice]
token = "{ALICE}"
[callers.bob]
sha256 = "{hashlib.sha256(BOB.encode()).hexdigest()}"
services = ["Models"]
"""


@pytest.fixture
def tokens(tmp_path):
    def read(text=GOOD):
        path = tmp_path / "tokens.toml"
        path.write_text(text)
        return read_tokens(str(path), SERVICES)

    return read


def test_a_token_names_its_caller(tokens):
    assert tokens().authorise(f"Bearer {ALICE}", "Generation") == "alice"
    assert tokens().authorise(f"bearer  {BOB} ", "Models") == "bob"


def test_a_token_is_good_for_its_services_alone(tokens):
    with pytest.raises(PermissionDenied, match="bob may not call the service Generation"):
        tokens().authorise(f"Bearer {BOB}", "Generation")


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", f"Basic {ALICE}", ALICE, f"Bearer {ALICE}x", "Bearer é"],
)
def test_anything_else_is_unauthenticated(tokens, header):
    with pytest.raises(Unauthenticated) as caught:
        tokens().authorise(header, "Models")
    assert ALICE not in str(caught.value)


def test_a_certificate_alone_or_beside_a_token_is_asked_for(tokens):
    known = tokens(
        f"[callers.a]\ncertificate = 'a'\n[callers.b]\ntoken = '{BOB}'\ncertificate = 'b'"
    )
    assert known.authorise(None, "Models", frozenset({"z", "a"})) == "a"
    assert known.authorise(f"Bearer {BOB}", "Models", frozenset("b")) == "b"
    bob, alice = f"Bearer {BOB}", f"Bearer {ALICE}"
    for header, names in ((None, "b"), (None, ""), (bob, "a"), (alice, "a")):
        with pytest.raises(Unauthenticated):
            known.authorise(header, "Models", frozenset(names))


def test_who_has_a_certificate_alone_is_named_by_all_of_its_names():
    assert CertificatesAlone().authorise(None, "Models", frozenset("ba")) == "certificate:a,b"
    with pytest.raises(Unauthenticated):
        CertificatesAlone().authorise(None, "Models", frozenset())


@pytest.mark.parametrize("token", [ALICE, BOB, "nobody's"])
def test_every_token_is_compared_in_constant_time_whichever_is_given(tokens, token, monkeypatch):
    compared, constant_time = [], hmac.compare_digest

    def compare(a, b):
        compared.append(len(a) == len(b) == 32)
        return constant_time(a, b)

    known = tokens()
    monkeypatch.setattr(spiketrain.serving.rpc.tokens.hmac, "compare_digest", compare)
    try:
        known.authorise(f"Bearer {token}", "Models")
    except Unauthenticated:
        assert token == "nobody's"
    assert compared == [True, True]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["[callers.NAME]"]),
        ("x = 1\n" + GOOD, ["x is unknown"]),
        ("callers = 3", ["[callers.NAME]"]),
        ("[callers]\na = 3", ["callers.a must be a table"]),
        ("[callers.a]\ntoken = 'short'", ["callers.a.token", "16"]),
        ("[callers.a]\nservices = []", ["callers.a must have one of token and sha256"]),
        ("[callers.a]\ncertificate = ''", ["callers.a.certificate must be a name"]),
        ("[callers.a]\nsha256 = 'AB'", ["callers.a.sha256", "64"]),
        (f"[callers.a]\ntoken = '{ALICE}'\nrole = 1", ["callers.a.role is unknown"]),
        (f"[callers.a]\ntoken = '{ALICE}'\nservices = ['Modls']", ["services", "Models"]),
        (f"[callers.a]\ntoken = '{ALICE}'\n[callers.b]\ntoken = '{ALICE}'", ["of its own"]),
    ],
)
def test_a_mistake_in_the_file_is_named_without_its_token(tokens, text, words):
    with pytest.raises(ConfigError, match=r"tokens\.toml") as caught:
        tokens(text)
    for word in words:
        assert word in str(caught.value)
    assert ALICE not in str(caught.value)
