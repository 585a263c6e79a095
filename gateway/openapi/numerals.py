"""Bounds of integers that are written as strings, as patterns over their digits."""


def at_most(limit: int) -> str:
    """A pattern (without anchors) for the integers from 1 to `limit`, without leading zeros."""
    digits = str(limit)
    shorter = [f"[1-9][0-9]{{0,{len(digits) - 2}}}"] if len(digits) > 1 else []
    return "|".join([*shorter, *_as_long(digits), digits])


def _as_long(digits: str) -> list[str]:
    """Of the same length and smaller: alike up to some digit, and less from there on."""
    made = []
    for place, digit in enumerate(digits):
        lowest = 0 if place else 1
        if int(digit) > lowest:
            rest = len(digits) - place - 1
            tail = f"[0-9]{{{rest}}}" if rest else ""
            made.append(f"{digits[:place]}[{lowest}-{int(digit) - 1}]{tail}")
    return made
