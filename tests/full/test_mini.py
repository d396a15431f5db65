"""The mini: packs give what single prompts give, a short run learns, and its checkpoint loads and answers."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from flawscope.agent.reasoner.answer import Answer, Sentence
from flawscope.agent.reasoner.base import DraftReport
from flawscope.agent.reasoner.model_reasoner import form_of
from flawscope.agent.reasoner.reading import as_draft, checked
from flawscope.agent.verifier import verify
from flawscope.agent.vision_language import Generated, Picture
from flawscope.agent.vision_language.checkpoint import load_checkpoint
from flawscope.agent.vision_language.qwen import QwenModel
from flawscope.tools.knowledge.schema import load_documents
from flawscope.training import mini, mini_trainer
from flawscope.training.mini_card import card_of, measure, write_card
from flawscope.training.mini_data import PackMaker, RealCase
from flawscope.training.mini_model import MiniShape, build_model, build_processor, build_tokenizer
from flawscope.training.mini_packing import collate, letters_among, read_batch, rope_positions, use_packed_attention
from flawscope.training.mini_pictures import Gallery, with_made_defects
from flawscope.training.mini_reports import bundle_of, report_messages, report_of, report_text
from flawscope.training.mini_schedule import MiniConfig, batches_of, rate_at
from flawscope.training.questions import TASKS, compose_question, subject_of
from flawscope.training.questions.simulated import Simulator

SHAPE = MiniShape(vocabulary=640, width=96, layers=2, heads=3, hidden=64, vision_width=24, vision_layers=1)
CONFIG = MiniConfig(shape=SHAPE, steps=4, packs=1, endings=2, warm_up=0.5, workers=1, checkpoint_every=2)


@pytest.fixture(autouse=True)
def few_texts(monkeypatch):
    monkeypatch.setattr(mini, "TEXTS", 140)


@pytest.fixture(scope="module")
def simulator():
    return Simulator([page for page in load_documents() if page.product not in mini.LEAVE_OUT])


@pytest.fixture(scope="module")
def tokenizer(simulator):
    words = [f"{page.description} {page.normal_traits}" for page in simulator.pages]
    return build_tokenizer([*["Question: A. B. C. D. E."] * 900, *words], SHAPE.vocabulary)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "ring.png"
    noise = np.random.default_rng(0).integers(0, 255, (90, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return str(path)


@pytest.fixture(scope="module")
def parts(tokenizer, simulator, picture):
    """Model, gallery and maker around one picture."""
    gallery = Gallery(build_processor(tokenizer).image_processor)
    gallery.add([picture])
    maker = PackMaker(tokenizer, simulator, simulator.pages, gallery.grids, (picture,))
    return build_model(tokenizer, SHAPE, 0).eval(), gallery, maker


def saved(parts, tokenizer, folder):
    build_processor(tokenizer).save_pretrained(folder)
    parts[0].save_pretrained(folder)
    return QwenModel(load_checkpoint(folder, device="cpu"))


def test_an_ending_of_a_pack_gets_the_logits_of_its_prompt_alone(parts, tokenizer, tmp_path):
    """Against the model as it is used: attention of transformers, positions of transformers, one question a prompt."""
    _, gallery, maker = parts
    model = saved(parts, tokenizer, tmp_path)
    rng = np.random.default_rng(5)
    case, questions = maker.simulator.questions(rng, "Defect Description", 3)
    (key,) = maker.bystanders
    rgb = np.asarray(Image.open(key))
    pack = maker._pack(questions, case.knowledge("Defect Description"), case.prior, [key, key], "")
    from flawscope.agent.reasoner.composing import prior_lines

    told = prior_lines(case.prior, "defect") if case.prior else ()
    packed = build_model(tokenizer, SHAPE, 0).eval()
    use_packed_attention(packed)
    other = maker.simulated(np.random.default_rng(6), "Defect Description", 3, 0.0)
    batch = collate([other, pack], maker.encode("<|endoftext|>")[0], maker._image)
    with torch.no_grad():
        *_, last = read_batch(packed, batch, gallery.features(packed, [key]), (1,))
        mine = (batch.targets[:, 0] == 1) & letters_among(batch.targets[:, 2], maker.letters)[0]
        logits = packed.lm_head(last[1, batch.targets[mine, 1]])
    assert len(logits) == len(questions)
    for ending in pack.endings:  # a letter, and nothing behind it
        (said, letter), (behind, end) = ending.targets
        assert (ending.ids[said + 1], behind, end) == (letter, said + 1, maker.encode("<|im_end|>")[0])
    for row, question in zip(logits, questions, strict=True):
        messages = compose_question(
            question,
            query=rgb,
            references=[rgb],
            knowledge_lines=case.knowledge("Defect Description"),
            prior_lines=told,
        )
        alone = model.prefix(model.encoder.encode(messages)).logits
        assert torch.allclose(row, alone, atol=1e-4)


def test_a_report_prompt_is_tokenised_as_it_is_asked(parts, tokenizer, tmp_path):
    _, _, maker = parts
    model = saved(parts, tokenizer, tmp_path)
    rng = np.random.default_rng(1)
    case = next(c for c in (maker.simulator.case(rng, "Defect Localization") for _ in range(20)) if c.prior)
    bundle = bundle_of(case, rng)
    (key,) = maker.bystanders
    messages = report_messages(bundle, [Picture(np.asarray(Image.open(key)), "query")])
    ids = [*maker.context(messages, [key]), *maker.encode("<|im_start|>assistant\n")]
    assert ids == model.encoder.encode(messages).input_ids[0].tolist()


def test_every_report_that_is_taught_stands_before_the_verifier_and_fits_its_form(simulator):
    verdicts, fields = set(), set()
    for number in range(60):
        rng = np.random.default_rng([3, number])
        case = simulator.case(rng, "Defect Localization")
        if case.prior is None:
            continue
        bundle = bundle_of(case, rng)
        answer = form_of(bundle).model_validate_json(report_text(report_of(bundle, 700)))
        draft, problems = as_draft(answer, bundle, DraftReport)
        assert problems == ()
        assert verify(draft, bundle).problems == ()
        assert isinstance(checked(Generated(report_text(answer), None, "stop"), bundle), Answer)
        assert draft.claims[0].field == "verdict"
        verdicts.add(draft.verdict.value)
        fields |= {claim.field for claim in draft.claims}
    assert verdicts == {"OK", "NG", "REVIEW"}
    assert fields == {"verdict", "location", "defect_type", "root_cause", "action"}


def test_a_report_asks_for_what_it_decides_oftener_than_for_its_form(parts):
    _, _, maker = parts
    text = report_text(
        Answer(
            verdict="NG",
            defect_type="cut lead",
            region="R1",
            sentences=(Sentence(about="verdict", text="So.", cites=("M1",)),),
        )
    )
    ending = maker._said(text, np.random.default_rng(0))
    said = maker.tokenizer.decode(ending.ids)
    assert said == f"<|im_start|>assistant\n{text}<|im_end|>"
    assert all(ending.ids[place + 1] == token for place, token in ending.targets)
    places = [place for place, _ in ending.targets]
    often = {maker.tokenizer.decode([ending.ids[place + 1]]): places.count(place) for place in places}
    assert often["NG" if "NG" in often else "G"] == 8
    assert set(often.values()) == {1, 3, 8}
    assert len(set(places)) < len(ending.ids) - 8


def test_reports_have_a_part_of_the_run_to_themselves_in_which_the_rate_rises_again():
    config = MiniConfig(reports_from=0.6, warm_up=0.1)
    kinds = {share: [each.kind for each in batches_of(config, 5, share, True)] for share in (0.0, 0.59, 0.6, 1.0)}
    assert kinds[0.0] == ["simulated"] * 8
    assert kinds[0.59] == ["simulated"] * 8 + ["real"] * 2
    assert kinds[0.6] == kinds[1.0] == ["report", "bare report"] + ["simulated"] * 3 + ["real"]
    second = [each for step in range(3) for each in batches_of(config, step, 0.8, False) if each.kind == "simulated"]
    assert [each.task for each in second].count("Anomaly Detection") == 3
    asked = {
        each.task for step in range(7) for each in batches_of(config, step, 0.8, False) if "report" not in each.kind
    }
    assert asked == set(TASKS)
    assert rate_at(config, 0.06) == pytest.approx(config.learning_rate)
    assert rate_at(config, 0.6 - 1e-9) == pytest.approx(0.02 * config.learning_rate, rel=1e-3)
    assert rate_at(config, 0.64) == pytest.approx(config.reports_rate)
    assert rate_at(config, 1.0) == pytest.approx(0.02 * config.reports_rate)


def test_good_and_defective_parts_are_asked_about_as_often():
    pages = load_documents()
    subjects = [subject_of("leather", kind, None, pages) for kind in ("good", "cut")]
    good, bad = (RealCase(subject, subject.defect_type, (), None, None, (), None, ()) for subject in subjects)
    balanced = mini_trainer.even([good, bad, bad, bad])
    assert [case.picture for case in balanced] == ["good"] * 3 + ["cut"] * 3
    assert mini_trainer.even([bad, bad]) == [bad, bad]


def test_a_run_that_ends_by_the_clock_goes_on_at_its_share_of_the_schedule(tmp_path):
    log = tmp_path / "training.jsonl"
    assert mini_trainer.share_reached(log, 50) == 0.0
    log.write_text('{"step": 50, "share": 0.2}\n{"step": 100, "share": 0.45}\n{"step": 150, "sh')
    assert mini_trainer.share_reached(log, 100) == 0.45
    assert mini_trainer.share_reached(log, 150) == 0.0


def test_positions_are_those_of_transformers(parts, tokenizer, tmp_path):
    model = saved(parts, tokenizer, tmp_path)
    (key,) = parts[2].bystanders
    pack = parts[2].simulated(np.random.default_rng(8), "Anomaly Detection", 1, 1.0)
    ids = torch.tensor([pack.ids])
    rows, columns = parts[1].grids[key]
    assert rows != columns
    grids = torch.tensor([[1, 2 * rows, 2 * columns]] * len(pack.pictures))
    wanted, _ = model.checkpoint.model.model.get_rope_index(
        input_ids=ids, mm_token_type_ids=(ids == parts[2]._image).int(), image_grid_thw=grids
    )
    places, following = rope_positions(pack.ids, pack.grids, parts[2]._image)
    assert torch.equal(places, wanted[:, 0])
    assert following == int(wanted.max()) + 1


def test_training_starts_with_a_head_that_looks_one_token_back(tokenizer):
    model = build_model(tokenizer, MiniShape(vocabulary=SHAPE.vocabulary), 0)
    model.set_attn_implementation("eager")
    ids = torch.randint(20, 500, (1, 30), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first = model.model.language_model(input_ids=ids, output_attentions=True).attentions[0][0, 0]
    assert min(float(first[i, i - 1]) for i in range(1, 30)) > 0.9


def real_case(pages, picture):
    subject = subject_of("leather", "cut", "left", pages)
    return RealCase(subject, picture, (picture,), None, None, (tuple(pages[:2]),), None, ())


@pytest.fixture
def one_thread():
    """Sums of several threads depend on how the rows were shared out; the command's workers have one thread each."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_short_run_is_repeatable_resumable_and_leaves_a_model_that_answers(simulator, picture, tmp_path):
    pages = simulator.pages
    case = real_case(pages, picture)
    job = mini.prepare(tmp_path / "a", CONFIG, simulator, [case], [case], [picture], "one")
    trainer = mini.train(job)
    sha256 = mini.save(trainer, {"what": "a test"})
    card = card_of(
        trainer,
        mini.Sources(tmp_path, ("a",), ("b",), ()),
        sha256,
        {"evidence": 0, "training": 1},
        measure(trainer, pages),
    )
    write_card(job.folder, card)
    assert "laboratory animal" in (job.folder / "README.md").read_text()
    assert card["measured"]["told"]["questions"] == 7

    model = QwenModel(load_checkpoint(job.folder, device="cpu"))
    assert model.checkpoint.laboratory["laboratory"] is True
    _, questions = simulator.questions(np.random.default_rng(0), "Object Classification", 1)
    rgb = np.zeros((80, 80, 3), np.uint8)
    answer = model.choose(compose_question(questions[0], query=rgb), questions[0].letters)
    assert answer.letter in questions[0].letters

    halfway = mini.prepare(tmp_path / "b", CONFIG, simulator, [case], [case], [picture], "one")
    first = mini_trainer.Trainer(halfway, 0, group=False)
    for _ in range(2):
        first.step(first.share())
    mini_trainer.save_checkpoint(
        halfway.checkpoint, first.learner, first.optimiser, {}, first.progress, halfway.fingerprint
    )
    again = mini.train(halfway, resume=True)
    assert mini.save(again, {}) == sha256
    logged = [json.loads(line) for line in (halfway.folder / "training" / "training.jsonl").read_text().splitlines()]
    assert [line["step"] for line in logged] == [4]


def test_twenty_steps_learn_a_handful_of_questions(parts, tokenizer):
    _, gallery, maker = parts
    learner = mini_trainer.Learner(build_model(tokenizer, SHAPE, 0), SHAPE)
    use_packed_attention(learner.mini)
    packs = [maker.simulated(np.random.default_rng(3), "Anomaly Detection", 2, 1.0) for _ in range(2)]
    optimiser = torch.optim.AdamW(learner.parameters(), lr=3e-3)
    losses = []
    for _ in range(20):
        with torch.autocast("cpu", torch.bfloat16):
            letters, words, options, _ = learner.losses(
                packs, gallery, maker.encode("<|endoftext|>")[0], maker._image, maker.letters
            )
        optimiser.zero_grad()
        (letters + words + options).backward()
        optimiser.step()
        losses.append(float(words.detach()))
    assert losses[-1] < 0.2 * losses[0]


def test_a_clock_ends_a_run_before_its_steps(simulator, tmp_path):
    config = dataclasses.replace(CONFIG, steps=10_000, minutes=1e-3)
    trainer = mini.train(mini.prepare(tmp_path, config, simulator, (), (), (), "x"))
    assert trainer.progress.step < 100


def test_defects_are_made_once_and_by_seed(picture, tmp_path):
    (made,) = with_made_defects([picture], tmp_path / "a", 3)
    (again,) = with_made_defects([picture], tmp_path / "b", 3)
    assert np.array_equal(np.asarray(Image.open(made)), np.asarray(Image.open(again)))
    assert not np.array_equal(np.asarray(Image.open(made)), np.asarray(Image.open(picture)))
