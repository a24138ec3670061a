"""ST-DIM: an observation, as a whole and place by place, picks out the feature map of the next one.

Shape legend: N windows, L positions of the feature map, D global features, C channels of the map.
"""

from torch import Tensor, nn

from ..check import shape, whole
from ..pairs import Outcome, Pairs
from ..similarity import Bilinear
from .positions import local_info_nce


class STDIM(nn.Module):
    """Spatiotemporal deep infomax: Anand et al. 2019, https://arxiv.org/abs/1906.08226, equations 1 to 3.

        g_l(t, t') = f(o_t)^T W_g f_l(o_t')      global features against position l of a feature map
        h_l(t, t') = f_l(o_t)^T W_l f_l(o_t')    position l against position l
        loss = 1/L sum_l InfoNCE(g_l) + 1/L sum_l InfoNCE(h_l)

    The candidates of a window are the next observations of all windows of the batch, at the same position. The
    features are `Pairs.query` (f(o_t)), `Pairs.key` (the map f_l(o_{t+k}) as rows `(L N, C)`, all windows of the first
    position first) and the context `key_local` (the map of o_t, rows in the same order), as
    `contraux.clrl.sources.FeatureMaps` makes them. Gradient flows through all three. The order of the rows says who is
    positive; `positive` and `exclude` are not read.

    Deviations: means over positions in place of sums, as AtariARI and rlpyt take them, so that the loss does not depend
    on the size of the map. W_g and W_l without a bias; W_l begins as the identity over sqrt(C), see
    `contraux.core.similarity.Bilinear`, W_g as a linear layer. No momentum encoder, which rlpyt has, nor its anchor
    networks.

    Args:
        dim: dimension D of the global features.
        local_dim: channels C of the feature map; the source says so.

    Raises:
        ValueError: a dimension is not a whole number >= 1.
    """

    def __init__(self, dim: int, *, local_dim: int) -> None:
        super().__init__()
        self.dim, self.local_dim = whole("dim", dim, 1), whole("local_dim", local_dim, 1)
        self.global_weight = nn.Linear(self.dim, self.local_dim, bias=False)  # W_g^T
        self.local_weight = Bilinear(self.local_dim).weight  # W_l

    def forward(self, pairs: Pairs) -> Outcome:
        """Return the sum of both losses; means over both of what `contrastive_metrics` reports; both accuracies.

        `accuracy_global` and `accuracy_local` are those of the global features and of the positions.

        Raises:
            ValueError: the context has no `key_local`, or shapes are not those that this was built for.
        """
        query, key, local = pairs.query, pairs.key, pairs.context.get("key_local")
        self._check(query, key, local)
        assert local is not None
        n = query.shape[0]
        after_LNC, before_LNC = key.unflatten(0, (-1, n)), local.unflatten(0, (-1, n))
        loss_global, by_global = local_info_nce(self.global_weight(query), after_LNC)
        loss_local, by_local = local_info_nce(before_LNC @ self.local_weight, after_LNC)
        metrics = {name: (value + by_local[name]) / 2 for name, value in by_global.items()}
        metrics["accuracy_global"], metrics["accuracy_local"] = by_global["accuracy"], by_local["accuracy"]
        return Outcome(loss_global + loss_local, metrics)

    def _check(self, query: Tensor, key: Tensor, local: Tensor | None) -> None:
        if local is None:
            raise ValueError(
                "STDIM needs the feature map of the query in the context as 'key_local', which the source FeatureMaps "
                "makes, got none"
            )
        rows = key.ndim == 2 and query.ndim == 2 and len(key) and len(key) % len(query) == 0
        if not rows or (query.shape[1], key.shape[1]) != (self.dim, self.local_dim) or local.shape != key.shape:
            raise ValueError(
                f"STDIM needs queries (N, {self.dim}), keys (L N, {self.local_dim}) and a key_local like the keys, got "
                f"{shape(query)}, {shape(key)} and {shape(local)}"
            )

    def update(self) -> None:
        """Nothing here follows the weights."""
