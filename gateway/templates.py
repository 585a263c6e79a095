"""Path templates of google.api.http: "/api/packages/{id}", "/v1/{name=files/*}:copy"."""

import re
from dataclasses import dataclass
from typing import Final

ONE: Final = "*"
"""A segment that matches any one."""
REST: Final = "**"
"""A last segment that matches any number of them, none included."""

_TOKENS: Final = re.compile(r"\{|\}|=|/|\*\*|\*|:|[^{}=/*:]+")
_FIELD_PATH: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


@dataclass(frozen=True, slots=True)
class Variable:
    """A field of the request and the segments, from `start` up to `stop`, that it takes."""

    field_path: str
    start: int
    stop: int | None
    """None: to the end of the path."""
    is_single: bool
    """It takes one segment, and so what is percent-encoded in it whole."""


@dataclass(frozen=True, slots=True)
class Template:
    """A path: literal segments, ONE and REST; what of it is read; the verb behind a colon."""

    segments: tuple[str, ...]
    variables: tuple[Variable, ...]
    verb: str


def parse_template(text: str) -> Template:
    """`text` as a Template; ValueError if it is none."""
    return _Reader(text).template()


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[str] = _TOKENS.findall(text)[::-1]
        self._segments: list[str] = []
        self._variables: list[Variable] = []

    def template(self) -> Template:
        self._expect("/")
        self._read_segments(inside_variable=False)
        verb = ""
        if self._next() == ":":
            self._tokens.pop()
            verb = self._pop()
        if self._tokens or REST in self._segments[:-1]:
            raise self._wrong()
        return Template(tuple(self._segments), tuple(self._variables), verb)

    def _read_segments(self, *, inside_variable: bool) -> None:
        while True:
            token = self._pop()
            if token == "{" and not inside_variable:
                self._read_variable()
            elif token in "{}=/:":
                raise self._wrong()
            else:
                self._segments.append(token)
            if self._next() != "/":
                return
            self._tokens.pop()

    def _read_variable(self) -> None:
        field_path, start = self._pop(), len(self._segments)
        if not _FIELD_PATH.fullmatch(field_path):
            raise self._wrong()
        if self._next() == "=":
            self._tokens.pop()
            self._read_segments(inside_variable=True)
        else:
            self._segments.append(ONE)
        self._expect("}")
        taken = self._segments[start:]
        stop = None if REST in taken else len(self._segments)
        self._variables.append(Variable(field_path, start, stop, taken == [ONE]))

    def _next(self) -> str:
        return self._tokens[-1] if self._tokens else ""

    def _pop(self) -> str:
        if not self._tokens:
            raise self._wrong()
        return self._tokens.pop()

    def _expect(self, token: str) -> None:
        if self._pop() != token:
            raise self._wrong()

    def _wrong(self) -> ValueError:
        return ValueError(f"{self._text} is no path template")
