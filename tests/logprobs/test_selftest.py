"""A model that ignores masks or positions is found out at the start and scored by a layout that is exact."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from logprob_models import GROUPED, RAGGED, VOCABULARY, as_matrix, gradients, make, plain_sums, with_lora
from peft import PromptTuningConfig, get_peft_model
from torch import Tensor, distributed, nn
from transformers import LlamaConfig, LlamaForCausalLM

from safepref.errors import InputError
from safepref.logprobs.engine import LogprobEngine


class IgnoresMasks(LlamaForCausalLM):
    """Sees every earlier token of its sequence, whatever the mask says."""

    def forward(
        self, input_ids: Tensor, attention_mask: Any = None, position_ids: Any = None, **_: Any
    ) -> Any:
        return super().forward(input_ids=input_ids, position_ids=position_ids)


class IgnoresPositions(LlamaForCausalLM):
    """Takes position ids and counts for itself."""

    def forward(
        self, input_ids: Tensor, attention_mask: Any = None, position_ids: Any = None, **_: Any
    ) -> Any:
        return super().forward(input_ids=input_ids, attention_mask=attention_mask)


class Raises(LlamaForCausalLM):
    """Refuses any mask that is not (B, S)."""

    def forward(
        self, input_ids: Tensor, attention_mask: Any = None, position_ids: Any = None, **_: Any
    ) -> Any:
        if attention_mask is not None and attention_mask.ndim != 2:
            raise ValueError("expected a mask of two dimensions")
        return super().forward(input_ids=input_ids, attention_mask=attention_mask)


class Recurrent(nn.Module):
    """A model of the user's own: a GRU without config, mask, positions, or a way to ask for few logits."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 16)
        self.gru = nn.GRU(16, 16, batch_first=True)
        self.out = nn.Linear(16, VOCABULARY)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embed

    def forward(self, input_ids: Tensor, attention_mask: Any = None, position_ids: Any = None) -> Any:
        return SimpleNamespace(logits=self.out(self.gru(self.embed(input_ids))[0]))


class BatchAware(Recurrent):
    """Its output depends on how many sequences run together, as a batch norm's does."""

    def forward(self, input_ids: Tensor, attention_mask: Any = None, position_ids: Any = None) -> Any:
        hidden = self.gru(self.embed(input_ids))[0] * (1 + 0.1 * input_ids.shape[0])
        return SimpleNamespace(logits=self.out(hidden))


def build(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    model = kind(LlamaConfig(**GROUPED)) if issubclass(kind, LlamaForCausalLM) else kind()
    return model.eval()


@pytest.mark.parametrize(
    ("kind", "layout", "reason"),
    [
        (IgnoresMasks, "padded", "dense mask: off by"),
        (IgnoresPositions, "padded", "dense mask: off by"),
        (Raises, "padded", "dense mask: ValueError: expected a mask of two dimensions"),
        (Recurrent, "padded", "dense mask: off by"),
        (BatchAware, "separate", "padded, one sequence for each completion: off by"),
    ],
)
def test_falls_back_and_says_so(kind: type[nn.Module], layout: str, reason: str) -> None:
    model = build(kind)
    engine = LogprobEngine(model)
    assert engine.route.layout == layout
    assert reason in engine.line
    assert kind.__name__ in engine.line
    assert "\n" not in engine.line
    expected = as_matrix(plain_sums(model, RAGGED))
    torch.testing.assert_close(engine.completion_logps(RAGGED).sums, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", [IgnoresMasks, IgnoresPositions, Raises, Recurrent])
def test_packed_is_refused_where_it_would_be_wrong(kind: type[nn.Module]) -> None:
    with pytest.raises(InputError, match="cannot be scored") as caught:
        LogprobEngine(build(kind), backend="packed")
    assert "backend=padded" in str(caught.value)


def test_a_model_that_gives_nan_is_refused() -> None:
    model = make("llama")
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(InputError, match="cannot be scored"):
        LogprobEngine(model)


def test_padding_on_request() -> None:
    engine = LogprobEngine(make("llama"), backend="padded")
    assert engine.route.layout == "padded"
    assert "padding was asked for" in engine.line


def test_prompt_learning_adapters_are_refused() -> None:
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    model = get_peft_model(make("llama"), config)
    with pytest.raises(InputError, match="use LoRA"):
        LogprobEngine(model)


def test_distributed_wrapper_gets_the_calls_and_the_gradients(tmp_path: Path) -> None:
    model = with_lora(make("llama"))
    plain = LogprobEngine(model, token_budget=40)
    (plain.completion_logps(RAGGED).sums.sum() + plain.kl_to_reference(RAGGED).values.sum()).backward()
    expected = gradients(model)
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        engine = LogprobEngine(model, token_budget=40)
        engine.model = nn.parallel.DistributedDataParallel(model)
        calls: list[nn.Module] = []
        engine.model.register_forward_hook(lambda module, _arguments, _output: calls.append(module))
        (engine.completion_logps(RAGGED).sums.sum() + engine.kl_to_reference(RAGGED).values.sum()).backward()
        whole = LogprobEngine(engine.model)
    finally:
        distributed.destroy_process_group()
    assert whole.route.layout == "rows"
    assert len(calls) > 4  # several packs, one backward pass
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def half() -> Any:
    """The embedded model in bfloat16, where rounding is no longer small."""
    from safepref.models import EMBEDDED, load_model

    return load_model(EMBEDDED, dtype="bfloat16", device="cpu").model


def test_rounding_in_half_precision_is_no_fault(half: Any) -> None:
    assert LogprobEngine(half).graph.startswith("rows/")


@pytest.mark.parametrize(
    ("kind", "layers"),
    [
        (IgnoresMasks, 6),
        *(pytest.param(kind, 30, marks=pytest.mark.slow) for kind in (IgnoresMasks, IgnoresPositions)),
    ],
)
def test_faults_are_found_in_half_precision_too(half: Any, kind: type[LlamaForCausalLM], layers: int) -> None:
    config = copy.deepcopy(half.config)
    config.num_hidden_layers = layers
    with torch.device("meta"):
        faulty = kind(config)
    weights = half.state_dict()
    faulty.load_state_dict({name: weights[name] for name in faulty.state_dict()}, assign=True)
    faulty.tie_weights()
    faulty.model.rotary_emb = half.model.rotary_emb
    assert LogprobEngine(faulty).graph.split("/")[0] in ("padded", "separate")
