"""README tables that are made of recorded results: each stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``."""

from __future__ import annotations

from typing import Any


def replace_table(text: str, name: str, table: str, where: Any) -> str:
    """The text with a table in place of what stood between its markers. `where` says whose text it is, for the error.

    Raises:
        ValueError: where the text has not exactly one of each marker.
    """
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if text.count(start) != 1 or text.count(end) != 1:
        raise ValueError(f"{where} needs the markers {start} and {end} once each")
    before, rest = text.split(start)
    return f"{before}{start}\n{table}\n{end}{rest.split(end)[1]}"
