"""The trained adapter on its way to engines that have their own copy of the weights.

An engine that is told of a new adapter under an old name or number may go on with the old weights, or with what its prefix
cache holds of them, and says nothing. So each version has a number, a name and a folder that were never used before.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from sesa_lab.engines.protocol import Sampling
from sesa_lab.engines.tokens import Drawn
from sesa_lab.errors import InputError, writing
from sesa_lab.policies import Policy, pack, token_logprobs

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # of adapters, as vLLM has room for them
PROBE_CONTEXT = 65  # tokens: some whole blocks of a prefix cache (of 16 or 32 tokens), so that stale ones are met
PROBE_TOKENS = 8
PROBE_TEMPERATURE = 2.0  # log-probs before temperature would differ


def room_for(rank: int) -> int:
    """The ``max_lora_rank`` to start vLLM with.

    Raises:
        InputError: it has no room for as large a rank.
    """
    fitting = [size for size in RANKS if size >= rank]
    if not fitting:
        raise InputError(f"policy.lora_rank = {rank}: vLLM takes at most {RANKS[-1]}; lower it, or use engine 'torch'")
    return fitting[0]


@dataclass(frozen=True)
class Version:
    """One state of the adapter, on disk in peft's format.

    Attributes:
        number: 1, 2, ... within this process.
        name: unlike any other version's, also of other processes.
        folder: where adapter_config.json and adapter_model.safetensors are.
    """

    number: int
    name: str
    folder: Path


class Versions:
    """Writes the adapter whenever it has changed; the version before it is kept until it is dropped."""

    def __init__(self, policy: Policy, folder: str = "") -> None:
        """Make the folder.

        Args:
            policy: whose adapter.
            folder: where versions are written; empty: a temporary folder, which ``close`` removes.

        Raises:
            InputError: it cannot be written to.
        """
        self.policy = policy
        self.prefix = f"sesa-{secrets.token_hex(4)}"  # two runs may share one server, and its folder
        self.latest: Version | None = None
        self._digest = b""
        with writing(
            Path(folder or tempfile.gettempdir()), "choose another engine.adapter_folder, or mend its permissions"
        ):
            root = Path(folder).expanduser().resolve() if folder else Path(tempfile.mkdtemp(prefix="sesa-lab-"))
            self.root = root / self.prefix
            self.root.mkdir(parents=True)
        self._made = self.root if folder else root

    def current(self) -> Version:
        """The version of the adapter as it is now: the latest, or a new one where a weight has changed since.

        Raises:
            InputError: it cannot be written.
        """
        digest = self._fingerprint()
        if self.latest is None or digest != self._digest:
            number = 1 if self.latest is None else self.latest.number + 1
            version = Version(number, f"{self.prefix}-{number}", self.root / f"{number:06d}")
            with writing(version.folder, "free space, or choose another engine.adapter_folder"):
                self.policy.model.save_pretrained(version.folder)
            self.latest, self._digest = version, digest
        return self.latest

    def drop(self, version: Version) -> None:
        """Remove a version's folder."""
        shutil.rmtree(version.folder, ignore_errors=True)

    def close(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self._made, ignore_errors=True)

    def _fingerprint(self) -> bytes:
        """Of the adapter's weights, bit for bit."""
        found = hashlib.sha256()
        for name, weight in self.policy.model.named_parameters():
            if weight.requires_grad:
                found.update(name.encode())
                found.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy())
        return found.digest()


@dataclass(frozen=True)
class Probed:
    """A few tokens drawn from a version, always under the same context.

    Attributes:
        context: what they were drawn under.
        drawn: the tokens, and what the engine says of them at ``PROBE_TEMPERATURE``.
    """

    context: tuple[int, ...]
    drawn: Drawn


def probe(policy: Policy, version: Version, draw: Callable[[list[int], Sampling, int], Drawn], room: int) -> Probed:
    """What an engine draws from a version that it was handed; ``check_same`` holds it to the trainer's weights.

    Args:
        policy: the trainer's.
        version: what its adapter is now.
        draw: (context, sampling, seed) -> what the engine draws from the version.
        room: most tokens of a dialogue.
    """
    length = max(1, min(PROBE_CONTEXT, room - PROBE_TOKENS))
    context = [i % len(policy.tokenizer) for i in range(length)]
    return Probed(tuple(context), draw(context, Sampling(PROBE_TOKENS, (), PROBE_TEMPERATURE), version.number))


@torch.no_grad()
def check_same(policy: Policy, probed: Probed, where: str, temperature: float = PROBE_TEMPERATURE) -> None:
    """Refuse an engine that draws from other weights than the trainer's, or reports other log-probs than asked for.

    Args:
        policy: the trainer's.
        probed: what the engine drew.
        where: which engine, for the error.
        temperature: of the draw.

    Raises:
        InputError: on average over the tokens the two differ by more than rounding explains.
    """
    ids = probed.drawn.ids
    own = token_logprobs(policy, pack([probed.context], [ids]), temperature)[0]
    difference = float((own.cpu() - torch.tensor(probed.drawn.logprobs)).abs().mean())
    allowed = 1e-3 if policy.dtype == "float32" else 0.2
    if not difference <= allowed:
        raise InputError(
            f"{where} does not draw from the trained policy: log-probs of the same {len(ids)} tokens differ by {difference:.3g}"
            f" nats on average (allowed: {allowed:g}); it must hold the same model as policy.model in policy.dtype, take LoRA"
            " adapters, and report log-probs of the distribution sampled from (--logprobs-mode processed_logprobs)"
        )
