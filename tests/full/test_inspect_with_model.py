"""The random tiny checkpoint behind ``inspect``: the whole way from the command line to a report, and back out of it.

Its words mean nothing, so that what is tested is the form: answers held to it, all of them cut by the verifier, REVIEW
with the reason, numbers that are numbers, and a product whose verdicts are as safe as without a model.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Plant

from flawscope.agent.doctor import examine
from flawscope.agent.errors import WeightsError
from flawscope.agent.inspector import Inspector
from flawscope.agent.reasoner import latent_reasoner
from flawscope.agent.reasoner.base import DraftReport, EvidenceBundle, LatentReasoner
from flawscope.agent.reasoner.model_reasoner import ModelReasoner
from flawscope.agent.schemas import InspectionReport, Verdict
from flawscope.agent.settings import LoadedSettings
from flawscope.agent.vision_language import Generated, LetterAnswer, sharing
from flawscope.agent.vision_language.checkpoint import Checkpoint, load_checkpoint
from flawscope.agent.vision_language.fakes import ScriptedModel
from flawscope.agent.vision_language.latent import LatentSettings, NormalImages
from flawscope.agent.vision_language.latent.normals import NORMALS_FILE, save_normals
from flawscope.agent.vision_language.latent.outcome import LatentOutcome, Thought
from flawscope.agent.vision_language.loading import weights_identity

pytestmark = pytest.mark.timeout(900)  # whole commands that import torch, each with a limit of its own

CHEAP_CLI = Path(__file__).parents[1] / "cli" / "cheap_cli.py"


def loaded(plant: Plant, checkpoint: Path, **flags: object) -> LoadedSettings:
    given = {"reasoner": "qwen_vl", "vlm_weights": checkpoint, "vlm_device": "cpu", "vlm_max_tokens": 192}
    return plant.loaded(**{**given, "max_actions": 0, **flags})


def test_a_profile_with_the_checkpoint_inspects_from_the_command_line(
    plant: Plant, checkpoint: Path, tmp_path: Path
) -> None:
    profile = tmp_path / "tiny.toml"
    profile.write_text(
        'backbone = "patch-statistics"\nstore = "memory"\nfalse_alarm = 0.15\nreasoner = "qwen_vl"\n'
        f'vlm_weights = "{checkpoint}"\nvlm_max_tokens = 128\nmax_actions = 1\n'
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FLAWSCOPE_")}
    environment |= {"FLAWSCOPE_HOME": str(plant.home), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(CHEAP_CLI), "inspect", str(plant.square), str(plant.new_good)]
    command += ["--product", "plate", "--profile", str(profile), "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.stderr == ""
    reports = [InspectionReport.model_validate_json(line) for line in done.stdout.splitlines()]
    assert len(reports) == 2
    assert done.returncode in (1, 3)
    for report in reports:
        assert report.error is None
        assert report.provenance["reasoner"] == "qwen_vl"
        assert report.uncertainty.parts["expert"] is not None
        json.dumps(report.model_dump(mode="json"), allow_nan=False)
    assert reports[0].verdict is not Verdict.OK
    assert reports[1].verdict is not Verdict.NG


def test_answers_come_through_the_grammar_and_the_entropy_from_raw_tokens(plant: Plant, checkpoint: Path) -> None:
    pieces: list[str] = []
    with Inspector(loaded(plant, checkpoint, vlm_max_tokens=1024), on_text=pieces.append) as inspector:
        inspector.prepare("plate")
        report = inspector.inspect(plant.square, product="plate")
        again = inspector.inspect(plant.square, product="plate")
        assert isinstance(inspector.deps.reasoner, ModelReasoner)
        assert not isinstance(inspector.deps.reasoner, LatentReasoner)
    assert report.error is None
    assert "".join(pieces).startswith('{"verdict": "')
    assert report.uncertainty.parts == again.uncertainty.parts  # deterministic
    if not report.provenance["answer"]["usage"]["repaired"]:
        assert report.uncertainty.parts["mass"] is not None
        assert report.uncertainty.parts["mass"] < 0.5  # the grammar forced what random weights did not want
        assert report.uncertainty.entropy is not None
        assert report.uncertainty.entropy > 0.5
    assert report.verdict is not Verdict.OK


def test_thinking_ends_too(plant: Plant, checkpoint: Path) -> None:
    flags = {"latent": True, "actions": ("latent",), "max_actions": 1, "vlm_max_tokens": 64, "time_budget_s": 3600.0}
    settings = loaded(plant, checkpoint, **flags)
    with Inspector(settings) as inspector:
        assert isinstance(inspector.deps.reasoner, LatentReasoner)
        report = inspector.inspect(plant.square, product="plate")
    assert report.error is None
    assert [step.action for step in report.trace].count("latent") == 1
    assert "latent" in report.provenance["answer"]["usage"]
    assert report.verdict is not Verdict.OK


@pytest.mark.parametrize("most", [1, 2])
def test_thinking_goes_on_with_the_pictures_that_there_is_room_for(plant: Plant, checkpoint: Path, most: int) -> None:
    flags = {"latent": True, "actions": ("latent",), "max_actions": 1, "vlm_max_tokens": 64, "time_budget_s": 3600.0}
    with Inspector(loaded(plant, checkpoint, **flags, vlm_max_pictures=most)) as inspector:
        report = inspector.inspect(plant.square, product="plate")
    assert report.error is None
    assert [step.action for step in report.trace].count("latent") == 1
    assert [line for line in report.provenance["problems"] if "was not shown: crop R1" in line]


def test_who_turns_thinking_on_gets_it_within_the_actions_that_are_usual(plant: Plant, checkpoint: Path) -> None:
    usual = plant.loaded().settings.max_actions
    settings = loaded(plant, checkpoint, latent=True, max_actions=usual, vlm_max_tokens=64, time_budget_s=3600.0)
    with Inspector(settings) as inspector:
        report = inspector.inspect(plant.square, product="plate")
    assert report.error is None
    assert "latent" in [step.action for step in report.trace]


def test_a_search_that_spoils_good_parts_by_a_measurement_of_this_checkpoint_is_not_run(
    plant: Plant, checkpoint: Path, tmp_path: Path
) -> None:
    normals = tmp_path / NORMALS_FILE
    flags = {"latent": True, "actions": ("latent",), "vlm_max_tokens": 64, "time_budget_s": 3600.0, "max_actions": 1}
    settings = loaded(plant, checkpoint, **flags, latent_normals=normals)
    measured = {"model": "tiny", "weights": weights_identity(settings), "settings": LatentSettings()}
    save_normals(normals, NormalImages(100, 3, 9), **measured)
    with Inspector(settings) as inspector:
        report = inspector.inspect(plant.square, product="plate")
        reasoner = inspector.deps.reasoner
        assert isinstance(reasoner, LatentReasoner)
        pictures = [np.zeros((56, 56, 3), np.uint8)]
        reply = reasoner.think(EvidenceBundle("plate", 1.0, 2.0, 0.1, calibrated=True), pictures, DraftReport)
    assert report.error is None
    assert "latent" not in [step.action for step in report.trace]
    assert reply.usage["latent"].startswith("G5")


def test_an_answer_behind_a_thought_is_repaired_with_the_pictures_it_was_thought_about(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = LetterAnswer("OK", {"OK": 0.8, "NG": 0.1, "REVIEW": 0.1}, 0.9, "OK")
    thought = Thought(np.zeros((1, 2), np.float32), ())
    outcome = LatentOutcome(
        base=base, proposal=base, final=base, accepted=True, why="", uncertainty=0.5, thought=thought
    )
    monkeypatch.setattr(latent_reasoner, "think", lambda *given, **options: outcome)
    monkeypatch.setattr(latent_reasoner, "generate_with", lambda *given, **options: Generated("no", None, "stop"))
    model = ScriptedModel(['{"verdict": "OK", "defect_type": "none", "region": "none", "sentences": []}'])
    reasoner = latent_reasoner.LatentModelReasoner(model)  # type: ignore[arg-type]
    evidence = EvidenceBundle("plate", 1.0, 2.0, 0.1, calibrated=True)
    reply = reasoner.think(evidence, [np.zeros((8, 8, 3), np.uint8)] * 2, DraftReport)
    assert (reply.draft.verdict, reply.usage["repaired"]) == (Verdict.OK, True)
    (asked,) = model.asked
    assert sorted(picture.label for message in asked for picture in message.pictures) == ["query", "reference"]


def test_one_checkpoint_is_in_memory_once(plant: Plant, checkpoint: Path) -> None:
    with Inspector(loaded(plant, checkpoint)) as one, Inspector(loaded(plant, checkpoint)) as other:
        assert one.deps.reasoner.model.checkpoint is other.deps.reasoner.model.checkpoint  # type: ignore[attr-defined]


def test_the_doctor_says_which_checkpoint_and_what_to_do_without_one(plant: Plant, checkpoint: Path) -> None:
    (found,) = [line for line in examine(loaded(plant, checkpoint)) if line.what == "reasoner"]
    assert found.state == "ok"
    assert str(checkpoint) in found.detail
    assert "laboratory" in found.detail
    (absent,) = [line for line in examine(loaded(plant, checkpoint, vlm_weights=None)) if line.what == "reasoner"]
    assert (absent.state, absent.exit_code) == ("broken", WeightsError.exit_code)
    assert "models pull" in absent.detail


def test_weights_that_are_absent_are_said_before_the_first_picture(plant: Plant, tmp_path: Path) -> None:
    with (
        Inspector(loaded(plant, tmp_path / "nothing")) as inspector,
        pytest.raises(WeightsError, match=r"no Qwen2\.5-VL checkpoint"),
    ):
        inspector.prepare("plate")


def test_pictures_that_had_no_room_are_named_in_the_report(plant: Plant, checkpoint: Path) -> None:
    with Inspector(loaded(plant, checkpoint, vlm_max_pictures=1)) as inspector:
        report = inspector.inspect(plant.square, product="plate")
        assert [line for line in report.provenance["problems"] if "was not shown: crop R1, reference" in line]
        reasoner = inspector.deps.reasoner
    assert "reasoner" not in inspector.deps.__dict__  # let go of with the session
    assert isinstance(reasoner, ModelReasoner)


def test_a_question_after_an_inspection_does_not_read_the_weights_again(
    plant: Plant,
    checkpoint: Path,
    tmp_path: Path,
    run_command: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    profile = tmp_path / "tiny.toml"
    profile.write_text(
        'backbone = "efficientnet-lite2"\nstore = "memory"\nfalse_alarm = 0.15\nreasoner = "qwen_vl"\nmax_actions = 0\n'
        f'vlm_weights = "{checkpoint}"\nvlm_max_tokens = 64\n'
    )
    loads: list[Path] = []

    def counted(folder: Path, **how: Any) -> Checkpoint:
        loads.append(folder)
        return load_checkpoint(folder, **how)

    monkeypatch.setattr(sharing, "load_checkpoint", counted)
    references = [part for good in plant.good for part in ("--reference", good)]
    code = run_command(
        "inspect", plant.square, *references, "--profile", profile, "--home", tmp_path, "--ask", "where?"
    )
    assert code in (0, 1, 3)
    assert loads == [checkpoint]
    assert "From the evidence" in capsys.readouterr().out
    assert not sharing._LOADED
