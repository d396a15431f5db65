"""Think tokens and patches behind a cached prefix give what one whole forward pass and transformers' generate give."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from full.latent_model import LETTERS, picture, question, tiny_model

from flawscope.agent.vision_language.decoding import prefill
from flawscope.agent.vision_language.latent import LatentSettings, Thought
from flawscope.agent.vision_language.latent.controls import initial_tokens
from flawscope.agent.vision_language.latent.prompt import LatentPrompt, eager_attention
from flawscope.agent.vision_language.latent.reward import Reward
from flawscope.agent.vision_language.latent.thinking import generate_with, think
from flawscope.agent.vision_language.memory import Bounds, TokenCost
from flawscope.agent.vision_language.messages import Message, Picture, Slot, without_slots
from flawscope.agent.vision_language.qwen import QwenModel

CLOSE = 1e-4
L = 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> QwenModel:
    return tiny_model(tmp_path_factory.mktemp("vlm") / "tiny", sharper=10.0)


@pytest.fixture
def prompt(model: QwenModel) -> LatentPrompt:
    return LatentPrompt(model, question(slot=L))


def tokens(model: QwenModel, seed: int = 0) -> torch.Tensor:
    """Think tokens that moved from where they began."""
    start = initial_tokens(model, L)
    return start + start.std() * torch.randn(start.shape, generator=torch.Generator().manual_seed(seed))


def processed(model: QwenModel, messages: list[Message]) -> dict[str, torch.Tensor]:
    """The same conversation through transformers' own processor."""
    turns, images = [], []
    for message in messages:
        content = []
        for part in message.parts:
            if isinstance(part, Picture):
                content.append({"type": "image", "image": part.rgb})
                images.append(part.rgb)
            elif isinstance(part, Slot):
                content.append({"type": "text", "text": model.encoder.slot_token * part.length})
            else:
                content.append({"type": "text", "text": part})
        turns.append({"role": message.role, "content": content})
    processor = model.checkpoint.processor
    text = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return dict(processor(text=[text], images=images, return_tensors="pt"))


def test_without_think_tokens_the_scores_are_those_of_the_model_on_its_processors_inputs(model: QwenModel) -> None:
    inputs = processed(model, question())
    with torch.no_grad():
        wanted = model.checkpoint.model(**inputs).logits[0, -1]
    encoded = model.encoder.encode(question())
    prefix = model.prefix(encoded)
    torch.testing.assert_close(prefix.logits, wanted, atol=CLOSE, rtol=0)
    # The opening cut out of that prefix, with nothing inserted, ends in the same place.
    prompt = LatentPrompt(model, question(slot=L), computed=(encoded, prefix))
    with torch.no_grad():
        seen = prompt.run(torch.zeros(0, model.width), ())
    torch.testing.assert_close(seen.answer, wanted, atol=CLOSE, rtol=0)
    assert prompt.positions == prompt.suffix.shape[1]


def test_dropping_the_picture_types_or_the_positions_is_noticed(model: QwenModel, prompt: LatentPrompt) -> None:
    inputs = processed(model, question())
    encoded = model.encoder.encode(question())
    embeds = model.encoder.embeddings(encoded)
    with torch.no_grad():
        right = model.checkpoint.model(**inputs).logits[0, -1]
        whole = torch.ones(embeds.shape[:2], dtype=torch.long)
        flat = model.checkpoint.model(inputs_embeds=embeds, attention_mask=whole).logits[0, -1]
        lost = model.checkpoint.model(**{k: v for k, v in inputs.items() if k != "mm_token_type_ids"}).logits[0, -1]
    assert (right - model.prefix(encoded).logits).abs().max() < CLOSE
    assert (right - flat).abs().max() > 10 * CLOSE
    assert (right - lost).abs().max() > 10 * CLOSE
    # Rows and columns differ inside a picture, and the think tokens go on behind its largest side.
    time, row, column = encoded.position_ids[:, 0, encoded.pictures[1].start : encoded.pictures[1].stop]
    assert len(set(time.tolist())) == 1
    assert (len(set(row.tolist())), len(set(column.tolist()))) == encoded.grids[1]
    place = prompt.begin
    assert prompt.encoded.position_ids[:, 0, place].tolist() == [prompt.opening.next_position] * 3
    assert prompt.opening.next_position < place


def test_positions_lost_in_the_encoder_break_parity(model: QwenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    original = model.checkpoint.model.model.get_rope_index

    def all_text(input_ids: torch.Tensor, **given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        given["mm_token_type_ids"] = torch.zeros_like(input_ids)
        return original(input_ids=input_ids, **given)  # type: ignore[no-any-return]

    with torch.no_grad():
        wanted = model.checkpoint.model(**processed(model, question())).logits[0, -1]
    monkeypatch.setattr(model.checkpoint.model.model, "get_rope_index", all_text)
    prompt = LatentPrompt(model, question(slot=L))
    with torch.no_grad():
        seen = prompt.run(torch.zeros(0, model.width), ())
    assert (seen.answer - wanted).abs().max() > 10 * CLOSE


@pytest.mark.parametrize("where", ["text", "source"])
@pytest.mark.parametrize("patches", [(), (3,), (14, 2, 9)])
def test_the_cached_prefix_gives_what_one_whole_pass_gives(
    model: QwenModel, where: str, patches: tuple[int, ...]
) -> None:
    prompt = LatentPrompt(model, question(slot=L), patch_positions=where)
    moved = tokens(model)
    encoded, stop = prompt.encoded, prompt.begin + L
    whole = model.encoder.embeddings(encoded, {"latent": moved})
    features = encoded.features[1][list(patches)]
    embeds = torch.cat([whole[:, :stop], features[None], whole[:, stop:]], dim=1)
    places, count = encoded.position_ids, len(patches)
    if where == "text":
        after = places[:, :, stop - 1 : stop] + 1 + torch.arange(count)
        places = torch.cat([places[:, :, :stop], after, places[:, :, stop:] + count], dim=2)
    else:
        own = places[:, :, [encoded.pictures[1].start + patch for patch in patches]]
        places = torch.cat([places[:, :, :stop], own, places[:, :, stop:]], dim=2)
    wanted = prefill(model.checkpoint.model, embeds, places)
    for _ in range(2):  # the cached tensors are read, never written
        with torch.no_grad():
            seen = prompt.run(moved, patches, think=True)
        torch.testing.assert_close(seen.answer, wanted.logits, atol=CLOSE, rtol=0)
    following = prompt.prefix(moved, patches)
    assert (following.length, following.next_position) == (wanted.length, wanted.next_position)
    for ours, theirs in zip(following.layers, wanted.layers, strict=True):
        torch.testing.assert_close(ours, theirs, atol=CLOSE, rtol=0)


def test_greedy_decoding_behind_real_words_as_think_tokens_is_that_of_generate(
    model: QwenModel, prompt: LatentPrompt
) -> None:
    ids = model.encoder.token_ids("edges scratch hole dent")[:L]
    thought = model.checkpoint.model.get_input_embeddings()(torch.tensor(ids)).detach()
    inputs = processed(model, question(slot=L))
    inputs["input_ids"][inputs["input_ids"] == model.encoder.slot_id] = torch.tensor(ids)
    out = model.checkpoint.model.generate(
        **inputs, do_sample=False, max_new_tokens=12, output_logits=True, return_dict_in_generate=True
    )
    wanted = [logits[0].log_softmax(dim=0).max(dim=0) for logits in out.logits]
    said = generate_with(model, question(slot=L), Thought(thought.numpy(), ()), max_tokens=12)
    assert said.tokens is not None
    assert [token.top[0][0] for token in said.tokens] == [model.decoder.name(int(best.indices)) for best in wanted]
    assert [token.logprob for token in said.tokens] == pytest.approx([float(w.values) for w in wanted], abs=CLOSE)
    assert len(said.tokens) == 12


def test_weights_get_no_gradient_and_think_tokens_a_finite_one(model: QwenModel, prompt: LatentPrompt) -> None:
    moving = tokens(model).requires_grad_(True)
    prompt.run(moving, (2,)).answer.logsumexp(dim=0).backward()
    assert moving.grad is not None
    assert bool(torch.isfinite(moving.grad).all())
    assert float(moving.grad.abs().max()) > 0.0
    assert all(weight.grad is None for weight in model.checkpoint.model.parameters())
    assert all(not tensor.requires_grad for layer in prompt.opening.layers for tensor in layer)


def test_the_gradient_is_the_slope_of_the_answer(model: QwenModel, prompt: LatentPrompt) -> None:
    moving = tokens(model).requires_grad_(True)
    target = prompt.run(moving, (2,)).answer[5]
    (slope,) = torch.autograd.grad(target, moving)
    with torch.no_grad():
        direction = slope / slope.norm()
        step = 2e-3
        high, low = (prompt.run(moving + sign * step * direction, (2,)).answer[5] for sign in (1, -1))
    assert float((high - low) / (2 * step)) == pytest.approx(float(slope.norm()), rel=0.02)


def test_other_pictures_give_other_scores(model: QwenModel) -> None:
    moved = tokens(model)
    a, b = picture(0), picture(7)
    swapped = [Message("user", ("1:", Picture(b), "2:", Picture(a, "query"), "?", Slot("latent", L)))]
    given = [Message("user", ("1:", Picture(a), "2:", Picture(b, "query"), "?", Slot("latent", L)))]
    with torch.no_grad():
        one, other = (LatentPrompt(model, each).run(moved, ()).answer for each in (given, swapped))
    assert (one - other).abs().max() > 10 * CLOSE


@pytest.mark.parametrize("seed", range(3))
def test_what_is_decoded_is_the_thought_with_the_best_reward(model: QwenModel, seed: int) -> None:
    settings = LatentSettings(
        learning_rate=0.3, patches="random", min_gain=1e-6, min_mass=1e-9, wall_s=600.0, seed=seed
    )
    outcome = think(model, question(slot=L), LETTERS, settings=settings)
    thought = outcome.thought
    assert thought is not None
    assert outcome.best_reward is not None
    best = next(i for i, step in enumerate(outcome.steps) if step.reward == outcome.best_reward)
    assert best > 0
    assert thought.patches == tuple(patch for step in outcome.steps[: best + 1] for patch in step.injected)
    assert thought.patches
    # The thought earns that reward, and the proposal and the first word decoded are what it says.
    prompt = LatentPrompt(model, question(slot=L))
    tokens, ids = torch.from_numpy(thought.tokens), model.letter_ids(LETTERS)
    assert outcome.base.probabilities is not None
    base = torch.tensor(list(outcome.base.probabilities.values()))
    with torch.no_grad():
        seen = prompt.run(tokens, thought.patches).answer
    again = Reward(LETTERS, ids, base, initial_tokens(model, L), None, settings)(seen, None, tokens)
    assert again.value == pytest.approx(outcome.best_reward, abs=CLOSE)
    said = generate_with(model, question(slot=L), thought, max_tokens=1)
    assert said.tokens is not None
    assert said.tokens[0].logprob == pytest.approx(float(seen.log_softmax(dim=0).max()), abs=CLOSE)
    assert outcome.proposal is not None
    assert outcome.proposal.probabilities is not None
    assert list(outcome.proposal.probabilities.values()) == pytest.approx(again.options.shares.tolist(), abs=CLOSE)


def test_attention_is_read_without_changing_the_answer(model: QwenModel, prompt: LatentPrompt) -> None:
    moved = tokens(model)
    language_model = model.checkpoint.model.model.language_model
    usual = language_model.config._attn_implementation
    with torch.no_grad():
        fast = prompt.run(moved, (1, 5)).answer
        with eager_attention(model.checkpoint.model):
            slow = prompt.run(moved, (1, 5)).answer
    torch.testing.assert_close(fast, slow, atol=CLOSE, rtol=0)
    looks = prompt.attention(moved, (1, 5))
    assert looks.shape == (15,)
    assert bool((looks > 0).all())
    assert float(looks.sum()) < 1.0
    assert prompt.usual_attention().shape == (15,)
    assert language_model.config._attn_implementation == usual
    with pytest.raises(RuntimeError, match="on purpose"), eager_attention(model.checkpoint.model):
        raise RuntimeError("on purpose")
    assert language_model.config._attn_implementation == usual


def test_the_slot_goes_behind_the_question_and_comes_off_again(model: QwenModel) -> None:
    outcome = think(model, question(), LETTERS, settings=LatentSettings(arm="initial", wall_s=600.0))
    ready = think(model, question(slot=2), LETTERS, settings=LatentSettings(arm="initial", wall_s=600.0))
    plain = model.choose(without_slots(question(slot=2)), LETTERS)
    assert outcome.base == plain
    assert ready.base == plain
    assert outcome.thought is not None
    assert ready.thought is not None
    assert outcome.thought.tokens.shape == ready.thought.tokens.shape == (4, model.width)
    with pytest.raises(ValueError, match="one place"):
        think(model, [*question(slot=2), Message("user", (Slot("latent", 2),))], LETTERS)


def crowded(*labels: str) -> list[Message]:
    """A question with pictures of these labels, each another."""
    shown = [Picture(picture(seed), label) for seed, label in enumerate(labels)]
    return [Message("user", (*shown, "Is there a defect? A. Yes B. No C. hole\n", Slot("latent", L), "Answer."))]


def bounded(model: QwenModel, bounds: Bounds) -> QwenModel:
    """The same weights with less room."""
    return QwenModel(dataclasses.replace(model.checkpoint, bounds=bounds))


@pytest.mark.parametrize("most", [1, 2, 3, 4])
def test_patches_are_those_of_the_query_whatever_pictures_were_left_out(model: QwenModel, most: int) -> None:
    asked = crowded("reference", "reference", "query", "zoom")
    few = bounded(model, Bounds(pictures=most))
    prompt = LatentPrompt(few, asked)
    assert len(prompt.encoded.pictures) == most
    torch.testing.assert_close(prompt.features, model.encoder.encode(asked).features[2])
    assert prompt.picture is not None
    assert prompt.query_positions.shape[2] == len(prompt.picture) == len(prompt.features)
    outcome = think(few, asked, LETTERS, settings=LatentSettings(patches="random", min_gain=1e-6, wall_s=600.0))
    assert outcome.steps
    gone = ["reference", "reference", "zoom"][: 4 - most]
    assert outcome.base.usage.get("left_out", []) == gone
    said = generate_with(few, asked, Thought(tokens(model).numpy(), (3,)), max_tokens=2)
    assert said.usage.get("left_out", []) == gone


def test_nothing_is_searched_for_when_the_picture_that_is_asked_about_is_not_seen(model: QwenModel) -> None:
    few = bounded(model, Bounds(pictures=1))
    outcome = think(few, crowded("reference", "reference"), LETTERS, settings=LatentSettings(wall_s=600.0))
    assert outcome.why == "the picture that is asked about was left out for want of room"
    assert (outcome.accepted, outcome.final, outcome.steps, outcome.grid) == (False, outcome.base, (), None)


def test_a_thought_leaves_the_room_of_the_answer_that_follows(model: QwenModel) -> None:
    asked = crowded("reference", "query")
    whole = model.encoder.encode(asked).length
    cost = TokenCost(kept=1000, passing=1000)
    tight = bounded(model, Bounds(question_bytes=(whole + 1) * 2000 * 8 // 7, cost=cost))
    settings = LatentSettings(patches=None, wall_s=600.0)
    alone = think(tight, asked, LETTERS, settings=settings)
    assert "left_out" not in alone.base.usage
    followed = think(tight, asked, LETTERS, settings=settings, room=12)
    assert followed.base.usage["left_out"] == ["reference"]
    said = generate_with(tight, asked, Thought(tokens(model).numpy(), ()), max_tokens=12)
    assert said.usage["left_out"] == ["reference"]
