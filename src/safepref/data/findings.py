"""What the data doctor says: one finding a line, with file, row, field, value and mend."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from safepref.data.rows import RowError, Where, line, show

Severity: TypeAlias = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. `row` 0 means the file as a whole; `value` is already cut for printing."""

    severity: Severity
    file: str
    row: int
    field: str
    value: str
    problem: str
    mend: str

    def __str__(self) -> str:
        problem = self.problem if self.severity == "error" else f"warning: {self.problem}"
        return line(Where(self.file, self.row), self.field, problem, self.value, self.mend)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary for one JSON line."""
        return asdict(self)


def has_errors(findings: Iterable[Finding]) -> bool:
    """Whether training or scoring must not start."""
    return any(finding.severity == "error" for finding in findings)


def bad_row(error: RowError) -> Finding:
    """A row that cannot be read at all."""
    return Finding(
        "error", error.where.file, error.where.row, error.field, error.value, error.problem, error.mend
    )


def error(where: Where, field: str, problem: str, mend: str, value: Any = ...) -> Finding:
    """A row that must not be trained or scored on."""
    return Finding("error", *where, field, "" if value is ... else show(value), problem, mend)


def warning(where: Where, field: str, problem: str, mend: str, value: Any = ...) -> Finding:
    """A row to look at."""
    return Finding("warning", *where, field, "" if value is ... else show(value), problem, mend)
