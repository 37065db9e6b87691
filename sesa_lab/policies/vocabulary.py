"""The tokenizer of a lab policy: byte-level BPE, trained on what the policy reads and says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

from sesa_lab import prompts
from sesa_lab.policies.documents import Solved
from sesa_lab.types import Completion

STOP = "<|end|>"
PAD = "<|endoftext|>"  # Qwen2Tokenizer adds it if it is not there, beyond the vocabulary
_SAMPLE = 300  # tasks whose texts the tokenizer of demonstrations is trained on; they hold every word many times
_BETWEEN_SIGNS = re.compile(r"(?<=[^\w\s])(?=[^\w\s])")


def new_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE whose merges run on until each word, with the blank or separator before it, is one token.

    Words are split as Qwen2's tokenizer splits them, because that is what the folder is loaded as again; so every digit
    is a token.

    Args:
        texts: what it is trained on; merges are looked for within each.
        vocabulary: most entries.
    """
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = Qwen2Tokenizer().backend_tokenizer.pre_tokenizer
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, STOP],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=STOP, pad_token=PAD)


def listing_texts(environment: Any) -> list[str]:
    """Path Exploration: all leaves, and what stands around them."""
    fixed = [prompts.template("lab", environment.name), prompts.template("lab", "next")]
    return [*environment.leaves, *fixed * 10]


def demonstration_texts(environment: Any, solved: Sequence[Solved]) -> list[str]:
    """All that is asked and said about the first tasks, cut between neighbouring signs.

    Without the cut, runs such as ``)*`` would become tokens of their own, and an expression would be spelt in another way
    wherever it has brackets. A blank and one sign (`` +``) may still be one.
    """
    heard = _Listener()
    speaker = prompts.Speaker(heard, "lab", environment.name, (0,))
    for one in solved[:_SAMPLE]:
        speaker.answer(one.task)
        named = [Completion((0,), (0.0,), sketch, "stop") for sketch in one.ways]
        speaker.draft(one.task, "list", named)
        speaker.draft(one.task, "prompt", named)
        for sketch, texts in one.ways.items():
            speaker.guided(one.task, sketch)
            heard.texts += [sketch, *texts]
    return [piece for text in heard.texts for piece in _BETWEEN_SIGNS.split(text)]


class _Listener:
    """Stands for the tokenizer of a speaker and keeps what it is given."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.added_tokens_decoder: dict[int, Any] = {}  # it knows no control tokens

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        self.texts.append(text)
        return {"input_ids": [0]}
