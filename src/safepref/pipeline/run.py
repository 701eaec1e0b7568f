"""The main job: a recipe in, a run folder out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safepref.hardware import take_share
from safepref.pipeline.job import Job
from safepref.pipeline.reuse import check_source, take_over
from safepref.pipeline.workers import sensible_workers, side_by_side
from safepref.progress import console, duration
from safepref.recipe import Recipe
from safepref.store import folder_lock


def run(recipe: Recipe, out: Path, *, workers: int | None = 1, reuse: Sequence[Path] = ()) -> Path:
    """Run a recipe into a folder, or go on with the run that is there.

    Args:
        recipe: the whole configuration.
        out: the run folder; a second process on it is refused.
        workers: processes that train and evaluate side by side, 1 for none beside this one (they import the
            calling script, so with more it needs its `if __name__ == "__main__"`); null takes what suits the
            machine. The first attempt's number decides how many threads and how much memory each process
            plans with, so a run that goes on with another has the same results.
        reuse: other runs' folders, from which the base's answers and likelihoods are taken over.

    Returns:
        The path of results.json.

    Raises:
        InputError: bad input, or the folder holds a run of another recipe.
        NegativeResult: the data doctor found errors.
        Interrupted: a worker was ended from outside.
    """
    for source in reuse:
        check_source(source)
    with folder_lock(out):
        job = Job(recipe, out)
        job.assets()
        job.fit_judges()
        count = plan_workers(job, workers)
        for source in reuse:
            take_over(job, source)
        job.announce(count)
        job.data()
        job.check()
        do_all(job, count, evaluate=True)
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
        job.fit_judges()
        count = plan_workers(job, workers)
        job.announce(count, evaluate=False)
        job.data()
        job.check()
        do_all(job, count, evaluate=False)
        return out / ("models" if recipe.training.full else "adapters")


def plan_workers(job: Job, workers: int | None) -> int:
    """How many workers; the first attempt's number is kept as the share of the machine that each may take."""
    plan = job.manifest.data["plan"]
    shares = plan.get("shares")
    count = workers or shares or sensible_workers(job.loaded, job.recipe, len(job.methods))
    if shares is None:
        _ = job.fingerprint  # loads the model, which decides dtype and threads
        job.manifest.put("plan", shares=count)
    take_share(1, plan["threads"])
    return count


def do_all(job: Job, workers: int, *, evaluate: bool) -> None:
    """Do the job's tasks that are not done, side by side where there are more workers than one."""
    tasks = [task for task in job.tasks(evaluate=evaluate) if not job.manifest.done(task.name)]
    plan = job.manifest.data["plan"]
    # Sums differ in their last bits with threads and batches; what a process takes is the run's for good.
    take_share(plan["shares"], plan["threads"])
    if evaluate:
        job.ask_base()
    if min(workers, len(tasks)) > 1:
        side_by_side(job, tasks, min(workers, len(tasks)))
    else:
        for task in tasks:
            job.do(task)
