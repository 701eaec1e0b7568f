"""`safepref judge`: measure judges on human labels, label with them, fit what depends on labels."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from safepref.progress import console, progress_by_stage

app = typer.Typer(help="Judges: measure them on human labels, or label with them.", no_args_is_help=True)

JudgeOpt = Annotated[str, typer.Option(help="A judge's name.")]
JsonOpt = Annotated[Path, typer.Option("--json", help="Where the result is written.")]


@app.command("calibrate")
def calibrate(
    judge: JudgeOpt,
    data: Annotated[
        str, typer.Option(help="A built-in labelled set, or a file of prompt, response, harmful.")
    ],
    json_path: JsonOpt,
) -> None:
    """Measure a judge on human labels; a judge card for people is written beside the JSON."""
    from safepref.judges.cache import load_cached, said_reuse
    from safepref.judges.calibrate import calibrate as measure
    from safepref.judges.card import calibration_card
    from safepref.store import write_json, write_text

    loaded = load_cached(judge)
    with progress_by_stage() as show:
        found = measure(loaded, data, progress=partial(show, "judged"))
    _say(said_reuse(loaded))
    write_json(json_path, found)
    card = json_path.with_suffix(".md")
    write_text(card, calibration_card(found))
    _say([f"judge card: {card}"])
    typer.echo(json_path)


@app.command("label")
def label(
    judge: JudgeOpt,
    data: Annotated[Path, typer.Option(help="JSON lines with prompt and response.")],
    out: Annotated[Path, typer.Option(help="The same rows with verdict, score and categories.")],
) -> None:
    """Judge rows of a file; after a kill, the same call goes on where it stopped."""
    from safepref.judges.cache import load_cached, said_reuse
    from safepref.judges.labelling import label as judged

    loaded = load_cached(judge)
    with progress_by_stage() as show:
        judged(loaded, data, out, progress=partial(show, "judged"))
    _say(said_reuse(loaded))
    typer.echo(out)


@app.command("fit-weights")
def fit_weights(
    judges: Annotated[str, typer.Option(help="Names of two or more judges, with commas between them.")],
    data: Annotated[
        str, typer.Option(help="A built-in labelled set, or a file of prompt, response, harmful.")
    ],
    json_path: JsonOpt,
) -> None:
    """Fit a weighted vote of judges on human labels; `weighted:FILE` is then a judge."""
    from safepref.judges.cache import load_cached
    from safepref.judges.ensemble import fit_weights as fitted
    from safepref.store import write_json

    names = [name.strip() for name in judges.split(",") if name.strip()]
    with progress_by_stage() as show:
        found = fitted(names, data, load_cached, progress=partial(show, "judges"))
    write_json(json_path, found)
    typer.echo(json_path)


@app.command("calibrate-refusal")
def calibrate_refusal(
    target: Annotated[str, typer.Option(help="The model whose answers are labelled.")],
    data: Annotated[
        str, typer.Option(help="A file of prompt, response, refusal (0 or 1), or XSTest's rows.")
    ],
    json_path: JsonOpt,
) -> None:
    """Choose the refusal judge's threshold for one model; `refusal:FILE` is then a judge."""
    from safepref.judges.refusal_target import calibrate_refusal as calibrated
    from safepref.store import write_json

    found = calibrated(target, data)
    why = ": no other did better on requests that it was not chosen on" if found["kept"] else ""
    _say([f"{target}: threshold {found['threshold']:g}{why}"])
    write_json(json_path, found)
    typer.echo(json_path)


def _say(lines: list[str]) -> None:
    for line in lines:
        console().print(line)
