"""Judges by name: the one place where a new judge is registered."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Callable
from typing import Any

from safepref.errors import InputError
from safepref.judges.base import Judge
from safepref.judges.guard_table import GUARDS


def _select(_: str, **__: Any) -> Judge:
    from safepref.judges.embedded_select import SelectJudge

    return SelectJudge()


def _report(_: str, **__: Any) -> Judge:
    from safepref.judges.embedded_report import ReportJudge

    return ReportJudge()


def _keyword(_: str, **__: Any) -> Judge:
    from safepref.judges.refusal import KeywordRefusalJudge

    return KeywordRefusalJudge()


def _refusal(_: str, **__: Any) -> Judge:
    from safepref.judges.refusal import RefusalJudge

    return RefusalJudge()


def _guard(row: str) -> Callable[..., Judge]:
    def make(target: str, /, **options: Any) -> Judge:
        from safepref.judges.guard import GuardJudge
        from safepref.judges.guard_server import ServerGuardJudge

        model, url = _served(target)
        if url:
            _check(row, options, ServerGuardJudge)
            return ServerGuardJudge(GUARDS[row], url, model, **options)
        _check(row, options, GuardJudge)
        return GuardJudge(GUARDS[row], model=target or None, **options)

    return make


def _served(target: str) -> tuple[str, str]:
    """Model and address of MODEL@http://HOST/v1; a folder's name may hold an @ of its own."""
    model, at, url = target.rpartition("@")
    return (model, url) if at and url.startswith(("http://", "https://")) else (target, "")


def _rubric(target: str, /, **options: Any) -> Judge:
    from safepref.judges.api import RubricJudge

    model, _, url = target.partition("@")
    given = str(options.pop("base_url", ""))
    url = url or given or os.environ.get("OPENAI_BASE_URL", "")
    if not model or not url:
        raise InputError("judge rubric: model or server missing; give rubric:MODEL@http://HOST/v1")
    _check("rubric", options, RubricJudge)
    return RubricJudge(url, model, **options)


def _check(name: str, options: dict[str, Any], judge: Callable[..., Judge]) -> None:
    """Refuse options that the judge does not have, or that its name already gives."""
    known = inspect.signature(judge).parameters.keys() - {"row", "model", "base_url"}
    for option in options:
        if option not in known:
            raise InputError(f"judge {name} has no option {option!r}; options: {', '.join(sorted(known))}")


JUDGES: dict[str, Callable[..., Judge]] = {
    "select": _select,
    "report": _report,
    "refusal": _refusal,
    "keyword-refusal": _keyword,
    **{name: _guard(name) for name in GUARDS},
    "rubric": _rubric,
}
"""Name to maker. A maker is called with what follows the colon in `name:target` and the options."""


EMBEDDED = ("select", "report", "refusal", "keyword-refusal")
"""Judges that come with the project: small, and without a target."""


def is_embedded(name: str) -> bool:
    """Whether a judge is one of the project's own small ones."""
    return name in EMBEDDED


def load_judge(name: str, **options: Any) -> Judge:
    """The judge of that name.

    `llama-guard-3:PATH` takes a folder or another hub id, `rubric:MODEL@http://HOST/v1` a chat model on an
    OpenAI-compatible server. `options` go to guard and rubric judges (threshold, batch_size, api_key ...).

    Raises:
        InputError: unknown name, the nearest one is named; or what follows the colon is missing or not
        wanted.
    """
    head, target = check_name(name)
    if head in EMBEDDED and options:
        raise InputError(f"judge {name!r}: {head} takes no options (got {', '.join(options)}); give none")
    return JUDGES[head](target, **options)


def check_name(name: str) -> tuple[str, str]:
    """A judge's kind and target, without loading it.

    Raises:
        InputError: unknown name, the nearest one is named; or a target that an embedded judge does not take.
    """
    head, _, target = name.partition(":")
    if head not in JUDGES:
        near = difflib.get_close_matches(head, JUDGES, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"judge {name!r} is not known; {hint}judges: {', '.join(JUDGES)}")
    if head in EMBEDDED and target:
        raise InputError(f"judge {name!r}: {head} takes no target (got {target}); give {head} alone")
    return head, target
