"""The parts of a report page, before any HTML: sections of text, tiles, figures and tables."""

from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True)
class Tile:
    """One key number: what it is, its value with unit, and one line on how to read it."""

    label: str
    value: str
    note: str


@dataclass(frozen=True)
class Table:
    """A table of finished text; the first column of each row is its header.

    Attributes
    ----------
    caption : str
        What the rows are, with units and n.
    header : tuple of str
        One per column.
    rows : tuple of tuple of str
        As wide as the header.
    n_text : int
        The first `n_text` columns are text, set left; the others are numbers, set right.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    n_text: int = 1


@dataclass(frozen=True)
class Drawing:
    """One figure: inline SVG from `nfi_pyro.rendering.figures`, and its caption."""

    svg: Markup
    caption: str


@dataclass(frozen=True)
class Section:
    """One section of the page, printed in the order of the fields.

    Attributes
    ----------
    title, short, anchor : str
        Heading, its short form in the contents list, and the id that the list points at.
    paragraphs : tuple of str
        Plain text.
    tiles : tuple of Tile
        Key numbers.
    figures : tuple of Drawing
        Set two in a row where the page is wide enough.
    tables : tuple of Table
        In order.
    notes : tuple of str
        A list under everything else: definitions, limits.
    """

    title: str
    short: str
    anchor: str
    paragraphs: tuple[str, ...] = ()
    tiles: tuple[Tile, ...] = ()
    figures: tuple[Drawing, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
