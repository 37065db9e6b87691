r"""Chat templates as published models ship them, cut to what a dialogue of user and assistant uses, and tokenizers for them.

Source: the ``chat_template`` of each model's tokenizer_config.json on the Hub. What tools, images and reasoning in earlier
turns need is left out; ``test_chat_templates`` compares those that TRL has whole copies of with these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

_CHATML = r"""{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}"""


@dataclass(frozen=True)
class Published:
    """One model's way of speaking.

    Attributes:
        model: on the Hub.
        template: its chat template.
        eos: the tokenizer's eos token.
        end: what ends an assistant's turn.
        before: what stands before a user's words, from the beginning.
        opened: what stands between a user's words and the answer.
        tokens: its control tokens.
        bos: its bos token, where it has one.
        pieces: how text becomes tokens: ``bytes``, ``first`` or ``every`` (a blank before the first or every stretch of text).
        whole: TRL's copy of the whole template, if there is one.
    """

    model: str
    template: str
    eos: str
    end: str
    before: str
    opened: str
    tokens: tuple[str, ...]
    bos: str | None = None
    pieces: str = "bytes"
    whole: str | None = None


_IM = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_QWEN = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
_SMOL = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
_LLAMA = "<|start_header_id|>{}<|end_header_id|>\n\n"
_DATES = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"

PUBLISHED = {
    "qwen2.5": Published(
        model="Qwen/Qwen2.5-0.5B-Instruct",
        template=r"""{%- if messages[0]['role'] != 'system' %}
    {{- '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n' }}
{%- endif %}
"""
        + _CHATML,
        eos="<|im_end|>",
        end="<|im_end|>",
        before=f"{_QWEN}<|im_start|>user\n",
        opened="<|im_end|>\n<|im_start|>assistant\n",
        tokens=_IM,
        whole="qwen2_5",
    ),
    "smollm2": Published(
        model="HuggingFaceTB/SmolLM2-135M-Instruct",
        template="{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' +"
        " message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{"
        " '<|im_start|>assistant\n' }}{% endif %}",
        eos="<|im_end|>",
        end="<|im_end|>",
        before=f"{_SMOL}<|im_start|>user\n",
        opened="<|im_end|>\n<|im_start|>assistant\n",
        tokens=_IM,
    ),
    "qwen3": Published(
        model="Qwen/Qwen3-0.6B",
        template=r"""{%- set ns = namespace(last_query_index=-1) %}
{%- for message in messages %}
    {%- if message.role == 'user' %}{%- set ns.last_query_index = loop.index0 %}{%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {%- set content = message.content.split('</think>')[-1].lstrip('\n') %}
        {%- if loop.last and loop.index0 > ns.last_query_index %}
            {{- '<|im_start|>assistant\n<think>\n' }}
            {%- if '</think>' in message.content %}
                {{- message.content.split('</think>')[0].split('<think>')[-1].strip('\n') }}
            {%- endif %}
            {{- '\n</think>\n\n' + content + '<|im_end|>\n' }}
        {%- else %}
            {{- '<|im_start|>assistant\n' + content + '<|im_end|>\n' }}
        {%- endif %}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}""",
        eos="<|im_end|>",
        end="<|im_end|>",
        before="<|im_start|>user\n",
        opened="<|im_end|>\n<|im_start|>assistant\n",
        tokens=(*_IM, "<think>", "</think>"),
        whole="qwen3",
    ),
    "llama3.2": Published(
        model="meta-llama/Llama-3.2-1B-Instruct",
        template=r"""{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{{- "Cutting Knowledge Date: December 2023\n" }}
{{- "Today Date: " + date_string + "\n\n" }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}""",
        eos="<|eot_id|>",
        end="<|eot_id|>",
        before=f"<|begin_of_text|>{_LLAMA.format('system')}{_DATES}<|eot_id|>{_LLAMA.format('user')}",
        opened=f"<|eot_id|>{_LLAMA.format('assistant')}",
        tokens=("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        bos="<|begin_of_text|>",
        whole="llama3_2",
    ),
    "gemma2": Published(
        model="google/gemma-2-2b-it",
        template="{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{"
        " raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if"
        " (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{"
        " '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}{% if"
        " add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}",
        eos="<eos>",  # no turn ends by it
        end="<end_of_turn>",
        before="<bos><start_of_turn>user\n",
        opened="<end_of_turn>\n<start_of_turn>model\n",
        tokens=("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
        bos="<bos>",
        whole="gemma",
    ),
    "mistral-v0.3": Published(
        model="mistralai/Mistral-7B-Instruct-v0.3",
        template=r"""{{- bos_token }}
{%- for message in messages %}
    {%- if message["role"] == "user" %}
        {{- "[INST] " + message["content"] + "[/INST]" }}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"] + eos_token }}
    {%- endif %}
{%- endfor %}""",
        eos="</s>",
        end="</s>",
        before="<s>[INST] ",
        opened="[/INST]",  # the blank behind it is the answer's own
        tokens=("<s>", "</s>", "[INST]", "[/INST]"),
        bos="<s>",
        pieces="first",
    ),
    "phi3.5": Published(
        model="microsoft/Phi-3.5-mini-instruct",
        template="{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}{{'<|system|>\n' +"
        " message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] +"
        " '<|end|>\n'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
        eos="<|endoftext|>",  # no turn ends by it
        end="<|end|>",
        before="<|user|>\n",
        opened="<|end|>\n<|assistant|>\n",
        tokens=("<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        bos="<s>",
        pieces="every",
        whole="phi3_5",
    ),
}


def tokenizer(published: Published, template: str | None = None) -> Any:
    """One token a byte or letter and one a control token, with the habits of the model's own tokenizer."""
    raw = _by_bytes() if published.pieces == "bytes" else _by_letters(published.pieces)
    swallows = published.pieces == "every"  # Phi's control tokens take the line break behind them along
    raw.add_special_tokens([AddedToken(token, special=True, rstrip=swallows) for token in published.tokens])
    fast = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=published.eos, bos_token=published.bos)
    fast.chat_template = template or published.template
    return fast


def _by_bytes() -> Tokenizer:
    raw = Tokenizer(
        models.BPE(vocab={c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[])
    )
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    return raw


def _by_letters(blank: str) -> Tokenizer:
    """As SentencePiece cuts text: a blank is a letter, other letters are spelled by bytes, and text begins with a blank."""
    letters = ["<unk>", "\u2581", *(chr(i) for i in range(33, 127)), *(f"<0x{i:02X}>" for i in range(256))]
    raw = Tokenizer(
        models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=[], unk_token="<unk>", byte_fallback=True)
    )
    if blank == "every":
        raw.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    else:
        raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    raw.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return raw
