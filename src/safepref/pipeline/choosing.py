"""Whether the choose split asks what a recipe chooses by, before anything is trained."""

from __future__ import annotations

from safepref.errors import InputError
from safepref.evaluation.chat import OWN
from safepref.pipeline.prompts import Suite
from safepref.recipe import Recipe


def check_choosing(recipe: Recipe, choose: Suite, *, evaluate: bool) -> None:
    """Refuse a choice by what is not asked.

    Args:
        recipe: whose limits and stopping are read.
        choose: the choose split's suite.
        evaluate: whether points are scored after training.

    Raises:
        InputError: no look-alike, ordinary request or question in the chat to choose by; with the key.
    """
    chosen, limits = evaluate and recipe.evaluation.choose, recipe.report
    if chosen or recipe.training.stopping is not None:
        require_look_alikes(choose)
    if chosen and limits.ordinary_ceiling is not None and not choose.ordinary:
        raise InputError(
            "report.ordinary_ceiling: no ordinary request is asked on the choose split; set "
            "evaluation.choose_ordinary"
        )
    if chosen and limits.chat_drop is not None and not any(task.rows for task in choose.chat):
        raise InputError(
            "report.chat_drop: nothing is asked in the chat on the choose split; set evaluation.choose_chat "
            f"and name {' or '.join(OWN)} in evaluation.chat"
        )


def require_look_alikes(choose: Suite) -> None:
    """Nothing can be chosen without look-alikes.

    Raises:
        InputError: there is none.
    """
    if not choose.benign:
        raise InputError(
            "data.harmless_prompts: no look-alike is left to choose by (few, or of a template that "
            "is reported on); name more, as starter"
        )
