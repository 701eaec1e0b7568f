"""A chat-completions server on loopback that runs a real model: its chat template, greedy decoding, log-
probs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from chat_server import Reply, Request, fails

Respond = Callable[[Request], Reply]


def model_replies(folder: Path, *, logprobs: str = "given") -> Respond:
    """Answers requests with the model of a folder, as servers do: special tokens in texts are obeyed.

    Args:
        logprobs: "given", "ignored" (asked for, never given) or "refused" (HTTP 400).
    """
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def respond(request: Request) -> Reply:
        body = request.body
        if body.get("logprobs") and logprobs == "refused":
            return fails(400, "logprobs is not supported")
        text = tokenizer.apply_chat_template(
            body["messages"],
            tokenize=False,
            add_generation_prompt=True,
            **body.get("chat_template_kwargs", {}),
        )
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        room = body["max_tokens"]
        with torch.inference_mode():
            out = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=room,
                do_sample=False,
                return_dict_in_generate=True,
                output_logits=True,
                pad_token_id=tokenizer.eos_token_id,
            )
        new = out.sequences[0, ids.shape[1] :].tolist()
        ended = new[-1] == tokenizer.eos_token_id
        message = {"role": "assistant", "content": tokenizer.decode(new, skip_special_tokens=True)}
        choice: dict[str, Any] = {
            "index": 0,
            "message": message,
            "finish_reason": "stop" if ended else "length",
        }
        if body.get("logprobs") and logprobs == "given":
            choice["logprobs"] = {
                "content": [
                    place(tokenizer, token, step[0].log_softmax(-1), body["top_logprobs"])
                    for token, step in zip(new, out.logits, strict=True)
                ]
            }
        return Reply(json.dumps({"object": "chat.completion", "choices": [choice]}).encode())

    return respond


def place(tokenizer: Any, token: int, chances: torch.Tensor, top: int) -> dict[str, Any]:
    """One place of `logprobs.content`."""
    best = chances.topk(min(top, len(chances)))
    return {
        "token": tokenizer.decode([token]),
        "logprob": chances[token].item(),
        "top_logprobs": [
            {"token": tokenizer.decode([i]), "logprob": value}
            for i, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ],
    }
