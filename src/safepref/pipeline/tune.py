"""`safepref tune`: hyper-parameters for each method by a small search, scored on the choose split alone.

In the folder, beside a run's own data: `trials/METHOD-NNN.json`, `trials.md` (all of them), `tuned.yaml`
(a recipe with the best settings), `best/METHOD/` (the best adapter so far), `tune.json` (what is searched).
Times stand in manifest.json.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from safepref.errors import Diverged, InputError
from safepref.methods import Method
from safepref.pipeline.choosing import require_look_alikes
from safepref.pipeline.forecast import forecast
from safepref.pipeline.inputs import say_licences
from safepref.pipeline.job import Job
from safepref.pipeline.prompts import Suite
from safepref.pipeline.run import do_all, plan_workers
from safepref.pipeline.space import Knob, search_space
from safepref.pipeline.suggest import load_optuna, suggest
from safepref.pipeline.tasks import Task
from safepref.pipeline.trials import Trial, best_of, fragment, read_trials, table, trial_file
from safepref.progress import console, duration
from safepref.recipe import Recipe, TradeoffSection, parse_recipe
from safepref.store import folder_lock, read_json, sha256_json, write_json, write_text
from safepref.tradeoff.front import Point
from safepref.tradeoff.objective import objective

SCHEMA = 1
SHARED = ("loaded", "fingerprint", "judges", "prompts", "pairs", "examples", "store")
"""What trials take from the search: all that does not depend on how is trained."""


@dataclass(frozen=True, slots=True)
class TrialTask(Task):
    """The training and scoring of one trial."""

    number: int = 0


class Search(Job):
    """A run folder whose tasks are trials; see `Job`."""

    def begin(self, trials: int, names: Sequence[str], workers: int) -> None:
        """Settle what is searched and write it to tune.json.

        Raises:
            InputError: a name in `names` that is not searched, or the folder's search was over other ranges.
        """
        spaces = {
            method.name: [asdict(knob) for knob in search_space(self.recipe, method, self.width, names)]
            for method in self.tried
        }
        place = self.out / "tune.json"
        known = read_json(place).get("spaces", {}) if place.exists() else {}
        for name, knobs in spaces.items():
            if known.get(name, knobs) != knobs:
                there = ", ".join(f"{k['name']} {k['low']:g} to {k['high']:g}" for k in known[name])
                raise InputError(
                    f"{self.out}: {name} is searched there over {there}; give the same --search, or choose "
                    "another --out"
                )
        plan = {"trials": trials, "workers": workers, "width": self.width, "spaces": {**known, **spaces}}
        write_json(place, {"schema": SCHEMA, "optuna": str(load_optuna().__version__), **plan})
        # A trial whose file was taken away comes again.
        gone = [t for t in self._all_tasks() if not trial_file(self.out, str(t.method), t.number).exists()]
        self.manifest.forget(*(task.name for task in gone if self.manifest.done(task.name)))

    @property
    def tried(self) -> list[Method]:
        """The methods whose settings are searched."""
        return [method for method in self.methods if isinstance(method, Method)]

    @property
    def searched(self) -> dict[str, Any]:
        """What tune.json says."""
        return dict(read_json(self.out / "tune.json"))

    @cached_property
    def width(self) -> int | None:
        """The model's hidden size, if its config says it."""
        size = getattr(self.loaded.model.config.get_text_config(), "hidden_size", None)
        return None if size is None else int(size)

    def announce(self, workers: int, *, evaluate: bool = True) -> None:
        """Say what will be searched and about how long it takes."""
        trials = self.searched["trials"]
        require_look_alikes(self.prompts.choose)
        for method in self.tried:
            ranges = ", ".join(
                f"{knob['name']} {knob['low']:g} to {knob['high']:g}"
                for knob in self.searched["spaces"][method.name]
            )
            console().print(f"{method.name}, {trials} trials: {ranges}")
        self.manifest.put("sets", **say_licences(self.recipe))
        left = sum(not self.manifest.done(task.name) for task in self._all_tasks())
        if goes_on := self._time_left():
            console().print(goes_on.removeprefix("; "))
            return
        # The report split is not asked.
        prompts = replace(self.prompts, report=Suite())
        section = self.recipe.evaluation.model_copy(update={"strengths": (1.0,), "choose": True})
        recipe = self.recipe.model_copy(update={"evaluation": section})
        seconds = forecast(recipe, self.loaded, prompts, left, workers)
        console().print(f"{left} trials to do, on this machine about {duration(seconds)}")

    def _all_tasks(self) -> list[TrialTask]:
        """By number first, so that workers take different methods."""
        return [
            TrialTask(
                _stage(m.name, number),
                f"{m.name} {number}",
                m.name,
                1.0,
                "choose",
                # The settings depend on the result of the trial before.
                (_stage(m.name, number - 1),) if number else (),
                number=number,
            )
            for number in range(self.searched["trials"])
            for m in self.tried
        ]

    def ask_base(self) -> None:
        """Nothing: no part of the objective is held against the base's own answers."""

    def tasks(self, *, evaluate: bool = True) -> list[Task]:
        """The trials in order."""
        return [*self._all_tasks()]

    def do(self, task: Task) -> None:
        """Train and score one trial, unless that is done; keep its adapter if none was better."""
        assert isinstance(task, TrialTask)
        method = next(m for m in self.tried if m.name == task.method)
        title = f"Trial {task.number} of {method.title}{self._time_left()}"
        with self.manifest.stage(task.name, title) as todo:
            if todo:
                if not trial_file(self.out, method.name, task.number).exists():
                    self._try(method, task.number)
                self._settle(method, task.number)

    def _try(self, method: Method, number: int) -> None:
        before = [trial for trial in read_trials(self.out, method.name) if trial.number < number]
        knobs = [Knob(**row) for row in self.searched["spaces"][method.name]]
        seed = int(sha256_json([self.recipe.seed, method.name, number])[:8], 16)
        values = suggest(knobs, [(trial.values, trial.score) for trial in before], seed)
        console().print("  " + ", ".join(f"{name} {value:g}" for name, value in values.items()))
        job = self._job(method, number, values)
        settings = dict(job.recipe.training.params[method.name])
        trial = Trial(method.name, number, values, settings, None, None, None)
        try:
            job.train(method)
        except Diverged as error:
            trial = replace(trial, failed=str(error))
            console().print(f"  {error}")
        else:
            scores = job.evaluate(f"{method.name}@1", method.name, 1.0, "choose")
            limits = self.recipe.report
            value = objective(
                Point(method.name, 1.0, scores),
                floor=self.recipe.floor,
                ceiling=limits.over_refusal_ceiling,
            )
            trial = replace(trial, objective=value, scores=scores, training=job.read_training(method.name))
            console().print(f"  objective {value:.4f}")
        write_json(trial_file(self.out, method.name, number), trial.to_json())

    def _job(self, method: Method, number: int, values: dict[str, float]) -> Job:
        """A run of its own in a folder below work/, on this one's data, model and judges."""
        wanted = self.recipe.model_dump(mode="json")
        params = wanted["training"]["params"]
        params[method.name] = {**params.get(method.name, {}), **values}
        recipe = parse_recipe({**wanted, "methods": method.name}, f"trial {number} of {method.name}")
        folder = self._folder(method, number)
        kept = folder / "recipe.yaml"
        if kept.exists() and kept.read_text(encoding="utf-8") != recipe.to_yaml():
            shutil.rmtree(folder)  # another version of Optuna suggested something else before the kill
        job = Job(recipe, folder)
        for name in SHARED:
            setattr(job, name, getattr(self, name))
        job.manifest.put("plan", **self.manifest.data["plan"])
        return job

    def _settle(self, method: Method, number: int) -> None:
        """Keep the adapter of the best trial, remove what else a finished trial left, write the overviews."""
        folder = self._folder(method, number)
        best = best_of(read_trials(self.out, method.name))
        made = folder / ("models" if self.recipe.training.full else "adapters") / method.name
        if best is not None and best.number == number and made.exists():
            kept = self.out / "best" / method.name
            shutil.rmtree(kept, ignore_errors=True)
            kept.parent.mkdir(parents=True, exist_ok=True)
            made.rename(kept)
        shutil.rmtree(folder, ignore_errors=True)
        self.write_overviews()

    def write_overviews(self) -> None:
        """trials.md and tuned.yaml, of all trials so far."""
        found = [trials for m in self.tried if (trials := read_trials(self.out, m.name))]
        limits = self.recipe.report
        text = table(found, self.recipe.floor, limits.over_refusal_ceiling)
        write_text(self.out / "trials.md", text)
        write_text(self.out / "tuned.yaml", fragment(found, self.searched["width"]))

    def _folder(self, method: Method, number: int) -> Path:
        return self.out / "work" / "trials" / f"{method.name}-{number:03d}"

    def _time_left(self) -> str:
        """By the mean of the trials so far; a worker's own manifest knows no others, so the file is read."""
        stages = {row["name"]: row for row in read_json(self.out / "manifest.json")["stages"]}
        rows = [stages.get(task.name) for task in self._all_tasks()]
        done = [row["seconds"] for row in rows if row is not None and row["status"] == "done"]
        if not done:
            return ""
        seconds = sum(done) / len(done) * (len(rows) - len(done)) / self.searched["workers"]
        return f"; {len(done)} of {len(rows)} trials done, {duration(seconds)} left"


def tune(
    recipe: Recipe, out: Path, *, trials: int = 10, search: Sequence[str] = (), workers: int | None = 1
) -> Path:
    """Search settings for each method of a recipe, or go on with the search that is in `out`.

    Trial 0 has the recipe's settings, the others what Optuna suggests from the objective of those before. A
    search that was stopped repeats no finished trial and goes on as if it had not been; more `trials` or
    methods add to it.

    Args:
        recipe: data, model and judges, and the settings that the ranges lie about (`pipeline/space.py`).
        out: the folder; that of a run of the same recipe serves too, whose data are used.
        trials: for each method, the first included.
        search: names of what is searched; none for all.
        workers: as in `run`; methods are searched side by side.

    Returns:
        The path of tuned.yaml.

    Raises:
        InputError: bad input, Optuna is not installed, or the folder holds another run or search.
        NegativeResult: the data doctor found errors.
        Interrupted: a worker was ended from outside.
    """
    if trials < 1:
        raise InputError(f"--trials is {trials}; give 1 or more")
    load_optuna()
    # What comes after training is not searched.
    recipe = recipe.model_copy(update={"rl": None, "tradeoff": TradeoffSection()})
    with folder_lock(out):
        job = Search(recipe, out)
        job.assets()
        job.fit_judges()
        count = plan_workers(job, workers)
        job.begin(trials, search, count)
        job.announce(count)
        job.data()
        job.check()
        do_all(job, count, evaluate=True)
        job.write_overviews()
        for method in job.tried:
            done = read_trials(out, method.name)
            best = best_of(done)
            if best is None:
                console().print(f"{method.name}: all trials diverged; search lower rates")
            else:
                console().print(
                    f"{method.name}: trial {best.number} of {len(done)} is best, objective {best.score:.4f}, "
                    f"{done[0].score:.4f} with the settings before"
                )
        console().print(f"Done in {duration(job.manifest.seconds())}: {out / 'trials.md'}")
        return out / "tuned.yaml"


def _stage(method: str, number: int) -> str:
    return f"trial:{method}:{number:03d}"
