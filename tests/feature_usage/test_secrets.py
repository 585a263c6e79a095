"""What is struck out of a log, and what is not."""

import string
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.credits.feature_usage.secrets import REDACTED, is_card, is_secret, redact

SECRET_KEYS = [
    *("password", "passwd", "passphrase", "token", "access token", "refresh token", "id token"),
    *("secret", "client secret", "authorization", "proxy authorization", "api key", "x api key"),
    *("cookie", "set cookie", "card number", "credit card", "cvv", "cvc", "private key"),
    *("credentials", "session id", "csrf token", "user password hash", "pin", "otp", "auth", "jwt"),
]
HARMLESS_KEYS = [
    *("author", "authored", "max", "shipping", "spinning", "option", "company", "model", "path"),
    *("class", "key", "keyboard", "passenger", "compass", "messages", "role", "bypass rate"),
]
CARDS = ["4242424242424242", "378282246310005", "5555555555554444", "6011111111111117"]
API_KEY = f"zaaz_{'0123456789ab' * 2}_{'abcdefghij' * 5}ab"

separators = st.sampled_from(["", "_", "-", ".", " ", "::"])
styles = st.sampled_from([str.lower, str.upper, str.title, str.swapcase])


@given(st.sampled_from(SECRET_KEYS), separators, styles)
def test_secret_keys_in_any_case_and_with_any_separators(
    key: str, separator: str, style: Callable[[str], str]
) -> None:
    assert is_secret(style(key).replace(" ", separator))


FULL_WIDTH = "".join(chr(ord(letter) + 0xFEE0) for letter in "password")


@pytest.mark.parametrize("key", ["userPassword", "dbPwd", "cardPin", FULL_WIDTH, "apiKey2"])
def test_secret_keys_as_words_of_longer_ones(key: str) -> None:
    assert is_secret(key)


@given(st.sampled_from(HARMLESS_KEYS), separators, styles)
def test_harmless_keys(key: str, separator: str, style: Callable[[str], str]) -> None:
    assert not is_secret(style(key).replace(" ", separator))


@pytest.mark.parametrize("key", ["max_tokens", "totalTokens", "token_count", "prompt-tokens"])
def test_numbers_of_tokens_are_no_secrets(key: str) -> None:
    assert not is_secret(key, of_number=True)
    assert is_secret(key)


def test_a_number_may_be_a_token() -> None:
    assert is_secret("token", of_number=True)
    assert is_secret("smsToken", of_number=True)
    assert is_secret("cvv", of_number=True)


@given(st.text(string.ascii_letters + string.digits + "._-", min_size=8))
def test_bearer_tokens(token: str) -> None:
    assert redact(f"sent Bearer {token}") == f"sent {REDACTED}"
    assert redact(f"bearer  {token}, then") == f"{REDACTED}, then"


@pytest.mark.parametrize(
    "secret",
    [
        API_KEY,
        "Basic dXNlcjpwYXNzd29yZDE=",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "sk-proj-abcdefghijklmnopqrst",
        "sk_live_abcdefghijklmnopqrst",
        "ghp_abcdefghijklmnopqrstuvwx",
        "AKIAIOSFODNN7EXAMPLE",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
        "Cookie: a=b; session=c",
    ],
)
def test_other_secrets_by_their_looks(secret: str) -> None:
    assert redact(f"one {secret}\ntwo") == f"one {REDACTED}\ntwo"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/v1/chat?api_key=abc&page=2", f"/v1/chat?api_key={REDACTED}&page=2"),
        ('{"password": "a b", "user": "c"}', f'{{"password": {REDACTED}, "user": "c"}}'),
        (r"{\"password\":\"a\",\"user\":\"c\"}", rf"{{\"password\":{REDACTED},\"user\":\"c\"}}"),
        ("Authorization: Basic abcdefgh", f"Authorization: {REDACTED}"),
        ("my password: hunter2", f"my password: {REDACTED}"),
        ("max_tokens=500", "max_tokens=500"),
        ("a=b", "a=b"),
    ],
)
def test_secrets_that_a_text_names(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("separator", ["", " ", "-"])
def test_cards(card: str, separator: str) -> None:
    shown = separator.join(card[place : place + 4] for place in range(0, len(card), 4))
    assert redact(f"card {shown}, thanks") == f"card {REDACTED}, thanks"
    assert redact(f"2024-11-21 {shown} 7") == f"2024-11-21 {REDACTED} 7"


@given(st.integers(0, 10**19 - 1).map(str))
def test_luhn(digits: str) -> None:
    """At most one last digit makes a card of the others."""
    assert sum(is_card(digits[:-1] + last) for last in "0123456789") <= 1


@pytest.mark.parametrize(
    "text", ["1763683200000", "4242424242424241", "424242424242424242424242", "+49 30 1234567", ""]
)
def test_other_numbers_stay(text: str) -> None:
    assert redact(text) == text


def test_plain_prose_stays() -> None:
    text = "The author's basic information was passed on; bearers of news: 42 tokens, 2024-11-21."
    assert redact(text) == text


@given(st.text(max_size=300))
def test_what_was_redacted_stays_so(text: str) -> None:
    once = redact(text)
    assert redact(once) == once
