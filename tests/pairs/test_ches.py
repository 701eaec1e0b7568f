"""CHES against a naive implementation of its definition, and the filter by it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from safepref.data.records import Pair, PairKind
from safepref.logprobs.rows import TokenRow
from safepref.pairs.ches import Ches, ches, ches_scores, leave_out


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).eval()


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=64)).eval()


def falcon() -> FalconForCausalLM:
    torch.manual_seed(0)
    config = FalconConfig(vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2)
    return FalconForCausalLM(config).eval()


def rows(count: int = 9) -> list[TokenRow]:
    generator = torch.Generator().manual_seed(2)

    def ids(low: int, high: int) -> tuple[int, ...]:
        length = int(torch.randint(low, high, (1,), generator=generator))
        return tuple(torch.randint(3, 40, (length,), generator=generator).tolist())

    return [TokenRow(ids(2, 7), (ids(1, 6), ids(1, 9))) for _ in range(count)]


@torch.no_grad()
def naive(model: torch.nn.Module, row: TokenRow) -> Ches:
    """Definition 2, token by token: each answer alone behind its prompt, its embeddings added one by one."""
    sums, means = [], []
    for completion in row.completions:
        total = torch.zeros(16, dtype=torch.float64)
        for end in range(len(completion)):
            prefix = torch.tensor([row.prompt_ids + completion[:end]])
            states = model(input_ids=prefix, output_hidden_states=True).hidden_states[-1]
            head = model.get_output_embeddings()(states[0, -1])
            assert torch.allclose(head, model(input_ids=prefix).logits[0, -1], atol=1e-5), (
                "what the head reads"
            )
            total += states[0, -1].double()
        sums.append(total)
        means.append(total / len(completion))
    return Ches(*(float(h[0] @ h[1] - h[0] @ h[0]) for h in (sums, means)))


@pytest.mark.parametrize("make", [llama, gpt2, falcon])
def test_the_scores_are_the_definitions(make: object) -> None:
    model = make()  # type: ignore[operator]
    for found, row in zip(ches(model, rows()), rows(), strict=True):
        assert found == pytest.approx(naive(model, row), rel=1e-3, abs=1e-3)


def test_equal_answers_score_zero_and_the_chosen_one_is_the_centre() -> None:
    same = TokenRow((3, 4), ((5, 6, 7), (5, 6, 7)))
    assert ches(llama(), [same])[0] == pytest.approx((0, 0), abs=1e-6)
    there, back = (
        ches(llama(), [TokenRow((3, 4), pair)])[0] for pair in (((5, 6), (9, 8)), ((9, 8), (5, 6)))
    )
    # <a, b - a> + <b, a - b> = -|a - b|^2
    assert there.score + back.score < 0 and there != back


def test_a_killed_scoring_goes_on_and_ends_with_the_same_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("safepref.pairs.ches.BLOCK", 4)
    model, path = llama(), tmp_path / "ches.jsonl"
    done: list[int] = []
    whole = ches_scores(model, rows(), path, done.append)
    assert done == [4, 4, 1]
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]) + lines[4][:9])  # killed in the second block
    passes = []
    hook = model.model.register_forward_hook(lambda *_: passes.append(1))
    assert ches_scores(model, rows(), path) == whole
    assert path.read_bytes() == content and len(passes) == 2
    assert ches_scores(model, rows(), path) == whole and len(passes) == 2
    hook.remove()


def test_of_each_kind_the_most_similar_share_is_left_out() -> None:
    kinds: list[PairKind] = ["harmful"] * 10 + ["harmless"] * 5
    pairs = [
        Pair(str(n), ({"role": "user", "content": str(n)},), "a", "b", kind) for n, kind in enumerate(kinds)
    ]
    # The raw score would choose others: it grows with length.
    scores = {n: Ches(-float(n), float(n % 10)) for n in range(15) if n != 9}
    kept, out = leave_out(pairs, scores, 0.4)
    assert [pair.id for pair in out] == ["5", "6", "7", "8", "13", "14"]
    assert [pair.id for pair in kept] == ["0", "1", "2", "3", "4", "9", "10", "11", "12"]
    assert leave_out(pairs, scores, 0.0) == (pairs, [])
