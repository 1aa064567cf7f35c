"""Text for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` with '?' for every character that is not printable: names come from files, and may steer a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def layers_in_words(name: str, most: int = 8) -> str:
    """The layers that became an op, printable: the first ones and the last one, where they are many; --json has all."""
    layers = name.split("+")
    if len(layers) > most:
        layers = [*layers[: most - 2], f"… ({len(layers)} layers) …", layers[-1]]
    return printable("+".join(layers))
