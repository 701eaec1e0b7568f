"""The reference model's log-probs on disk, by content: computed once for all methods, epochs and rounds.

An entry's key is the SHA-256 of what determines its value: the model's weights and config, the tokenizer
and its template, dtype, device kind and computation graph (together the fingerprint), and the token ids of
prompt and completion. Loss, learning rate and paths are not in it. Entries come in shards, each written
whole or not at all under the name of its own hash, so that a kill at any time loses at most the shard in
work, two processes do the work once, and damage is found when a shard is read.
"""

from __future__ import annotations

import hashlib
import logging
import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors.numpy import load, save
from torch import Tensor, nn

from safepref.logprobs.engine import CompletionLogps, LogprobEngine
from safepref.logprobs.packing import shape_of
from safepref.logprobs.route import evaluating, unwrap, without_adapters
from safepref.logprobs.rows import TokenRow
from safepref.progress import console
from safepref.store import atomic_write, sha256_bytes, sha256_json

log = logging.getLogger(__name__)

SHARD_TOKENS = 4096
"""Tokens run through the model for one shard, which is what a kill can cost: one pack on a CPU."""

Entry = tuple[float, int]
"""Summed log-prob of a completion in nats, and its tokens."""

_ADAPTER = re.compile(r"(^|\.)(lora_|modules_to_save\.|ranknum|ia3_|hada_|oft_|vera_|token_adapter\.)")
_IRRELEVANT = frozenset(
    {
        "_name_or_path",
        "architectures",
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "pad_token_id",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)


class ReferenceStore:
    """Reference log-probs under `folder`, one subfolder a fingerprint."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, fingerprint: str) -> dict[bytes, Entry]:
        """All entries of a fingerprint by key; a damaged shard is removed, with a warning."""
        entries: dict[bytes, Entry] = {}
        for path in sorted(self._shards(fingerprint).glob("*.safetensors")):
            content = path.read_bytes()
            if sha256_bytes(content) != path.stem:
                log.warning(
                    "%s: damaged (its hash is not its name); removed, it will be computed again", path
                )
                path.unlink(missing_ok=True)
                continue
            shard = load(content)
            for key, value, count in zip(
                shard["keys"], shard["sums"].tolist(), shard["counts"].tolist(), strict=True
            ):
                entries[key.tobytes()] = (value, count)
        return entries

    def append(self, fingerprint: str, entries: dict[bytes, Entry]) -> None:
        """Write one shard of entries."""
        if not entries:
            return
        content = save(
            {
                "keys": np.frombuffer(b"".join(entries), dtype=np.uint8).reshape(len(entries), -1),
                "sums": np.array([value for value, _ in entries.values()], dtype=np.float32),
                "counts": np.array([count for _, count in entries.values()], dtype=np.int32),
            }
        )
        with atomic_write(self._shards(fingerprint) / f"{sha256_bytes(content)}.safetensors", "wb") as stream:
            stream.write(content)

    @contextmanager
    def claimed(self, fingerprint: str) -> Iterator[None]:
        """Hold a fingerprint: who comes next waits, and then finds what the first has computed."""
        folder = self._shards(fingerprint)
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            console().print("  another process computes the reference; waiting for it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _shards(self, fingerprint: str) -> Path:
        return self.folder / fingerprint[:32]


def completion_key(fingerprint: str, prompt_ids: Sequence[int], completion: Sequence[int]) -> bytes:
    """The 32-byte key of one completion behind its prompt."""
    digest = hashlib.sha256(fingerprint.encode())
    for ids in (prompt_ids, completion):
        # The length stands before the ids, so that a token cannot move over the boundary unseen.
        digest.update(array("q", (len(ids), *ids)).tobytes())
    return digest.digest()


def model_fingerprint(model_or_loaded: Any, tokenizer: Any = None) -> str:
    """SHA-256 of the reference model: weights, config, dtype, and its tokenizer with its template.

    Adapters are left out and their traces in names removed, so that a model has one fingerprint before LoRA
    is put on it and after. Weights are hashed as they stand in memory: a folder's name says nothing about
    what was done to the model since it was loaded.

    Args:
        model_or_loaded: a causal LM, wrapped or not, or an object with `model` and `tokenizer`.
        tokenizer: the tokenizer, if the first argument does not bring it.
    """
    if isinstance(model_or_loaded, nn.Module):
        model = model_or_loaded
    else:
        model, tokenizer = model_or_loaded.model, tokenizer or model_or_loaded.tokenizer
    base = unwrap(model)
    config = base.config.to_dict() if hasattr(base, "config") else {}
    return sha256_json(
        {
            "weights": _weights_digest(base),
            "config": {key: str(value) for key, value in sorted(config.items()) if key not in _IRRELEVANT},
            "tokenizer": None if tokenizer is None else _tokenizer_digest(tokenizer),
        }
    )


def _weights_digest(base: nn.Module) -> str:
    seen: dict[tuple[int, torch.Size], str] = {}
    names: list[str] = []
    tensors: list[Tensor] = []
    links: list[tuple[str, str]] = []
    for name, tensor in sorted(base.state_dict().items()):
        if _ADAPTER.search(name):
            continue
        clean = name.replace(".base_layer.", ".").replace(".original_module.", ".")
        place = (tensor.data_ptr(), tensor.shape)
        if place in seen and tensor.numel():
            links.append((clean, seen[place]))
            continue
        seen[place] = clean
        names.append(clean)
        tensors.append(tensor)
    with ThreadPoolExecutor(max_workers=4) as pool:  # hashlib lets go of the interpreter lock
        digests = list(pool.map(_tensor_digest, tensors))
    return sha256_json([sorted(zip(names, digests, strict=True)), sorted(links)])


def _tensor_digest(tensor: Tensor) -> str:
    data = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{data.dtype} {tuple(data.shape)}".encode())
    # bfloat16 has no numpy type; the bytes are what counts.
    digest.update(data.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _tokenizer_digest(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    vocabulary = backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items())
    return sha256_json([vocabulary, str(getattr(tokenizer, "chat_template", None))])


def reference_logps(
    engine: LogprobEngine,
    rows: Sequence[TokenRow],
    store: ReferenceStore,
    progress: Callable[[int], None] | None = None,
    *,
    fingerprint: str | None = None,
) -> CompletionLogps:
    """The reference model's log-probs of `rows`: read from the store, computed and added where missing.

    The reference is the engine's model without its adapters, run by the engine's own route, so that a
    policy that has not moved yet has a log-ratio of zero. A model under full fine-tuning is its own
    reference only before its first step.

    Args:
        engine: scores what is missing.
        rows: R rows, ragged in K.
        store: where to look and add.
        progress: called with the number of rows newly done; the calls add up to R.
        fingerprint: of the reference model, `model_fingerprint`'s; None computes it (about a second for each
            gigabyte of weights).

    Returns:
        Sums (R, K) fp32 and counts, on the CPU.

    Raises:
        InputError: no rows, or a row that the model cannot take.
    """
    engine.route.limits.check(rows)
    identity = sha256_json([fingerprint or model_fingerprint(engine.model), _setting(engine)])
    keys = [[completion_key(identity, row.prompt_ids, c) for c in row.completions] for row in rows]
    known = store.read(identity)
    with ExitStack() as held:
        if _missing(keys, known):
            held.enter_context(store.claimed(identity))
            known = store.read(identity)  # with what another process has computed meanwhile
        held.enter_context(evaluating(engine.model))
        held.enter_context(without_adapters(engine.model))
        missing = _missing(keys, known)
        if progress is not None:
            progress(len(rows) - len(missing))
        for members in _shards(rows, missing):
            fresh = _compute(engine, [(rows[r], keys[r]) for r in members], known)
            store.append(identity, fresh)
            known |= fresh
            if progress is not None:
                progress(len(members))
    shape = shape_of(rows)
    sums = torch.zeros(shape.counts.shape, dtype=torch.float32)
    for r, row_keys in enumerate(keys):
        sums[r, : len(row_keys)] = torch.tensor([known[key][0] for key in row_keys])
    return CompletionLogps(sums, shape.counts, shape.counts > 0)


def _missing(keys: Sequence[Sequence[bytes]], known: Mapping[bytes, Entry]) -> list[int]:
    """Rows with a completion that is not known."""
    return [r for r, row_keys in enumerate(keys) if any(key not in known for key in row_keys)]


def _setting(engine: LogprobEngine) -> list[str]:
    """What besides the weights decides the last bits of a log-prob."""
    parameter = next(engine.model.parameters())
    return [engine.graph, str(parameter.dtype), parameter.device.type, torch.__version__]


def _shards(rows: Sequence[TokenRow], members: Sequence[int]) -> Iterator[list[int]]:
    shard: list[int] = []
    tokens = 0
    for r in members:
        shard.append(r)
        tokens += rows[r].span
        if tokens >= SHARD_TOKENS:
            yield shard
            shard, tokens = [], 0
    if shard:
        yield shard


def _compute(
    engine: LogprobEngine, work: Sequence[tuple[TokenRow, list[bytes]]], known: dict[bytes, Entry]
) -> dict[bytes, Entry]:
    """Entries of the completions that are not known, each computed once."""
    fresh: dict[bytes, Entry] = {}
    todo: list[TokenRow] = []
    todo_keys: list[list[bytes]] = []
    claimed: set[bytes] = set()
    for row, row_keys in work:
        wanted = {
            k: c
            for k, c in zip(row_keys, row.completions, strict=True)
            if k not in known and k not in claimed
        }
        if wanted:
            claimed.update(wanted)
            todo.append(TokenRow(row.prompt_ids, tuple(wanted.values())))
            todo_keys.append(list(wanted))
    if todo:
        logps = engine.completion_logps(todo)
        for r, row_keys in enumerate(todo_keys):
            for k, key in enumerate(row_keys):
                fresh[key] = (float(logps.sums[r, k]), int(logps.counts[r, k]))
    return fresh
