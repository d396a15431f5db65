"""Think about a question before it is answered, and answer it with what was thought if the guards agree."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel

from ..base import Generated, LetterAnswer, OnText
from ..decoding import letter_probabilities
from ..messages import Message
from ..qwen import QwenModel, out_of_memory
from .controls import (
    asked_again,
    consistent_answer,
    dummy_tokens,
    equal_orders,
    initial_tokens,
    random_direction,
)
from .guards import REFUSALS, Reordered, beats_random, is_grounded, is_sampled, keeps_form, may_change, thought_of
from .outcome import LatentOutcome, Thought
from .prompt import LatentPrompt, option_ids, with_latent_slot, without_latent_slot
from .reward import Reward
from .search import Best, Budget, BudgetSpent, Search
from .settings import LatentSettings, NormalImages


def think(
    model: QwenModel,
    messages: Sequence[Message],
    letters: Sequence[str],
    *,
    evidence: Mapping[str, float] | None = None,
    anomaly_map: NDArray[np.float32] | None = None,
    settings: LatentSettings | None = None,
    reordered: Reordered | None = None,
    normals: NormalImages | None = None,
    opening: str = "",
    room: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> LatentOutcome:
    """Answer a question with options, first as it is asked, then with think tokens.

    Args:
        model: the checkpoint.
        messages: the conversation; think tokens go to its latent slot, else to the end of its last turn.
        letters: the options. Words, such as OK, NG and REVIEW after an ``opening``, are told by their first tokens.
        evidence: letter -> agreement with the expert in [-1, 1]; None or empty where the expert has no say.
        anomaly_map: float (H, W) over the query picture, calibrated to [0, 1]; None when there is none.
        settings: the search or control; the defaults when None.
        reordered: asks under n other orders of the options; without it a change of mind needs the expert, and the
            self-consistency control cannot be run.
        normals: what the search did to good pictures that were set aside; when that was bad it is not run.
        opening: text that the answer begins with, such as ``{"verdict": "``.
        room: tokens of an answer in words that is to follow (`generate_with`), so that both see the same pictures.
        clock: seconds.

    Returns:
        Both answers and what happened. The final one is the base's unless every guard agreed.

    Raises:
        BackendError: the model failed, or two options begin alike.
        ValueError: fewer than two options, evidence outside [-1, 1] or for unknown letters, or no way to ask again for
            the control that needs one.
    """
    settings = settings or LatentSettings()
    _check(letters, evidence, settings, reordered)
    with model.lock, torch.inference_mode(mode=False), out_of_memory(model.checkpoint.device):
        thinking = _Thinking(model, messages, tuple(letters), evidence, settings, opening, room, clock)
        if normals is not None and not normals.hold:
            return thinking.outcome("G5: it made anomalies of good parts", guards={"G5": False})
        if settings.arm == "reask":
            return thinking.voted(asked_again(model, thinking.plain, thinking.letters, thinking.base), "asked again")
        if settings.arm == "self_consistency" and reordered is not None:
            answer = consistent_answer(thinking.base, reordered, thinking.equal_orders())
            return thinking.voted(answer, "vote over orders of the options")
        try:
            return thinking.run(anomaly_map, reordered)
        except BudgetSpent as spent:
            return thinking.outcome(str(spent), cut=True)
        except torch.OutOfMemoryError:
            return thinking.outcome("out of memory", cut=True)


def generate_with(
    model: QwenModel,
    messages: Sequence[Message],
    thought: Thought,
    *,
    max_tokens: int = 1024,
    schema: type[BaseModel] | None = None,
    temperature: float = 0.0,
    seed: int = 0,
    on_text: OnText | None = None,
) -> Generated:
    """Answer in words behind exactly the think tokens and patches of a thought.

    Args:
        model: the checkpoint that thought it.
        messages: the conversation it was thought in.
        thought: of `LatentOutcome`.
        max_tokens: see `QwenModel.generate`, as are the others.
        schema: see there.
        temperature: see there.
        seed: see there.
        on_text: see there.

    Raises:
        BackendError: the model failed.
        ValueError: the thought is of another width, or its patches are not in the picture.
    """
    with model.lock, out_of_memory(model.checkpoint.device):
        length, width = thought.tokens.shape
        prompt = LatentPrompt(
            model, with_latent_slot(messages, length), patch_positions=thought.positions, room=max_tokens
        )
        if width != model.width or any(not 0 <= patch < len(prompt.features) for patch in thought.patches):
            raise ValueError("the thought is not one of this checkpoint and this picture")
        tokens = torch.from_numpy(thought.tokens).to(prompt.suffix.device)
        matcher = None if schema is None else model.grammars.matcher(schema)
        said = model.decoder.decode(
            prompt.prefix(tokens, thought.patches),
            max_tokens=max_tokens,
            matcher=matcher,
            temperature=temperature,
            seed=seed,
            on_text=on_text,
        )
        return dataclasses.replace(said, usage={**said.usage, **prompt.encoded.told})


def _check(
    letters: Sequence[str],
    evidence: Mapping[str, float] | None,
    settings: LatentSettings,
    reordered: Reordered | None,
) -> None:
    if len(letters) < 2 or len(set(letters)) != len(letters):
        raise ValueError("a question has two different options at least")
    if evidence and (not set(evidence) <= set(letters) or any(not -1.0 <= e <= 1.0 for e in evidence.values())):
        raise ValueError("evidence is a number in [-1, 1] for each of the question's letters")
    if settings.arm == "self_consistency" and reordered is None:
        raise ValueError("self-consistency needs a way to ask under other orders of the options")


class _Thinking:
    """One question: its base answer is made at once."""

    def __init__(
        self,
        model: QwenModel,
        messages: Sequence[Message],
        letters: tuple[str, ...],
        evidence: Mapping[str, float] | None,
        settings: LatentSettings,
        opening: str,
        room: int,
        clock: Callable[[], float],
    ) -> None:
        self.model, self.messages, self.letters = model, messages, letters
        self.evidence, self.settings, self.opening, self.room = evidence, settings, opening, room
        self.plain = without_latent_slot(messages)
        self.ids = option_ids(model, letters)
        encoded = model.encoder.encode(self.plain, answer=opening or None, room=room)
        prefix = model.prefix(encoded)
        self.computed = (encoded, prefix)
        self.prompt_positions = prefix.length
        self.told = encoded.told
        self.base = self._answer(prefix.logits)
        self.budget = Budget(settings, model.checkpoint.device, clock)
        self.prompt: LatentPrompt | None = None
        self.search: Search | None = None
        self.asked_positions = 0

    def run(self, anomaly_map: NDArray[np.float32] | None, reordered: Reordered | None) -> LatentOutcome:
        """Insert, search, and let the guards decide."""
        settings, model = self.settings, self.model
        self.budget.check()
        prompt = LatentPrompt(
            model,
            with_latent_slot(self.messages, settings.length),
            answer=self.opening,
            computed=self.computed,
            patch_positions=settings.patch_positions,
            room=self.room,
        )
        self.prompt = prompt
        if prompt.lost_its_query:
            return self.outcome("the picture that is asked about was left out for want of room")
        make = dummy_tokens if settings.arm == "dummy" else initial_tokens
        initial = make(model, settings.length)
        shares = torch.tensor([self.base_share(letter) for letter in self.letters], device=initial.device)
        reward = Reward(self.letters, self.ids, shares, initial, self.evidence, settings)
        search = Search(prompt, reward, initial, anomaly_map, settings, self.budget)
        self.search = search
        ended = "inserted"
        if settings.arm not in ("initial", "dummy"):
            ended = search.run()
            if search.best.reward <= search.initial_reward:
                return self.outcome(f"no gain ({ended})")
        if settings.arm == "random_direction":
            search.best = random_direction(search, settings)
        return self._guarded(search.best, ended, reordered)

    def _guarded(self, best: Best, ended: str, reordered: Reordered | None) -> LatentOutcome:
        """The cheap guards first; the first refusal ends it."""
        search, prompt, settings = self.search, self.prompt, self.settings
        if search is None or prompt is None:
            raise RuntimeError("nothing was searched")
        with torch.no_grad():
            logits = prompt.run(best.tokens, best.patches).answer
        proposal = self._answer(logits)
        base, proposed = str(self.base.letter), str(proposal.letter)
        asked = self._counting(reordered)
        guards: dict[str, Callable[[], bool]] = {
            "G1": lambda: keeps_form(logits, self.ids, settings.min_mass),
            "G2": lambda: may_change(base, proposed, self.evidence, asked, settings),
            "G3": lambda: is_grounded(prompt, best, search, self.opening, settings),
        }
        if settings.arm == "latent" and is_sampled(prompt, settings):
            guards["G4"] = lambda: beats_random(best, search, settings)
        said: dict[str, bool] = {}
        for name, guard in guards.items():
            self.budget.check()
            said[name] = guard()
            if not said[name]:
                return self.outcome(f"{name}: {REFUSALS[name]} ({ended})", proposal=proposal, guards=said)
        final = dataclasses.replace(self.base, letter=proposal.letter, reply=proposal.reply)
        return self.outcome(ended, proposal=proposal, guards=said, final=final)

    def equal_orders(self) -> int:
        """Other orders of the options that cost what the search would."""
        slotted = with_latent_slot(self.messages, self.settings.length)
        encoded = self.model.encoder.encode(slotted, answer=self.opening or None, room=self.room)
        return equal_orders(self.prompt_positions, encoded.length - encoded.slots["latent"].stop, self.settings)

    def voted(self, answer: LetterAnswer, why: str) -> LatentOutcome:
        """The answer of a control that inserts nothing."""
        final = dataclasses.replace(self.base, letter=answer.letter, reply=answer.reply)
        self.asked_positions = int(answer.usage["prompt_tokens"])
        return self.outcome(why, proposal=answer, final=final)

    def outcome(
        self,
        why: str,
        *,
        proposal: LetterAnswer | None = None,
        guards: Mapping[str, bool] | None = None,
        final: LetterAnswer | None = None,
        cut: bool = False,
    ) -> LatentOutcome:
        """What is told; the base answer unless there is a final one."""
        unsure, search, prompt = self.base.entropy, self.search, self.prompt
        if unsure is None:
            raise RuntimeError("a local model scores its options")
        refused = final is None and proposal is not None
        best = None if search is None else search.best
        grid = None if prompt is None else prompt.grid
        patches = () if best is None else best.patches
        return LatentOutcome(
            base=self.base,
            proposal=proposal,
            final=self.base if final is None else final,
            accepted=final is not None,
            why=why,
            uncertainty=(1.0 + unsure) / 2.0 if refused else unsure,
            guards=dict(guards or {}),
            steps=() if search is None else tuple(search.steps),
            thought=None if best is None else thought_of(best, self.settings),
            initial_reward=None if search is None else search.initial_reward,
            best_reward=None if best is None else best.reward,
            patch_cells=() if grid is None else tuple((i // grid[1], i % grid[1]) for i in patches),
            grid=grid,
            seconds=self.budget.seconds,
            positions=self.asked_positions + (0 if prompt is None else prompt.positions),
            prompt_positions=self.prompt_positions,
            cut=cut,
        )

    def base_share(self, letter: str) -> float:
        """Probability of an option without think tokens."""
        if self.base.probabilities is None:
            raise RuntimeError("a local model scores its options")
        return self.base.probabilities[letter]

    def _answer(self, logits: torch.Tensor) -> LetterAnswer:
        shares, mass = letter_probabilities(logits, self.letters, self.ids)
        letter = max(self.letters, key=lambda one: shares[one])
        usage: dict[str, Any] = {"prompt_tokens": self.prompt_positions, "completion_tokens": 1, **self.told}
        return LetterAnswer(letter, shares, mass, self.model.decoder.name(int(logits.argmax())).strip(), usage)

    def _counting(self, reordered: Reordered | None) -> Reordered | None:
        if reordered is None:
            return None

        def ask(count: int) -> Sequence[LetterAnswer]:
            answers = reordered(count)
            self.asked_positions += sum(int(answer.usage.get("prompt_tokens", 0)) for answer in answers)
            return answers

        return ask
