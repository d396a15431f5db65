"""The search and its guards: what they reach, what they cost, and what cannot be gained by cheating the reward."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from full.latent_model import LETTERS, question, spot, tiny_model

from flawscope.agent.vision_language.base import LetterAnswer
from flawscope.agent.vision_language.latent import ARMS, LatentOutcome, LatentSettings, NormalImages
from flawscope.agent.vision_language.latent.controls import dummy_tokens, equal_orders, initial_tokens
from flawscope.agent.vision_language.latent.guards import beats_random, is_grounded, is_sampled, keeps_form, may_change
from flawscope.agent.vision_language.latent.prompt import LatentPrompt, Pass, with_blank_query, with_latent_slot
from flawscope.agent.vision_language.latent.reward import Reward, option_shares
from flawscope.agent.vision_language.latent.search import Best, Budget, Search
from flawscope.agent.vision_language.latent.thinking import think
from flawscope.agent.vision_language.messages import Message, Picture
from flawscope.agent.vision_language.qwen import QwenModel

UNHURRIED = LatentSettings(wall_s=600.0, memory_bytes=2**40)
EAGER = dataclasses.replace(UNHURRIED, learning_rate=0.3, patience=8, max_flips=9, dummy_check_share=0.0)
"""Steps large enough to change the answer of random weights."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> QwenModel:
    return tiny_model(tmp_path_factory.mktemp("vlm") / "tiny", sharper=10.0, says_letters=True)


class Toy:
    """A prompt whose answer is a formula of the think tokens, two of width three."""

    grid = (2, 2)

    def __init__(self, answer: Callable[[torch.Tensor], torch.Tensor], each_patch: tuple[float, ...]) -> None:
        self.answer, self.each_patch = answer, torch.tensor(each_patch)
        self.suffix, self.prompt_embeds = torch.zeros(1, 1, 3), torch.eye(3)[None]

    def run(self, tokens: torch.Tensor, patches: tuple[int, ...], *, think: bool = False) -> Pass:
        return Pass(
            self.answer(tokens) + len(patches) * self.each_patch, torch.zeros(len(tokens), 3) if think else None
        )


def search_of(
    answer: Callable[[torch.Tensor], torch.Tensor],
    *,
    evidence: dict[str, float] | None = None,
    each_patch: tuple[float, ...] = (0.0, 0.0, 0.0),
    **changes: object,
) -> Search:
    """A search over two options and one other token."""
    given = {"patches": None, "min_mass": 1e-9, "learning_rate": 0.2, "steps": 20, **changes}
    settings = dataclasses.replace(UNHURRIED, **given)  # type: ignore[arg-type]
    initial = torch.ones(2, 3)
    base = option_shares(answer(initial), [[0], [1]]).shares
    reward = Reward(("A", "B"), [[0], [1]], base, initial, evidence, settings)
    return Search(Toy(answer, each_patch), reward, initial, None, settings, Budget(settings, "cpu", lambda: 0.0))  # type: ignore[arg-type]


def only(letter: str) -> LetterAnswer:
    return LetterAnswer(letter, {one: float(one == letter) for one in LETTERS}, 1.0, letter, {"prompt_tokens": 7})


def leaning(model: QwenModel) -> tuple[str, str]:
    """What the tiny model answers, and what it does not."""
    base = str(model.choose(question(), LETTERS).letter)
    return base, next(letter for letter in LETTERS if letter != base)


# --- the search -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("update", ["gradient", "nes", "one_sample"])
@pytest.mark.parametrize("place", ["answer", "both"])
def test_the_best_reward_never_falls_and_the_same_seed_gives_the_same(
    model: QwenModel, update: str, place: str
) -> None:
    settings = dataclasses.replace(EAGER, update=update, reward_at=place, samples=2, steps=4)  # type: ignore[arg-type]
    first, again = (think(model, question(), LETTERS, anomaly_map=spot(), settings=settings) for _ in range(2))
    best = [step.best for step in first.steps]
    assert best == sorted(best)
    assert first.initial_reward is not None
    assert best[0] >= first.initial_reward
    assert first.best_reward == best[-1]
    assert first.steps[0].moved == 0.0
    assert [dataclasses.replace(step, seconds=0.0) for step in first.steps] == [
        dataclasses.replace(step, seconds=0.0) for step in again.steps
    ]
    assert first.thought is not None
    assert again.thought is not None
    np.testing.assert_array_equal(first.thought.tokens, again.thought.tokens)


def test_the_gradient_reaches_the_think_tokens(model: QwenModel) -> None:
    settings = dataclasses.replace(EAGER, patches=None, max_move=10.0, max_row_norm=10.0)
    outcome = think(model, question(), LETTERS, settings=settings)
    assert [step.moved > 0.0 for step in outcome.steps] == [False, *[True] * (len(outcome.steps) - 1)]
    assert outcome.best_reward is not None
    assert outcome.initial_reward is not None
    assert outcome.best_reward > outcome.initial_reward + 0.02
    assert outcome.proposal is not None
    assert outcome.proposal.entropy is not None
    assert outcome.base.entropy is not None
    assert outcome.proposal.entropy < outcome.base.entropy


def test_without_rate_and_patches_the_answer_is_exactly_that_without_think_tokens(model: QwenModel) -> None:
    settings = dataclasses.replace(UNHURRIED, learning_rate=0.0, patches=None)
    outcome = think(model, question(), LETTERS, evidence={"A": 1.0}, settings=settings)
    assert outcome.final == outcome.base == model.choose(question(), LETTERS)
    assert outcome.best_reward == outcome.initial_reward
    assert not outcome.accepted
    assert not outcome.cut
    assert outcome.thought is not None
    np.testing.assert_array_equal(outcome.thought.tokens, initial_tokens(model, 4).numpy())
    assert outcome.uncertainty == outcome.base.entropy


@pytest.mark.parametrize("where", ["text", "source"])
def test_think_tokens_patches_and_suffix_stand_side_by_side(model: QwenModel, where: str) -> None:
    prompt = LatentPrompt(model, with_latent_slot(question(), 4), patch_positions=where)
    tokens = torch.randn(4, model.width, generator=torch.Generator().manual_seed(0))
    embeds, places = prompt.tail(tokens, (7, 2))
    torch.testing.assert_close(embeds[0, :4], tokens)
    torch.testing.assert_close(embeds[0, 4:6], prompt.features[[7, 2]])
    torch.testing.assert_close(embeds[:, 6:], prompt.suffix)
    pad = model.checkpoint.model.get_input_embeddings()(torch.tensor(model.encoder.image_id))
    assert all(float((row - pad).abs().max()) > 1e-3 for row in embeds[0, 4:6])
    text = places[:, 0, :] if where == "text" else places[:, 0, [*range(4), *range(6, places.shape[2])]]
    begin = prompt.opening.next_position
    assert text.tolist() == [list(range(begin, begin + text.shape[1]))] * 3
    if where == "source":
        assert torch.equal(places[:, :, 4:6], prompt.query_positions[:, :, [7, 2]])
    with torch.no_grad():
        both, one, none = (prompt.prefix(tokens, patches) for patches in ((7, 2), (7,), ()))
    assert both.length == one.length + 1 == none.length + 2 == prompt.begin + embeds.shape[1]
    assert float((both.logits - none.logits).abs().max()) > 1e-3


def test_patches_are_injected_only_where_the_reward_gains(model: QwenModel) -> None:
    for mode in ("attention", "expert", "both", "random"):
        settings = dataclasses.replace(EAGER, arm="inject_only", patches=mode, min_gain=1e-4)  # type: ignore[arg-type]
        outcome = think(model, question(), LETTERS, anomaly_map=spot(), settings=settings)
        assert [step.step for step in outcome.steps] == [1, 3, 5]
        assert all(step.offered for step in outcome.steps)
        before = outcome.initial_reward
        for step in outcome.steps:
            assert before is not None
            assert (step.reward > before + 1e-4) == bool(step.injected)
            before = step.reward
        assert outcome.thought is not None
        np.testing.assert_array_equal(outcome.thought.tokens, initial_tokens(model, 4).numpy())
        assert outcome.grid == (5, 3)
        assert outcome.patch_cells == tuple((patch // 3, patch % 3) for patch in outcome.thought.patches)
    strict = dataclasses.replace(settings, min_gain=10.0)
    assert think(model, question(), LETTERS, anomaly_map=spot(), settings=strict).patch_cells == ()


def test_the_expert_points_at_its_cell_and_the_cap_holds(model: QwenModel) -> None:
    settings = dataclasses.replace(EAGER, arm="inject_only", patches="expert", patches_per_step=1, min_gain=-10.0)
    outcome = think(model, question(), LETTERS, anomaly_map=spot(), settings=settings)
    assert outcome.steps[0].offered == (1 * 3 + 2,)
    assert outcome.patch_cells[0] == (1, 2)
    capped = dataclasses.replace(settings, patches_per_step=2, max_patches=3)
    assert len(think(model, question(), LETTERS, anomaly_map=spot(), settings=capped).patch_cells) == 3
    empty = think(model, question(), LETTERS, anomaly_map=np.zeros((140, 84), np.float32), settings=settings)
    assert not any(step.offered for step in empty.steps)


def test_a_first_step_that_differs_from_its_beginning_ends_the_search() -> None:
    noise = itertools.count(1)
    search = search_of(lambda tokens: torch.tensor([1.0 / next(noise), 0.0, -9.0]) + 0 * tokens.sum())
    assert "reproduce" in search.run()
    assert search.best.reward == search.initial_reward


def test_it_stops_when_nothing_gets_better_when_sure_and_when_wavering() -> None:
    flat = search_of(lambda tokens: torch.tensor([1.0, 0.0, -9.0]) + 0 * tokens.sum())
    assert flat.run() == "no better reward"
    assert len(flat.steps) == 3
    sure = search_of(lambda tokens: torch.stack([9 * tokens.mean(), 0 * tokens.mean(), -9 + 0 * tokens.mean()]))
    assert sure.run() == "certain"
    assert len(sure.steps) == 1
    turns = itertools.cycle([1.0, 1.0, 1.0, -1.0, 1.0])

    def turning(tokens: torch.Tensor) -> torch.Tensor:
        return torch.stack([next(turns) + 0 * tokens.sum(), 0 * tokens.sum(), 0 * tokens.sum() - 9])

    torn = search_of(turning, patience=20)
    assert torn.run() == "wavering"
    assert [step.letter for step in torn.steps] == ["A", "B", "A"]


# --- what could be gained by cheating ---------------------------------------------------------------------------------


def test_leaving_the_options_is_no_way_to_be_certain() -> None:
    """Entropy over the options falls with the first coordinate, and so does their mass, three times as fast."""

    def answer(tokens: torch.Tensor) -> torch.Tensor:
        far = tokens.sum() - 6.0
        return torch.stack([0.5 + far, 0 * far, -9.0 + 3.0 * far.clamp_min(0.0) * 4])

    kept = search_of(answer, min_mass=0.9, max_move=10.0, max_row_norm=10.0)
    kept.run()
    assert kept.best.scored.options.mass > 0.85
    lost = answer(torch.full((2, 3), 2.0))
    assert float(option_shares(lost, [[0], [1]]).entropy) < kept.best.scored.entropy
    assert not keeps_form(lost, [[0], [1]], 0.9)
    assert keeps_form(torch.tensor([5.0, 0.0, -5.0]), [[0], [1]], 0.9)
    assert not keeps_form(torch.tensor([0.0, 0.0, 5.0]), [[0], [1]], 1e-9)  # what it would say names no option


def test_the_norm_cannot_grow_off_the_tokens() -> None:
    grown = search_of(lambda t: torch.stack([t.norm() * 0.3, 0 * t.sum(), 0 * t.sum() - 9]), norm_weight=0.0, rank=2)
    grown.run()
    assert grown.steps[-1].moved <= 0.5 + 1e-5
    assert float(grown.best.tokens.norm(dim=1).max()) <= 1.25 * float(grown.initial.norm(dim=1).max()) + 1e-5
    costly = search_of(lambda t: torch.stack([t.norm() * 0.3, 0 * t.sum(), 0 * t.sum() - 9]), norm_weight=10.0)
    costly.run()
    assert float((costly.best.tokens - costly.initial).norm()) < float((grown.best.tokens - grown.initial).norm())


def test_collapse_to_no_defect_is_found_by_the_search_and_refused_by_the_guard() -> None:
    """Any patch says B = "No" with certainty, whatever the picture; the expert sees defects on half of them."""
    finals = []
    for defective in (True, False) * 3:
        lean = 0.4 if defective else -0.4
        evidence = {"A": 0.6, "B": -0.6} if defective else {"A": -0.6, "B": 0.6}
        search = search_of(
            lambda t, lean=lean: torch.stack([lean + 0 * t.sum(), 0 * t.sum(), 0 * t.sum() - 9]),
            evidence=evidence,
            each_patch=(0.0, 6.0, 0.0),
            patches="random",
            divergence_weight=0.0,
        )
        search.run()
        base = "A" if defective else "B"
        proposed = "AB"[int(search.best.scored.options.shares.argmax())]
        assert proposed == "B"
        assert search.best.patches
        finals.append(proposed if may_change(base, proposed, evidence, None, UNHURRIED) else base)
    assert finals == ["A", "B"] * 3


def test_one_letter_whatever_the_order_is_not_confirmed_by_other_orders() -> None:
    """A habit of saying the first letter names another option in each order; mapped back they disagree."""
    habit = [only("B"), only("C"), only("A")]
    assert not may_change("A", "B", None, lambda n: habit[:n], UNHURRIED)
    assert may_change("A", "B", None, lambda n: [only("B"), only("A"), only("B")][:n], UNHURRIED)
    assert may_change("A", "B", None, lambda n: [only("B")], UNHURRIED)  # of two options: the one other order
    assert not may_change("A", "B", None, lambda n: [only("A")], UNHURRIED)
    assert not may_change("A", "B", None, lambda n: [], UNHURRIED)
    assert may_change("A", "A", None, None, UNHURRIED)
    assert not may_change("A", "B", None, None, UNHURRIED)
    assert not may_change("A", "B", {"A": 0.0, "B": 0.2}, None, UNHURRIED)
    assert may_change("A", "B", {"A": -0.1, "B": 0.2}, None, UNHURRIED)


# --- repetition -------------------------------------------------------------------------------------------------------


def alike(tokens: torch.Tensor) -> torch.Tensor:
    """Mean cosine between think tokens: 1 when one is repeated."""
    rows = torch.nn.functional.normalize(tokens, dim=1)
    return ((rows @ rows.T).sum() - len(rows)) / (len(rows) * (len(rows) - 1))


def repeating(
    monkeypatch: pytest.MonkeyPatch, model: QwenModel, said: str, *, ids: list[int] | None = None, **changes: object
) -> LatentOutcome:
    """A model that the more of one and the same token it thinks the surer says one thing, whatever it is shown.

    Args:
        monkeypatch: puts that into the passes of the prompt.
        model: that answers else.
        said: the letter that repetition makes certain.
        ids: further tokens that it makes likelier still.
        changes: of the settings.
    """
    gains = torch.zeros(model.decoder.vocabulary)
    gains[model.letter_ids([said])[0]] = 60.0
    gains[ids or []] = 200.0

    def run(self: LatentPrompt, tokens: torch.Tensor, patches: Sequence[int], *, think: bool = False) -> Pass:
        seen = usual(self, torch.zeros_like(tokens), patches, think=think)
        return Pass(seen.answer + gains * alike(tokens), seen.think)

    usual = LatentPrompt.run
    monkeypatch.setattr(LatentPrompt, "run", run)
    settings = dataclasses.replace(EAGER, patches=None, divergence_weight=0.0, max_move=10.0, max_row_norm=10.0)
    settings = dataclasses.replace(settings, **changes)  # type: ignore[arg-type]
    return think(model, question(), LETTERS, settings=settings)


def gained_by_repetition(model: QwenModel, outcome: LatentOutcome) -> bool:
    """Whether the search took the bait: a higher reward, and think tokens that grew alike."""
    if outcome.thought is None or outcome.best_reward is None or outcome.initial_reward is None:
        return False
    found = torch.from_numpy(outcome.thought.tokens)
    begun = initial_tokens(model, len(found))
    return outcome.best_reward > outcome.initial_reward + 0.01 and float(alike(found)) > float(alike(begun)) + 0.05


def test_another_answer_that_repetition_makes_certain_is_refused(
    monkeypatch: pytest.MonkeyPatch, model: QwenModel
) -> None:
    base, other = leaning(model)
    outcome = repeating(monkeypatch, model, other)
    assert gained_by_repetition(model, outcome)
    assert outcome.proposal is not None
    assert outcome.proposal.letter == other
    assert (outcome.accepted, outcome.final, outcome.guards) == (False, outcome.base, {"G1": True, "G2": False})
    assert outcome.base.letter == base
    assert outcome.uncertainty > outcome.base.entropy  # type: ignore[operator]


def test_the_same_answer_that_repetition_makes_certain_without_the_picture_is_refused(
    monkeypatch: pytest.MonkeyPatch, model: QwenModel
) -> None:
    base, _ = leaning(model)
    outcome = repeating(monkeypatch, model, base)
    assert gained_by_repetition(model, outcome)
    assert outcome.proposal is not None
    assert outcome.proposal.entropy < outcome.base.entropy  # type: ignore[operator]
    assert (outcome.accepted, outcome.guards) == (False, {"G1": True, "G2": True, "G3": False})


def test_a_word_said_again_and_again_is_no_answer(monkeypatch: pytest.MonkeyPatch, model: QwenModel) -> None:
    """The options' entropy falls while a token that is none of them takes the probability."""
    base, _ = leaning(model)
    filler = model.encoder.token_ids(" scratch")[0]
    outcome = repeating(monkeypatch, model, base, ids=[filler], min_mass=1e-40)
    assert gained_by_repetition(model, outcome)
    assert (outcome.accepted, outcome.final, outcome.guards) == (False, outcome.base, {"G1": False})
    kept = repeating(monkeypatch, model, base, ids=[filler])  # as it is set: the mass that is lost costs
    assert not kept.accepted
    assert not gained_by_repetition(model, kept)


# --- the guards on a model --------------------------------------------------------------------------------------------


def changed(model: QwenModel, **given: object) -> LatentOutcome:
    """A search that the expert drives to another answer."""
    _, other = leaning(model)
    settings = dataclasses.replace(
        EAGER, evidence_weight=200.0, divergence_weight=0.0, grounding_rise=-1.0, max_move=10.0, max_row_norm=10.0
    )
    settings = dataclasses.replace(settings, **given.pop("settings", {}))  # type: ignore[arg-type]
    lean = given.pop("gap", 0.1)
    return think(model, question(), LETTERS, evidence={other: lean}, settings=settings, **given)  # type: ignore[arg-type]


def test_another_answer_needs_the_expert_or_other_orders(model: QwenModel) -> None:
    base, other = leaning(model)
    alone = changed(model)
    assert alone.proposal is not None
    assert alone.proposal.letter == other
    assert (alone.accepted, alone.final, alone.guards["G2"]) == (False, alone.base, False)
    assert alone.base.entropy is not None
    assert alone.uncertainty == pytest.approx((1 + alone.base.entropy) / 2)
    told = changed(model, gap=0.3)
    assert (told.accepted, told.final.letter, told.guards) == (True, other, {"G1": True, "G2": True, "G3": True})
    assert told.flipped
    asked = []

    def confirm(count: int) -> list[LetterAnswer]:
        asked.append(count)
        return [only(other), only(base), only(other)]

    confirmed = changed(model, reordered=confirm)
    assert confirmed.final.letter == other
    assert asked == [3]
    assert not changed(model, reordered=lambda n: [only(base)] * n).accepted


def test_entropy_is_never_reported_from_the_answer_that_was_optimised_for_it(model: QwenModel) -> None:
    outcome = changed(model, gap=0.3)
    assert outcome.accepted
    assert outcome.final.probabilities == outcome.base.probabilities
    assert outcome.uncertainty == outcome.final.entropy == outcome.base.entropy
    assert outcome.proposal is not None
    assert outcome.proposal.probabilities != outcome.base.probabilities


def test_a_thought_that_does_not_need_the_picture_is_refused(model: QwenModel) -> None:
    base, other = leaning(model)
    grey = np.full((140, 84, 3), 90, np.uint8)
    assert all(
        np.array_equal(one.rgb, two.rgb)
        for one, two in zip(question(grey)[1].pictures, with_blank_query(question(grey))[1].pictures, strict=True)
    )
    settings = dataclasses.replace(EAGER, evidence_weight=20.0, divergence_weight=0.0, max_move=10.0)
    blank = think(model, question(grey), LETTERS, evidence={other: 1.0, base: 0.5}, settings=settings)
    assert not blank.accepted
    assert blank.guards.get("G3") is False
    words = [Message("user", ("Is there a defect? A. Yes B. No C. hole",))]
    unseen = think(model, words, LETTERS, evidence={"A": 0.5, "B": 0.5, "C": 0.5}, settings=settings)
    assert not unseen.accepted
    assert unseen.patch_cells == ()


def test_grounding_is_measured_on_the_blank_picture_with_the_same_thought(model: QwenModel) -> None:
    prompt = LatentPrompt(model, with_latent_slot(question(), 4))
    tokens = initial_tokens(model, 4)
    blank = LatentPrompt(model, with_latent_slot(with_blank_query(question()), 4))
    ids = model.letter_ids(LETTERS)
    with torch.no_grad():
        seen, unseen = (option_shares(each.run(tokens, (3, 8)).answer, ids) for each in (prompt, blank))
    rise = float(unseen.entropy - seen.entropy)
    assert abs(rise) > 1e-3
    reward = Reward(LETTERS, ids, seen.shares, tokens, None, UNHURRIED)
    search = Search(prompt, reward, tokens, None, UNHURRIED, Budget(UNHURRIED, "cpu", lambda: 0.0))
    best = Best(tokens, (3, 8), search.score(tokens, (3, 8)), 0.0)
    before = prompt.positions
    for wanted, grounded in ((rise - 1e-4, True), (rise + 1e-4, False)):
        settings = dataclasses.replace(UNHURRIED, grounding_rise=wanted)
        assert is_grounded(prompt, best, search, "", settings) is grounded
    assert prompt.positions == before + 2 * blank.positions


def test_only_the_part_that_is_asked_about_is_blanked_in_all_its_views() -> None:
    before, after = question()[1].pictures, with_blank_query(question())[1].pictures
    assert np.array_equal(before[0].rgb, after[0].rgb)
    assert len(np.unique(after[1].rgb.reshape(-1, 3), axis=0)) == 1
    assert after[1].rgb.shape == before[1].rgb.shape
    assert after[1].label == "query"
    shown = [Picture(before[1].rgb, label) for label in ("query", "reference", "overlay", "crop R1", "zoom")]
    views = with_blank_query([Message("user", tuple(shown))])[0].pictures
    assert [len(np.unique(view.rgb.reshape(-1, 3), axis=0)) == 1 for view in views] == [True, False, True, True, True]
    unlabelled = [Message("user", (Picture(before[1].rgb), Picture(before[0].rgb)))]
    assert np.array_equal(with_blank_query(unlabelled)[0].pictures[0].rgb, before[1].rgb)


def test_random_tokens_must_not_earn_as_much(model: QwenModel) -> None:
    indifferent = search_of(lambda t: torch.tensor([1.0, 0.0, -9.0]) + 0 * t.sum(), norm_weight=0.0)
    assert not beats_random(indifferent.best, indifferent, indifferent.settings)
    won = search_of(lambda t: torch.stack([2.0 * t.mean(), 0 * t.sum(), 0 * t.sum() - 9]))
    won.run()
    assert beats_random(won.best, won, won.settings)
    prompts = [LatentPrompt(model, with_latent_slot(question(ending=f"Answer {i}."), 1)) for i in range(40)]
    chosen = [is_sampled(prompt, dataclasses.replace(UNHURRIED, dummy_check_share=0.5)) for prompt in prompts]
    assert 8 < sum(chosen) < 32
    assert chosen[0] == is_sampled(prompts[0], dataclasses.replace(UNHURRIED, dummy_check_share=0.5))
    assert not any(is_sampled(prompt, dataclasses.replace(UNHURRIED, dummy_check_share=0.0)) for prompt in prompts)
    sampled = changed(model, gap=0.3, settings={"dummy_check_share": 1.0})
    assert "G4" in sampled.guards


def test_what_made_anomalies_of_good_parts_is_not_run(model: QwenModel) -> None:
    outcome = think(model, question(), LETTERS, settings=EAGER, normals=NormalImages(100, 3, 9))
    assert (outcome.final, outcome.guards, outcome.steps) == (outcome.base, {"G5": False}, ())
    assert outcome.uncertainty == outcome.base.entropy
    assert think(model, question(), LETTERS, settings=EAGER, normals=NormalImages(100, 3, 4)).steps


# --- budget -----------------------------------------------------------------------------------------------------------


def test_time_that_is_up_leaves_the_base_answer(model: QwenModel) -> None:
    for late in (1, 3, 6):
        ticks = itertools.count()
        settings = dataclasses.replace(EAGER, wall_s=float(late))
        outcome = think(model, question(), LETTERS, settings=settings, clock=lambda ticks=ticks: float(next(ticks)))
        assert (outcome.why, outcome.cut) == (f"time is up ({late} s)", True)
        assert (outcome.accepted, outcome.final) == (False, outcome.base)
        assert outcome.uncertainty == outcome.base.entropy


def test_memory_that_is_up_leaves_the_base_answer(model: QwenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    grown = itertools.count(0, 100 * 2**20)
    monkeypatch.setattr("flawscope.agent.vision_language.latent.search.used_bytes", lambda _: next(grown))
    settings = dataclasses.replace(EAGER, memory_bytes=300 * 2**20)
    outcome = think(model, question(), LETTERS, settings=settings)
    assert (outcome.why, outcome.cut) == ("memory is up (300 MiB)", True)
    assert outcome.final == outcome.base

    def run_out(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.undo()
    monkeypatch.setattr(LatentPrompt, "run", run_out)
    outcome = think(model, question(), LETTERS, settings=EAGER)
    assert (outcome.why, outcome.cut) == ("out of memory", True)


# --- controls ---------------------------------------------------------------------------------------------------------


def test_every_control_runs_and_leaves_the_model_as_it_was(model: QwenModel) -> None:
    before = model.choose(question(), LETTERS)
    _, other = leaning(model)
    said = {}
    for arm in ARMS:
        settings = dataclasses.replace(EAGER, arm=arm, min_gain=1e-5)
        said[arm] = think(
            model, question(), LETTERS, settings=settings, anomaly_map=spot(), reordered=lambda n: [only(other)] * n
        )
        assert said[arm].base == before
        assert said[arm].seconds > 0.0
        assert said[arm].positions > 0
    assert model.choose(question(), LETTERS) == before
    tokens = {arm: outcome.thought.tokens for arm, outcome in said.items() if outcome.thought is not None}
    begun = initial_tokens(model, 4).numpy()
    np.testing.assert_array_equal(tokens["initial"], begun)
    np.testing.assert_array_equal(tokens["dummy"], dummy_tokens(model, 4).numpy())
    assert len(np.unique(tokens["dummy"], axis=0)) == 1
    far, searched = (np.linalg.norm(tokens[arm] - begun) for arm in ("random_direction", "latent"))
    assert far == pytest.approx(searched, rel=0.25)
    assert np.abs(tokens["random_direction"] - tokens["latent"]).max() > 1e-3
    assert said["self_consistency"].thought is None
    assert said["self_consistency"].final.letter == other
    assert said["reask"].proposal is not None


def test_self_consistency_spends_what_the_search_spends() -> None:
    assert equal_orders(1300, 24, LatentSettings()) == 2  # 30 positions x (1 + 24 + 15) and the blank picture
    assert equal_orders(250, 5, LatentSettings()) == 3  # 11 x 40, and 250
    assert equal_orders(1300, 24, LatentSettings(patches=None)) == 2  # 28 x 25, and 1300
    assert equal_orders(100, 24, LatentSettings()) == 5
    assert equal_orders(1300, 24, LatentSettings(update="nes")) > equal_orders(1300, 24, LatentSettings())
    with pytest.raises(ValueError, match="other orders"):
        think(None, [], LETTERS, settings=LatentSettings(arm="self_consistency"))  # type: ignore[arg-type]


def test_positions_are_counted(model: QwenModel) -> None:
    outcome = think(model, question(), LETTERS, settings=dataclasses.replace(EAGER, arm="initial"))
    prompt = LatentPrompt(model, with_latent_slot(question(), 4))
    tail = 4 + prompt.suffix.shape[1]
    # Twice behind the opening (reward, then answer); the blank picture's whole prompt for G3 if G1 and G2 agree.
    blank = prompt.begin + tail if "G3" in outcome.guards else 0
    assert outcome.positions == 2 * tail + blank
    assert outcome.prompt_positions == model.encoder.encode(question()).length


# --- what is asked ----------------------------------------------------------------------------------------------------


def test_the_verdict_of_a_report_is_three_options_behind_its_opening(model: QwenModel) -> None:
    verdicts = ("OK", "NG", "REVIEW")
    outcome = think(model, question(), verdicts, opening='{"verdict": "', settings=dataclasses.replace(EAGER, steps=2))
    assert set(outcome.base.probabilities or {}) == set(verdicts)
    plain = model.prefix(model.encoder.encode(question(), answer='{"verdict": "'))
    wanted = option_shares(plain.logits, [[model.encoder.token_ids(v)[0]] for v in verdicts])
    assert outcome.base.letter in verdicts
    assert len(outcome.steps) == 2
    assert wanted.mass <= (outcome.base.mass or 0.0) + 1e-6


@pytest.mark.parametrize(
    ("letters", "evidence"), [(("A",), None), (("A", "A"), None), (("A", "B"), {"C": 0.1}), (("A", "B"), {"A": 1.5})]
)
def test_questions_that_make_no_sense_are_refused(
    model: QwenModel, letters: tuple[str, ...], evidence: dict[str, float] | None
) -> None:
    with pytest.raises(ValueError, match=r"two different options|evidence is"):
        think(model, question(), letters, evidence=evidence)


def test_inference_mode_around_it_does_not_take_the_gradients(model: QwenModel) -> None:
    with torch.inference_mode():
        outcome = think(model, question(), LETTERS, settings=dataclasses.replace(EAGER, steps=2, patches=None))
    assert outcome.steps[1].moved > 0.0
