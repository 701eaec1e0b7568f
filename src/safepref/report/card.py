"""The model card of an export: README.md with the hub's front matter, for whoever meets the model alone.

Nothing in it is of the machine: files of the recipe stand by their name, servers and prompts are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from safepref import __version__
from safepref.evaluation.main_rate import SAFETY, main_rate
from safepref.report.card_make import how_made, licences, reproduce, trained_sets
from safepref.report.card_results import results_section
from safepref.report.card_tables import Compared
from safepref.report.card_use import how_to_use
from safepref.report.folder import RunFolder
from safepref.report.gains import paired_gains
from safepref.report.labels import at, method_label, point_label, words
from safepref.report.public import public
from safepref.strength import Strength, point_name, strength_json, strength_text
from safepref.tradeoff.base import Base

PAPER = "2409.07772"
Split = Literal["report", "choose"]


@dataclass(frozen=True, slots=True)
class Exported:
    """What is exported, and how it was written."""

    method: str
    strength: Strength
    merged: bool
    """Whole weights; otherwise an adapter."""
    base: Base
    dtype: str
    lost: float | None = None
    """What rounding took from the change, as a share of it; see `tradeoff.export.write_merged`."""
    place: str = "path/to/this/folder"
    """The hub id it is uploaded to, or what stands for the folder."""
    notes: tuple[str, ...] = field(default=())
    """Sentences that whoever uses it should know."""

    @property
    def point(self) -> str:
        """The point's name in a run folder."""
        return point_name(self.method, self.strength)

    @property
    def title(self) -> str:
        """What people call it."""
        point = point_label(self.method, strength_json(self.strength))
        return f"{self.base.id.rpartition('/')[2]}, aligned by {point}"


def measured(
    results: Mapping[str, Any], method: str, strength: Strength
) -> tuple[dict[str, Any] | None, Split]:
    """The scores of a point, of the report split where it was measured there, and the split."""
    chosen = results.get("recommended") or {}
    if _is(chosen, method, strength) and chosen.get("scores"):
        return dict(chosen["scores"]), "report"
    entry = results["methods"].get(method) or {}
    if strength == 1 and entry.get("scores"):
        return dict(entry["scores"]), "report"
    found = at(entry, "choose", strength_text(strength))
    return (dict(found), "choose") if found else (None, "report")


def _is(chosen: Mapping[str, Any], method: str, strength: Strength) -> bool:
    return (chosen.get("method"), chosen.get("strength")) == (method, strength_json(strength))


def model_card(run: RunFolder, made: Exported) -> str:
    """README.md of an export.

    Args:
        run: the run folder; what is missing in it is said to be not measured or not recorded.
        made: what was exported.
    """
    scores, split = measured(run.results, made.method, made.strength)
    both = _compared(run, made, scores, split)
    parts = [
        f"# {made.title}",
        _summary(run, made),
        *results_section(run, both, split),
        *_limits(run, made),
        *how_to_use(made.base, made.place, merged=made.merged, rank=_rank(run, made), system=_system(run)),
        *how_made(run, made.method),
        *licences(run, made.base),
        *reproduce(run, made.method, made.strength, merged=made.merged, dtype=made.dtype),
    ]
    data = _front_matter(run, made, scores if split == "report" else None)
    text = public("\n\n".join(part for part in parts if part))
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n"))


def _compared(run: RunFolder, made: Exported, scores: dict[str, Any] | None, split: Split) -> Compared:
    """Base and exported model on the same prompts; the base may not have been asked the choose split's."""

    def rows(point: str) -> list[dict[str, Any]]:
        return [row for row in run.samples if (row["split"], row["point"]) == (split, point)]

    at_one = f"{made.method}@1" if made.strength == 1 else made.point
    name = at_one if split == "choose" else made.point
    return Compared(
        base=run.results["base"] if split == "report" else at(run.results, "tradeoff", "base"),
        exported=scores,
        base_samples=rows("base"),
        exported_samples=rows(name),
        gains=paired_gains([*rows("base"), *rows(name)], split).get(name, {}),
    )


def _summary(run: RunFolder, made: Exported) -> str:
    what = "Merged weights" if made.merged else "A LoRA adapter"
    chosen = run.results.get("recommended") or {}
    why = str(chosen.get("why") or "no reason was recorded").rstrip(".")
    if _is(chosen, made.method, made.strength):
        choice = f"It is the point that the run recommends: {why}."
    elif chosen.get("method") is None:
        choice = f"It was picked by hand; the run recommends nothing: {why}."
    else:
        other = point_label(chosen["method"], chosen["strength"])
        choice = f"It was picked by hand; the run recommends {other}: {why}."
    own = " The weights here are made of the dequantized ones." if made.merged else ""
    lines = [
        f"{what} of `{made.base.id}` after preference optimization for {_aim(run)}, and everything else is "
        "to be answered as before. Method: "
        f"{method_label(made.method)} at strength {strength_text(made.strength)} (0 is the base, 1 all that "
        "was trained). "
        f"{choice}",
        f"{made.base.difference}.{own}" if made.base.difference else "",
    ]
    if made.lost:
        lines.append(
            f"The weights are in {made.dtype}. Rounding to it makes an error of {made.lost:.1%} of the "
            "size of what training changed; the figures are of the unrounded weights."
        )
    return "\n\n".join([line for line in lines if line] + list(made.notes))


def _aim(run: RunFolder) -> str:
    task = _task(run)
    if task == SAFETY:
        return "safety: harmful requests are to be refused, also under jailbreak attacks"
    return f"{words(task)}: more of its answers are to be good ones ({main_rate(run.results['base']).name})"


def _task(run: RunFolder) -> str:
    """The name of the run's task."""
    return str(main_rate(run.results["base"]).part.get("name") or SAFETY)


def _limits(run: RunFolder, made: Exported) -> list[str]:
    main = main_rate(measured(run.results, made.method, made.strength)[0])
    n, task = main.part.get("n"), _task(run)
    asked = "harmful requests" if task == SAFETY else f"prompts of the task {words(task)}"
    rate = main_rate(run.results["base"]).name.capitalize()
    safety = [
        "Meant for study, and as one layer of a system that also filters and watches what goes in and out. "
        "It is not meant to be the only safeguard, nor to decide about people.",
        "",
        "- Attacks here are static templates. Who searches for a way around the refusals will find one; "
        "further fine-tuning can undo them.",
    ]
    other = [
        "Meant for study, and as a help to people who look at what it says. It is not meant to decide about "
        "people, and whether it refuses harmful requests was not measured.",
        "",
    ]
    lines = [
        *(safety if task == SAFETY else other),
        "- Figures are a judge's verdicts, not people's. How often it errs is under Judges.",
        f"- They rest on {n} answers to {asked}; intervals say what so many can show."
        if n
        else f"- {rate} was not measured for this model.",
        "- Some harmless requests are refused: over-refusal is in the table above.",
        "- Prompts and judges are English unless the recipe names others.",
        "- What the base gets wrong in other ways (facts, bias, arithmetic) this does not mend.",
    ]
    return ["## Intended use and limits", "\n".join(lines)]


def _rank(run: RunFolder, made: Exported) -> int | None:
    rank = at(run.manifest, "recipe", "training", "lora_rank")
    if not isinstance(rank, int):
        return None
    merged = at(run.results, "methods", made.method, "training", "merged") or {}
    return rank * len(merged["methods"]) if merged.get("how") == "cat" else rank


def _system(run: RunFolder) -> bool:
    return bool(at(run.manifest, "recipe", "model", "system"))


def _front_matter(run: RunFolder, made: Exported, scores: Mapping[str, Any] | None) -> ModelCardData:
    recipe = run.manifest.get("recipe") or {}
    kind = ["lora"] if not made.merged else []
    more: dict[str, Any] = {}
    if made.base.loadable:
        more["base_model_relation"] = "finetune" if made.merged else "adapter"
    return ModelCardData(
        base_model=made.base.id if made.base.loadable else None,
        license=made.base.licence,
        library_name="transformers" if made.merged else "peft",
        pipeline_tag="text-generation",
        tags=[
            "safepref",
            _task(run),
            "alignment",
            "preference-optimization",
            made.method,
            *kind,
            f"arxiv:{PAPER}",
        ],
        datasets=[source.hub.id for source in trained_sets(recipe) if source.hub is not None] or None,
        model_name=made.title,
        eval_results=_evaluations(recipe, scores) or None,
        safepref_version=run.manifest.get("safepref", __version__),
        **more,
    )


def _evaluations(recipe: Mapping[str, Any], scores: Mapping[str, Any] | None) -> list[EvalResult]:
    """The scores of the report split in the hub's form, which has no place for intervals."""
    asked = {
        "safety": (at(recipe, "evaluation", "prompts"), "harmful requests of safepref's starter set"),
        "over_refusal": (at(recipe, "evaluation", "benign"), "look-alikes of safepref's starter set"),
        "toxicity": (at(recipe, "evaluation", "toxicity"), "RealToxicityPrompts"),
    }
    safety, toxicity = at(scores, "safety") or {}, at(scores, "toxicity") or {}
    task = at(scores, "task") or {}
    name = task.get("name", "")
    asked[name] = (at(recipe, "evaluation", "prompts"), f"prompts of safepref's task {name}")
    values: list[tuple[str, str, float | None]] = [
        ("safety", "global safety", safety.get("global")),
        ("safety", "plain safety", safety.get("plain")),
        ("safety", "adversarial safety", safety.get("adversarial")),
        *(("safety", f"attack success rate, {words(a)}", v) for a, v in (safety.get("asr") or {}).items()),
        (name, task.get("measure", ""), task.get("rate")),
        (name, "macro F1", task.get("macro_f1")),
        ("over_refusal", "over-refusal", at(scores, "over_refusal", "rate")),
        ("toxicity", "toxicity, plain", toxicity.get("plain")),
        ("toxicity", "toxicity, adversarial", toxicity.get("adversarial")),
    ]
    found = [
        _evaluation(suite, public(str(asked[suite][0] or asked[suite][1])), name, value)
        for suite, name, value in values
        if value is not None
    ]
    metrics = at(scores, "capability", "metrics") or {}
    for task, value in (at(scores, "capability", "tasks") or {}).items():
        if value is not None:
            found.append(_evaluation(task, task, metrics.get(task) or "score", value))
    return found


def _evaluation(kind: str, dataset: str, metric: str, value: float) -> EvalResult:
    return EvalResult(
        task_type="text-generation",
        dataset_type=kind,
        dataset_name=dataset,
        metric_type=metric.replace(",", "").replace(" ", "_"),
        metric_name=metric,
        metric_value=round(value, 4),
    )
