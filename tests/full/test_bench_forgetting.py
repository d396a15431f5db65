"""``bench forgetting``: three exams before and after each epoch, the same however often the run was stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import PatchStatistics
from full.token_data import few_pages, local_model, sources, write_parts

from flawscope.agent.vision_language import LetterAnswer
from flawscope.agent.vision_language import batching as batching_module
from flawscope.benchmarks import forgetting
from flawscope.benchmarks.forgetting import (
    EXAMS,
    LOG_FILE,
    PAPER_LORA,
    Epoch,
    ForgettingResult,
    build_exams,
    examine,
    render,
    run_forgetting,
)
from flawscope.training.loop import LoopConfig
from flawscope.training.lora import LoraRun, LoraTask

RUN = LoraRun(
    LoopConfig(epochs=2, batch=4, learning_rate=1e-2, weight_decay=0.0, patience=0, checkpoint_every=1),
    rank=4,
    alpha=8,
    max_pictures=6,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parts(tmp_path_factory.mktemp("data"))


def measured(data: Path, checkpoint: Path, out: Path, *, resume: bool = False) -> ForgettingResult:
    return run_forgetting(
        sources(data, "plate"),
        sources(data, "ring"),
        PatchStatistics(),
        local_model(checkpoint),
        few_pages(),
        out,
        out.parent / "cache",
        RUN,
        questions=6,
        resume=resume,
    )


def test_the_exams_ask_the_same_of_held_out_products_with_and_without_evidence(data: Path, tmp_path: Path) -> None:
    exams = build_exams(sources(data, "ring"), PatchStatistics(), few_pages(), tmp_path, RUN, 6)
    assert list(exams) == list(EXAMS)
    assert [len(exams[name]) for name in EXAMS] == [6, 6, 6]
    for plain, told in zip(exams["held out"], exams["with evidence"], strict=True):
        assert (plain.letters, plain.answer) == (told.letters, told.answer)
        first, second = plain.messages()[0].text, told.messages()[0].text
        assert first.split("Question:")[1] == second.split("Question:")[1]
        assert "[M1]" not in first
    assert any("[M1]" in told.messages()[0].text for told in exams["with evidence"])
    assert not any(asked.messages()[0].pictures for asked in exams["general"])


def test_an_exam_is_the_share_of_right_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [forgetting.Asked(list, ("A", "B"), answer) for answer in "ABABABABAA"]
    sizes = []

    def always_a(model: object, conversations: list[object], letters: object) -> list[LetterAnswer]:
        sizes.append(len(conversations))
        return [LetterAnswer("A", None, None, "A") for _ in conversations]

    monkeypatch.setattr(batching_module, "choose_many", always_a)
    assert examine(None, asked) == 0.6  # type: ignore[arg-type]
    assert sizes == [8, 2]


def test_a_stopped_run_reports_what_an_uninterrupted_one_does(
    data: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = measured(data, checkpoint, tmp_path / "whole")
    assert [epoch.number for epoch in whole.epochs] == [0, 1, 2]
    losses = [epoch.loss for epoch in whole.epochs]
    assert losses[0] is None
    assert losses[1] > losses[2]  # type: ignore[operator]
    assert all(set(epoch.accuracy) == set(EXAMS) for epoch in whole.epochs)
    calls, loss = [], LoraTask.loss

    def stopping(self: LoraTask, indices: list[int]) -> object:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return loss(self, indices)

    with monkeypatch.context() as patch:
        patch.setattr(LoraTask, "loss", stopping)
        with pytest.raises(KeyboardInterrupt):
            measured(data, checkpoint, tmp_path / "cut")
    assert "0" in json.loads((tmp_path / "cut" / LOG_FILE).read_text())["epochs"]
    assert measured(data, checkpoint, tmp_path / "cut", resume=True) == whole


def test_the_table_has_the_papers_figures_in_its_rows() -> None:
    epochs = tuple(
        Epoch(number, None if number == 0 else 1.25, dict.fromkeys(EXAMS, 0.5)) for number in (0, 1, *PAPER_LORA)
    )
    result = ForgettingResult(
        "mini", (("plate",), 40), ("ring",), dict.fromkeys(EXAMS, 10), dict.fromkeys(EXAMS, 0.25), epochs
    )
    rows = {line.split("|")[1].strip(): line for line in render(result).splitlines() if line.startswith("|")}
    assert rows["0"] == "| 0 | – | 50.0 | 50.0 | 50.0 | 76.6, 67.1 |"
    assert rows["1"] == "| 1 | 1.250 | 50.0 | 50.0 | 50.0 |  |"
    assert rows["5"].endswith("| 80.0, 71.0 |")
    assert rows["10"].endswith("| 72.8, 59.7 |")
    assert rows["20"].endswith("| 40.9, 33.2 |")
    assert "82.8, 71.4" in render(result)


def test_the_command_prints_the_table(
    data: Path,
    checkpoint: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    run_command: Callable[..., int],
) -> None:
    monkeypatch.setattr("flawscope.training.lora.DEFAULT_LOOP", replace(RUN.loop, epochs=5))
    given = ("--data", data, "--hold-out", "ring", "--weights", checkpoint, "--pictures", 1, "--questions", 2)
    assert run_command("bench", "forgetting", *given, "--epochs", 1) == 0
    assert "| 1 |" in capsys.readouterr().out
    assert (home / "bench" / "forgetting-model" / LOG_FILE).is_file()
    assert run_command("bench", "forgetting", *given, "--learn", "bolt") == 4
    assert "no such product" in capsys.readouterr().err
