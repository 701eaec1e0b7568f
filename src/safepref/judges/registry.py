"""Judges by name: the one place where a new judge is registered."""

from __future__ import annotations

import difflib
import inspect
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safepref.errors import InputError
from safepref.judges.base import Judge
from safepref.judges.guard_table import GUARDS
from safepref.progress import console


def _select(_: str, **__: Any) -> Judge:
    from safepref.judges.embedded_select import SelectJudge

    return SelectJudge()


def _report(_: str, **__: Any) -> Judge:
    from safepref.judges.embedded_report import ReportJudge

    return ReportJudge()


def _keyword(_: str, **__: Any) -> Judge:
    from safepref.judges.refusal import KeywordRefusalJudge

    return KeywordRefusalJudge()


def _refusal(target: str, **__: Any) -> Judge:
    from safepref.judges.refusal import RefusalJudge
    from safepref.judges.refusal_target import TargetRefusalJudge

    return TargetRefusalJudge(Path(target)) if target else RefusalJudge()


def _labels(_: str, **__: Any) -> Judge:
    from safepref.judges.labels import LabelJudge

    return LabelJudge()


def _support(side: str) -> Callable[..., Judge]:
    def make(_: str, **__: Any) -> Judge:
        from safepref.judges.support import SupportReportJudge, SupportSelectJudge

        return SupportSelectJudge() if side == "select" else SupportReportJudge()

    return make


def _vote(rule: str) -> Callable[..., Judge]:
    def make(target: str, /, **options: Any) -> Judge:
        from safepref.judges.ensemble import VoteJudge

        _refuse_options(rule, options)
        return VoteJudge(rule, [load_judge(name) for name in members(rule, target)])

    return make


def _weighted(target: str, /, **options: Any) -> Judge:
    from safepref.judges.ensemble import WeightedJudge

    _refuse_options("weighted", options)
    return WeightedJudge(Path(target), load_judge)


def members(head: str, target: str) -> list[str]:
    """The names of an ensemble's judges; none for another kind of judge."""
    if not target:
        return []
    if head in ("majority", "any"):
        return [name.strip() for name in target.split(",")]
    if head == "weighted":
        from safepref.judges.ensemble import read_weights

        return [str(name) for name in read_weights(Path(target))["judges"]]
    return []


def _refuse_options(name: str, options: dict[str, Any]) -> None:
    if options:
        raise InputError(f"judge {name}: takes no options (got {', '.join(options)}); give none")


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
    """Model and address of MODEL@http://HOST/v1; a folder's name and an address may hold an @ too."""
    parts = re.split(r"@(?=https?://)", target, maxsplit=1)
    return parts[0], parts[1] if len(parts) > 1 else ""


def _chat(kind: str) -> Callable[..., Judge]:
    def make(target: str, /, **options: Any) -> Judge:
        from safepref.judges.api import RubricJudge, ServedJudge, SupportRubricJudge, YesNoJudge
        from safepref.judges.chat_local import (
            LocalChatJudge,
            LocalRubricJudge,
            LocalSupportRubricJudge,
            LocalYesNoJudge,
        )

        model, url = _place(kind, target, str(options.pop("base_url", "")))
        if url:
            _check(kind, options, ServedJudge)
            served: dict[str, Callable[..., Judge]] = {
                "rubric": RubricJudge,
                "yesno": YesNoJudge,
                "support.rubric": SupportRubricJudge,
            }
            return served[kind](url, model, **options)
        _check(kind, options, LocalChatJudge)
        local: dict[str, Callable[..., Judge]] = {
            "rubric": LocalRubricJudge,
            "yesno": LocalYesNoJudge,
            "support.rubric": LocalSupportRubricJudge,
        }
        return local[kind](model, **options)

    return make


HERE = "local"
"""Behind a chat model's @: on this machine."""


def _place(kind: str, target: str, given: str) -> tuple[str, str]:
    """Model and address of a chat judge; no address where it runs on this machine.

    What stands behind the @ decides, then the option `base_url`. A bare name is that of a folder on this
    machine, else of a model on the server of OPENAI_BASE_URL where that is set, else a hub id, run here. With
    OPENAI_BASE_URL set, what was taken is said.
    """
    model, url = _served(target)
    folder, known = Path(target).is_dir(), os.environ.get("OPENAI_BASE_URL", "")
    if not url and not folder and target.endswith(f"@{HERE}"):
        model = target.removesuffix(f"@{HERE}")
    elif not url and not folder and "@" in target:
        raise InputError(
            f"judge {kind}:{target}: behind the @ stands no URL; give {kind}:MODEL@http://HOST/v1, or "
            f"{kind}:MODEL@{HERE} for this machine"
        )
    elif not url and given:
        url = given
    elif not url and model and known:
        url = "" if folder else known
        taken = "on this machine, as a folder" if folder else "on the server of OPENAI_BASE_URL"
        other = "http://HOST/v1" if folder else HERE
        console().print(f"judge {kind}:{model} runs {taken}; otherwise write {kind}:{model}@{other}")
    if not model:
        raise InputError(
            f"judge {kind}: model missing; give {kind}:MODEL@http://HOST/v1, or {kind}:FOLDER-OR-HUB-ID"
        )
    return model, url


def _check(name: str, options: dict[str, Any], judge: Callable[..., Judge]) -> None:
    """Refuse options that the judge does not have, or that its name already gives."""
    known = inspect.signature(judge).parameters.keys() - {"row", "model", "base_url", "loaded"}
    for option in options:
        if option not in known:
            raise InputError(f"judge {name} has no option {option!r}; options: {', '.join(sorted(known))}")


JUDGES: dict[str, Callable[..., Judge]] = {
    "select": _select,
    "report": _report,
    "refusal": _refusal,
    "keyword-refusal": _keyword,
    "labels": _labels,
    "support.select": _support("select"),
    "support.report": _support("report"),
    **{name: _guard(name) for name in GUARDS},
    "rubric": _chat("rubric"),
    "yesno": _chat("yesno"),
    "support.rubric": _chat("support.rubric"),
    "majority": _vote("majority"),
    "any": _vote("any"),
    "weighted": _weighted,
}
"""Name to maker. A maker is called with what follows the colon in `name:target` and the options."""


EMBEDDED = ("select", "report", "refusal", "keyword-refusal", "labels", "support.select", "support.report")
"""Judges that come with the project: small, and without a target."""


ENSEMBLES = ("majority", "any", "weighted")


def is_embedded(name: str) -> bool:
    """Whether a judge is one of the project's own small ones, or made of nothing else."""
    head, _, target = name.partition(":")
    inner = members(head, target)
    return head in EMBEDDED if not inner else all(map(is_embedded, inner))


def fitted_file(name: str) -> bool:
    """Whether what follows the colon in a judge's name is a file that it was fitted with."""
    head, _, target = name.partition(":")
    return head in ("weighted", "refusal") and bool(target)


def load_judge(name: str, **options: Any) -> Judge:
    """The judge of that name.

    A guard's name takes a folder or another hub id, `llama-guard-3:PATH`, or a model on an OpenAI-compatible
    server, `llama-guard-3:MODEL@http://HOST/v1`, as `rubric:` and `yesno:` do (`_place` tells bare names
    apart). `majority:A,B,C` and `any:A,B` are judges together, `weighted:FILE` and `refusal:FILE` what was
    fitted on labels. `options` go to guards and chat models (threshold, batch_size, api_key ...).

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
    if head in EMBEDDED and head != "refusal" and target:
        raise InputError(f"judge {name!r}: {head} takes no target (got {target}); give {head} alone")
    if head in ENSEMBLES and not target:
        what = "FILE" if head == "weighted" else "A,B,C"
        raise InputError(f"judge {name!r}: its judges are missing; give {head}:{what}")
    for member in members(head, target):
        if member.partition(":")[0] in ENSEMBLES:
            raise InputError(f"judge {name!r}: {member} is an ensemble itself; name its judges one by one")
        check_name(member)
    return head, target
