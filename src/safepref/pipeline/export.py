"""`safepref export`: a run's recommended model, or one named, as a folder that needs no safepref."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safepref import __version__
from safepref.errors import InputError, NegativeResult
from safepref.logprobs.store import model_fingerprint
from safepref.models import levels_by_name
from safepref.pipeline.push import check_repo_id, push
from safepref.progress import console
from safepref.report.card import Exported, measured, model_card
from safepref.report.folder import RunFolder, read_run
from safepref.store import sha256_file, write_json, write_text
from safepref.strength import Strength, parse_strength, point_file, point_name, strength_json, strength_text
from safepref.tradeoff.base import Base, describe_base
from safepref.tradeoff.export import (
    DTYPES,
    LayerScale,
    is_adapter,
    load_base,
    uniform,
    write_adapter,
    write_merged,
)

SCHEMA = 1
MARK = "safepref_export.json"
"""Says that a folder is an export, so that the next one may take its place, and what it is an export of."""


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to export and how; the fields are the command's options."""

    run: Path
    out: Path | None = None
    """Null is RUN/export/POINT-adapter or -merged."""
    method: str | None = None
    """Null takes what the run recommends."""
    strength: Strength | None = None
    """Of the named method; null is 1."""
    merged: bool | None = None
    """Null is an adapter where one was trained, and whole weights otherwise."""
    dtype: str | None = None
    """Null is the base's for merged weights, the trained one's for an adapter or a full fine-tune."""
    base: str | None = None
    """The base's hub id, where the run names a folder."""
    licence: str | None = None
    push: str | None = None
    """A hub id to upload it to."""
    private: bool = False


def export_model(request: ExportRequest) -> Path:
    """Write the export and its model card, whole or not at all, and upload it where that is asked.

    Returns:
        Its folder.

    Raises:
        InputError: the run is not finished, has no such method, or its weights cannot be read; the folder is
            there and no export; the hub cannot be reached (the folder then stays).
        NegativeResult: nothing is named and the run recommends nothing.
    """
    if request.push is not None:
        check_repo_id(request.push)
    if not (request.run / "results.json").exists():
        raise InputError(
            f"{request.run}: no finished run (no results.json); finish it with `safepref run --out "
            f"{request.run}`"
        )
    run = read_run(request.run)
    method, strength = _point(request, run)
    source = _trained(request.run, method)
    merged = _merged(request, source)
    name = point_file(point_name(method, strength))
    out = request.out or request.run / "export" / f"{name}-{'merged' if merged else 'adapter'}"
    _check_free(out)
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        _write(request, run, method, strength, source, merged, part)
        _put(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    if request.push is not None:
        console().print(f"uploaded: {push(out, request.push, private=request.private)}", soft_wrap=True)
    return out


def layer_scale(strength: Strength, model_id: str) -> LayerScale:
    """The strength of each layer; which group a layer belongs to is told by the base."""
    if isinstance(strength, tuple):
        return levels_by_name(load_base(model_id).model, strength)
    return uniform(strength)


def _write(
    request: ExportRequest,
    run: RunFolder,
    method: str,
    strength: Strength,
    source: Path,
    merged: bool,
    folder: Path,
) -> None:
    model_id = str(run.results["model"])
    base = describe_base(model_id, named=request.base, licence=request.licence)
    scale, lost, notes = layer_scale(strength, model_id), None, _notes(run, base, merged)
    if merged:
        loaded = load_base(model_id)
        dtype = request.dtype or _default_dtype(loaded.dtype, source)
        notes += _changed(run, loaded)
        lost = write_merged(loaded, source, folder, scale, DTYPES[dtype])
    else:
        dtype = request.dtype or "float32"
        write_adapter(source, folder, scale, base.id, dtype=DTYPES[dtype] if request.dtype else None)
    for note in notes:
        console().print(note, soft_wrap=True)
    made = Exported(
        method,
        strength,
        merged,
        base,
        dtype,
        lost,
        **({"place": request.push} if request.push else {}),
        notes=tuple(notes),
    )
    write_text(folder / "README.md", model_card(run, made))
    scores, split = measured(run.results, method, strength)
    write_json(
        folder / MARK,
        {
            "schema": SCHEMA,
            "safepref": __version__,
            "method": method,
            "strength": strength_json(strength),
            "merged": merged,
            "dtype": dtype,
            "base": base.id,
            "recipe_sha256": run.manifest.get("recipe_sha256"),
            "rounding": lost,
            "split": split if scores is not None else None,
            "scores": scores,
            "files": {file.name: sha256_file(file) for file in sorted(folder.iterdir())},
        },
    )


def _point(request: ExportRequest, run: RunFolder) -> tuple[str, Strength]:
    """The method and strength that are named, else the recommended ones."""
    chosen = run.results.get("recommended") or {}
    if request.method is None:
        if request.strength is not None:
            raise InputError(
                f"--strength {strength_text(request.strength)} is of a method; name it with --method "
                f"({', '.join(run.results['methods'])})"
            )
        if chosen.get("method") is None or chosen.get("strength") is None:
            why = str(chosen.get("why") or "no reason was recorded").rstrip(".")
            raise NegativeResult(
                f"{request.run} recommends nothing: {why}. By hand: {'; '.join(_by_hand(run.results))}"
            )
        return str(chosen["method"]), parse_strength(chosen["strength"], "results.json")
    if request.method not in run.results["methods"]:
        known = ", ".join(run.results["methods"])
        raise InputError(f"--method {request.method}: {request.run} has none of that name; it has {known}")
    strength = 1.0 if request.strength is None else request.strength
    strength = parse_strength(strength, "--strength")
    if strength == 0:
        raise InputError("--strength 0 is the base itself; give a number above 0, up to 1")
    return request.method, strength


def _by_hand(results: dict[str, Any]) -> list[str]:
    """What could be exported although it is not recommended, by method."""
    found = []
    for method, entry in results["methods"].items():
        tried = ", ".join(dict.fromkeys([*(entry.get("choose") or {}), "1"]))
        found.append(f"--method {method} --strength S (measured: {tried})")
    return found


def _trained(run: Path, method: str) -> Path:
    places = [run / "adapters" / method, run / "models" / method]
    for place in places:
        if place.is_dir():
            return place
    raise InputError(f"{run}: neither adapters/{method} nor models/{method} is there; train it anew")


def _merged(request: ExportRequest, source: Path) -> bool:
    if is_adapter(source):
        return bool(request.merged)
    if request.merged is False:
        raise InputError(f"--adapter: {source} is a full fine-tune, which has no adapter; leave it out")
    return True


def _default_dtype(base: Any, source: Path) -> str:
    # A step of full fine-tuning is smaller than half precision's rounding, so it stays as it was trained.
    return str(base).removeprefix("torch.") if is_adapter(source) else "float32"


def _notes(run: RunFolder, base: Base, merged: bool) -> list[str]:
    """What whoever uses the export should know of how it was measured."""
    section = (run.manifest.get("recipe") or {}).get("model") or {}
    notes = []
    if section.get("quantize"):
        notes.append(
            f"Training and evaluation had the base in {section['quantize']} quantization; "
            f"{'these weights are' if merged else 'the adapter is here used with weights'} without it."
        )
    if not merged and not base.loadable:
        notes.append(
            f"The base is known by the name {base.id} alone; with --base HUB_ID the adapter says where to "
            "load it from."
        )
    return notes


def _changed(run: RunFolder, loaded: Any) -> list[str]:
    """A sentence where the base is not the one that was trained, as far as that can be told."""
    known = (run.manifest.get("hashes") or {}).get("model")
    dtype = (run.manifest.get("plan") or {}).get("dtype")
    # Hashes are of the weights as they stood in memory, so only equal dtypes have equal ones.
    if known is None or dtype != str(loaded.dtype).removeprefix("torch."):
        return []
    if model_fingerprint(loaded) == known:
        return []
    return [
        "The base's weights, tokenizer or libraries are others than in the run: this model may differ from "
        "the measured one."
    ]


def _check_free(out: Path) -> None:
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / MARK).exists()):
        raise InputError(f"--out {out}: is there and is no export of safepref; choose another folder")


def _put(part: Path, out: Path) -> None:
    """Put the finished folder in place, in that of an earlier export."""
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    try:
        part.rename(out)
    except OSError:
        with suppress(OSError):
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)
