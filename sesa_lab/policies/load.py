"""Load a policy: a lab policy shipped in ``data/policies`` or any Hugging Face causal language model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from sesa_lab.config import PolicyConfig
from sesa_lab.errors import InputError, suggest
from sesa_lab.seeding import torch_seed

POLICIES = Path(__file__).parents[2] / "data" / "policies"
CARD = "sesa_lab.json"  # what a lab policy was pre-trained for
_ANSWER = "\u2063answer\u2063"  # stands for an answer while a chat template is rendered
ORDINARY, HABIT = "ordinary", "habit"  # bases: direct answers show any solution, or habitual ones


@dataclass(frozen=True)
class Policy:
    """A model with a LoRA adapter, and how to speak to it.

    Attributes:
        model: peft model; only the adapter's weights require gradients. ``model.disable_adapter()`` is the frozen base.
        tokenizer: its fast tokenizer.
        form: ``lab`` or ``chat``, see ``sesa_lab.prompts``.
        stop_ids: token ids that end an answer; the first one is appended where an answer was cut by the token limit.
        folder: where it was loaded from, or its name on the Hub.
    """

    model: Any
    tokenizer: Any
    form: str
    stop_ids: tuple[int, ...]
    folder: str

    @property
    def device(self) -> torch.device:
        return torch.device(next(self.model.parameters()).device)

    @property
    def decoder(self) -> Any:
        """Token ids -> last hidden states, LoRA layers included."""
        return self.model.get_base_model().get_decoder()

    @property
    def head(self) -> Any:
        """Hidden states -> logits over the vocabulary."""
        return self.model.get_base_model().get_output_embeddings()

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of an answer, without the stop token."""
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def load_policy(config: PolicyConfig, environment: str, options: Mapping[str, Any], seed: int) -> Policy:
    """The policy that ``config`` names, with a fresh LoRA adapter or the one of ``config.adapter``.

    Args:
        config: which model, where, and the adapter's shape.
        environment: name of the environment, which chooses the lab policy where ``config.model`` is ``lab``.
        options: the environment's resolved options.
        seed: run seed; fixes the adapter's initial weights.

    Raises:
        InputError: no such model, a folder without weights or tokenizer, a lab policy made for another environment or for
            other options of it.
    """
    folder = resolve(config.model, environment, options)
    if config.adapter:
        _check_adapter(config.adapter)  # before the weights are read, which may take minutes
    card = read_card(folder)
    if card is not None:
        _check_card(folder, card, environment, options)
    device = "cuda" if config.device == "auto" and torch.cuda.is_available() else config.device.replace("auto", "cpu")
    model, tokenizer = _read(folder, getattr(torch, config.dtype), device)
    if card is None and not tokenizer.chat_template:
        raise InputError(f"{folder}: its tokenizer has no chat template; use an instruct model, or a lab policy")
    if tokenizer.eos_token_id is None:
        raise InputError(f"{folder}: its tokenizer names no eos_token; answers could not end")
    _check_head(folder, model)
    model = _with_adapter(model, config, seed)
    stops = (tokenizer.eos_token_id,) if card else _chat_stops(tokenizer, model)
    return Policy(model, tokenizer, "lab" if card else "chat", stops, str(folder))


def _chat_stops(tokenizer: Any, model: Any) -> tuple[int, ...]:
    """Ids of all tokens that end an answer: the tokenizer's, those of the generation config, the end of a turn in a chat.

    Some models end a turn by a token that is not their tokenizer's eos token; without it answers would run on.
    """
    named = getattr(model.generation_config, "eos_token_id", None)
    named = [named] if isinstance(named, int) else list(named or ())
    turns = [{"role": "user", "content": "task"}, {"role": "assistant", "content": _ANSWER}]
    after = tokenizer.apply_chat_template(turns, tokenize=False).rpartition(_ANSWER)[2].lstrip()
    ends = tokenizer(after, add_special_tokens=False)["input_ids"][:1]
    ends = [end for end in ends if end in tokenizer.added_tokens_decoder]  # no template ends a turn by an ordinary word
    return tuple(dict.fromkeys([tokenizer.eos_token_id, *named, *ends]))


def resolve(name: str, environment: str, options: Mapping[str, Any]) -> str:
    """A folder, or a Hub name, for what the user wrote."""
    if name == "lab":
        return str(lab_policy_for(environment, options))
    shipped = {p.name: p for p in POLICIES.iterdir() if p.is_dir()} if POLICIES.is_dir() else {}
    path = shipped.get(name, Path(name).expanduser())
    if path.is_dir():
        weights = list(path.glob("*.safetensors"))
        missing = [f for f in ("config.json", "tokenizer.json") if not (path / f).is_file()]
        if missing or not weights:
            raise InputError(
                f"model folder {path}: {', '.join(missing + ([] if weights else ['*.safetensors weights']))} missing;"
                " expected a Hugging Face folder as written by save_pretrained"
            )
        return str(path)
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise InputError(
            f"no model {name!r}: neither a folder nor OWNER/NAME on the Hub; {suggest(name, ['lab', *shipped])}"
        )
    return name


def lab_policy_for(environment: str, options: Mapping[str, Any]) -> Path:
    """The shipped policy that was pre-trained for this environment with these options.

    Of an ordinary and a habit base (card field ``base``) it is the ordinary one; a habit base is asked for by its name.

    Raises:
        InputError: there is none; names the options that differ and the command that makes one.
    """
    cards = {p.parent: json.loads(p.read_text()) for p in sorted(POLICIES.glob(f"*/{CARD}"))}
    cards = {folder: card for folder, card in cards.items() if card["environment"] == environment}
    fitting = [f for f, card in cards.items() if all(options.get(k) == v for k, v in card["options"].items())]
    ordinary = [folder for folder in fitting if cards[folder].get("base", ORDINARY) == ORDINARY]
    if len(ordinary) > 1:
        names = ", ".join(folder.name for folder in ordinary)
        raise InputError(f"several lab policies fit these options ({names}); name one of them instead of 'lab'")
    if ordinary:
        return ordinary[0]
    if fitting:
        names = ", ".join(folder.name for folder in fitting)
        raise InputError(f"no ordinary lab policy fits these options, but {names} does; name it instead of 'lab'")
    made = "; ".join(f"{folder.name}: {card['options']}" for folder, card in cards.items()) or "none"
    raise InputError(
        f"no lab policy was pre-trained for {environment} with these options. Shipped: {made}. Change the options, or"
        f" make one: sesa-lab pretrain --environment {environment} --out data/policies/NAME --option ..."
    )


def _check_card(folder: str, card: Mapping[str, Any], environment: str, options: Mapping[str, Any]) -> None:
    """Refuse a lab policy for tasks that it was not made for: it would answer, and know nothing of them."""
    if card["environment"] != environment:
        raise InputError(f"{folder} is a lab policy for environment {card['environment']!r}, not for {environment!r}")
    wrong = {name: made for name, made in card["options"].items() if options.get(name) != made}
    if wrong:
        differences = ", ".join(f"{name} = {made!r}, not {options.get(name)!r}" for name, made in wrong.items())
        raise InputError(
            f"{folder} is a lab policy for {environment} with {differences}; change these options of the environment, take"
            f" another policy, or make one: sesa-lab pretrain --environment {environment} --out FOLDER --option ..."
        )


def read_card(folder: str) -> dict[str, Any] | None:
    """What ``folder``'s card says; None: it is no lab policy."""
    path = Path(folder) / CARD
    try:
        return json.loads(path.read_text()) if path.is_file() else None
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}; restore it from a copy") from error


def _read(folder: str, dtype: torch.dtype, device: str) -> tuple[Any, Any]:
    disable_progress_bar()  # a bar of its own for a model that loads in a blink; big ones show the Hub's
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True)
        return model.to(device), tokenizer
    except Exception as error:  # safetensors, tokenizers and torch without CUDA each raise a kind of their own
        raise InputError(f"model {folder} cannot be loaded on {device}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _check_head(folder: str, model: Any) -> None:
    """Refuse models whose logits are not head(hidden): their log-probs would be silently wrong here."""
    ids = torch.arange(4, device=model.device)[None]
    with torch.no_grad():
        whole = model(ids).logits
        parts = model.get_output_embeddings()(model.get_decoder()(ids).last_hidden_state)
    if not torch.allclose(whole, parts, rtol=1e-3, atol=1e-4):
        raise InputError(
            f"model {folder} transforms its logits after the output layer; such models are not supported yet"
        )


def _with_adapter(model: Any, config: PolicyConfig, seed: int) -> Any:
    with torch.random.fork_rng():  # peft draws first weights from the global generator, also where it then reads others
        torch.manual_seed(torch_seed(seed, "lora"))
        return _read_adapter(model, config.adapter) if config.adapter else _fresh_adapter(model, config)


def _check_adapter(folder: str) -> None:
    missing = [f for f in ("adapter_config.json", "adapter_model.safetensors") if not (Path(folder) / f).is_file()]
    if missing:
        raise InputError(f"policy.adapter = {folder!r}: no {' and no '.join(missing)} there; name a checkpoint folder")


def _read_adapter(model: Any, folder: str) -> Any:
    try:
        return PeftModel.from_pretrained(model, folder, is_trainable=True)
    except Exception as error:  # json, safetensors, peft and torch each raise a kind of their own
        raise InputError(f"policy.adapter = {folder!r} is damaged or of another model: {_first_line(error)}") from error


def _fresh_adapter(model: Any, config: PolicyConfig) -> Any:
    targets: Any = config.lora_targets
    if targets != "all-linear":
        targets = [name.strip() for name in targets.split(",")]
        for target in targets:
            _check_target(model, target, f"policy.lora_targets = {config.lora_targets!r}")
    lora = LoraConfig(
        r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules=targets, task_type="CAUSAL_LM"
    )  # fmt: skip
    try:
        return get_peft_model(model, lora)
    except ValueError as error:
        raise InputError(f"policy.lora_targets = {config.lora_targets!r}: {error}") from error


def _check_target(model: Any, target: str, label: str) -> None:
    """Refuse what peft would accept in silence: a name that fits nothing beside one that fits, and a tied matrix."""
    found = [module for name, module in model.named_modules() if target and f".{name}".endswith(f".{target}")]
    if not found:
        raise InputError(f"{label}: the model has no module {target!r}")
    first, last = model.get_input_embeddings(), model.get_output_embeddings()
    if first.weight is last.weight and any(module is first or module is last for module in found):
        raise InputError(f"{label}: {target!r} is one matrix for input and output here; LoRA cannot be merged into it")
