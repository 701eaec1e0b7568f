"""The requests behind a judge: what it was fitted on and what its printed figures were measured on."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from safepref import assets
from safepref.judges import corpus, labelled
from safepref.judges.behind_files import Rows, rows_behind
from safepref.judges.measured import read_calibration
from safepref.judges.registry import fitted_file, members
from safepref.judges.support_rows import SUPPORT_SETS
from safepref.store import cache_dir, read_jsonl, sha256_bytes, sha256_json, write_jsonl

MEASURED_ON: Mapping[str, str] = {
    "select": "pyrit-harm",
    "report": "pyrit-objective",
    "support.select": "support-report",
    "support.report": "support-select",
}
"""The labelled set from which a fitted judge's hits, and so the corrected rate, come."""


class Behind(NamedTuple):
    """A request behind a judge. `use` is "fitting" or "calibration", `source` names the rows' set."""

    text: str
    use: str
    source: str


def requests_behind(judge: str) -> list[Behind] | None:
    """Every distinct request behind an embedded judge; None for a judge whose rows are not known here.

    A guard model or a served one was trained elsewhere, on rows that nobody can check. Putting the rows
    together takes seconds, so they are kept in the cache under a hash of all that they come from.
    """
    if judge in ("keyword-refusal", "labels"):
        return []
    if judge not in (*MEASURED_ON, "refusal"):
        return None
    path = cache_dir("judges", "behind") / f"{judge}-{_key()[:16]}.jsonl"
    if not path.exists():
        write_jsonl(path, (row._asdict() for row in _gather(judge)))
    return [Behind(**row) for row in read_jsonl(path)]


def parts(judge: str) -> list[str]:
    """The names of the judges that one is made of, each of which has rows of its own behind it.

    An ensemble is its members, and a vote that was fitted the file of its weights too; a refusal judge with a
    target's threshold is `refusal` and that file.

    Raises:
        InputError: a file that is none of an ensemble.
    """
    head, _, target = judge.partition(":")
    inner = [part for member in members(head, target) for part in parts(member)]
    if head == "refusal" and target:
        inner = ["refusal"]
    return list(dict.fromkeys([*inner, *([judge] if fitted_file(judge) or not inner else [])]))


def rows_of_file(judge: str) -> Rows:
    """The labelled rows behind the file in `weighted:FILE`, `refusal:FILE` or `calibration:FILE`.

    Raises:
        InputError: no such file, or one of another kind.
    """
    head, _, target = judge.partition(":")
    file = Path(target)
    if head == "weighted":
        from safepref.judges.ensemble import read_weights

        return rows_behind(file, read_weights(file))
    if head == "refusal":
        from safepref.judges.refusal_target import read_refusals, read_threshold

        return rows_behind(file, read_threshold(file), read_refusals)
    return rows_behind(file, read_calibration(file))


def _gather(judge: str) -> list[Behind]:
    found: list[Behind] = []
    if judge == "refusal":
        found += [Behind(row.exchange.prompt, "fitting", row.source) for row in corpus.refusal_rows()]
    elif judge.startswith("support."):
        for use, data in (("fitting", judge.replace(".", "-")), ("calibration", MEASURED_ON[judge])):
            found += [Behind(row.exchange.prompt, use, data) for row in SUPPORT_SETS[data]()]
    else:
        name: corpus.JudgeName = "select" if judge == "select" else "report"
        data = MEASURED_ON[name]
        found += [Behind(row.exchange.prompt, "fitting", row.source) for row in corpus.rows(name)]
        found += [Behind(row.exchange.prompt, "fitting", row.source) for row in corpus.refusal_rows(name)]
        found += [Behind(row.text, "fitting", "requests") for row in corpus.requests(name)]
        found += [Behind(row.exchange.prompt, "calibration", data) for row in labelled.BUILT_IN[data]()]
    distinct = {(row.use, labelled.normalise(row.text)): row for row in reversed(found) if row.text.strip()}
    return list(reversed(distinct.values()))


@cache
def _key() -> str:
    """A hash of the code, the written rows and the wheels that requests come from."""
    folders = (
        (resources.files("safepref.judges"), ".py"),
        (resources.files("safepref.judges").joinpath("texts"), ".yaml"),
        (resources.files("safepref.data").joinpath("starter"), ".jsonl"),
        (resources.files("safepref.data").joinpath("support"), ".jsonl"),
    )
    files = {
        entry.name: sha256_bytes(entry.read_bytes())
        for folder, suffix in folders
        for entry in folder.iterdir()
        if entry.name.endswith(suffix)
    }
    return sha256_json({"files": files, "wheels": {k: assets.wheels()[k].sha256 for k in ("pyrit", "garak")}})
