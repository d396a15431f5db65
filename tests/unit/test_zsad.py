"""The zero-shot benchmark with a scripted scorer: figures, protocol, selection, and going on after a kill."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import dataset_trees as trees
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rich.console import Console
from scripted_scorer import IDENTITY, RednessScorer, build, setup
from sklearn.metrics import average_precision_score, roc_auc_score

from flawscope.agent.errors import BackendError, ConfigError, InputError, StorageError
from flawscope.benchmarks.datasets import DATASETS, LabelledPicture, load_mask, open_dataset
from flawscope.benchmarks.published import METRICS, published_figures
from flawscope.benchmarks.zsad import ZeroShotSetup, render, run_zsad, select
from flawscope.benchmarks.zsad_setup import noun_of, trained_on
from flawscope.tools.imaging import load_image


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("visa"))


@pytest.fixture(scope="module")
def whole(data: Path) -> dict[str, Any]:
    """The result of a run that nothing disturbed."""
    return run_zsad(data, setup())


def text_of(result: dict[str, Any], width: int = 120) -> str:
    console = Console(width=width, quiet=False)
    with console.capture() as captured:
        console.print(render(result))
    return captured.get()


def test_figures_per_class_and_their_plain_mean(data: Path, whole: dict[str, Any]) -> None:
    result = whole
    for row, product in zip(result["products"], open_dataset(data).products, strict=True):
        scores, maps, masks = [], [], []
        for picture in product.tests:
            score, anomaly_map = RednessScorer().score(load_image(picture.path).rgb)
            scores.append(score)
            maps.append(anomaly_map.ravel())
            masks.append(load_mask(picture, 112, 160).ravel())
        labels = product.labels
        assert 0.5 < row["image_auroc"] < 1.0
        assert row["image_auroc"] == pytest.approx(roc_auc_score(labels, scores))
        assert row["image_ap"] == pytest.approx(average_precision_score(labels, scores))
        flat_maps, flat_masks = np.concatenate(maps), np.concatenate(masks)
        assert row["pixel_auroc"] == pytest.approx(roc_auc_score(flat_masks, flat_maps), abs=1e-3)
        assert row["pixel_ap"] == pytest.approx(average_precision_score(flat_masks, flat_maps), abs=1e-3)
        assert 0.0 < row["aupro"] < 1.0
        assert (row["good"], row["defective"], row["unmasked"]) == (4, 4, 0)
    for metric in METRICS:
        assert result["mean"][metric] == pytest.approx(np.mean([row[metric] for row in result["products"]]))


def test_the_protocol_is_in_the_result_and_the_heading(data: Path) -> None:
    result = run_zsad(data, setup(None, "mvtec"))
    protocol = result["protocol"]
    assert (protocol["dataset"], protocol["trained_on"], protocol["scorer"]) == ("visa", ["mvtec"], IDENTITY)
    text = text_of(result)
    assert "VisA, zero-shot, trained on MVTec AD: 2 of 12 classes, %" in text
    assert "not comparable" in text
    lines = [line for line in text.splitlines() if "ADSeeker [" in line]
    assert len(lines) == 1
    assert lines[0].split()[-1] == "91.5"  # the one figure known; the rest stays blank
    assert "AnomalyCLIP, tables in its README" in text
    untrained = text_of(run_zsad(data, setup(), limit=3))
    assert "trained on nothing named: 2 of 12 classes, 3 pictures a class" in untrained


def test_training_on_the_tested_set_is_refused(data: Path) -> None:
    scorer = RednessScorer()
    for one in (setup(scorer, "visa"), setup(scorer, "mvtec", "visa")):
        with pytest.raises(ConfigError, match=r"trained on VisA: .* not be zero-shot"):
            run_zsad(data, one)
    with pytest.raises(ConfigError, match="trained on VisA"):
        run_zsad(data, setup(scorer), train_on=["VisA"])
    with pytest.raises(ConfigError, match="card says trained on mvtec, not on btad"):
        run_zsad(data, setup(scorer, "mvtec"), train_on=["BTAD"])
    assert scorer.calls == 0
    assert run_zsad(data, setup(scorer), train_on=["MVTec-AD"])["protocol"]["trained_on"] == ["mvtec"]


def test_data_of_ones_own_can_be_measured_and_say_that_nothing_was_checked(tmp_path: Path) -> None:
    build(tmp_path / "own")
    (tmp_path / "own/pcb1").rename(tmp_path / "own/valve")
    text = text_of(run_zsad(tmp_path / "own", setup(None, "mvtec")))
    assert "own, zero-shot, trained on MVTec AD: 2 classes, %" in text
    assert "nothing checks that it was not trained on" in text
    assert "published" not in text


def test_metrics_that_a_set_does_not_define_stay_empty(tmp_path: Path) -> None:
    trees.br35h(tmp_path / "a")
    image_only = run_zsad(tmp_path / "a", setup(), "br35h")
    assert image_only["mean"]["image_auroc"] is not None
    assert {image_only["mean"][m] for m in METRICS if "pixel" in m or m == "aupro"} == {None}
    trees.polyps(tmp_path / "b")
    pixel_only = run_zsad(tmp_path / "b", setup(), "colondb")
    assert {pixel_only["mean"][m] for m in METRICS if "image" in m} == {None}
    assert pixel_only["mean"]["aupro"] is not None
    assert pixel_only["products"][0]["unmasked"] == 1
    assert "1 defective pictures without a mask are left out" in text_of(pixel_only)
    trees.flat(tmp_path / "c")
    with pytest.raises(InputError, match="nothing to measure"):
        run_zsad(tmp_path / "c", setup())


def test_a_second_run_scores_nothing_and_says_the_same(data: Path, tmp_path: Path) -> None:
    first, again = RednessScorer(), RednessScorer()
    result = run_zsad(data, setup(first), out=tmp_path / "run")
    repeated = run_zsad(data, setup(again), out=tmp_path / "run")
    assert (first.calls, again.calls) == (16, 0)
    assert repeated == result
    records = [json.loads(line) for line in (tmp_path / "run/scores.jsonl").read_text().splitlines()]
    assert len(records) == 16
    assert set(records[0]) == {"picture", "sha256", "defect_type", "image_score", "map_max", "seconds"}
    assert records[0]["picture"] == "candle/test/good/000.png"
    assert json.loads((tmp_path / "run/result.json").read_text())["mean"] == result["mean"]


def test_a_larger_limit_adds_to_a_smaller_one(data: Path, tmp_path: Path, whole: dict[str, Any]) -> None:
    part, rest = RednessScorer(), RednessScorer()
    run_zsad(data, setup(part), limit=3, out=tmp_path / "run")
    result = run_zsad(data, setup(rest), out=tmp_path / "run")
    assert (part.calls, rest.calls) == (6, 10)
    assert result["mean"] == whole["mean"]


@pytest.mark.parametrize("cut", [30, 1000, -1])
def test_a_torn_last_line_is_scored_again(data: Path, tmp_path: Path, cut: int) -> None:
    whole = run_zsad(data, setup(), out=tmp_path / "run")
    path = tmp_path / "run/scores.jsonl"
    path.write_bytes(path.read_bytes()[:cut])
    scorer = RednessScorer()
    resumed = run_zsad(data, setup(scorer), out=tmp_path / "run")
    assert scorer.calls > 0
    assert (resumed["products"], resumed["mean"]) == (whole["products"], whole["mean"])
    assert len(path.read_text().splitlines()) == 16


def test_counts_that_are_missing_are_made_again(data: Path, tmp_path: Path) -> None:
    whole = run_zsad(data, setup(), out=tmp_path / "run")
    lost = tmp_path / "run/pixels/pcb1/test/bad/003.png.npz"
    lost.write_bytes(lost.read_bytes()[:50])
    with pytest.raises(StorageError, match=r"003\.png\.npz is damaged"):
        run_zsad(data, setup(), out=tmp_path / "run")
    lost.unlink()
    scorer = RednessScorer()
    assert run_zsad(data, setup(scorer), out=tmp_path / "run")["products"] == whole["products"]
    assert scorer.calls == 1


def test_another_run_or_a_strange_folder_is_refused(data: Path, tmp_path: Path) -> None:
    run_zsad(data, setup(), limit=2, out=tmp_path / "run")
    other = ZeroShotSetup(RednessScorer(), {**IDENTITY, "weights_sha256": "1" * 64})
    with pytest.raises(ConfigError, match="another run: scorer differ"):
        run_zsad(data, other, out=tmp_path / "run")
    with pytest.raises(ConfigError, match="trained_on differ"):
        run_zsad(data, setup(), train_on=["mvtec"], out=tmp_path / "run")
    (tmp_path / "run/run.json").unlink()
    with pytest.raises(ConfigError, match=r"scores without run\.json"):
        run_zsad(data, setup(), out=tmp_path / "run")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/run.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        run_zsad(data, setup(), out=tmp_path / "bad")


def test_a_damaged_line_in_the_middle_is_named(data: Path, tmp_path: Path) -> None:
    run_zsad(data, setup(), limit=2, out=tmp_path / "run")
    path = tmp_path / "run/scores.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "{broken", *lines[2:]]) + "\n")
    with pytest.raises(StorageError, match="line 2 of"):
        run_zsad(data, setup(), limit=2, out=tmp_path / "run")


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import scripted_scorer
from flawscope.benchmarks import zsad, run_folder

class Killed(scripted_scorer.RednessScorer):
    def score(self, rgb):
        if self.calls == {after}:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().score(rgb)

if {in_writing}:  # killed between the counts and the line of a picture
    kept = run_folder.write_atomically
    def write(path, fill):
        kept(path, fill)
        if path.suffix == ".npz" and len(list(path.parents[2].rglob("*.npz"))) > {after}:
            os.kill(os.getpid(), signal.SIGKILL)
    run_folder.write_atomically = write
zsad.run_zsad(Path({data!r}), scripted_scorer.setup(Killed()), out=Path({out!r}))
"""


@pytest.mark.parametrize(("after", "in_writing"), [(0, False), (7, False), (5, True)])
def test_a_killed_run_goes_on_to_the_same_table(
    data: Path, tmp_path: Path, whole: dict[str, Any], after: int, in_writing: bool
) -> None:
    tests = str(Path(__file__).parents[1])
    code = KILLED.format(tests=tests, after=after, in_writing=in_writing, data=str(data), out=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    finished = (tmp_path / "scores.jsonl").read_text().count("\n") if (tmp_path / "scores.jsonl").exists() else 0
    scorer = RednessScorer()
    resumed = run_zsad(data, setup(scorer), out=tmp_path)
    assert finished == after  # the one in work when it was killed does not count
    assert scorer.calls == 16 - finished
    assert text_of(resumed) == text_of(whole)


def test_two_processes_do_not_share_a_folder(data: Path, tmp_path: Path) -> None:
    class Nosy(RednessScorer):
        def score(self, rgb: NDArray[np.uint8]) -> tuple[float, NDArray[np.float32]]:
            with pytest.raises(ConfigError, match="another process"):
                run_zsad(data, setup(), out=tmp_path)
            return super().score(rgb)

    run_zsad(data, setup(Nosy()), limit=1, out=tmp_path)


@pytest.mark.parametrize("answer", [(float("nan"), (112, 160)), (0.5, (112, 159))])
def test_a_scorer_that_returns_no_score_is_refused(data: Path, answer: tuple[float, tuple[int, int]]) -> None:
    class Odd:
        def score(self, rgb: NDArray[np.uint8]) -> tuple[float, NDArray[np.float32]]:
            return answer[0], np.zeros(answer[1], np.float32)

    with pytest.raises(BackendError, match=r"112 x 160 for .*000\.png"):
        run_zsad(data, setup(Odd()))


def test_a_limit_of_nothing_is_refused(data: Path) -> None:
    with pytest.raises(ConfigError, match="leaves nothing"):
        run_zsad(data, setup(), limit=0)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 40))
def test_a_selection_is_spread_and_keeps_both_classes(good: int, bad: int, limit: int) -> None:
    tests = [LabelledPicture(Path(f"g{n}"), "good") for n in range(good)]
    tests += [LabelledPicture(Path(f"b{n}"), "hole") for n in range(bad)]
    chosen = select(tests, limit)
    assert len(chosen) == len(set(chosen)) == min(limit, good + bad)
    assert chosen == sorted(chosen, key=tests.index)
    if good and bad and limit > 1:
        assert {picture.is_defective for picture in chosen} == {True, False}


def test_model_cards(tmp_path: Path) -> None:
    weights = tmp_path / "prompts.safetensors"
    weights.write_bytes(b"")
    assert trained_on(weights) == trained_on(tmp_path) == ()  # published weights have no card
    data = {"trained_on": [{"name": "transistor"}, {"name": "valve"}], "held_out": [{"name": "x", "dataset": "VisA"}]}
    (tmp_path / "card.json").write_text(json.dumps({"data": data}))
    assert trained_on(weights) == trained_on(tmp_path) == ("mvtec", "valve", "visa")
    (tmp_path / "card.json").write_text('{"data": ["VisA"]}')
    with pytest.raises(ConfigError, match=r"card\.json cannot be read"):
        trained_on(weights)


def test_a_product_of_ones_own_that_was_trained_on_is_refused(tmp_path: Path) -> None:
    build(tmp_path / "own")
    (tmp_path / "own/pcb1").rename(tmp_path / "own/valve")
    with pytest.raises(ConfigError, match="trained on valve"):
        run_zsad(tmp_path / "own", setup(None, "mvtec", "valve"))


def test_published_figures_are_whole() -> None:
    for name in DATASETS:
        for row in published_figures(name):
            assert set(row.figures) <= set(METRICS)
            assert all(10 < value <= 100 for value in row.figures.values())
            assert set(row.figures) <= {m for m in METRICS if m.split("_")[0] in DATASETS[name].metrics or m == "aupro"}
    methods = {row.method for row in published_figures("mvtec")}
    assert {"CLIP", "WinCLIP", "AnomalyCLIP", "AdaCLIP", "Anomaly-OV", "ADSeeker"} <= methods
    assert published_figures("goodsad") == []


def test_the_tables_fit_the_terminal(data: Path) -> None:
    assert max(map(len, text_of(run_zsad(data, setup(), limit=2)).splitlines())) <= 120


@pytest.mark.parametrize(
    ("product", "noun"),
    [("candle", "candle"), ("metal_nut", "metal nut"), ("pcb1", "pcb"), ("steel-types 2", "steel types"), ("01", None)],
)
def test_what_prompts_call_a_product(product: str, noun: str | None) -> None:
    assert noun_of(product) == noun


def test_a_product_is_judged_by_its_own_scorer(data: Path) -> None:
    asked: dict[str, RednessScorer] = {}

    def scorer_of(product: str) -> RednessScorer:
        return asked.setdefault(product, RednessScorer())

    common = RednessScorer()
    run_zsad(data, ZeroShotSetup(common, IDENTITY, scorer_of=scorer_of))
    assert {product: scorer.calls for product, scorer in asked.items()} == {"candle": 8, "pcb1": 8}
    assert common.calls == 0
