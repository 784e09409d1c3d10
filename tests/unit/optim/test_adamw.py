"""AdamW, compared with PyTorch's."""

import numpy as np
import pytest

from fedbbpt.optim.adamw import AdamW


def test_adamw_steps_like_pytorch() -> None:
    torch = pytest.importorskip("torch")
    start = np.linspace(-1, 1, 6).reshape(2, 3)
    gradients = np.random.default_rng(0).normal(size=(5, 2, 3))
    search = AdamW(learning_rate=0.1, weight_decay=0.01)
    theirs = torch.tensor(start, requires_grad=True)
    optimizer = torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.01)
    state = search.init(start)
    for gradient in gradients:
        state = search.step(state, gradient)
        theirs.grad = torch.tensor(gradient)
        optimizer.step()
        np.testing.assert_allclose(state.point, theirs.detach().numpy(), rtol=1e-12)
