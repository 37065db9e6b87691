"""Load a policy: a lab policy shipped in ``data/policies`` or any Hugging Face causal language model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from sesa_lab.config import PolicyConfig
from sesa_lab.errors import InputError, first_line, suggest
from sesa_lab.policies import memory
from sesa_lab.policies.adapter import check_adapter, with_adapter
from sesa_lab.policies.recompute import recompute_layers
from sesa_lab.prompts import chat

POLICIES = Path(__file__).parents[2] / "data" / "policies"
CARD = "sesa_lab.json"  # what a lab policy was pre-trained for
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

    @property
    def positions(self) -> int:
        """Most tokens of a dialogue."""
        return int(self.decoder.config.max_position_embeddings)

    @property
    def dtype(self) -> str:
        """The weights' data type, as ``policy.dtype`` names it."""
        return str(self.head.weight.dtype).removeprefix("torch.")

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of an answer, without the stop token."""
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def load_policy(
    config: PolicyConfig,
    environment: str,
    options: Mapping[str, Any],
    seed: int,
    workload: memory.Workload = memory.IDLE,
) -> Policy:
    """The policy that ``config`` names, with a fresh LoRA adapter or the one of ``config.adapter``.

    Weights are read from safetensors files alone, which hold no code. Code in a model's folder or repository is run only where
    ``config.trust_remote_code`` says so. The model stays in evaluation mode, without dropout, also while it is trained.

    Args:
        config: which model, where and how, and the adapter's shape.
        environment: name of the environment, which chooses the lab policy where ``config.model`` is ``lab``.
        options: the environment's resolved options.
        seed: run seed; fixes the adapter's initial weights.
        workload: what it will do at once, whose memory is estimated beside the weights' before they are read.

    Raises:
        InputError: no such model, a folder without weights or tokenizer, one that needs code of its own, memory for less than
            it takes, a lab policy made for another environment or for other options of it.
    """
    folder = resolve(config.model, environment, options)
    if config.adapter:
        check_adapter(config.adapter)  # before the weights are read, which may take minutes
    card = read_card(folder)
    if card is not None:
        _check_card(folder, card, environment, options)
    device = "cuda" if config.device == "auto" and torch.cuda.is_available() else config.device.replace("auto", "cpu")
    model, tokenizer = _read(folder, config, device, workload)
    if card is None and not tokenizer.chat_template:
        raise InputError(f"{folder}: its tokenizer has no chat template; use an instruct model, or a lab policy")
    if tokenizer.eos_token_id is None:
        raise InputError(f"{folder}: its tokenizer names no eos_token; answers could not end")
    if config.thinking == "no":
        _stop_thinking(folder, tokenizer)
    _check_head(folder, model)
    model = with_adapter(model, config, seed).eval()  # an adapter's own dropout is off too, as where answers are drawn
    if config.gradient_checkpointing == "yes":
        recompute_layers(model, folder)
    stops = (tokenizer.eos_token_id,) if card else chat.stops(tokenizer, _named_stops(model))
    return Policy(model, tokenizer, "lab" if card else "chat", stops, str(folder))


def _named_stops(model: Any) -> list[int]:
    """Stop tokens of the model's generation config."""
    named = getattr(model.generation_config, "eos_token_id", None)
    return [named] if isinstance(named, int) else list(named or ())


def _stop_thinking(folder: str, tokenizer: Any) -> None:
    template = chat.without_thinking(tokenizer.get_chat_template() if tokenizer.chat_template else "")
    if template is None:
        raise InputError(
            f"policy.thinking = 'no': the chat template of {folder} has no switch for it (enable_thinking); leave it out"
        )
    tokenizer.chat_template = template


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
            pickled = "" if weights else ", ".join(sorted(file.name for file in path.glob("*.bin")))
            unread = (
                f" ({pickled} may hold code, and is not read: save the model anew with safetensors)" if pickled else ""
            )
            raise InputError(
                f"model folder {path}: {', '.join(missing + ([] if weights else ['*.safetensors weights']))} missing;"
                f" expected a Hugging Face folder as written by save_pretrained{unread}"
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


def _read(folder: str, config: PolicyConfig, device: str, workload: memory.Workload) -> tuple[Any, Any]:
    disable_progress_bar()  # a bar of its own for a model that loads in a blink; big ones show the Hub's
    trusted = {
        "trust_remote_code": config.trust_remote_code == "yes"
    }  # left out, transformers would ask at the keyboard
    try:
        shape = AutoConfig.from_pretrained(folder, **trusted)
        if config.memory_check == "yes":
            memory.check(shape, config, folder, device, workload)
        tokenizer = AutoTokenizer.from_pretrained(folder, **trusted)
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, config.dtype),
            attn_implementation=config.attention,
            use_safetensors=True,
            **trusted,
        )
        return model.to(device), tokenizer
    except InputError:
        raise
    except Exception as error:  # safetensors, tokenizers and torch without CUDA each raise a kind of their own
        raise InputError(f"model {folder} cannot be loaded on {device}: {_remedied(error)}") from error


def _remedied(error: Exception) -> str:
    """What went wrong, in one line, with the setting that mends it where there is one."""
    if "trust_remote_code=True" in str(error):
        return "it needs code of its own, which is not run unless policy.trust_remote_code = 'yes'; set it if you trust that code"
    if "scaled_dot_product_attention" in str(error):
        return "transformers computes its attention by plain code alone; set policy.attention = 'eager'"
    return first_line(error)


def _check_head(folder: str, model: Any) -> None:
    """Refuse models whose logits are not head(hidden): their log-probs would be silently wrong here.

    Soft caps are told by name too: on small logits they change next to nothing, on a trained model's they do.
    """
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    ids = torch.arange(4, device=model.device)[None]
    with torch.no_grad():
        whole = model(ids).logits
        parts = model.get_output_embeddings()(model.get_decoder()(ids).last_hidden_state)
    if cap or not torch.allclose(whole, parts.to(whole.dtype), rtol=1e-3, atol=1e-4):
        raise InputError(
            f"model {folder} transforms its logits after the output layer{' (soft-capped)' if cap else ''}; such models are not"
            " supported yet"
        )
