"""Reference log-probs are kept by content, survive a kill, and equal the unmoved policy's."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from logprob_models import RAGGED, make, rows, with_lora
from peft import LoraConfig, get_peft_model

from safepref.errors import InputError
from safepref.logprobs import TokenRow
from safepref.logprobs import store as module
from safepref.logprobs.engine import CompletionLogps, LogprobEngine
from safepref.logprobs.store import ReferenceStore, completion_key, model_fingerprint, reference_logps


class Counting(LogprobEngine):
    """An engine that counts the completions it scores, and can be made to die."""

    scored = 0
    dies_after: int | None = None

    def completion_logps(self, given: Any, *, chunk: int | None = None) -> CompletionLogps:
        if self.dies_after is not None and self.scored >= self.dies_after:
            raise KeyboardInterrupt
        self.scored += sum(len(row.completions) for row in given)
        return super().completion_logps(given, chunk=chunk)


def fresh_lora(model: Any) -> Any:
    """LoRA as training starts it: B is zero, the policy is the reference."""
    torch.manual_seed(1)
    return get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))


def test_second_call_computes_nothing(tmp_path: Path) -> None:
    engine = Counting(with_lora(make("llama")))
    first = reference_logps(engine, RAGGED, ReferenceStore(tmp_path))
    assert engine.scored == 9
    second = reference_logps(engine, RAGGED, ReferenceStore(tmp_path))
    assert engine.scored == 9
    assert torch.equal(first.sums, second.sums)
    assert torch.equal(first.counts, second.counts)
    assert torch.equal(first.mask, first.counts > 0)


def test_only_new_completions_are_computed(tmp_path: Path) -> None:
    engine = Counting(make("llama"))
    store = ReferenceStore(tmp_path)
    reference_logps(engine, RAGGED, store)
    row = RAGGED[0]
    # Known completions in another order, a new one, and the new one twice.
    more = [TokenRow(row.prompt_ids, (row.completions[1], (7, 8))), TokenRow(row.prompt_ids, ((7, 8),))]
    got = reference_logps(engine, more, store)
    assert engine.scored == 9 + 1
    torch.testing.assert_close(got.sums, engine.completion_logps(more).sums, rtol=0, atol=1e-5)


def test_reference_is_the_model_without_its_adapter(tmp_path: Path) -> None:
    plain = LogprobEngine(make("llama")).completion_logps(RAGGED)
    adapted = LogprobEngine(with_lora(make("llama")))
    got = reference_logps(adapted, RAGGED, ReferenceStore(tmp_path))
    torch.testing.assert_close(got.sums, plain.sums, rtol=0, atol=1e-5)
    assert (adapted.completion_logps(RAGGED).sums - got.sums).abs().max() > 0.1
    assert not got.sums.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "falcon_new", "bloom"])
def test_log_ratio_is_zero_before_the_first_step(tmp_path: Path, family: str, dtype: torch.dtype) -> None:
    model = fresh_lora(make(family).to(dtype)).train()
    engine = LogprobEngine(model)
    reference = reference_logps(engine, RAGGED, ReferenceStore(tmp_path))
    policy = engine.completion_logps(RAGGED).sums.detach()
    torch.testing.assert_close(policy, reference.sums, rtol=0, atol=1e-6)


def test_fingerprint_is_of_content(tmp_path: Path) -> None:
    bare = make("llama")
    name = model_fingerprint(bare)
    assert model_fingerprint(make("llama")) == name
    bare.save_pretrained(tmp_path)
    loaded = type(bare).from_pretrained(tmp_path)
    assert model_fingerprint(loaded) == name  # paths do not count
    adapted = with_lora(make("llama"), modules_to_save=["lm_head"])
    assert model_fingerprint(adapted) == name  # nor do adapters, nor a trained copy of the head
    adapted.get_base_model().config.use_cache = False
    assert model_fingerprint(adapted) == name
    with torch.no_grad():
        loaded.model.layers[1].mlp.up_proj.weight[3, 4] += 1e-3
    assert model_fingerprint(loaded) != name
    assert model_fingerprint(make("llama").to(torch.bfloat16)) != name
    turned = make("llama")
    turned.config.rope_parameters = {**turned.config.rope_parameters, "rope_theta": 5000.0}
    assert model_fingerprint(turned) != name  # the weights are the same, the model is not


def test_fingerprint_holds_the_tokenizer_and_its_template() -> None:
    model = make("llama")

    def tokenizer(template: str, word: str = "a") -> Any:
        return SimpleNamespace(get_vocab=lambda: {word: 0}, chat_template=template)

    name = model_fingerprint(model, tokenizer("x"))
    assert name == model_fingerprint(SimpleNamespace(model=model, tokenizer=tokenizer("x")))
    assert (
        len({name, *(model_fingerprint(model, t) for t in (None, tokenizer("y"), tokenizer("x", "b")))}) == 4
    )


def test_tied_and_untied_weights_differ() -> None:
    tied = make("llama_tied")
    assert model_fingerprint(tied) == model_fingerprint(make("llama_tied"))
    assert model_fingerprint(tied) != model_fingerprint(make("llama"))


def test_token_does_not_cross_the_boundary_unseen() -> None:
    keys = {
        completion_key("f", (1, 2), (3,)),
        completion_key("f", (1,), (2, 3)),
        completion_key("g", (1, 2), (3,)),
        completion_key("f", (1, 2), (4,)),
    }
    assert len(keys) == 4


def test_graph_and_dtype_are_in_the_key(tmp_path: Path) -> None:
    store = ReferenceStore(tmp_path)
    packed = Counting(make("llama"))
    padded = Counting(make("llama"), backend="padded")
    reference_logps(packed, RAGGED, store)
    reference_logps(padded, RAGGED, store)
    assert padded.scored == 9


def test_a_killed_pass_continues_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD_TOKENS", 20)
    many = rows([(6, (4, 5))] * 8)
    engine = Counting(make("llama"))
    whole = reference_logps(engine, many, ReferenceStore(tmp_path / "whole"))
    killed = Counting(make("llama"))
    killed.dies_after = 8
    store = ReferenceStore(tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        reference_logps(killed, many, store)
    assert killed.scored == 8
    again = Counting(make("llama"))
    seen: list[int] = []
    got = reference_logps(again, many, store, seen.append)
    assert again.scored == 16 - 8
    assert seen[0] == 4
    assert sum(seen) == 8
    torch.testing.assert_close(got.sums, whole.sums, rtol=0, atol=1e-6)
    leftovers = [p for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".safetensors"]
    leftovers = [p for p in leftovers if p.name != ".lock"]
    assert leftovers == []


def test_adapter_is_back_after_a_kill(tmp_path: Path) -> None:
    model = with_lora(make("llama")).train()
    engine = Counting(model)
    before = engine.completion_logps(RAGGED).sums.detach()
    engine.dies_after = 0
    with pytest.raises(KeyboardInterrupt):
        reference_logps(engine, RAGGED, ReferenceStore(tmp_path))
    engine.dies_after = None
    assert model.training
    assert torch.equal(engine.completion_logps(RAGGED).sums.detach(), before)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_damaged_shard_is_found_and_computed_again(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Counting(make("llama"))
    store = ReferenceStore(tmp_path)
    good = reference_logps(engine, RAGGED, store)
    (shard,) = tmp_path.rglob("*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-3] ^= 0x40
    shard.write_bytes({"flip": bytes(content), "cut": bytes(content[:-9]), "empty": b""}[damage])
    got = reference_logps(engine, RAGGED, store)
    assert engine.scored == 18
    assert torch.equal(got.sums, good.sums)
    assert f"{shard.name}: damaged" in caplog.text
    reference_logps(engine, RAGGED, store)
    assert engine.scored == 18


def test_rows_are_checked_before_the_model_is_hashed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no rows were given"):
        reference_logps(LogprobEngine(make("llama")), [], ReferenceStore(tmp_path))
