"""`safepref tune`: settings for each method by a small search on the choose split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def tune(
    out: Annotated[Path, typer.Option(help="Folder of the search; an existing one goes on.")],
    recipe: Annotated[
        Path | None, typer.Argument(help="YAML recipe; the embedded default when left out.")
    ] = None,
    methods: Annotated[str | None, typer.Option(help="nca,dpo or paper (ten) or all (twelve).")] = None,
    trials: Annotated[int, typer.Option(min=1, max=1000, help="For each method.")] = 10,
    search: Annotated[
        str | None,
        typer.Option(help="Only these, for example learning_rate,beta; all when left out."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Hub id, folder, or the embedded default.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value laid on top of the recipe.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Methods searched side by side; as suits the machine.")
    ] = None,
) -> None:
    """Search rate, beta, epochs and weights of each method with Optuna (the extra safepref[tune])."""
    from safepref.pipeline.tune import tune as start
    from safepref.recipe import load_recipe

    if recipe is None and (out / "recipe.yaml").exists():
        recipe = out / "recipe.yaml"
    named = [f"methods={methods}"] if methods is not None else []
    named += [f"model.id={model}"] if model is not None else []
    names = [part.strip() for part in (search or "").split(",") if part.strip()]
    chosen = load_recipe(recipe, [*named, *(settings or [])])
    typer.echo(start(chosen, out, trials=trials, search=names, workers=workers))
