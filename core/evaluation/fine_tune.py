"""Fine-tuning on few labels. Shape legend: S labelled examples, M test examples, D features, C classes."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..check import number, whole
from .draws import Shots, draw_labels, shots_name
from .features import evaluating, in_order
from .linear import accuracy
from .subject import Found, Subject


@dataclass(frozen=True)
class FineTune:
    """Accuracy (percent) after training a copy of the encoder with a linear head on few labels, at the last epoch.

    AdamW without a schedule, cross-entropy, no augmentation. The head starts at zero and reads features standardised
    over the training split. Normalisation keeps its running statistics and dropout is off (eval mode): batches of few
    examples say little about either. The data's labels outside the draw are not used.

    Args:
        shots: labels of each class, such as `[5]`, or shares such as `1%`, `10%`.
        epochs: >= 1 passes over the labelled examples.
        learning_rate: > 0, of the head.
        encoder_learning_rate: >= 0, of the encoder, which knows something already.
        weight_decay: >= 0.
        batch_size: >= 1.
    """

    shots: Sequence[Shots] = (5,)
    epochs: int = 50
    learning_rate: float = 1e-3
    encoder_learning_rate: float = 1e-4
    weight_decay: float = 1e-2
    batch_size: int = 64
    seeded: ClassVar[bool] = True
    labels: ClassVar[str] = "class"

    def __post_init__(self) -> None:
        for shots in self.shots:
            shots_name(shots)
        whole("epochs", self.epochs, 1)
        number("learning_rate", self.learning_rate, 0.0, above=True)
        number("encoder_learning_rate", self.encoder_learning_rate, 0.0)
        number("weight_decay", self.weight_decay, 0.0)
        whole("batch_size", self.batch_size, 1)

    def __call__(self, subject: Subject, seed: int) -> Found:
        """Return `fine_tune_5_shot` and so on; nothing for an encoder without parameters."""
        if next(subject.encoder.parameters(), None) is None:
            return Found({})
        return Found({f"fine_tune_{shots_name(shots)}": self._accuracy(subject, shots, seed) for shots in self.shots})

    def _accuracy(self, subject: Subject, shots: Shots, seed: int) -> float:
        known = np.flatnonzero(subject.train.labels >= 0)
        labels_N = subject.train.labels[known]
        classes, positions_N = np.unique(labels_N, return_inverse=True)
        chosen = draw_labels(labels_N, shots, (seed, 0), subject.train_data.classes)
        model = WithHead(subject.encoder, subject.train.rows, len(classes)).to(subject.device)
        self._train(model, subject, known[chosen], torch.from_numpy(positions_N[chosen]), seed)
        predicted = []
        with evaluating(model), torch.no_grad():
            for batch in in_order(subject.test_data, subject.batch_size, subject.workers):
                predicted.append(model(batch.inputs.to(subject.device)).argmax(1).cpu().numpy())
        asked = subject.test.labels >= 0
        return accuracy(classes[np.concatenate(predicted)][asked], subject.test.labels[asked])

    def _train(self, model: "WithHead", subject: Subject, examples: np.ndarray, class_S: Tensor, seed: int) -> None:
        groups = [
            {"params": list(model.encoder.parameters()), "lr": self.encoder_learning_rate},
            {"params": list(model.head.parameters()), "lr": self.learning_rate},
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=self.weight_decay)
        generator = torch.Generator().manual_seed(seed)
        model.eval()
        for _ in range(self.epochs):
            for part in torch.randperm(len(examples), generator=generator).split(self.batch_size):
                inputs = subject.train_data.__getitems__(examples[part.numpy()].tolist()).inputs.to(subject.device)
                optimizer.zero_grad()
                F.cross_entropy(model(inputs), class_S[part].to(subject.device)).backward()
                optimizer.step()


class WithHead(nn.Module):
    """A copy of an encoder, its features standardised, and a linear head of zeros: logits `(N, C)`.

    Args:
        encoder: copied.
        rows_ND: its features, for their mean and standard deviation.
        classes: C.
    """

    mean_D: Tensor
    sd_D: Tensor

    def __init__(self, encoder: nn.Module, rows_ND: np.ndarray, classes: int) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).requires_grad_(True)
        sd_D = rows_ND.std(0)
        self.register_buffer("mean_D", torch.from_numpy(rows_ND.mean(0)))
        self.register_buffer("sd_D", torch.from_numpy(np.maximum(sd_D, 0.01 * sd_D.max(initial=0.0) + 1e-12)))
        self.head = nn.utils.skip_init(nn.Linear, rows_ND.shape[1], classes)  # draws nothing
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(N, C)`."""
        return self.head((self.encoder(x).float() - self.mean_D) / self.sd_D)
