"""What looks like a secret, in keys and in text. Pure.

It errs on the side of striking out: a log that lacks a harmless word costs less than one that
has somebody's password.
"""

import re
import unicodedata
from functools import lru_cache
from typing import Final

REDACTED: Final = "[redacted]"
"""Stands where a secret stood."""

MAX_KEY_CHARACTERS: Final = 256
"""So much of a key is looked at."""

_CACHED_KEYS: Final = 4_096
"""Keys recur: so many are remembered."""

_SECRET_PARTS: Final = re.compile(
    "passw(?:or)?d|passphrase|passcode|secret|apikey|accesskey|privatekey|signingkey"
    "|encryptionkey|authorization|authentication|cookie|credential|sessionid|csrf|xsrf"
    "|cardn(?:umber|um|o)|creditcard|debitcard|ccn(?:umber|um|o)|cvv|cvc|securitycode"
)
"""In a key's letters and digits, wherever they are."""

_SECRET_ENDS: Final = frozenset(
    ("pass", "pwd", "pin", "otp", "auth", "pan", "ssn", "sid", "jwt", "bearer", "sig", "signature")
)
"""A key's last word, or the whole of it: inside of longer words they mean something else."""

_WORDS: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")

_NAME: Final = r"(?<![A-Za-z0-9_.-])([A-Za-z0-9_.-]{1,64})"
_SCHEME: Final = r"(?:basic|bearer|digest|token|negotiate)\s+"


def _looks(*alike: tuple[str, str]) -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((mark, re.compile(pattern, re.IGNORECASE)) for mark, pattern in alike)


_LOOKS: Final = _looks(
    ("bearer", r"\bbearer\s+[A-Za-z0-9._~+/=-]{8,}"),
    # Two words may follow each other: credentials in base64 have a digit or a sign.
    ("basic", r"\bbasic\s+(?=[A-Za-z]*[0-9+/=])[A-Za-z0-9+/]{8,}={0,2}"),
    ("cookie", r"\b(?:set-)?cookie\s*:[^\r\n]+"),
    ("eyj", r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)*"),
    ("zaaz_", r"zaaz_[0-9a-f]{24}_[A-Za-z0-9_-]+"),
    ("private key", r"-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]*(?:-----END [A-Z ]*-----)?"),
    # Keys of vendors that our partners call: OpenAI, Anthropic, Stripe, GitHub, Slack, ...
    *((mark, rf"\b{mark}[A-Za-z0-9_-]{{16,}}") for mark in ("sk-", "sk_", "pk_", "rk_", "whsec_")),
    *((f"gh{kind}_", rf"\bgh{kind}_[A-Za-z0-9]{{20,}}") for kind in "pousr"),
    ("github_pat_", r"\bgithub_pat_[A-Za-z0-9_]{20,}"),
    ("xox", r"\bxox[a-z]-[A-Za-z0-9-]{10,}"),
    ("aiza", r"\bAIza[A-Za-z0-9_-]{30,}"),
    ("akia", r"\bAKIA[A-Z0-9]{16}\b"),
    ("asia", r"\bASIA[A-Z0-9]{16}\b"),
)
"""What a text in lower case has to contain, and what is then looked for: a text is searched for all
the marks in less time than for one pattern."""

_ASSIGNMENT: Final = re.compile(
    _NAME + r"""(\\*["']?\s*[=:]\s*)"""
    rf"""(\\*"[^"]*"?|\\*'[^']*'?|(?:{_SCHEME})?[^\s&,;"'{{}}]+)""",
    re.IGNORECASE,
)
"""`name=value` and `"name": "value"` inside of a text: a query, a header, JSON in a string."""

_DIGIT_RUN: Final = re.compile(r"\d+(?:[ -]\d+)*")
_DIGITS: Final = re.compile(r"\d+")
_CARD_DIGITS: Final = range(13, 20)


def is_secret(key: str, *, of_number: bool = False) -> bool:
    """Whether what stands under `key` is to be struck out, whatever the key's case and separators.

    `of_number`: it is a number; then `max_tokens` and `token_count` are no secrets.
    """
    by_name, by_token, ends_with_token = _classify(key[:MAX_KEY_CHARACTERS])
    return by_name or (ends_with_token if of_number else by_token)


def redact(text: str) -> str:
    """`text` with what looks like a secret struck out."""
    lowered = text.lower()
    for mark, look in _LOOKS:
        if mark in lowered:
            text = look.sub(REDACTED, text)
    if "=" in text or ":" in text:
        text = _ASSIGNMENT.sub(_without_value, text)
    return _DIGIT_RUN.sub(_without_cards, text)


def is_card(digits: str) -> bool:
    """Whether these digits are a payment card's number: its length, its issuers, Luhn."""
    if len(digits) not in _CARD_DIGITS or not digits.isascii():
        return False
    issued = digits[0] in "3456" or "22" <= digits[:2] <= "27"
    if not issued or (len(digits) == _CARD_DIGITS[0] and digits[0] != "4"):
        return False
    total = 0
    for place, digit in enumerate(reversed(digits)):
        number = int(digit) << (place & 1)
        total += number - 9 if number > 9 else number
    return total % 10 == 0


@lru_cache(maxsize=_CACHED_KEYS)
def _classify(key: str) -> tuple[bool, bool, bool]:
    """Secret by its name; speaks of tokens; ends with `token`."""
    if not key.isascii():
        key = unicodedata.normalize("NFKC", key)
    squashed = "".join(filter(str.isalnum, key.casefold()))
    words = _WORDS.findall(key)
    last = words[-1].casefold() if words else ""
    named = bool(_SECRET_PARTS.search(squashed)) or bool({squashed, last} & _SECRET_ENDS)
    return named, "token" in squashed, squashed.endswith("token")


def _without_value(match: re.Match[str]) -> str:
    name, between, value = match.groups()
    if not is_secret(name, of_number=value.isdecimal()):
        return match[0]
    return f"{name}{between}{REDACTED}"


def _without_cards(match: re.Match[str]) -> str:
    """A run of digits with each card number struck out. Numbers begin and end where groups do."""
    run = match[0]
    if len(run) < _CARD_DIGITS[0]:
        return run
    groups = list(_DIGITS.finditer(run))
    kept: list[str] = []
    place = start = 0
    while start < len(groups):
        end = _card_end(run, [group.span() for group in groups[start : start + _CARD_DIGITS[-1]]])
        if end is None:
            start += 1
            continue
        kept += (run[place : groups[start].start()], REDACTED)
        place = end
        while start < len(groups) and groups[start].start() < end:
            start += 1
    return "".join((*kept, run[place:]))


def _card_end(run: str, groups: list[tuple[int, int]]) -> int | None:
    """Where the card number ends that begins with the first group, if one does."""
    digits = ""
    for start, end in groups:
        digits += run[start:end]
        if len(digits) > _CARD_DIGITS[-1]:
            break
        if is_card(digits):
            return end
    return None
