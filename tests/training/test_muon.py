"""Muon: the orthogonal update against a singular value decomposition, AdamW's part against torch's own."""

import torch
from torch import nn

from maskselect.training.muon import Muon, muon_groups, orthogonalise


def test_orthogonalise_keeps_singular_vectors_and_evens_values() -> None:
    torch.manual_seed(0)
    for shape in ((8, 20), (20, 8)):
        matrix = torch.randn(shape)
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        core = u.T @ orthogonalise(matrix).float() @ v.T
        values = core.diagonal()
        assert values.min() > 0.5 and values.max() < 1.4
        assert (core - torch.diag(values)).abs().max() < 0.1


def test_vectors_follow_torchs_adamw() -> None:
    torch.manual_seed(0)
    start = torch.randn(5)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizers = (
        Muon([ours], lr=0.01, betas=(0.9, 0.99)),
        torch.optim.AdamW([theirs], 0.01, (0.9, 0.99), weight_decay=0),
    )
    for step in range(5):
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = torch.sin(parameter.detach() * (step + 1))
            optimizer.step()
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_groups_hold_each_trainable_parameter_once() -> None:
    model = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 3), nn.Linear(3, 2))
    model[1].bias.requires_grad_(False)
    by_muon, by_adam = muon_groups(model, ["0.", "2."])
    assert [p.shape for p in by_muon["params"]] == [(3, 3)]
    assert len(by_adam["params"]) == 3 and by_adam["muon"] is False
