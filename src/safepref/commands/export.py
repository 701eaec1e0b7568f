"""`safepref export`: a run's model as a folder for transformers, peft and vLLM, with its model card."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from safepref.errors import InputError
from safepref.strength import parse_strength


class Dtype(StrEnum):
    """Dtypes that weights are written in."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    out: Annotated[
        Path | None, typer.Option(help="Where it is written; RUN/export/POINT-adapter (or -merged).")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="A method of the run; what the run recommends when left out.")
    ] = None,
    strength: Annotated[
        str | None, typer.Option(help="How much of the method's change is applied, above 0 to 1; 1.")
    ] = None,
    merged: Annotated[
        bool | None,
        typer.Option("--merged/--adapter", help="Whole weights, or the LoRA adapter alone (the default)."),
    ] = None,
    dtype: Annotated[
        Dtype | None,
        typer.Option(help="Of the weights; the base's own (merged), or as trained (adapter, full)."),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Hub id of the base, where the run was given a folder.")
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option("--license", help="Of the base, for the card; what the base's own card says."),
    ] = None,
    push: Annotated[
        str | None, typer.Option(metavar="HUB_ID", help="Upload it; the token is HF_TOKEN or your login.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="A new repository is private.")] = False,
) -> None:
    """Write the recommended model of a run, or the one named, with its model card (README.md).

    The adapter has its strength folded in: it is used at its own scale, by peft and by vLLM. Merged weights
    load with transformers alone. Exit code 1: the run recommends nothing; name a method.
    """
    if private and push is None:
        raise InputError("--private is of an upload; give --push HUB_ID")
    from safepref.pipeline.export import ExportRequest, export_model

    request = ExportRequest(
        run=run,
        out=out,
        method=method,
        strength=None if strength is None else parse_strength(strength, "--strength"),
        merged=merged,
        dtype=None if dtype is None else dtype.value,
        base=base,
        licence=licence,
        push=push,
        private=private,
    )
    typer.echo(export_model(request))
