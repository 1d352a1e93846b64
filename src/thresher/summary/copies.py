"""The part of summary.json that tells of near copies."""

from __future__ import annotations

from thresher.summary.parts import Entry, Query, Row


class ContradictedRow(Row):
    """A training row whose text has another label, or answer, elsewhere; by its place in the file."""

    row: int


class Contradiction(Entry):
    """Rows with almost the same text and different labels, or answers."""

    copies: int
    """How many rows there are."""
    rows: tuple[ContradictedRow, ...]
    """Some of them, with each label where there are not too many."""
    queries: tuple[Query, ...]
    """Some of the clean queries with the same text."""


class NearCopies(Entry):
    """Rows whose texts are the same but for case, punctuation and a few characters."""

    rows: int
    """Training rows that have a near copy among the others."""
    groups: int
    """Of how many different texts they are."""
    contradicted: int
    """Rows whose text has another label, or answer, in a near copy."""
    contradicted_groups: int
    contradicted_by_queries: int
    """Of them those whose text has another label in every clean query that is a near copy."""
    queries: int
    """Clean queries that have a near copy among the training rows."""
    shown: tuple[Contradiction, ...]
    """Some contradictions, those with the most detrimental rows first."""
