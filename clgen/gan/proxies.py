"""Embeddings of a discriminator's features and a learned proxy of each class, compared by cosines.

Shape legend: N examples, C classes, D dimension of the embedding.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...core.check import whole
from ...core.projected import HeadFactory
from ...core.similarity import cosine, safe_norm


class Compared(NamedTuple):
    """Every example with every example, and in the last column with the proxy of its own class.

    Attributes:
        similarity: `(N, N + 1)` cosines; -inf for an example and itself.
        same: `(N, N + 1)` bool, the other examples of the same class, and the proxy.
        other: `(N, N + 1)` bool, the examples of other classes.
    """

    similarity: Tensor
    same: Tensor
    other: Tensor


class ClassProxies(nn.Module):
    """What ContraGAN and ReACGAN share: an embedding of features, and a proxy for each class.

    Only the proxies of the classes in the batch are looked at; there is no `(N, C)` matrix. Proxies need no spectral
    norm, which a cosine takes out again.

    Args:
        in_features: dimension of the features.
        classes: labels are whole numbers below it, which is not checked (that would stall a GPU): a larger one raises
            torch's own IndexError on the CPU and is a device-side assertion on a GPU.
        head: `in_features -> module` with `out_features`, the embedding.

    Raises:
        ValueError: classes is not a whole number >= 1.
    """

    def __init__(self, in_features: int, classes: Any, head: HeadFactory) -> None:
        super().__init__()
        if classes is None:
            raise ValueError(
                "classes must be the number of classes that labels come from, got None: "
                'attach(..., overrides=["module.classes=10"]), or method.module.classes=10 on the command line'
            )
        embedding: Any = head(in_features)
        self.embedding = embedding
        self.proxies = nn.Embedding(whole("classes", classes, 1), embedding.out_features)

    def forward(self, features: Tensor, labels: Tensor) -> Compared:
        """Return the comparison of `(N, D)` features with `(N,)` labels."""
        embedded, proxy = self.embedding(features), self.proxies(labels)
        itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        alike = cosine(embedded, embedded).masked_fill(itself, -torch.inf)
        to_proxy = (embedded * proxy).sum(1) / (safe_norm(embedded) * safe_norm(proxy))
        same = labels.unsqueeze(1) == labels
        return Compared(
            torch.cat((alike, to_proxy.unsqueeze(1)), 1),
            torch.nn.functional.pad(same & ~itself, (0, 1), value=True),
            torch.nn.functional.pad(~same, (0, 1), value=False),
        )
