"""Reading a set of MMAD's layout, asking it, and going on with a run that was cut off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mmad_set import RuleModel, write_set

from flawscope.agent.errors import ConfigError, InputError
from flawscope.agent.settings import load_settings
from flawscope.agent.uncertainty.records import read_log
from flawscope.agent.vision_language import Picture
from flawscope.agent.vision_language.loading import weights_identity
from flawscope.benchmarks.mmad.answering import ByLetter, InWords, permuted
from flawscope.benchmarks.mmad.protocol import official_messages
from flawscope.benchmarks.mmad.questions import load_items
from flawscope.benchmarks.mmad.run import LOG, Protocol, chosen_items, run_mmad
from flawscope.benchmarks.mmad.tables import render


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_set(tmp_path / "set")


def test_a_set_is_read_in_its_order_with_its_knowledge(data: Path) -> None:
    items = load_items(data)
    assert len(items.items) == 24
    assert len(items.images) == 6
    first, second = items.items[0], items.items[4]
    assert (first.dataset, first.product, first.number, first.normal) == ("DS-MVTec", "part", 1, True)
    assert (second.normal, second.mask) == (False, "DS-MVTec/part/test/ground_truth/1.png")
    assert items.items[2].subtask == items.items[3].subtask == "Object Analysis"
    assert items.oracle_knowledge(first) == "is white\nis bent"  # DS-MVTec is filed under MVTec
    assert not items.first_release


def test_the_letters_are_those_of_the_order_whatever_the_file_calls_them(data: Path) -> None:
    content = json.loads((data / "mmad.json").read_text())
    asked = next(iter(content.values()))["conversation"][1]
    asked["Options"], asked["Answer"] = {"1": "x", "2": "y"}, "2"
    (data / "mmad.json").write_text(json.dumps(content))
    item = load_items(data).items[1]
    assert (dict(item.options), item.answer) == ({"A": "x", "B": "y"}, "B")


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "{}", '{"a/b": {"conversation": []}}', '{"a/b/c": {"conversation": [{"type": "x"}]}}', '{"a/b/c": 3}'],
)
def test_what_is_no_set_is_refused_in_a_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "mmad.json").write_text(content)
    with pytest.raises(InputError):
        load_items(tmp_path)


def test_a_missing_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is missing"):
        load_items(tmp_path)


def test_the_prompt_is_the_published_one(data: Path) -> None:
    items = load_items(data)
    model = RuleModel()
    run_mmad(
        data, ByLetter(model), Protocol(oracle_knowledge=True), limit=1, products=["part"], tasks=["Object Analysis"]
    )
    (message,) = model.asked[0]
    said = ["<picture>" if isinstance(part, Picture) else part for part in message.parts]
    assert said == [
        "\nYou are an industrial inspector who checks products by images. "
        "You should judge whether there is a defect in the query image and answer the questions about it.\n"
        "Answer with the option's letter from the given choices directly.\n",
        "Answer with the option's letter from the given choices directly! ",
        "Following is the domain knowledge which contains some type of defect "
        "and the normal object characteristics: \n is white\nis bent",
        "Following is/are 1 image of normal sample, "
        "which can be used as a template to compare the image being queried.",
        "Picture 1: ",
        "<picture>",
        "Following is the query image: ",
        "Picture 2: ",
        "<picture>",
        "Following is the question list: ",
        "Object Structure? \nA. Neck and body.\nB. A wick.\nC. Six faces.\n",
    ]
    assert [picture.label for picture in message.pictures] == ["reference", "query"]
    bare = official_messages(items.items[2], message.pictures[1].rgb, numbered=True)
    assert "sample" not in bare[0].text  # 0-shot says nothing of references
    assert bare[0].parts[-1] == "Question 3: Object Structure? \nA. Neck and body.\nB. A wick.\nC. Six faces.\n"


def test_a_run_is_scored_logged_and_printed(data: Path, tmp_path: Path) -> None:
    result = run_mmad(data, ByLetter(RuleModel()), Protocol(permutations=1), out=tmp_path / "run")
    row = result["rows"][0]
    assert (
        row.strict.accuracy["VisA"]["Anomaly Detection"] == 0.0
    )  # "Yes." comes first of good parts, "No." of the bent one
    assert row.strict.unreadable == 0
    assert row.ece == pytest.approx(abs(0.7 - sum(r["correct"] for r in row.lines) / 24))
    text = render(result)
    assert "1-shot, random templates" in text
    assert "| rule | VisA |" in text
    log = read_log(tmp_path / "run" / LOG)
    assert len(log.records) == 24
    first = log.records[0]
    assert (first.task, first.truth, first.answer, first.p_defect) == ("detection", "B", "A", 0.7)
    assert first.permuted == ("B",)  # the first option again, which was the second before


def test_replies_in_words_are_read_in_both_ways(data: Path) -> None:
    result = run_mmad(data, InWords(RuleModel("B. Dent")), Protocol(free=True), tasks=["Defect Classification"])
    lines = result["rows"][0].lines
    assert {line["official"] for line in lines} == {"B"}
    assert {line["probabilities"] for line in lines} == {None}
    answers = {line["answer"] for line in lines}
    assert answers == {"B", None}  # where the words name another option than the letter: none
    assert result["rows"][0].entropy_auroc is None


def test_a_run_goes_on_where_it_stood_and_only_as_itself(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    whole = run_mmad(data, ByLetter(RuleModel()), Protocol(), out=out)
    lines = (out / LOG).read_bytes().splitlines(keepends=True)
    (out / LOG).write_bytes(b"".join(lines[:10]) + lines[10][:20])  # killed in the middle of a line
    model = RuleModel()
    again = run_mmad(data, ByLetter(model), Protocol(), out=out)
    assert len(model.asked) == 14
    assert again["rows"][0].strict == whole["rows"][0].strict
    with pytest.raises(ConfigError, match="another run: protocol"):
        run_mmad(data, ByLetter(model), Protocol(shots=0), out=out)


def test_a_killed_run_keeps_every_finished_answer(data: Path, tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from mmad_set import RuleModel\n"
        "from flawscope.benchmarks.mmad.answering import ByLetter\n"
        "from flawscope.benchmarks.mmad.run import Protocol, run_mmad\n"
        "class Dies(RuleModel):\n"
        "    def choose(self, messages, letters):\n"
        "        if len(self.asked) == 7:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return super().choose(messages, letters)\n"
        "run_mmad(Path(sys.argv[1]), ByLetter(Dies()), Protocol(), out=Path(sys.argv[2]))\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", script, str(data), str(tmp_path / "run")]
    done = subprocess.run(command, check=False, env=environ)
    assert done.returncode == -signal.SIGKILL
    model = RuleModel()
    run_mmad(data, ByLetter(model), Protocol(), out=tmp_path / "run")
    assert len(model.asked) == 24 - 7


def test_a_limit_spreads_over_the_pictures_and_keeps_their_questions_together(data: Path) -> None:
    items = load_items(data)
    assert [item.image[-10:] for item in chosen_items(items, limit=2)][::4] == [
        "good/0.png"[-10:],
        "bent/1.png"[-10:],
    ] * 2
    with pytest.raises(ConfigError, match="no question is left"):
        chosen_items(items, products=["bottle"])


def test_moved_options_keep_the_right_answer(data: Path) -> None:
    for item in load_items(data).items:
        for turn in range(1, 4):
            moved, back = permuted(item, turn)
            assert moved.options[moved.answer] == item.options[item.answer]
            assert back[moved.answer] == item.answer


def test_a_question_is_never_asked_again_in_the_order_that_it_had(data: Path) -> None:
    model = RuleModel()
    result = run_mmad(data, ByLetter(model), Protocol(permutations=4))
    for line in result["rows"][0].lines:
        item = next(one for one in load_items(data).items if one.key == line["id"])
        assert len(line["permuted"]) == min(4, len(item.options) - 1)
    assert len(model.asked) == sum(1 + min(4, len(item.options) - 1) for item in load_items(data).items)


def test_a_run_with_an_adapter_is_another_run(tmp_path: Path) -> None:
    for folder in ("checkpoint", "one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "w.safetensors").write_bytes(folder.encode())
        (tmp_path / folder / "adapter_config.json").write_text("{}")
    given = {"reasoner": "qwen_vl", "vlm_weights": tmp_path / "checkpoint"}
    plain, one, two = (
        weights_identity(load_settings({**given, **more}, environ={}))
        for more in ({}, {"vlm_adapter": tmp_path / "one"}, {"vlm_adapter": tmp_path / "two"})
    )
    assert len({plain, one, two}) == 3
    assert one.startswith(plain)
    (tmp_path / "one" / "adapter_config.json").write_text('{"lora_alpha": 64}')
    stronger = weights_identity(load_settings({**given, "vlm_adapter": tmp_path / "one"}, environ={}))
    assert stronger not in (one, two)


CHANGING: list[dict[str, Any]] = [
    {"vlm_4bit": True},
    {"vlm_dtype": "bfloat16"},
    {"vlm_min_pixels": 7840},
    {"vlm_max_pixels": 78400},
    {"vlm_max_pictures": 2},
    {"vlm_max_prompt": 1024},
]


def test_a_run_with_other_settings_of_the_model_is_another_run_and_one_with_copied_files_is_not(tmp_path: Path) -> None:
    for folder in ("here", "copied"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "w.safetensors").write_bytes(b"weights")
    os.utime(tmp_path / "copied" / "w.safetensors", (0, 0))
    given = {"reasoner": "qwen_vl", "vlm_weights": tmp_path / "here"}

    def identity(**more: Any) -> str:
        return weights_identity(load_settings({**given, **more}, environ={}))

    assert len({identity(), *(identity(**more) for more in CHANGING)}) == 1 + len(CHANGING)
    assert identity(vlm_weights=tmp_path / "copied", vlm_max_tokens=64) == identity()
    (tmp_path / "copied" / "w.safetensors").write_bytes(b"Weights")
    assert identity(vlm_weights=tmp_path / "copied") != identity()


def test_a_run_against_another_server_is_another_run() -> None:
    given = {"reasoner": "openai_api", "llm_model": "m"}
    here, there, smaller = (
        weights_identity(load_settings({**given, **more}, environ={}))
        for more in (
            {"llm_base_url": "http://here/v1"},
            {"llm_base_url": "http://there/v1"},
            {"llm_base_url": "http://here/v1", "vlm_max_pixels": 78400},
        )
    )
    assert len({here, there, smaller}) == 3
    assert weights_identity(load_settings({"reasoner": "evidence"}, environ={})) == ""
