"""A vLLM server as an engine: one request a row, and the trained adapter loaded into the server in versions.

The server is one that ``sesa-lab serve`` starts, or any of vLLM's with the same settings, on this machine or on one that sees
``engine.adapter_folder``. It may go away and come back: a request is tried again, and a server that has forgotten the adapter
is given it anew, so that a draw goes on where it was.
"""

from __future__ import annotations

import contextlib
import math
import shlex
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import httpx

from sesa_lab.config import EngineConfig
from sesa_lab.engines.client import ANSWER, KEY, Away, Client, Refused, passing
from sesa_lab.engines.protocol import Counters, Sampling
from sesa_lab.engines.tokens import Drawn, TokenSession
from sesa_lab.engines.versions import Probed, Version, Versions, check_same, probe
from sesa_lab.errors import InputError
from sesa_lab.policies import Policy
from sesa_lab.team import ALONE, Team

FAREWELL = 2.0  # seconds that closing waits for a server to drop the adapter


class ServerEngine:
    """See ``protocol.Engine``."""

    foreign = True

    def __init__(self, policy: Policy, config: EngineConfig, team: Team = ALONE) -> None:
        """Find the server; one that is still starting is waited for.

        Args:
            policy: whose adapter is handed over.
            config: where the server is.
            team: the processes that draw from it together; the first one hands the adapter over for all.

        Raises:
            InputError: no server there, or none of vLLM's; or the adapter's folder cannot be written to.
        """
        self.policy, self.config, self.team = policy, config, team
        self.tokenizer = policy.tokenizer
        self.counters = Counters()
        self._loaded: Version | None = None
        self._mending = threading.Lock()
        self._start = start_command(policy, config.server_url)
        self._client = Client(
            config.server_url,
            config.connections,
            config.patience,
            f"expected a vLLM server with this run's model: start it again by `{self._start}` (its own log says why it stopped),"
            " or raise engine.patience; what the run has stored is kept, and `sesa-lab resume RUN` goes on with it",
        )
        self._where = f"the server at {self._client.url}"
        self._versions: Versions | None = None
        try:
            self.longest = self._room()
            self._versions = Versions(policy, config.adapter_folder) if team.main else None
        except BaseException:
            self.close()
            raise

    @contextmanager
    def synced(self) -> Iterator[None]:
        """Load the adapter into the server if it has changed since, and see that it arrived."""
        self._loaded, probed = self.team.tell(self._handed_over() if self.team.main else (self._loaded, None))
        if probed is not None and self.team.sharded:  # else it has been looked at: here all must compute it together
            check_same(self.policy, probed, self._where)
        yield

    def _handed_over(self) -> tuple[Version, Probed | None]:
        """The version of the adapter as it is now, and what was drawn from it where it is a new one."""
        assert self._versions is not None, "the engine is closed"
        version, before, probed = self._versions.current(), self._loaded, None
        if before != version:
            probed = self._publish(version, threading.Event())
            if before is not None:
                self._unload(before)
                self._versions.drop(before)
        return version, probed

    def start(self, contexts: Sequence[Sequence[int]]) -> TokenSession:
        return TokenSession.start(self, contexts)

    def complete(self, contexts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]) -> list[Drawn]:
        """One completion a context, each by its own seed.

        Raises:
            InputError: a context that leaves no room for ``max_tokens``; the server stayed away, refused, or answered something
                else than was asked for.
        """
        version = self._loaded
        assert version is not None, "draw within `synced`"
        longest = max(map(len, contexts)) + sampling.max_tokens
        if longest > self.longest:
            raise InputError(
                f"a context of {longest} tokens (sampler.max_tokens included) exceeds the {self.longest} that {self._where} was"
                " started for (--max-context of `sesa-lab serve`); raise that, or use a smaller sampler.group_size or"
                " sampler.max_tokens"
            )
        rows = [
            partial(self._row, version, list(context), sampling, seed)
            for context, seed in zip(contexts, seeds, strict=True)
        ]
        try:
            found = self._client.side_by_side(rows)
        except Refused as refused:
            raise self._refusal(refused, "a request for a completion") from refused
        for drawn, read in found:
            self.counters.prefilled += read
            self.counters.sampled += len(drawn.ids)
        return [drawn for drawn, _ in found]

    def close(self) -> None:
        if self._loaded is not None and self.team.main:
            with contextlib.suppress(Away, Refused):  # a server that is gone holds nothing
                name = {"lora_name": self._loaded.name}
                self._client.once("POST", "/v1/unload_lora_adapter", name, seconds=FAREWELL)
        self._loaded = None
        self._client.close()
        if self._versions is not None:
            self._versions.close()

    # --- one completion -----------------------------------------------------------------------------------------------

    def _row(
        self,
        version: Version,
        context: list[int],
        sampling: Sampling,
        seed: int,
        stop: threading.Event,
        *,
        mend: bool = True,
    ) -> tuple[Drawn, int]:
        """A completion, and how many tokens of its context the server read anew.

        Raises:
            Refused: see ``Client.ask``; with ``mend`` not because the server has lost the version.
        """
        body = {
            "model": version.name,
            "prompt": context,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": 1.0,  # this and what follows: whatever the model's generation_config.json says
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "seed": seed,
            "logprobs": 0,  # those of the drawn token alone
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            "stop_token_ids": list(sampling.stop_ids),
            "ignore_eos": True,  # stop_ids say it all
            "stop": [sampling.stop_text] if sampling.stop_text else [],
        }
        answer = self._client.ask(
            "POST",
            "/v1/completions",
            body,
            stop=stop,
            again=partial(self._mend, version, stop) if mend else passing,
            seconds=ANSWER + sampling.max_tokens,
        )
        return self._read(answer, context, sampling)

    def _read(self, answer: Any, context: list[int], sampling: Sampling) -> tuple[Drawn, int]:
        try:
            choice = answer["choices"][0]
            ids, read = [int(i) for i in choice["token_ids"]], [int(i) for i in choice["prompt_token_ids"]]
            logprobs = [float(x) for x in choice["logprobs"]["token_logprobs"]]
            stopped = choice["finish_reason"] == "stop"
            details = (answer.get("usage") or {}).get("prompt_tokens_details") or {}
            cached = int(details.get("cached_tokens") or 0)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise self._strange(f"an answer without token ids and their log-probs ({error!r})") from error
        if not 1 <= len(ids) <= sampling.max_tokens or len(logprobs) != len(ids) or read != context:
            raise self._strange(
                f"{len(ids)} tokens with {len(logprobs)} log-probs under a context of {len(read)} tokens, where 1 to"
                f" {sampling.max_tokens} were asked for under {len(context)}"
            )
        if not all(math.isfinite(x) and x <= 1e-3 for x in logprobs):
            raise self._strange("log-probs that are not finite, or above 0")
        whole = len(ids) == sampling.max_tokens or ids[-1] in sampling.stop_ids
        if not whole and not (stopped and sampling.stop_text):
            raise self._strange(f"a completion that ends after {len(ids)} tokens for no reason that was asked for")
        return Drawn(tuple(ids), tuple(logprobs)), len(context) - cached

    # --- the adapter --------------------------------------------------------------------------------------------------

    def _publish(self, version: Version, stop: threading.Event) -> Probed:
        """The server has the version, and draws from it; returns what."""

        def draw(context: list[int], sampling: Sampling, seed: int) -> Drawn:
            return self._row(version, context, sampling, seed, stop, mend=False)[0]

        for attempt in range(2):
            self._load(version, stop)
            try:
                probed = probe(self.policy, version, draw, self.longest)
                break
            except Refused as refused:
                if attempt or not _forgotten(refused):
                    raise self._refusal(refused, "a request under the adapter it had just loaded") from refused
        if not self._lists(version, stop):
            raise self._strange(f"adapters among which {version.name} is not, just after it was loaded")
        if not self.team.sharded:
            check_same(self.policy, probed, self._where)
        return probed

    def _load(self, version: Version, stop: threading.Event) -> None:
        """Under its fresh name and path; never in the place of another, whose keys and values it would go on with."""
        body = {"lora_name": version.name, "lora_path": str(version.folder)}
        try:
            self._client.ask("POST", "/v1/load_lora_adapter", body, stop=stop, again=self._sick)
        except Refused as refused:
            if "already been loaded" in refused.words:  # by a request whose answer was lost
                return
            hint = "its log says more"
            if refused.status in (404, 405):
                hint = "it takes adapters only where VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and --enable-lora are set"
            if "No adapter found" in refused.words:
                hint = "it must see that folder at the same path: name one that both see by engine.adapter_folder"
            raise self._refusal(refused, f"to load the adapter from {version.folder}", hint) from refused

    def _unload(self, version: Version) -> None:
        try:
            self._client.ask("POST", "/v1/unload_lora_adapter", {"lora_name": version.name})
        except Refused as refused:
            if refused.status != 404:  # that: it has been started anew since
                raise self._refusal(refused, f"to unload adapter {version.name}") from refused

    def _mend(self, version: Version, stop: threading.Event, refused: Refused) -> bool:
        """Whether a request refused so may be tried again: also where the server had lost the adapter, and has it now."""
        if not _forgotten(refused):
            return passing(refused)
        with self._mending:  # one of the waiting requests does it for all
            if stop.is_set():
                return False
            if not self._lists(version, stop):
                self._publish(version, stop)
        return True

    def _sick(self, refused: Refused) -> bool:
        """Whether a server's failure is a sign of its end, rather than of a request that it cannot fulfil."""
        if not passing(refused):
            return False
        try:
            self._client.once("GET", "/health", again=lambda refused: False)
        except (Away, Refused):
            return True
        return False

    def _lists(self, version: Version, stop: threading.Event) -> bool:
        wanted = (version.name, str(version.folder))
        return wanted in [(card.get("id"), card.get("root")) for card in self._cards(stop)]

    def _room(self) -> int:
        """Most tokens of a dialogue."""
        said = [card.get("max_model_len") for card in self._cards()]
        return min([self.policy.positions, *(length for length in said if isinstance(length, int))])

    def _cards(self, stop: threading.Event | None = None) -> list[dict[str, Any]]:
        """What the server says of its model and adapters."""
        try:
            answer = self._client.ask("GET", "/v1/models", stop=stop)
        except Refused as refused:
            raise self._refusal(refused, "to list its models") from refused
        cards = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(cards, list) or not cards or not all(isinstance(card, dict) for card in cards):
            raise self._strange("something else than a list of models")
        return cards

    # --- errors -------------------------------------------------------------------------------------------------------

    def _refusal(self, refused: Refused, what: str, hint: str = "its log says more") -> InputError:
        if refused.status in (401, 403):
            hint = f"set the environment variable {KEY} to the server's key"
        return InputError(
            f"{self._where} refused {what} (HTTP {refused.status}: {refused.words}); {hint}; a server for this run is started"
            f" by `{self._start}`"
        )

    def _strange(self, what: str) -> InputError:
        return InputError(
            f"{self._where} gave {what}; expected a vLLM server as started by `{self._start}`, and nothing between that changes"
            " requests or spreads them over several servers"
        )


def start_command(policy: Policy, url: str) -> str:
    """What starts a server for this policy, to answer at ``url``."""
    command = ["sesa-lab", "serve", "--policy", policy.folder, "--dtype", policy.dtype]
    command += ["--lora-rank", str(policy.model.peft_config["default"].r)]
    with contextlib.suppress(httpx.InvalidURL):
        command += ["--port", str(httpx.URL(url).port or 80)]
    return shlex.join(command)


def _forgotten(refused: Refused) -> bool:
    """The server does not know the adapter (any more)."""
    return refused.status == 404 and "does not exist" in refused.words
