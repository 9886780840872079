"""What a table is: declared columns over records, and the same filled in by `cim_bench.reports.tables.build`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Literal, TypeAlias

from cim_bench.records.facets import Facets, check_facet_name
from cim_bench.records.measurement import METRICS
from cim_bench.reports.read.frames import FIELDS

# One row of `records_frame`, by field name.
FlatRecord: TypeAlias = Mapping[str, Any]


class AnyValue(Enum):
    """Matches whatever value a facet has, and records without it."""

    ANY = "any"


ANY: Final = AnyValue.ANY


@dataclass(frozen=True, kw_only=True)
class RowField:
    """One leading column: a record field that tells rows apart.

    Attributes:
        title: Header.
        name: One of `FIELDS`; records that differ in it are in different rows.
        show: Text of a record in this column; the plain value if ``None``.
        with_n: True where the row's sample count is written behind the text.
        footnote: On that text; empty for none.

    Raises:
        ValueError: For an unknown field.
    """

    title: str
    name: str
    show: Callable[[FlatRecord], str] | None = None
    with_n: bool = False
    footnote: Callable[[FlatRecord], str] | None = None

    def __post_init__(self) -> None:
        _check_field(self.title, self.name)


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of numbers: which measurement of a row's records it shows.

    Attributes:
        title: Header, without unit and arrow.
        metric: A key of `METRICS`.
        select: Record fields and the values that they must have.
        facets: The facets that a record must have, and no others; `ANY` for one of any value, or none. Published
            attacks, for one, tell no ``eps``.
        settings: Knobs that this column expects beyond the evaluator's defaults; others become footnotes.
        percent: Whether numbers are printed times 100; as the metric's unit says if ``None``.
        difference: True for differences of two numbers: printed with their sign.
        footnotes: On the header: what a reader must know of all its measured numbers.

    Raises:
        ValueError: For an unknown metric, field or facet.
    """

    title: str
    metric: str
    select: Mapping[str, object]
    facets: Mapping[str, str | int | float | AnyValue] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    percent: bool | None = None
    difference: bool = False
    footnotes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ValueError(f"{self.title}: unknown metric {self.metric!r}; choose one of {', '.join(METRICS)}")
        for name in self.select:
            _check_field(self.title, name)
        for name in self.facets:
            _check_facet(self.title, name)

    def fits(self, facets: Facets) -> bool:
        """Whether a record's facets are those of this column."""
        if any(value is not ANY and facets.get(name) != value for name, value in self.facets.items()):
            return False
        return facets.keys() <= self.facets.keys()

    @property
    def in_percent(self) -> bool:
        """Whether numbers are printed times 100."""
        return METRICS[self.metric].unit == "fraction" if self.percent is None else self.percent


@dataclass(frozen=True, kw_only=True)
class Table:
    """A declared table.

    Measured and reported records are never in one row, whatever `rows` says.

    Attributes:
        title: One line above the caption.
        rows: The leading columns.
        columns: The columns of numbers.
        caption: What a reader must know before reading a number.
        compare: Fields in which rows always differ, shown or not; values are compared where they agree.
    """

    title: str
    rows: tuple[RowField, ...]
    columns: tuple[Column, ...]
    caption: str = ""
    compare: tuple[str, ...] = ("benchmark", "split")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number and where it comes from, or a gap.

    Attributes:
        value: Raw value in the metric's unit; ``None`` where nothing was measured.
        low: Lower 95 % bound of a measured proportion (Wilson) or of a derived number that has one, else ``None``.
        high: Upper bound likewise.
        n: Samples the value rests on; ``None`` in a gap.
        keys: Job keys of the records behind the cell, failed ones too; empty for a reported number.
        footnotes: What a reader must know of this number.
        best: True for the best of at least two comparable measured values.
        source: Where the number comes from, if not from where its row does.
        chance: What a guess has, in the metric's unit; ``None`` where that is not known.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    keys: tuple[str, ...] = ()
    footnotes: tuple[str, ...] = ()
    best: bool = False
    source: Literal["measured", "reported"] | None = None
    chance: float | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One filled row: a label (and its footnote, or "") for each `Table.rows`, a cell for each `Table.columns`."""

    labels: tuple[str, ...]
    source: Literal["measured", "reported"]
    cells: tuple[Cell, ...]
    label_footnotes: tuple[str, ...] = ()
    group: tuple[Any, ...] = ()

    @property
    def name(self) -> str:
        """The labels with what their footnotes add."""
        added = self.label_footnotes or [""] * len(self.labels)
        return " / ".join(f"{a} ({b})" if b else a for a, b in zip(self.labels, added, strict=True))

    @property
    def footnotes(self) -> tuple[str, ...]:
        """Those of its labels and cells, in reading order."""
        return (*filter(None, self.label_footnotes), *(text for cell in self.cells for text in cell.footnotes))


@dataclass(frozen=True, kw_only=True)
class FilledTable:
    """A table with its rows: measured ones first, then reported ones, each in the order of the records."""

    table: Table
    rows: tuple[Row, ...]

    @property
    def footnotes(self) -> tuple[str, ...]:
        """Every distinct one in reading order; its number is its position, from 1."""
        headers = (text for column in self.table.columns for text in column.footnotes)
        return tuple(dict.fromkeys([*headers, *(text for row in self.rows for text in row.footnotes)]))


def _check_facet(where: str, name: str) -> None:
    try:
        check_facet_name(name)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _check_field(where: str, name: str) -> None:
    if name not in FIELDS:
        raise ValueError(f"{where}: a record has no field {name!r}; choose one of {', '.join(FIELDS)}")
