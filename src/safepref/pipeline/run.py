"""The main job: a recipe in, a run folder out."""

from __future__ import annotations

from pathlib import Path

import torch

from safepref.pipeline.job import Job
from safepref.pipeline.workers import sensible_workers, side_by_side
from safepref.progress import console, duration
from safepref.recipe import Recipe
from safepref.store import folder_lock


def run(recipe: Recipe, out: Path, *, workers: int | None = 1) -> Path:
    """Run a recipe into a folder, or go on with the run that is there.

    Args:
        recipe: the whole configuration.
        out: the run folder; a second process on it is refused.
        workers: processes that train and evaluate side by side, 1 for none beside this one (they import the
            calling script, so with more it needs its `if __name__ == "__main__"`); null takes what suits the
            machine. A run that goes on keeps the threads of each process, so its results are the same with
            any number.

    Returns:
        The path of results.json.

    Raises:
        InputError: bad input, or the folder holds a run of another recipe.
        NegativeResult: the data doctor found errors.
    """
    with folder_lock(out):
        job = Job(recipe, out)
        job.assets()
        count = _plan(job, workers)
        job.announce(count)
        job.data()
        job.check()
        _do_all(job, count, evaluate=True)
        job.write_results()
        whole, work = job.manifest.seconds(), job.manifest.seconds(without="assets")
        console().print(
            f"Done in {duration(whole)}, {duration(work)} of it after downloads "
            f"(the forecast was {duration(job.manifest.data['forecast_seconds'])}): {out / 'report.html'}"
        )
        return out / "results.json"


def train(recipe: Recipe, out: Path, *, workers: int | None = 1) -> Path:
    """Data and training without evaluation. `run` on the folder goes on from it. Arguments as there."""
    with folder_lock(out):
        job = Job(recipe, out)
        job.assets()
        count = _plan(job, workers)
        job.data()
        job.check()
        _do_all(job, count, evaluate=False)
        return out / ("models" if recipe.training.full else "adapters")


def _plan(job: Job, workers: int | None) -> int:
    """How many workers, and from the first attempt on how many threads each of them has."""
    count = sensible_workers(job.loaded, len(job.methods)) if workers is None else workers
    plan = job.manifest.data["plan"]
    if "worker_threads" not in plan:
        job.manifest.put("plan", worker_threads=max(1, plan["threads"] // count))
    return count


def _do_all(job: Job, workers: int, *, evaluate: bool) -> None:
    tasks = [task for task in job.tasks(evaluate=evaluate) if not job.manifest.done(task.name)]
    # Sums differ in their last bits with the number of threads; this one is the run's for good.
    torch.set_num_threads(job.manifest.data["plan"]["worker_threads"])
    if min(workers, len(tasks)) > 1:
        side_by_side(job, tasks, min(workers, len(tasks)))
    else:
        for task in tasks:
            job.do(task)
