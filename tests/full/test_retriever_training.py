"""Key and lock projections: what training changes, that it can be killed, and what is refused at inspection."""

from __future__ import annotations

import json
import multiprocessing
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import PatchStatistics
from full.retriever_run import PAGES, config, run, sources, write_products
from safetensors.numpy import load_file, save_file

from flawscope.agent.errors import InputError, WeightsError
from flawscope.benchmarks import retriever as bench
from flawscope.benchmarks.retriever_seek import SCOPES, Seek
from flawscope.tools.knowledge import builder
from flawscope.tools.knowledge.builder import open_knowledge_base
from flawscope.tools.knowledge.features import LockSpace
from flawscope.tools.knowledge.retriever import FORMAT, load_retriever
from flawscope.training.retriever import RETRIEVER_FILE, RetrieverTask, TorchTower, fit_projection, helps
from flawscope.training.retriever_pairs import LabelledPart, describe_drawings, describe_pictures

KILLS = 5


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_products(tmp_path_factory.mktemp("data") / "sets")


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "out"
    run(data, out)
    return out


@pytest.fixture(scope="module")
def parts(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[LabelledPart]:
    return describe_pictures(sources(data), PAGES, PatchStatistics(), tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="module")
def drawings() -> dict[str, np.ndarray]:
    return describe_drawings(PAGES, PatchStatistics())


def test_pictures_are_labelled_by_their_pages(parts: list[LabelledPart]) -> None:
    assert len(parts) == 20
    assert {part.label for part in parts} == {"leather.cut", "leather.glue", "wood.hole", "wood.scratch"}
    assert {part.canonical for part in parts} == {"cut", "glue_residue", "hole", "scratch"}


def test_torch_and_numpy_towers_are_one(trained: Path) -> None:
    projection = load_retriever(trained / RETRIEVER_FILE, PatchStatistics())
    depth = len(projection.mean)
    module = TorchTower(depth, len(projection.key.bias))
    state = {name: torch.from_numpy(getattr(projection.key, name)) for name in ("down", "bias", "up")}
    module.load_state_dict(state)
    visual = np.random.default_rng(0).normal(size=(7, depth)).astype(np.float32)
    visual /= np.linalg.norm(visual, axis=1, keepdims=True)
    with torch.no_grad():
        expected = module(torch.from_numpy(visual)).numpy()
    np.testing.assert_allclose(projection.key(visual), expected, atol=1e-6)
    assert not np.allclose(expected, visual, atol=1e-3)  # it was trained


def test_training_brings_pictures_to_the_drawing_of_their_type(
    parts: list[LabelledPart], drawings: dict[str, np.ndarray], tmp_path: Path
) -> None:
    longer = config(epochs=60)
    projection, trained = fit_projection(parts, drawings, longer, tmp_path, fingerprint="x")
    plain = LockSpace(projection.mean, projection.spread)
    space = LockSpace(projection.mean, projection.spread, projection)

    def found(used: LockSpace) -> float:
        locks = np.stack([used.embed(drawing, "") for drawing in drawings.values()])
        nearest = [list(drawings)[int((locks @ used.key(part.part, "")).argmax())] for part in parts]
        return float(np.mean([name == part.canonical for name, part in zip(nearest, parts, strict=True)]))

    assert found(space) == 1.0 > found(plain)
    losses = trained.progress.losses
    assert losses[-1] < 0.5 * losses[0]


def test_the_loss_by_hand_and_what_is_no_negative(drawings: dict[str, np.ndarray]) -> None:
    def part(label: str, canonical: str, name: str, vector: list[float]) -> LabelledPart:
        return LabelledPart("p", "p", label, None, canonical, name, np.array(vector, np.float32))

    pictures = [
        part("p/a", "dent", "0", [1, 0, 0]),
        part("p/a", "dent", "1", [1, 0, 0]),
        part("p/b", "crack", "2", [0, 1, 0]),
        part("p/b", "crack", "3", [0, 1, 0]),
    ]
    task = RetrieverTask(pictures, {}, config())
    visual = task._visual
    cosine = float(visual[0] @ visual[2])
    expected = float(np.log1p(np.exp((cosine - 1.0) / 0.07)))  # one positive of cosine 1, one negative
    assert float(task.loss([0, 2]).detach()) == pytest.approx(expected, rel=1e-4)
    assert float(task.loss([0, 1]).detach()) == pytest.approx(0.0, abs=1e-6)  # of one label: no negatives
    assert float(task.loss([0]).detach()) == 0.0
    same_type = [part("p/a", "dent", str(n), [1, 0, 0]) for n in range(2)]
    same_type += [part("p/b", "dent", str(n + 2), [0, 1, 0]) for n in range(2)]
    assert float(RetrieverTask(same_type, {}, config()).loss([0, 2]).detach()) == pytest.approx(0.0, abs=1e-6)
    same_picture = [part("p/a", "dent", "0", [1, 0, 0]), part("p/a", "dent", "1", [1, 0, 0])]
    same_picture += [part("p/b", "crack", "0", [1, 0, 0]), part("p/b", "crack", "1", [1, 0, 0])]
    task = RetrieverTask(same_picture, {}, config())
    assert float(task.loss([0, 2]).detach()) == pytest.approx(np.log(2.0), rel=1e-5)  # the partners are negatives
    assert float(task.loss([0, 3]).detach()) == pytest.approx(0.0, abs=1e-6)  # each is the other's partner


def test_two_labels_are_the_least(parts: list[LabelledPart], drawings: dict[str, np.ndarray]) -> None:
    with pytest.raises(InputError, match="there are 1 labels"):
        RetrieverTask([part for part in parts if part.label == "wood.hole"], drawings, config())


def test_a_seed_decides_and_the_card_says_what_unseen_products_gain(data: Path, trained: Path, tmp_path: Path) -> None:
    first = json.loads((trained / "card.json").read_text())
    again, other = run(data, tmp_path / "again"), run(data, tmp_path / "other", seed=1)
    assert first["weights_sha256"] == again["weights_sha256"] != other["weights_sha256"]
    assert (trained / RETRIEVER_FILE).read_bytes() == (tmp_path / "again" / RETRIEVER_FILE).read_bytes()
    assert set(first["unseen"]) == set(SCOPES)
    for seek in first["unseen"].values():
        assert 0.0 <= seek["before"] <= 1.0
        assert seek["low"] <= seek["after"] - seek["before"] <= seek["high"]
    assert [product["name"] for product in first["data"]["trained_on"]] == ["leather", "wood"]
    card = (trained / "card.md").read_text()
    assert "helps on products that it never saw: " in card
    assert "chose the epoch" not in card  # no product did


def test_it_helps_only_where_nothing_is_lost() -> None:
    gain, loss, chance = Seek(0.5, 0.7, 0.1, 0.3), Seek(0.5, 0.4, -0.2, -0.01), Seek(0.5, 0.5, -0.1, 0.1)
    assert helps({"a": gain, "b": chance})
    assert not helps({"a": gain, "b": loss})
    assert not helps({"a": chance})


@pytest.mark.timeout(600)  # processes that import torch
def test_kills_at_random_points_change_no_bit(data: Path, trained: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["flawscope.training.retriever", "full.retriever_run"])
    out = tmp_path / "killed"

    def start() -> tuple[Any, Any]:
        steps = context.Value("i", 0)
        process = context.Process(target=run, args=(data, out, steps), kwargs={"resume": True})
        process.start()
        return process, steps

    chance, seen = random.Random(0), []
    for kill in range(KILLS):
        process, steps = start()
        goal = 22 + 5 * kill + chance.randint(0, 4)  # twenty pictures and the products left out are reported first
        while process.exitcode is None and steps.value < goal:
            time.sleep(0.001)
        time.sleep(chance.uniform(0.0, 0.01))
        process.kill()
        process.join()
        seen.append(steps.value)
    assert max(seen) > 25  # some fell into the last training
    last, _ = start()
    last.join()
    assert last.exitcode == 0
    assert (out / RETRIEVER_FILE).read_bytes() == (trained / RETRIEVER_FILE).read_bytes()


def test_another_backbone_canvas_or_file_is_refused(trained: Path, tmp_path: Path) -> None:
    class Other(PatchStatistics):
        name, weights_sha256 = "other", "1" * 64

    class Square(PatchStatistics):
        image_size_px = 518

    path = trained / RETRIEVER_FILE
    for backbone in (Other(), Square()):
        with pytest.raises(WeightsError, match="made for another backbone"):
            load_retriever(path, backbone)
    with pytest.raises(WeightsError, match="there is no trained retriever"):
        load_retriever(tmp_path / "nowhere.safetensors", PatchStatistics())
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(WeightsError, match="cannot be read"):
        load_retriever(broken, PatchStatistics())
    save_file({"x": np.zeros(3, np.float32)}, broken)
    with pytest.raises(WeightsError, match="is no trained retriever"):
        load_retriever(broken, PatchStatistics())
    save_file({"x": np.zeros(3, np.float32)}, broken, {FORMAT: "no JSON"})
    with pytest.raises(WeightsError, match="header is no JSON"):
        load_retriever(broken, PatchStatistics())
    save_file({"x": np.zeros(3, np.float32)}, broken, {FORMAT: "[" * 100_000})
    with pytest.raises(WeightsError, match="header is no JSON"):
        load_retriever(broken, PatchStatistics())
    header = {FORMAT: json.dumps({"backbone_sha256": "0" * 64, "canvas": "none"})}
    save_file({k: v for k, v in load_file(path).items() if k != "key.up"}, broken, header)
    with pytest.raises(WeightsError, match=r"key\.up is missing"):
        load_retriever(broken, PatchStatistics())


def test_the_benchmark_asks_both_ways(data: Path) -> None:
    told: list[str] = []
    result = bench.run_retriever(
        data, splits=1, config=config(epochs=2), backbone=PatchStatistics(), pages=PAGES, progress=told.append
    )
    assert result.pictures == {"leather": 10, "wood": 10}
    for before, after in result.rows.values():
        assert [(r.product, r.label, r.name, r.scope) for r in before] == [
            (r.product, r.label, r.name, r.scope) for r in after
        ]
    assert told[-1] == "split 1: wood held out"
    text = bench.render(result)
    assert "image held out" in text
    assert max(map(len, text.splitlines())) <= 120
    lone = sources(data)[0].dataset.root / "leather"
    with pytest.raises(InputError, match="1 products whose labels have pages"):
        bench.run_retriever(lone, backbone=PatchStatistics(), pages=PAGES)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, run_command: Callable[..., int]) -> Callable[..., int]:
    monkeypatch.setattr(builder, "load_documents", lambda: PAGES)
    return run_command


def test_the_command_trains_and_the_setting_uses_it(
    command: Callable[..., int],
    data: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command("train", "retriever", "--data", data, "--epochs", 2, "--licence", "MIT") == 0
    path = home / "models/retriever-efficientnet-lite2" / RETRIEVER_FILE
    out = capsys.readouterr().out
    assert str(path) in out
    assert "helps on products that it never saw" in out
    monkeypatch.setenv("FLAWSCOPE_STORE", "memory")
    monkeypatch.setenv("FLAWSCOPE_RETRIEVER", str(path))
    assert command("kb", "build") == 0
    assert command("kb", "verify") == 0
    assert "no faults" in capsys.readouterr().out
    backbone = PatchStatistics()
    with_it = open_knowledge_base(
        home / "knowledge", backbone, store="memory", projection=load_retriever(path, backbone)
    )
    assert (home / "knowledge" / with_it.content_hash[:16] / "manifest.json").is_file()
    monkeypatch.setenv("FLAWSCOPE_RETRIEVER", str(home / "nowhere.safetensors"))
    assert command("kb", "build") == 9
    assert "there is no trained retriever" in capsys.readouterr().err
