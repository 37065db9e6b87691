"""Make a lab policy: a small Qwen2 trained from scratch, or from another lab policy on, on demonstrations.

For Path Exploration a document is ``x y1 <stop> bridge y2 <stop> bridge y3 ...``: distinct answers drawn one after another
from the environment's prior without replacement. Its first answer follows the prior, so direct sampling is as skewed as the
prior is; every later one is conditioned on those before it. All other environments have the four forms of ``documents``,
made from their solver's solutions and sketches. The loss covers what the policy says only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM
from transformers.utils.logging import disable_progress_bar

from sesa_lab.config import PolicyConfig, PretrainConfig
from sesa_lab.environments import make
from sesa_lab.errors import InputError
from sesa_lab.policies import cards, measure
from sesa_lab.policies.documents import FORMS, Demonstrations, Solved, solve
from sesa_lab.policies.load import CARD, HABIT, ORDINARY, load_policy, read_card
from sesa_lab.policies.trees import nll, pack_trees
from sesa_lab.policies.vocabulary import demonstration_texts, listing_texts, new_tokenizer
from sesa_lab.prompts import Speaker
from sesa_lab.seeding import stream, torch_seed

EMBEDDING_STD = 0.1
"""From the usual 0.02, siblings' embeddings end up with a cosine of 0.98 (they stand in the same places), and no small
change of the hidden state can tell them apart: reinforcement learning stalled at 0.4 accuracy. Large random parts keep them
apart, as in real models."""
HELD_OUT = 64  # validation tasks that a card's figures are measured on
_LISTING_ONLY = ("answers",)
_TAUGHT_ONLY = (
    "tasks", "demonstrations", "sketches", "answers_share", "lists_share", "guided_share", "prompted_share", "habit",
    "sketch_exponent",
)  # fmt: skip


class Documents(Protocol):
    """What a policy is trained on."""

    def backward(self, model: Any, rng: np.random.Generator) -> float:
        """Draw one step's documents and add the gradient of their mean loss; returns it, nats a token."""
        ...

    def measure(self, model: Any) -> dict[str, Any]:
        """What the card says of data and held-out losses (nats a token)."""
        ...


def pretrain(
    environment: Any,
    folder: Path,
    config: PretrainConfig,
    progress: Callable[[int, float], None],
    solving: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Train a lab policy for ``environment`` and save it to ``folder``; returns what the model card says.

    Args:
        environment: made by ``sesa_lab.environments.make``, with solutions and sketches; or ``path_exploration``-like:
            ``leaves`` and ``prior()``.
        folder: written in the Hugging Face format; must not exist yet.
        config: size and length of the training.
        progress: called every step with the step and its loss.
        solving: called with done and total, while the tasks trained on are solved.

    Raises:
        InputError: the folder exists, the width does not fit, settings of the other kind of environment are given, the
            policy to start from is of another kind or shape, or the environment has tasks of several turns.
    """
    listing = hasattr(environment, "prior")
    _check(environment, folder, config, listing)
    before = _start_card(environment, config) if config.start else None
    torch.set_num_threads(1)  # the weights depend on it in their last bits
    disable_progress_bar()  # transformers' own, for weights written in a blink
    solved = [] if listing else solve(environment, config.tasks, config.seed, solving)
    tokenizer = _tokenizer(environment, solved, config)
    model: Any = _new_model(tokenizer, config) if before is None else Qwen2ForCausalLM.from_pretrained(config.start)
    speaker = Speaker(tokenizer, "lab", environment.name, (tokenizer.eos_token_id,))
    documents: Documents = (
        Listing(environment, speaker, config) if listing else Teaching(environment, solved, speaker, config)
    )
    losses = _train(model, documents, config, progress)
    found = documents.measure(model) | {"train_loss": round(float(np.mean(losses[-50:])), 4)}
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    found["parameters"] = sum(p.numel() for p in model.parameters())
    if before is not None:
        found["started_from"] = before["sha256"]
    unused = {*(_TAUGHT_ONLY if listing else _LISTING_ONLY), *([] if config.start else ["start"])}
    settings = {name: value for name, value in asdict(config).items() if name not in unused}
    card = cards.write(folder, environment, settings, found)
    if isinstance(documents, Teaching):  # the engine draws from a policy as anyone loads it, so the card comes first
        policy = load_policy(PolicyConfig(model=str(folder), device="cpu"), environment.name, environment.options, 0)
        drawn = measure.sampled(documents.unseen, documents.unseen_solved, policy, speaker, config.seed)
        card = cards.write(folder, environment, settings, found | drawn)
    return card


def _check(environment: Any, folder: Path, config: PretrainConfig, listing: bool) -> None:
    if folder.exists():
        raise InputError(f"--out {folder} exists already; choose another folder or remove it")
    if config.hidden % 32:
        raise InputError(f"hidden = {config.hidden}: expected a multiple of 32 (the head size)")
    for field in fields(config):
        if field.name in (_TAUGHT_ONLY if listing else _LISTING_ONLY) and getattr(config, field.name) != field.default:
            raise InputError(
                f"{field.name} = {getattr(config, field.name)} has no meaning for {environment.name}; leave it out"
            )
    if listing:
        return
    if environment.turns > 1:
        raise InputError(f"{environment.name}: lab policies answer in one turn, got turns = {environment.turns}")
    if environment.options["split"] != "train":
        raise InputError(
            f"{environment.name}: split = {environment.options['split']!r}; policies are pre-trained on split 'train' alone,"
            " so that the other tasks stay unseen"
        )
    shares = [config.answers_share, config.lists_share, config.guided_share, config.prompted_share]
    if abs(sum(shares) - 1) > 1e-6:
        raise InputError(f"the shares of the four forms are {shares}, together {sum(shares):g}; expected a sum of 1")


def _start_card(environment: Any, config: PretrainConfig) -> dict[str, Any]:
    """The card of ``config.start``; it must have been made for the same tasks, and in the same shape."""
    card = read_card(config.start)
    if card is None:
        raise InputError(f"start = {config.start!r}: no lab policy there ({CARD} is missing)")
    expected = {
        "environment": environment.name,
        "options": {name: environment.options[name] for name in environment.policy_options},
        "pretrain": {name: getattr(config, name) for name in ("hidden", "layers", "vocabulary")},
    }
    found = card | {"pretrain": {name: card["pretrain"][name] for name in expected["pretrain"]}}
    for name, value in expected.items():
        if found[name] != value:
            raise InputError(f"start = {config.start!r} was made with {name} {found[name]}, not {value}; give the same")
    return card


def _tokenizer(environment: Any, solved: Sequence[Solved], config: PretrainConfig) -> Any:
    if config.start:
        return AutoTokenizer.from_pretrained(config.start)
    texts = demonstration_texts(environment, solved) if solved else listing_texts(environment)
    return new_tokenizer(texts, config.vocabulary)


def _new_model(tokenizer: Any, config: PretrainConfig) -> Qwen2ForCausalLM:
    shape = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden,
        intermediate_size=2 * config.hidden,
        num_hidden_layers=config.layers,
        num_attention_heads=config.hidden // 32,
        num_key_value_heads=config.hidden // 32,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(torch_seed(config.seed, "pretrain"))
        model = Qwen2ForCausalLM(shape)
        torch.nn.init.normal_(model.model.embed_tokens.weight, std=EMBEDDING_STD)
        return model


def _train(
    model: Any, documents: Documents, config: PretrainConfig, progress: Callable[[int, float], None]
) -> list[float]:
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, total_steps=config.steps + 1)
    losses = []
    for step in range(1, config.steps + 1):
        losses.append(documents.backward(model, stream(config.seed, "pretrain", 1, step)))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        progress(step, losses[-1])
    return losses


class Listing:
    """Path Exploration's documents: distinct answers, one after another."""

    def __init__(self, environment: Any, speaker: Speaker, config: PretrainConfig) -> None:
        self.environment, self.speaker, self.config = environment, speaker, config
        self.log_prior = np.log(environment.prior())
        self.answers = [[*speaker.encode(text), *speaker.stop_ids] for text in environment.leaves]
        self.bridge = speaker.between("stop")

    def backward(self, model: Any, rng: np.random.Generator) -> float:
        ids, labels = self._batch(rng)
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        return float(loss.detach())

    @torch.no_grad()
    def measure(self, model: Any) -> dict[str, Any]:
        """Documents never trained on have a stream of their own."""
        batches = [self._batch(stream(self.config.seed, "pretrain", 2, i)) for i in range(8)]
        losses = [float(model(input_ids=ids, labels=labels).loss) for ids, labels in batches]
        return {"held_out_loss": round(float(np.mean(losses)), 4)}

    def _batch(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        ids, labels = zip(*(self._one(rng) for _ in range(self.config.batch)), strict=True)
        return _padded(ids, 0), _padded(labels, -100)

    def _one(self, rng: np.random.Generator) -> tuple[list[int], list[int]]:
        """Token ids and labels, -100 where there is no loss."""
        # Gumbel top-k: the order in which draws without replacement from the prior would come.
        keys = self.log_prior + rng.gumbel(size=len(self.log_prior))
        task = self.environment.task(int(rng.integers(2**31)))
        prompt = self.speaker.answer(task)
        ids, labels = list(prompt), [-100] * len(prompt)
        for k, leaf in enumerate(np.argsort(-keys)[: self.config.answers]):
            before = self.bridge if k else ()
            ids += [*before, *self.answers[leaf]]
            labels += [-100] * len(before) + self.answers[leaf]
        return ids, labels


def _padded(rows: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([list(row) + [fill] * (width - len(row)) for row in rows])


class Teaching:
    """Demonstrations of the four forms, several of one task in a row."""

    def __init__(self, environment: Any, solved: Sequence[Solved], speaker: Speaker, config: PretrainConfig) -> None:
        self.config = config
        self.shown = Demonstrations(solved, speaker, config, environment.habitual)
        self.unseen = make(environment.name, **{**environment.options, "split": "validation"})
        self.unseen_solved = solve(self.unseen, HELD_OUT, config.seed, lambda done, total: None)
        self._held_out = Demonstrations(self.unseen_solved, speaker, config, environment.habitual)

    def backward(self, model: Any, rng: np.random.Generator) -> float:
        parts = pack_trees([self.shown.row(rng) for _ in range(self.config.batch)])
        total = sum(len(part.target) for part in parts)
        loss = 0.0
        for part in parts:
            share = nll(model, part) / total
            share.backward()
            loss += float(share.detach())
        return loss

    @torch.no_grad()
    def measure(self, model: Any) -> dict[str, Any]:
        """Loss on tasks of split validation, form by form."""
        found = {}
        for number, form in enumerate(FORMS):
            rng = stream(self.config.seed, "pretrain", 2, number)
            drawn = [
                [self._held_out.draw(place, form, rng) for _ in range(8)] for place in range(len(self.unseen_solved))
            ]
            parts = pack_trees([[one for one in row if one is not None] for row in drawn])
            total = sum(len(part.target) for part in parts)
            found[form] = round(sum(float(nll(model, part)) for part in parts) / total, 4) if total else None
        return {
            "base": HABIT if self.config.habit else ORDINARY,
            "tasks_used": len(self.shown.solved),
            "tasks_unseen": len(self.unseen_solved),
            "held_out_loss": found,
        }
