"""Text for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` with '?' for every character that is not printable: names come from files, and may steer a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)
