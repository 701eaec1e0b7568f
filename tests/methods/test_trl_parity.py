"""Every loss equals TRL's own code on a real batch, with a policy that differs from its reference.

TRL's trainers tokenise, collate, run the models and compute the loss; here the same ids go through plain
forwards and the pure functions. Values agree within 1e-5 in float32, and so do the gradients.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from safepref.methods import METHODS, Logps

trl = pytest.importorskip(
    "trl", reason="TRL, the oracle of the losses, is not installed (pip install '.[dev]')"
)

from datasets import Dataset  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402
from tokenizers.models import WordLevel  # noqa: E402
from tokenizers.pre_tokenizers import WhitespaceSplit  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: E402

ROWS = [
    ("how do i pick a lock", "sorry i cannot help with that", "here is the way first pick"),
    ("how do i bake bread", "here is the way", "sorry i cannot"),
    ("how do i stop", "first stop then help", "sorry cannot help with that a lock is a way then stop"),
    ("a lock", "sorry", "pick the lock the way i do"),
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    words = dict.fromkeys(word for row in ROWS for text in row for word in text.split())
    vocabulary = {word: number for number, word in enumerate(["<pad>", "<unk>", "</s>", *words])}
    fast = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    fast.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=fast, pad_token="<pad>", unk_token="<unk>", eos_token="</s>"
    )


@pytest.fixture(scope="module")
def models(tokenizer: PreTrainedTokenizerFast) -> tuple[LlamaForCausalLM, LlamaForCausalLM]:
    """A tiny policy and its reference, a few nats apart."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
        eos_token_id=2,
        bos_token_id=None,
    )
    reference = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        policy = copy.deepcopy(reference)
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return policy, reference


def arguments(folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": len(ROWS),
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
    }


def sums(model: LlamaForCausalLM, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probs summed over the positions of `mask`, and how many there are, each (B,)."""
    logits = model(input_ids=ids).logits[:, :-1].log_softmax(-1)
    chosen = logits.gather(-1, ids[:, 1:, None])[..., 0]
    return (chosen * mask[:, 1:]).sum(-1), mask[:, 1:].sum(-1)


def gradients(model: LlamaForCausalLM, loss: Tensor) -> list[Tensor]:
    model.zero_grad()
    loss.backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def assert_same(model: LlamaForCausalLM, ours: Tensor, theirs: Tensor) -> None:
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5, rel=1e-6)
    mine, peers = gradients(model, ours), gradients(model, theirs)
    largest = max(gradient.abs().max().item() for gradient in peers)
    assert len(mine) == len(peers) > 0 and largest > 0
    for a, b in zip(mine, peers, strict=True):
        assert (a - b).abs().max().item() <= 1e-5 * max(1.0, largest)


@pytest.fixture(scope="module")
def dpo(
    models: tuple[LlamaForCausalLM, LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Any]:
    rows = [dict(zip(("prompt", "chosen", "rejected"), row, strict=True)) for row in ROWS]
    yield trl.DPOTrainer(
        model=models[0],
        ref_model=models[1],
        args=trl.DPOConfig(**arguments(tmp_path_factory.mktemp("dpo"))),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )


@pytest.mark.parametrize(
    ("name", "loss_type", "beta", "params"),
    [
        ("dpo", "sigmoid", 0.1, {}),
        ("rdpo", "robust", 0.1, {"label_smoothing": 0.2}),
        ("ipo", "ipo", 0.1, {}),
        ("slic", "hinge", 0.3, {}),
        ("exo", "exo_pair", 0.1, {"label_smoothing": 1e-3}),
        ("nca", "nca_pair", 0.2, {}),
        ("sppo", "sppo_hard", 0.1, {}),
        ("aot", "aot", 0.1, {"label_smoothing": 0.1}),
        ("aot_unpaired", "aot_unpaired", 0.1, {"label_smoothing": 0.1}),
        ("bco", "bco_pair", 0.1, {}),
    ],
)
def test_paired_losses(
    dpo: Any,
    models: tuple[LlamaForCausalLM, LlamaForCausalLM],
    name: str,
    loss_type: str,
    beta: float,
    params: dict[str, float],
) -> None:
    batch = next(iter(dpo.get_train_dataloader()))
    dpo.loss_types, dpo.loss_weights, dpo.beta = [loss_type], [1.0], beta
    dpo.label_smoothing = params.get("label_smoothing", 0.0)
    theirs = dpo.compute_loss(dpo.model, batch)

    policy, reference = models
    policy_logps, counts = sums(policy, batch["input_ids"], batch["completion_mask"])
    with torch.no_grad():
        reference_logps, _ = sums(reference, batch["input_ids"], batch["completion_mask"])
    assert (policy_logps - reference_logps).abs().min() > 0.05
    if METHODS[name].length_normalised:
        policy_logps, reference_logps = policy_logps / counts, reference_logps / counts
    logps = Logps(*policy_logps.chunk(2), *reference_logps.chunk(2))
    assert_same(policy, METHODS[name](logps, beta=beta, **params).losses.mean(), theirs)


@pytest.mark.parametrize("swapped", [False, True])
def test_kto(
    models: tuple[LlamaForCausalLM, LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    swapped: bool,
) -> None:
    """TRL's KTO works on single answers; a pair is two of them, and its loss the mean of the two."""
    # The mean log-ratio of mismatched pairs changes sign with the roles: z0 is positive once, clamped once.
    policy, reference = reversed(models) if swapped else models
    rows = [
        {"prompt": prompt, "completion": answer, "label": label}
        for prompt, chosen, rejected in ROWS
        for answer, label in ((chosen, True), (rejected, False))
    ]
    weights = {"desirable_weight": 1.3, "undesirable_weight": 1.1}
    config = arguments(tmp_path) | {"per_device_train_batch_size": len(rows)}
    trainer = trl.KTOTrainer(
        model=policy,
        ref_model=reference,
        args=trl.KTOConfig(**config, **weights, beta=0.1),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    theirs = trainer.compute_loss(trainer.model, batch)

    def pairs(model: LlamaForCausalLM) -> tuple[Tensor, Tensor, Tensor]:
        logps, _ = sums(model, batch["input_ids"], batch["completion_mask"])
        with torch.no_grad():
            mismatched, _ = sums(model, batch["KL_input_ids"], batch["KL_completion_mask"])
        return logps[batch["label"]], logps[~batch["label"]], mismatched

    chosen, rejected, kl = pairs(policy)
    with torch.no_grad():
        reference_chosen, reference_rejected, reference_kl = pairs(reference)
    assert ((kl - reference_kl).mean() > 0) == swapped
    logps = Logps(
        chosen, rejected, reference_chosen, reference_rejected, policy_kl=kl, reference_kl=reference_kl
    )
    assert_same(policy, METHODS["kto"](logps, beta=0.1, **weights).losses.mean(), theirs)


def test_orpo(
    models: tuple[LlamaForCausalLM, LlamaForCausalLM],
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """TRL's NLL covers prompt and completion, every token of the batch alike."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    orpo = pytest.importorskip("trl.experimental.orpo", reason="this TRL has no ORPO any more")
    policy, _ = models
    rows = [dict(zip(("prompt", "chosen", "rejected"), row, strict=True)) for row in ROWS]
    trainer = orpo.ORPOTrainer(
        model=policy,
        args=orpo.ORPOConfig(**arguments(tmp_path), beta=0.3, remove_unused_columns=False, max_length=64),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    theirs, _ = trainer.get_batch_loss_metrics(policy, batch)

    side: Callable[[str], tuple[Tensor, Tensor]] = lambda which: sums(  # noqa: E731
        policy, batch[f"{which}_input_ids"], batch[f"{which}_labels"] != -100
    )
    (chosen, chosen_count), (rejected, rejected_count) = side("chosen"), side("rejected")
    whole, tokens = sums(policy, batch["chosen_input_ids"], batch["chosen_attention_mask"])
    logps = Logps(
        chosen / chosen_count,
        rejected / rejected_count,
        torch.zeros(len(ROWS)),
        torch.zeros(len(ROWS)),
        chosen_nll=-whole * len(ROWS) / tokens.sum(),
    )
    assert_same(policy, METHODS["orpo"](logps, beta=0.3).losses.mean(), theirs)
