"""Token ids as the pieces of text that they stand for, by the tokenizer file alone: no model is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from tokenizers import Tokenizer

from sesa_lab.errors import InputError, first_line
from sesa_lab.runs import Run

FILE = "tokenizer.json"
SHIPPED = Path(__file__).parents[2] / "data" / "policies"
_LONGEST = 8  # tokens that one letter may take; UTF-8 has at most 4 bytes
_BROKEN = "\ufffd"
_COMPARED = 64  # tokens of a text that are decoded to see whether the tokenizer is the one that made it


class Speller(Protocol):
    """What a widget asks of a tokenizer."""

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """One text a token, special tokens by their names."""
        ...

    def fits(self, ids: Sequence[int], text: str) -> bool:
        """Whether ``text`` may be what these ids say: without special tokens, white space aside."""
        ...


class Pieces:
    """A ``Speller`` that reads a ``tokenizer.json``."""

    def __init__(self, file: Path) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # tokenizers raises bare exceptions
            raise InputError(
                f"{file} is no tokenizer ({first_line(error)}); name the folder of the run's model"
            ) from error
        self._known: dict[int, str] = {}

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """As ``Speller.pieces``. Of the tokens that share one letter the first has it, and the others have nothing."""
        texts = [self._alone(token) for token in ids]
        place = 0
        while place < len(texts):
            if _BROKEN in texts[place]:
                for end in range(place + 2, min(place + _LONGEST, len(texts)) + 1):
                    whole = self._tokenizer.decode(list(ids[place:end]), skip_special_tokens=False)
                    if _BROKEN not in whole:
                        texts[place:end] = [whole] + [""] * (end - place - 1)
                        place = end - 1
                        break
            place += 1
        return texts

    def fits(self, ids: Sequence[int], text: str) -> bool:
        said = self._tokenizer.decode(list(ids[:_COMPARED]), skip_special_tokens=True).rstrip(_BROKEN)
        return _packed(text[: 4 * len(said) + 64]).startswith(_packed(said))

    def _alone(self, token: int) -> str:
        """The text of a token inside a text: at a beginning some tokenizers leave its blank out, so it is said twice."""
        if token not in self._known:
            once = self._tokenizer.decode([token], skip_special_tokens=False)
            twice = self._tokenizer.decode([token, token], skip_special_tokens=False)
            self._known[token] = twice[len(once) :] if twice.startswith(once) else once
        return self._known[token]


def find(run: Run, tokenizer: str | Path | None = None) -> Pieces | None:
    """The tokenizer of the run's policy, where this machine has it; None: it has not.

    Looked for in the model that the checkpoints name, where it was and among the lab policies shipped with this version,
    then among what the Hub's local cache holds. Nothing is downloaded.

    Args:
        run: its checkpoints say which model it is.
        tokenizer: a folder with ``tokenizer.json``, or that file; it then is the one.

    Raises:
        InputError: ``tokenizer`` is none, or the file found is damaged.
    """
    if tokenizer is not None:
        given = Path(tokenizer)
        file = given if given.is_file() else given / FILE
        if not file.is_file():
            raise InputError(f"no tokenizer at {given}; expected a {FILE}, or a folder that has one")
        return Pieces(file)
    file_found = next((file for file in _candidates(run) if file.is_file()), None)
    return None if file_found is None else Pieces(file_found)


def _candidates(run: Run) -> Iterator[Path]:
    for name in dict.fromkeys([*_bases(run), run.config.policy.model]):
        if name:
            yield Path(name) / FILE
            yield SHIPPED / Path(name).name / FILE
            if name.count("/") == 1 and not name.startswith((".", "/", "~")):
                from huggingface_hub import try_to_load_from_cache  # only where a Hub model is looked for

                cached = try_to_load_from_cache(name, FILE)
                if isinstance(cached, str):
                    yield Path(cached)


def _bases(run: Run) -> Iterator[str]:
    """The model that the newest adapter was made for, as peft recorded it."""
    for _, folder in run.checkpoints[-1:]:
        for file in (folder / "adapter_config.json", folder / "adapter" / "adapter_config.json"):
            try:
                base = json.loads(file.read_text()).get("base_model_name_or_path")
            except (OSError, ValueError, AttributeError):
                continue  # without it there are the settings to go by
            if isinstance(base, str):
                yield base


def _packed(text: str) -> str:
    return "".join(text.split())
