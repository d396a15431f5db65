"""The hierarchical sparse prompt in torch: equal to NumPy's, trainable, and without effect until trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from flawscope.agent.errors import InputError
from flawscope.tools.ad_expert import sparse_coding
from flawscope.tools.ad_expert.hsp import HierarchicalSparsePrompts, top_mean
from flawscope.tools.ad_expert.hsp_clip import ClipSparsePrompts
from flawscope.tools.ad_expert.hsp_features import FeatureSparsePrompts
from flawscope.tools.ad_expert.sparse_prompt import SparsePrompt, hsp_loss
from flawscope.tools.ad_expert.unrolled_ista import Ista, Lista, lipschitz

DIMS = (5, 7, 7, 9)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def core(**given: object) -> HierarchicalSparsePrompts:
    return HierarchicalSparsePrompts(DIMS, dim=12, atoms=6, **given)  # type: ignore[arg-type]


def pictures(rows: int = 3, patches: int = 20) -> list[torch.Tensor]:
    return [torch.randn(rows, patches, width) for width in DIMS]


def unit(rows: int, dim: int) -> torch.Tensor:
    return nn.functional.normalize(torch.randn(rows, dim), dim=1)


# --- the solver ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rho", [0.0, 0.05, 0.1, 0.5, 0.9])
@pytest.mark.parametrize(("atoms", "dim"), [(64, 768), (12, 5), (1, 3)])
def test_it_agrees_with_the_numpy_reference(rho: float, atoms: int, dim: int) -> None:
    ista = Ista(dim, atoms, rho=rho).eval()
    queries = unit(4, dim)
    expected = sparse_coding.sparse_codes(queries.numpy(), ista.dictionary.detach().numpy(), rho=rho, steps=100)
    np.testing.assert_allclose(ista(queries).detach().numpy(), expected, atol=5e-6 if atoms > dim else 1e-6)
    doubled = ista.double()(queries.double()).detach().numpy()
    np.testing.assert_allclose(doubled, expected, atol=1e-10)
    ista.train()
    eight = sparse_coding.sparse_codes(queries.numpy(), ista.dictionary.detach().numpy(), rho=rho, steps=8)
    np.testing.assert_allclose(ista(queries.double()).detach().numpy(), eight, atol=1e-10)


def test_learnt_iterations_begin_as_ista() -> None:
    lista = Lista(16, 8, rho=0.2, steps=8)
    ista = Ista(16, 8, rho=0.2, train_steps=8)
    ista.load_state_dict(lista.state_dict(), strict=False)
    queries = unit(5, 16)
    torch.testing.assert_close(lista(queries), ista(queries), atol=1e-6, rtol=0)
    assert {name for name, _ in lista.named_parameters()} == {"dictionary", "maps", "raw_thresholds"}


def test_learnt_thresholds_stay_positive_and_learn() -> None:
    lista = Lista(16, 8, rho=0.2, steps=3)
    lista(unit(5, 16)).square().sum().backward()
    for parameter in lista.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 0
    with torch.no_grad():
        lista.raw_thresholds.fill_(-50.0)
    codes = lista(unit(5, 16))
    assert torch.isfinite(codes).all()


def test_the_dictionary_learns_through_every_unrolled_step() -> None:
    """Central differences in float64, with the step length held as the gradient holds it."""
    ista = Ista(5, 4, rho=0.1, train_steps=8).double()
    queries, wanted = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    step = 1.0 / lipschitz(ista.dictionary)

    def value(atoms: torch.Tensor) -> torch.Tensor:
        correlations = queries @ atoms.T
        limits = step * 0.1 * correlations.abs().amax(dim=1, keepdim=True)
        codes = torch.zeros_like(correlations)
        for _ in range(8):
            moved = codes + step * (queries - codes @ atoms) @ atoms.T
            codes = moved.sign() * (moved.abs() - limits).clamp_min(0)
        return (codes * wanted).sum()

    (ista(queries) * wanted).sum().backward()
    atoms = ista.dictionary.detach()
    differences = torch.empty_like(atoms)
    for place in np.ndindex(*atoms.shape):
        nudge = torch.zeros_like(atoms)
        nudge[place] = 1e-6
        differences[place] = (value(atoms + nudge) - value(atoms - nudge)) / 2e-6
    torch.testing.assert_close(ista.dictionary.grad, differences, atol=1e-7, rtol=1e-6)
    assert ista.dictionary.grad is not None
    assert (ista.dictionary.grad.abs().sum(dim=1) > 0).all()


def test_gradients_reach_the_query_too() -> None:
    ista = Ista(5, 4, rho=0.1, train_steps=8).double()
    queries = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ista, (queries,))


def test_the_lipschitz_constant_has_no_gradient_and_a_floor() -> None:
    dictionary = torch.zeros(3, 4, requires_grad=True)
    found = lipschitz(dictionary)
    assert not found.requires_grad
    assert float(found) == pytest.approx(1e-6)
    assert float(lipschitz(torch.ones(3, 4))) == pytest.approx(12.0)


def test_a_dead_dictionary_and_a_zero_query_give_zero_and_finite_gradients() -> None:
    ista = Ista(4, 3)
    with torch.no_grad():
        ista.dictionary.zero_()
    queries = torch.zeros(2, 4, requires_grad=True)
    codes = ista(queries)
    codes.sum().backward()
    assert (codes == 0).all()
    assert ista.dictionary.grad is not None
    assert torch.isfinite(ista.dictionary.grad).all()


def test_autocast_does_not_change_a_bit() -> None:
    stage = SparsePrompt(9, 12, atoms=6, rho=0.1)
    pooled = torch.randn(3, 9)
    plain = stage(pooled)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = stage(pooled)
    assert under.codes.dtype == torch.float32
    assert torch.equal(plain.codes, under.codes)
    assert torch.equal(plain.prompt, under.prompt)


def test_atoms_are_of_unit_length_after_a_step() -> None:
    prompts = core()
    optimiser = torch.optim.Adam(prompts.parameters(), lr=0.1)
    prompts(pictures()).loss().total.backward()
    optimiser.step()
    lengths = prompts.stages[0].solver.dictionary.norm(dim=1)
    assert (lengths - 1).abs().max() > 1e-3
    prompts.normalise_atoms()
    for stage in prompts.stages:
        torch.testing.assert_close(stage.solver.dictionary.norm(dim=1), torch.ones(6))
        assert stage.solver.dictionary.requires_grad


# --- the hierarchy ------------------------------------------------------------------------------------------------


def test_deeper_stages_are_sparser_by_default_and_the_dense_variant_has_the_same_size() -> None:
    sparse, dense = core(), core(rhos=(0.0,) * 4)
    assert sparse.rhos == sorted(sparse.rhos)
    assert len(set(sparse.rhos)) == 4
    assert {k: v.shape for k, v in sparse.state_dict().items()} == {k: v.shape for k, v in dense.state_dict().items()}
    dense.load_state_dict(
        {name: v for name, v in sparse.state_dict().items() if not name.endswith("rho")}, strict=False
    )
    stages = pictures(8)
    with torch.no_grad():
        many, few = dense.eval()(stages), sparse.eval()(stages)
    assert (many.codes[-1].codes != 0).all()
    assert (few.codes[-1].codes == 0).any()
    assert float(many.loss().sparsity) == 0.0
    assert float(many.loss().reconstruction) < float(few.loss().reconstruction)


def test_a_lambda_that_falls_with_depth_is_refused() -> None:
    with pytest.raises(ValueError, match="not decreasing"):
        core(rhos=(0.2, 0.1, 0.1, 0.1))
    with pytest.raises(ValueError, match="one rho a stage"):
        core(rhos=(0.1, 0.1))


def test_weights_of_another_lambda_are_not_run_with_this_one() -> None:
    trained, other = core(), core(rhos=(0.1, 0.1, 0.3, 0.3))
    other.load_state_dict(trained.state_dict())
    stages = pictures()
    torch.testing.assert_close(other(stages).prompt, trained(stages).prompt)


def test_the_numpy_hierarchy_is_the_same() -> None:
    prompts = core().eval()
    with torch.no_grad():
        for head in prompts.significance:
            head.weight.normal_()
    stages = pictures()
    weights = {name: value.numpy() for name, value in prompts.state_dict().items()}
    scores = [None, torch.rand(3, 20), None, None]
    for significance in (None, scores):
        with torch.no_grad():
            run = prompts(stages, significance)
        prompt, residual = sparse_coding.hierarchical_prompt(
            weights,
            [stage.numpy() for stage in stages],
            None if significance is None else [None if s is None else s.numpy() for s in significance],
        )
        np.testing.assert_allclose(run.prompt.numpy(), prompt, atol=1e-5)
        np.testing.assert_allclose(run.codes[-1].residual.numpy(), residual, atol=1e-5)
        np.testing.assert_allclose(run.conditioning.numpy(), np.concatenate([prompt, residual], axis=1), atol=1e-5)


def test_numpy_refuses_what_it_would_solve_otherwise() -> None:
    stages = [stage.numpy() for stage in pictures()]
    learnt = {name: value.numpy() for name, value in core(solver="lista").state_dict().items()}
    with pytest.raises(InputError, match="LISTA"):
        sparse_coding.hierarchical_prompt(learnt, stages)
    plain = {name: value.numpy() for name, value in core().state_dict().items()}
    with pytest.raises(InputError, match="3 stages"):
        sparse_coding.hierarchical_prompt(plain, stages[:3])


def test_an_untrained_head_takes_all_patches_and_a_trained_one_its_fifth() -> None:
    tokens = torch.randn(2, 20, 3)
    torch.testing.assert_close(top_mean(tokens, torch.zeros(2, 20), 0.2), tokens.mean(dim=1))
    ranked = torch.arange(20.0).expand(2, 20)
    torch.testing.assert_close(top_mean(tokens, ranked, 0.2), tokens[:, 16:].mean(dim=1))
    valid = torch.arange(20).expand(2, 20) < 10
    torch.testing.assert_close(top_mean(tokens, ranked, 0.2, valid), tokens[:, 8:10].mean(dim=1))


def test_padding_enters_no_query() -> None:
    prompts = core()
    with torch.no_grad():
        for head in prompts.significance:
            head.weight.normal_()
    stages = pictures()
    valid = (torch.arange(20) < 12).expand(3, 20)
    runs = []
    for filler in (0.0, 1e4):
        run = prompts.start(valid)
        for tokens in stages:
            run.encode(torch.where(valid[..., None], tokens, torch.tensor(filler)))
        runs.append(run.prompt)
    cropped = prompts([tokens[:, :12] for tokens in stages]).prompt
    assert torch.equal(runs[0], runs[1])
    torch.testing.assert_close(runs[0], cropped)


def test_a_batch_is_its_pictures() -> None:
    prompts = core().eval()
    stages = pictures()
    together = prompts(stages).prompt
    alone = torch.cat([prompts([tokens[i : i + 1] for tokens in stages]).prompt for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)


def test_each_stage_hears_of_the_one_before() -> None:
    prompts = core()
    stages = pictures()
    changed = [stages[0] + 1.0, *stages[1:]]
    assert not torch.allclose(prompts(stages).prompt, prompts(changed).prompt)


def test_the_mask_trains_the_heads() -> None:
    prompts = core()
    optimiser = torch.optim.Adam(prompts.parameters(), lr=0.05)
    stages, mask = pictures(), torch.zeros(3, 20)
    mask[:, 4:8] = 1
    for tokens in stages:
        tokens[:, 4:8] += 3.0
    for _ in range(60):
        logits = [code.significance for code in prompts(stages).codes]
        assert logits[0] is None
        loss = sum(nn.functional.binary_cross_entropy_with_logits(one, mask) for one in logits[1:])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for stage in (1, 2, 3):
        assert ((prompts.significance_logits(stage, stages[stage]) > 0) == mask.bool()).all()


# --- the loss -----------------------------------------------------------------------------------------------------


def test_the_loss_is_the_share_of_equation_9_by_hand() -> None:
    stage = SparsePrompt(2, 2, atoms=2, rho=0.5)
    with torch.no_grad():
        stage.query.weight.copy_(torch.eye(2))
        stage.query.bias.zero_()
        stage.solver.dictionary.copy_(torch.eye(2))
    # query (4, 1): lambda 2, code (2, 0), residual (2, 1): 5 / 17 left, 2 * 2 * 2 / 17 paid
    loss = hsp_loss([stage(torch.tensor([[4.0, 1.0]]))])
    assert loss.reconstruction.item() == pytest.approx(5 / 17)
    assert loss.sparsity.item() == pytest.approx(8 / 17)
    assert loss.total.item() == pytest.approx(13 / 17)


def test_the_loss_is_not_lowered_by_shrinking_and_falls_when_trained() -> None:
    stage = SparsePrompt(6, 12, atoms=6, rho=0.1)
    with torch.no_grad():
        stage.query.bias.zero_()
    pooled = torch.randn(4, 6)
    torch.testing.assert_close(hsp_loss([stage(pooled)]).total, hsp_loss([stage(0.01 * pooled)]).total)
    prompts, stages = core(), pictures()
    optimiser = torch.optim.Adam(prompts.parameters(), lr=1e-2)
    before = prompts(stages).loss().total.item()
    assert 0 < before <= 1
    for _ in range(30):
        optimiser.zero_grad()
        prompts(stages).loss().total.backward()
        optimiser.step()
        prompts.normalise_atoms()
    assert prompts(stages).loss().total.item() < 0.5 * before


def test_a_query_of_zeros_has_a_finite_loss() -> None:
    stage = SparsePrompt(6, 12, atoms=6)
    with torch.no_grad():
        stage.query.bias.zero_()
    loss = hsp_loss([stage(torch.zeros(2, 6))]).total
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in stage.parameters() if p.grad is not None)


# --- in use -------------------------------------------------------------------------------------------------------


def test_features_are_untouched_until_the_gate_opens_and_the_gate_can_open() -> None:
    prompts = FeatureSparsePrompts(core(), feature_dim=9)
    stages = pictures()
    features, run = prompts(stages[-1], stages)
    assert torch.equal(features, stages[-1])
    features.square().sum().backward()
    assert prompts.gate.grad is not None
    assert prompts.gate.grad.abs() > 0
    with torch.no_grad():
        prompts.gate.fill_(1.0)
    features, run = prompts(stages[-1], stages)
    added = features - stages[-1]
    torch.testing.assert_close(added, added[:, :1].expand_as(added), atol=1e-5, rtol=0)
    features.square().sum().backward()
    assert prompts.hsp.stages[0].solver.dictionary.grad is not None
    assert prompts.hsp.stages[0].solver.dictionary.grad.abs().max() > 0
    assert len(run.codes) == 4


@pytest.mark.parametrize("solver", ["ista", "lista"])
def test_weights_survive_a_safetensors_file(tmp_path: Path, solver: str) -> None:
    for make in (
        lambda: FeatureSparsePrompts(core(solver=solver), feature_dim=9),
        lambda: ClipSparsePrompts(core(solver=solver), width=9, text_width=8),
    ):
        saved, fresh = make(), make()
        if isinstance(saved, ClipSparsePrompts):
            saved.open_visual()
        save_file(saved.state_dict(), tmp_path / "weights.safetensors")
        fresh.load_state_dict(load_file(tmp_path / "weights.safetensors"))
        for name, value in saved.state_dict().items():
            assert torch.equal(fresh.state_dict()[name], value), name


def test_clip_gets_no_tokens_and_no_offset_until_they_are_opened() -> None:
    prompts = ClipSparsePrompts(HierarchicalSparsePrompts((8,) * 4, dim=12, atoms=6), width=8, text_width=10, tokens=4)
    run = prompts.start()
    tokens = torch.randn(2, 9, 8)
    assert [run(stage, tokens) for stage in range(4)] == [None] * 4
    offset = prompts.text_offset(run.prompt)
    assert offset.shape == (2, 10)
    assert (offset == 0).all()
    offset.sum().backward()
    assert prompts.text_gate.grad is not None
    assert prompts.text_gate.grad.abs() > 0
    prompts.open_visual()
    run = prompts.start()
    given = run(0, tokens.bfloat16())
    assert given is not None
    assert given.shape == (2, 4, 8)
    assert given.dtype == torch.bfloat16


def test_stages_out_of_order_are_an_error() -> None:
    prompts = ClipSparsePrompts(HierarchicalSparsePrompts((8,) * 4, dim=12, atoms=6), width=8, text_width=10)
    run = prompts.start()
    run(0, torch.randn(2, 9, 8))
    with pytest.raises(ValueError, match="new run"):
        run(0, torch.randn(2, 9, 8))
