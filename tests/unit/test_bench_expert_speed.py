from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import flawscope.benchmarks
from flawscope.agent.errors import InputError, MissingExtraError
from flawscope.benchmarks import expert_speed, random_clip
from flawscope.benchmarks.bank_search import SearchRow, search_row
from flawscope.benchmarks.expert_clip import centre_square
from flawscope.benchmarks.expert_parts import STAGES, batch_row, whole_row
from flawscope.benchmarks.expert_speed import ExpertSpeedResult, render, run_expert_speed
from flawscope.tools.ad_expert.expert import ExpertConfig, FittedExpert
from flawscope.tools.ad_expert.memory_bank import MemoryBank


def sample(forward: float, encode: float, localise: float, regions: float) -> dict[str, float]:
    """Milliseconds in, seconds out; decoding and resizing take 2 and 3 ms."""
    times = {"forward": forward, "encode": encode, "localise": localise, "regions": regions, "distances": 1.0}
    return {name: value / 1e3 for name, value in {**times, "decode": 2.0, "resize": 3.0}.items()}


def test_the_expert_is_encode_localise_and_regions_and_ratios_are_formed_per_picture() -> None:
    row = whole_row("plate", [sample(10, 11, 3, 1), sample(100, 90, 50, 10), sample(10, 12, 7, 1)], aim=1.6)
    assert row.whole == pytest.approx(20.0)  # of 15, 150 and 20
    assert row.forward == pytest.approx(10.0)
    assert row.ratio == pytest.approx(1.5)  # of 1.5, 1.5 and 2; the ratio of the medians would be 2
    assert row.loaded_ratio == pytest.approx(2.0)  # of 2, 1.55 and 2.5: 5 ms more each
    assert row.stages == pytest.approx(
        {"decode": 2, "resize": 3, "encode": 12, "localise": 7, "regions": 1, "distances": 1}
    )


def test_a_bank_is_weighed_in_tokens_and_megabytes() -> None:
    bank = MemoryBank(np.eye(4, dtype=np.float32), np.zeros(4, np.int32), weights=np.ones(4, np.float32))
    row = search_row(2, True, FittedExpert(bank, ExpertConfig()), [(0.002, 0.01), (0.003, 0.01), (0.009, 0.09)])
    assert row.tokens == 4
    assert row.megabytes == pytest.approx((64 + 16 + 16) / 1e6)
    assert row.search == pytest.approx(3.0)
    assert row.ratio == pytest.approx(0.2)  # of 0.2, 0.3 and 0.1


def test_a_batch_is_compared_per_image() -> None:
    row = batch_row("net", 8, [(0.8, 0.6), (0.8, 0.8), (1.6, 0.8)])
    assert (row.alone, row.together) == (pytest.approx(100.0), pytest.approx(100.0))
    assert row.ratio == pytest.approx(0.75)
    assert row.repeats == 3


def test_the_tables_say_what_met_its_aim_and_that_weights_are_random() -> None:
    embedded = [whole_row("plate", [sample(10, 11, 3, 1)], aim=1.6), whole_row("hide", [sample(10, 12, 7, 1)], aim=1.6)]
    clip = [whole_row("zero-shot", [sample(100, 104, 5, 1)], aim=1.15)]
    search = [
        SearchRow(
            1,
            True,
            784,
            0.2,
            1.5,
            0.1,
        ),
        SearchRow(1, False, 790, 0.3, 1.75, 0.15),
    ]
    batches = [batch_row("net", 8, [(0.8, 0.88)]), batch_row("other", 8, [(0.8, 0.81)])]
    text = render(ExpertSpeedResult(embedded, clip, search, batches, ["a note"]))
    assert "worst 2.00 (MISSED: at most 1.6)" in text
    assert "worst 1.10 (met: at most 1.15)" in text
    assert "CLIP (random weights, timing only)" in text
    assert [line.split() for line in text.splitlines() if line.startswith("1 ")] == [
        ["1", "784", "0.2", "1.5", "0.10", "790", "0.3", "1.8", "0.15"]
    ]
    assert "1.10 (MISSED: at most 1, 2% of noise allowed)" in text
    assert "1.01 (met: at most 1, 2% of noise allowed)" in text
    assert text.endswith("a note")
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "CLIP" not in render(ExpertSpeedResult(embedded, [], search, batches[:1]))


def test_pictures_are_cut_to_their_middle() -> None:
    wide = np.arange(2 * 6 * 3, dtype=np.uint8).reshape(2, 6, 3)
    np.testing.assert_array_equal(centre_square(wide), wide[:, 2:4])


@pytest.fixture
def plate(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for folder, count in (("train/good", 3), ("test/good", 1), ("test/dark", 1)):
        (tmp_path / "plate" / folder).mkdir(parents=True)
        for number in range(count):
            picture = rng.integers(100, 140, (64, 80, 3), dtype=np.uint8)
            picture[:32] //= 2 if folder.endswith("dark") else 1
            Image.fromarray(picture).save(tmp_path / "plate" / folder / f"{number:03d}.png")
    return tmp_path


def test_one_small_product_is_measured(plate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expert_speed, "REFERENCES", 3)
    monkeypatch.setattr(expert_speed, "BATCH_REPEATS", 1)
    told: list[str] = []
    result = run_expert_speed(plate, clip=False, counts=(1, 5), pictures=1, rounds=1, progress=told.append)
    (row,) = result.embedded
    assert row.name == "plate"
    assert set(row.stages) == {*STAGES, "distances"}
    assert row.whole > row.stages["encode"] > 0
    assert row.loaded_ratio > row.ratio
    tokens = {(found.references, found.coreset): found.tokens for found in result.search}
    patches = 28 * 35
    assert tokens == {(1, True): patches, (1, False): patches, (5, True): 3000, (5, False): 5 * patches}
    assert [found.name for found in result.batches] == ["efficientnet-lite2"]
    assert result.clip == []
    assert "banks of more than 3 references repeat pictures, moved by whole patches" in result.notes
    assert told[0] == "plate: enrolling"
    assert "random" not in render(result)


def test_what_cannot_be_measured_is_refused(plate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="16 references"):
        run_expert_speed(plate, clip=False)
    monkeypatch.setattr(random_clip.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"--clip off.*flawscope\[clip\]"):
        run_expert_speed(plate)


def test_nothing_that_inspects_knows_of_random_weights() -> None:
    root = Path(flawscope.benchmarks.__file__).parents[1]
    knowing = set()
    for folder in ("agent", "tools", "graphs", "prompts", "training", "commands"):
        for path in (root / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [a.name for a in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
                module = getattr(node, "module", None) or ""
                if any("random_clip" in name or "expert_clip" in name for name in (*names, module)):
                    knowing.add(path)
    assert knowing == set()
