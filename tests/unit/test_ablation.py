"""The ladder on a made set of textures, with a model that reads what it is told."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import texture, with_square
from PIL import Image

from flawscope.agent.errors import BackendError, ConfigError
from flawscope.agent.reasoner.prior_lines import Prior, PriorBox
from flawscope.agent.settings import LoadedSettings, load_settings
from flawscope.agent.uncertainty.records import AnswerRecord, read_log
from flawscope.agent.vision_language import Generated, LetterAnswer, Message, Picture
from flawscope.agent.vision_language.latent import LatentSettings, NormalImages
from flawscope.agent.vision_language.latent.normals import NORMALS_FILE, load_normals
from flawscope.benchmarks import ablation, efficiency
from flawscope.benchmarks.ablation import RULES, run_ablation
from flawscope.benchmarks.ablation_objections import objects
from flawscope.benchmarks.ablation_stress import blank, goods_under
from flawscope.benchmarks.ablation_tables import render
from flawscope.benchmarks.memory import peak_mb
from flawscope.benchmarks.mmad.arms import BY_NAME, LADDER, arms_named
from flawscope.benchmarks.mmad.asking import DOUBT, Asking, Given, agreement, further, magnified, mapped_back, raw_lines
from flawscope.benchmarks.mmad.baselines import ByRule
from flawscope.benchmarks.mmad.evidence import EvidenceSource, PictureEvidence
from flawscope.benchmarks.mmad.making import Plan, make_questions
from flawscope.benchmarks.mmad.priors import shrunk
from flawscope.benchmarks.mmad.questions import Item, ItemSet, load_items
from flawscope.benchmarks.mmad.run import LOG
from flawscope.benchmarks.mmad.workshop import open_workshop, references_of
from flawscope.tools.knowledge.categories import CategoryChoice
from flawscope.tools.knowledge.schema import load_documents

PRODUCT = "textile"  # the one product with a page among the few documents of the cheap parts


class Reader:
    """Says yes where the prior reports a defect; sure of it. Unsure of all it is not told about.

    Attributes:
        asked: conversations so far.
    """

    name = "reader"

    def __init__(self) -> None:
        self.asked: list[tuple[Message, ...]] = []

    def choose(self, messages: Sequence[Message], letters: Sequence[str]) -> LetterAnswer:
        self.asked.append(tuple(messages))
        text = messages[-1].text
        wanted = "Yes." if "The expert reports a defect" in text else "No." if "gives no verdict" in text else None
        shares = dict.fromkeys(letters, 1.0 / len(letters))
        for line in text.splitlines():
            if wanted is not None and line[3:] == wanted:
                shares = {letter: 0.01 / (len(letters) - 1) for letter in letters} | {line[0]: 0.99}
        best = max(letters, key=lambda letter: shares[letter])
        return LetterAnswer(best, shares, 0.99, best, {"prompt_tokens": len(text)})

    def generate(self, messages: Sequence[Message], **options: Any) -> Generated:
        raise NotImplementedError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, _cheap_parts: None) -> Path:
    """A made set of textures: 10 references, 4 good and 5 defective pictures to ask about, 2 examples."""
    root = tmp_path_factory.mktemp("labelled")
    folders = {"train/good": range(10), "test/good": range(20, 24), "test/local": range(30, 37)}
    for folder, seeds in folders.items():
        (root / PRODUCT / folder).mkdir(parents=True)
        for seed in seeds:
            pixels = texture(seed) if "good" in folder else with_square(texture(seed), 10, 10)
            Image.fromarray(pixels).save(root / PRODUCT / folder / f"{seed:02d}.png")
    out = tmp_path_factory.mktemp("made") / "set"
    make_questions(root, out, Plan((PRODUCT,), good=4, defective=5, examples=2), load_documents())
    return out


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory, _cheap_parts: None) -> LoadedSettings:
    given = {"home": tmp_path_factory.mktemp("workshop"), "backbone": "patch-statistics", "store": "memory"}
    return load_settings({**given, "false_alarm": 0.15}, environ={})


@pytest.fixture(scope="module")
def source(data: Path, loaded: LoadedSettings) -> EvidenceSource:
    deps = open_workshop(loaded, load_items(data))
    return EvidenceSource(deps, data)


@pytest.fixture(scope="module")
def items(data: Path) -> ItemSet:
    return load_items(data)


def one(items: ItemSet, task: str, normal: bool = False) -> Item:
    return next(item for item in items.items if item.subtask == task and item.normal == normal)


def part(items: ItemSet) -> Item:
    """A question about the kind of part; a base of few pages has none in it."""
    return replace(one(items, "Anomaly Detection"), task="Object Classification")


def test_nothing_asked_about_gets_into_the_workshop(items: ItemSet, source: EvidenceSource) -> None:
    asked = {(items.root / image).read_bytes() for image in items.images}
    stored = [path for path in source.deps.home.root.rglob("*.png") if "products" not in path.parts]
    assert not asked & {path.read_bytes() for path in stored}
    assert set(references_of(items)[PRODUCT]) & set(items.images) == set()
    assert len(references_of(items)[PRODUCT]) == 10


def test_evidence_is_that_of_an_inspection_and_the_same_from_the_cache(
    items: ItemSet, source: EvidenceSource, data: Path
) -> None:
    bad = source.of(one(items, "Anomaly Detection"))
    good = source.of(one(items, "Anomaly Detection", normal=True))
    assert bad.prior is not None
    assert good.s_cal is not None
    assert bad.s_cal is not None
    assert bad.s_cal > 0.5 > good.s_cal
    assert bad.bundle.probability == bad.s_cal == bad.prior.probability
    assert bad.prior.boxes[0].place.startswith("upper left")
    assert bad.anomaly_map is not None
    assert 0.0 <= bad.anomaly_map.min() <= bad.anomaly_map.max() <= 1.0
    again = EvidenceSource(source.deps, data).of(one(items, "Anomaly Detection"))
    assert again.prior == bad.prior
    assert again.raw == bad.raw
    assert again.rounds == bad.rounds
    assert again.pages == bad.pages
    assert again.bundle.items == bad.bundle.items


def test_each_arm_gives_what_it_says(items: ItemSet, source: EvidenceSource) -> None:
    item = one(items, "Anomaly Detection")
    evidence = source.of(item)

    def prompt(name: str) -> Message:
        model = Reader()
        line = Asking(model, items.root).line(item, BY_NAME[name], evidence)
        assert line["arm"] == name
        return model.asked[0][-1]

    assert [picture.label for picture in prompt("A0").pictures] == ["query"]
    assert [picture.label for picture in prompt("A1").pictures] == ["reference", "query"]
    assert "Quoted pages" not in prompt("A1").text
    assert "> " in prompt("A2").text
    assert "[M1]" not in prompt("A3").text
    assert "not calibrated" in prompt("A4").text
    assert "Probability of a defect" not in prompt("A4").text
    assert "Probability of a defect" in prompt("A5").text
    assert "> " not in prompt("A5.nodoc").text
    assert [picture.label for picture in prompt("A5.noref").pictures] == ["query"]


def test_retries_bring_new_evidence_and_keep_the_surest_answer(items: ItemSet, source: EvidenceSource) -> None:
    item = one(items, "Anomaly Detection")
    evidence = source.of(item)

    class Unsure(Reader):
        certainty = (0.6, 0.9, 0.7, 0.65)

        def choose(self, messages: Sequence[Message], letters: Sequence[str]) -> LetterAnswer:
            p = self.certainty[len(self.asked)]
            self.asked.append(tuple(messages))
            best = letters[len(self.asked) % 2]
            return LetterAnswer(best, {x: p if x == best else 1 - p for x in letters}, 1.0, best)

    model = Unsure()
    line = Asking(model, items.root).line(item, BY_NAME["A9"], evidence)
    texts = [messages[-1].text for messages in model.asked]
    assert len(texts) == 1 + len(line["retries"]) == line["calls"] == 1 + len(evidence.rounds) > 2
    assert len(set(texts)) == len(texts)  # each round says something new
    assert line["answer"] == "A"  # of the second call, the surest: not the last
    sure = Reader()
    assert Asking(sure, items.root).line(item, BY_NAME["A9"], evidence)["retries"] == []


def test_signs_of_doubt_are_logged_beside_the_same_answer(items: ItemSet, source: EvidenceSource) -> None:
    class Draws(Reader):
        def generate(self, messages: Any, **options: Any) -> Generated:
            assert options["temperature"] == 0.7
            return Generated(("A", "A.", "B", "It is unclear", "A")[options["seed"]], None, "stop")

    item = next(one for one in items.items if len(one.options) == 4)
    evidence = source.of(item)
    model = Draws()
    line = Asking(model, items.root).line(item, BY_NAME["A5.signs"], evidence)
    assert line["samples"] == ["A", "A", "B", None, "A"]
    assert len(line["permuted"]) == 3
    assert line["calls"] == 9
    plain = Asking(Reader(), items.root).line(item, BY_NAME["A5"], evidence)
    assert line["answer"] == plain["answer"]
    assert (plain["permuted"], plain.get("samples")) == ([], None)
    assert AnswerRecord.model_validate(line).samples == ("A", "A", "B", None, "A")


def test_an_area_is_argued_against_only_in_doubt_and_moves_the_probability_within_bounds(
    items: ItemSet, source: EvidenceSource
) -> None:
    class Argues(Reader):
        def __init__(self, first: float) -> None:
            super().__init__()
            self.first = first

        def choose(self, messages: Any, letters: Any) -> LetterAnswer:
            self.asked.append(list(messages))
            text = messages[-1].text
            if "You have tried to explain it away." in text:
                shares = {"A": 0.5, "B": 0.5}
                shares["A" if text.index("a deviation") < text.index("normal variation") else "B"] = 1.0
                return LetterAnswer("A", {x: s / 1.5 for x, s in shares.items()}, 1.0, "A")
            share = self.first if len(self.asked) == 1 else 0.95
            return LetterAnswer("A", {x: share if x == "A" else 1 - share for x in letters}, 1.0, "A")

        def generate(self, messages: Any, **options: Any) -> Generated:
            self.asked.append(list(messages))
            return Generated("It may be glare.", None, "stop", {"prompt_tokens": 5, "completion_tokens": 3})

    item = next(
        one
        for one in items.items
        if one.task == "Anomaly Detection" and source.of(one).bundle.regions and len(one.options) == 2
    )
    evidence = source.of(item)
    model = Argues(0.6)
    line = Asking(model, items.root).line(item, BY_NAME["A9.refute"], evidence)
    tried = line["refutation"]
    assert (line["refuted"], line["calls"], line["answer"]) == (True, 5, "A")
    assert line["probabilities"]["A"] == 0.95  # the surer answer stands
    assert tried["defect"] == pytest.approx(2 / 3)
    odds = [tried[when] / (1 - tried[when]) for when in ("before", "after") if tried[when] < 1.0]
    assert (tried["before"] >= 0.5) == (tried["after"] >= 0.5)
    assert len(odds) < 2 or 1.0 <= odds[1] / odds[0] <= 2.0
    assert len(model.asked[1][0].pictures) == 3
    assert Asking(Argues(0.99), items.root).line(item, BY_NAME["A9.refute"], evidence)["refuted"] is False
    other = replace(item, task="Defect Classification")
    assert Asking(Argues(0.6), items.root).line(other, BY_NAME["A9.refute"], evidence)["refuted"] is False


def test_what_the_part_is_comes_from_the_prediction_and_never_from_its_true_name(
    items: ItemSet, source: EvidenceSource
) -> None:
    item = part(items)
    silent = replace(source.of(item), category=CategoryChoice("generic"), good_pages=())
    asking = Asking(Reader(), items.root)
    for arm in ("A2", "A3", "A5", "A9"):
        given = asking.given(item, BY_NAME[arm], silent)
        assert "> " not in asking.messages(item, given, silent)[-1].text
    sure = replace(silent, category=CategoryChoice("predicted", (("anvil", 0.9),)))
    told = asking.messages(item, asking.given(item, BY_NAME["A2"], sure), sure)[-1].text
    assert "anvil" in told
    assert "anvil" not in asking.messages(item, asking.given(item, BY_NAME["A1"], sure), sure)[-1].text


def test_two_options_have_one_other_order(items: ItemSet, source: EvidenceSource) -> None:
    item = one(items, "Anomaly Detection")
    asking, evidence = Asking(Reader(), items.root), source.of(item)
    given = asking.given(item, BY_NAME["A5"], evidence)
    assert len(item.options) == 2
    assert len(asking.reordered(item, given, evidence, 3)) == 1
    other = replace(item, task="Defect Classification", options={letter: letter * 3 for letter in "ABCD"})
    assert len(asking.reordered(other, given, evidence, 3)) == 3


def test_further_evidence_depends_on_what_is_asked(items: ItemSet, source: EvidenceSource) -> None:
    item = part(items)
    evidence = source.of(item)
    asking = Asking(Reader(), items.root)
    given = asking.given(item, BY_NAME["A9"], evidence)
    assert further(item, given, evidence) == []  # pages are searched with the name that is asked for
    defect = replace(item, task="Defect Classification")
    given = asking.given(defect, BY_NAME["A9"], evidence)
    names = [name for name, _ in further(defect, given, evidence)]
    assert names[0] == "zoom"
    zoomed = further(defect, given, evidence)[0][1].query
    assert zoomed.shape[0] < given.query.shape[0]
    alone = replace(given, prior=None)
    assert further(one(items, "Anomaly Detection"), alone, evidence) == []


def test_the_ladder_is_climbed_kept_and_told(data: Path, loaded: LoadedSettings, tmp_path: Path) -> None:
    model = Reader()
    arms = ["A1", "A5", "A6", "A7", "A8", "A9"]
    result = run_ablation(data, model, loaded, arms=arms, stress=2, goods=3, out=tmp_path / "run")
    assert set(result["missing"]) == {"A6", "A7", "A8"}
    detection = {
        name: [line for line in lines if line["task"] == "Anomaly Detection"] for name, lines in result["lines"].items()
    }
    assert sum(line["correct"] for line in detection["A5"]) > sum(line["correct"] for line in detection["A1"])
    text = render(result)
    assert "A5 against A0: +" in text
    assert "no text tower" in text
    assert "| evidence by rule |" in text
    kinds = {row.name: row for row in result["stress"]}
    moved = kinds["option letters moved on, mean of both orders"]
    assert moved.confidence[1] <= moved.confidence[0]
    assert moved.outcome == "answers stay" or moved.changed > 5.0
    assert "confidence falls" in kinds["blank picture, nothing found in it"].outcome
    assert kinds["blank picture, the evidence as it was"].changed == 0.0  # this model reads and does not look
    assert {row.arm for row in result["goods"]} == {"A0", "A1", "A4", "A5", "A9"}
    assert {row.questions for row in result["goods"]} == {6}
    assert all(row.alarms == 0 for row in result["goods"] if row.arm == "A5")
    log = read_log(tmp_path / "run" / "A5" / LOG)
    assert {record.s_cal is None for record in log.records} == {False}
    calls = len(model.asked)
    again = run_ablation(data, model, loaded, arms=arms, goods=3, out=tmp_path / "run")
    assert len(model.asked) == calls  # all answers were kept
    assert again["goods"] == result["goods"]
    assert [line["answer"] for line in again["lines"]["A5"]] == [line["answer"] for line in result["lines"]["A5"]]
    with pytest.raises(ConfigError, match="holds another run"):
        run_ablation(data, model, loaded, arms=["A1"], limit=2, out=tmp_path / "run")
    other = load_settings({"home": loaded.home.root, "backbone": "patch-statistics", "store": "memory"}, environ={})
    with pytest.raises(ConfigError, match="another run: evidence differ"):  # its false_alarm is the default
        run_ablation(data, model, other, arms=arms, out=tmp_path / "run")


def test_good_references_are_those_of_the_products_that_are_asked_for(
    data: Path,
    items: ItemSet,
    source: EvidenceSource,
    loaded: LoadedSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    foreign = replace(one(items, "Anomaly Detection"), image="made/anvil/test/good/1.png")
    both = replace(items, items=(*items.items, foreign))

    def asked(products: Sequence[str] | None) -> int:
        given = Asking(Reader(), data), source, both, [BY_NAME["A0"]], 3
        (row,) = goods_under(*given, lambda arm: contextlib.nullcontext(), lambda *told: None, products)
        return row.questions

    assert (asked([PRODUCT]), asked(None)) == (6, 12)
    given: list[Any] = []
    monkeypatch.setattr(ablation, "goods_under", lambda *rest: given.append(rest[-1]) or ())
    run_ablation(data, Reader(), loaded, arms=["A0"], goods=3, products=[PRODUCT])
    assert given == [[PRODUCT]]


@pytest.mark.parametrize("spoils", [True, False])
def test_what_latent_reasoning_did_to_good_references_is_kept_for_inspections(
    data: Path, loaded: LoadedSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoils: bool
) -> None:
    class Here(Reader):
        """A model in this process, as far as the ladder can see; its search is scripted."""

        checkpoint = None

    def thinks(asking: Asking, item: Item, given: Given, evidence: PictureEvidence, control: str) -> Any:
        found = asking.choose(item, given, evidence)
        if spoils:
            found = replace(found, letter=next(a for a, text in item.options.items() if text == "Yes."))
        return found, {"accepted": spoils, "base": "A", "proposal": None, "steps": 0}

    monkeypatch.setattr(Asking, "_think", thinks)
    climb = partial(run_ablation, data, Here(), loaded, tasks=["Anomaly Detection"], goods=3)
    climb(arms=["A8"], weights="w 1 2", out=tmp_path / "run")
    found = load_normals(tmp_path / "run" / NORMALS_FILE, weights="w 1 2", settings=LatentSettings())
    assert found == NormalImages(6, 0, 6 if spoils else 0)
    assert found.hold is not spoils
    climb(arms=["A8"], out=tmp_path / "nameless")
    climb(arms=["A5"], weights="w 1 2", out=tmp_path / "without")
    assert not list(tmp_path.glob(f"[!r]*/{NORMALS_FILE}"))


def test_searches_that_were_cut_off_measure_nothing_and_that_is_said(
    data: Path, loaded: LoadedSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Here(Reader):
        checkpoint = None

    def late(asking: Asking, item: Item, given: Given, evidence: PictureEvidence, control: str) -> Any:
        found = asking.choose(item, given, evidence)
        return found, {"accepted": False, "cut": True, "base": found.letter, "proposal": None, "steps": 0}

    monkeypatch.setattr(Asking, "_think", late)
    result = run_ablation(
        data,
        Here(),
        loaded,
        arms=["A8"],
        tasks=["Anomaly Detection"],
        goods=3,
        weights="w 1 2",
        out=tmp_path / "run",
    )
    assert {row.arm: row.cut for row in result["goods"]} == {"A5": 0, "A8": 6}
    assert "A8: 6 of 6 searches were cut off" in render(result)
    assert "normals.json will be refused" in render(result)
    with pytest.raises(ConfigError, match=r"6 of 6 searches were cut off.*6 s and 2048 MiB"):
        load_normals(tmp_path / "run" / NORMALS_FILE, weights="w 1 2", settings=LatentSettings())


def test_rules_read_the_evidence(items: ItemSet, source: EvidenceSource) -> None:
    rules = ByRule()
    lines = [(item, rules.answer(item, source.of(item)).letter == item.answer) for item in items.items]
    detection = [right for item, right in lines if item.subtask == "Anomaly Detection"]
    assert sum(detection) >= len(detection) - 1
    assert RULES not in {arm.name for arm in LADDER}


def test_the_verifier_objects_to_what_the_evidence_denies(items: ItemSet, source: EvidenceSource) -> None:
    item = one(items, "Anomaly Detection")
    evidence = source.of(item)
    yes = next(letter for letter, text in item.options.items() if text == "Yes.")
    no = next(letter for letter in item.options if letter != yes)
    assert objects(item, LetterAnswer(yes, None, None, yes), evidence, ()) is False
    assert objects(item, LetterAnswer(no, None, None, no), evidence, ()) is True
    assert objects(part(items), LetterAnswer("A", None, None, "A"), evidence, ()) is None
    assert objects(item, LetterAnswer(None, None, None, ""), evidence, ()) is None


def test_agreement_with_the_expert(items: ItemSet, source: EvidenceSource) -> None:
    item = one(items, "Anomaly Detection")
    evidence = source.of(item)
    found = agreement(item, evidence)
    assert found is not None
    yes = next(letter for letter, text in item.options.items() if text == "Yes.")
    assert found[yes] == pytest.approx(2 * (evidence.s_cal or 0.0) - 1)
    assert sum(found.values()) == pytest.approx(0.0)
    place = replace(item, task="Defect Localization", options={"A": "lower right.", "B": "upper left."})
    located = agreement(place, evidence)
    assert located is not None
    assert located["B"] > located["A"]
    assert agreement(part(items), evidence) is None


def test_arms_bring_the_rows_that_they_are_compared_with() -> None:
    assert [arm.name for arm in arms_named(["A5", "A8"])] == ["A4", "A5", "A8"]
    assert arms_named(None) == LADDER
    with pytest.raises(ConfigError, match="no arm A10"):
        arms_named(["A10"])


def test_moved_answers_come_back_to_their_letters() -> None:
    found = LetterAnswer("A", {"A": 0.7, "B": 0.2, "C": 0.1}, 1.0, "A")
    back = mapped_back(found, {"A": "B", "B": "C", "C": "A"})
    assert back.letter == "B"
    assert back.probabilities == {"A": 0.1, "B": 0.7, "C": 0.2}


def test_small_parts_by_hand() -> None:
    rgb = np.zeros((20, 40, 3), np.uint8)
    rgb[:, :20] = 100
    assert (blank(rgb) == 50).all()
    assert magnified(rgb, (10, 4, 20, 8)).shape == (8, 20, 3)
    assert magnified(rgb, (0, 0, 40, 20)).shape == rgb.shape
    peak = np.zeros((200, 300), np.float32)
    peak[150, 299] = 0.5
    small = shrunk(peak)
    assert small.shape == (64, 64)
    assert small.max() == 0.5
    assert small[-1].max() == 0.0
    raw = Prior(0.7, None, None, None, False, False, (PriorBox((0, 0, 4, 4), "upper left", 0.1),))
    assert len(raw_lines(raw)) == 2
    assert 0.0 < DOUBT < 1.0
    assert isinstance(Picture(rgb).rgb, np.ndarray)
    assert PictureEvidence.__dataclass_fields__


def test_each_setting_is_measured_anew(data: Path, loaded: LoadedSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flawscope.agent.vision_language.loading.load_model", lambda settings: Reader())
    flags = {"backbone": "patch-statistics", "store": "memory", "false_alarm": 0.15}
    for arm in ("A0", "A5", "A9"):
        job = efficiency.Job(str(data), str(loaded.home.root), arm, 3, flags)
        found = efficiency.measure(job)
        assert 0.0 <= found["evidence_s"] <= found["p50_s"] <= found["p95_s"]
        assert (found["evidence_s"] > 1e-4) == (arm != "A0")  # nothing is gathered for the bare question


def test_costs_are_told_beside_the_published_ones() -> None:
    rows = [
        efficiency.Cost("model alone", "", 0.1, 0.2, 0.0, 1000.0),
        efficiency.Cost("+ the expert's evidence", "model alone", 0.15, 0.3, 0.04, 1100.0),
        efficiency.Cost("+ prior tokens", "+ the expert's evidence", missing="none are trained"),
    ]
    text = efficiency.render({"title": "set", "pictures": 3, "rows": rows})
    assert "| + the expert's evidence | 150 | 300 | 40 | 1100 | +50 | +10% |" in text
    assert "none are trained" in text
    assert "| 6140 |  |  | 30451 | +1670 | +25% |" in text


def test_a_failed_measurement_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="measuring A0 failed"):
        efficiency.run_efficiency(tmp_path, tmp_path, {"reasoner": "qwen_vl"}, 1, lambda what, done, total: None)


def test_peak_memory_counts_what_was_let_go() -> None:
    with peak_mb() as small:
        pass
    with peak_mb() as large:
        held = np.ones(500_000_000, np.uint8)  # far more than what the kernel takes from a process meanwhile
        del held
    if small.value is not None and large.value is not None:
        assert large.value - small.value > 300
