"""One optimizer step of a denoiser, on whatever devices Accelerate has. Shape legend: B rows."""

from copy import deepcopy
from typing import Any

from accelerate import Accelerator
from torch import Tensor, nn

from ...core.losses.contrastive_flow import row_errors
from ...core.pairs import Outcome
from ...core.training.optimizers import OptimizerFactory, made_optimizer, parameter_groups, stepping
from ...core.training.start import prepared
from ..auxiliary import Auxiliary
from ..diffusion.labels import predicted
from ..diffusion.prediction import min_snr_weight, per_row, target
from ..diffusion.process import Process
from .batch import Rows


class Engine:
    """A denoiser, its moving average, its auxiliary and their optimizer, where they train.

    Args:
        accelerator: says where.
        model: the denoiser, moved there.
        auxiliary: attached to it; None: none.
        optimizer: factory.
        process: of the noise.
        weight: of the auxiliary's loss.
        flow_weight: of contrastive flow matching; 0: none.
        snr_gamma: of min-SNR weighting, of the contrast too; None: every row counts the same.
        ema_decay: of the moving average.
        max_grad_norm: clips the gradient's norm; None never.
        compile: torch.compile the denoiser; a name is the backend's.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        auxiliary: Auxiliary | None,
        optimizer: OptimizerFactory,
        process: Process,
        *,
        weight: float,
        flow_weight: float,
        snr_gamma: float | None,
        ema_decay: float,
        max_grad_norm: float | None,
        compile: bool | str,
    ) -> None:
        self.accelerator, self.process, self.auxiliary = accelerator, process, auxiliary
        self.weight, self.flow_weight, self.snr_gamma = weight, flow_weight, snr_gamma
        self.max_grad_norm = max_grad_norm
        self.bare = model.to(accelerator.device).train()
        self.averaged = deepcopy(self.bare).eval().requires_grad_(False)  # a copy's taps record nothing
        from diffusers.training_utils import EMAModel  # here: diffusers takes long to import

        self.ema = EMAModel(self.bare.parameters(), decay=ema_decay, foreach=True)
        parts = [self.bare] if auxiliary is None else [self.bare, auxiliary.to(accelerator.device).train()]
        self.trained = nn.ModuleList(parts)
        made = made_optimizer(optimizer, parameter_groups(self.trained))
        self.rates = [group["lr"] for group in made.param_groups]
        if compile:
            self.bare.compile(
                backend=compile if isinstance(compile, str) else "inductor"
            )  # after the taps are on: later ones would be ignored
        self.model, self.optimizer = prepared(accelerator, self.bare, made)
        kept: list[Any] = [self.ema] if auxiliary is None else [self.ema, auxiliary]
        accelerator.register_for_checkpointing(*kept)

    def loaded(self) -> None:
        """Put what a checkpoint holds of the moving average on the device, where Accelerate does not."""
        self.ema.to(self.accelerator.device)

    def update(self, rows: Rows, factor: float) -> Outcome:
        """Take one step, and return the loss and its parts.

        Args:
            rows: of this process.
            factor: of the learning rate.

        Raises:
            ValueError: the learning rate makes a step overflow.
        """
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        outcome = self._loss(rows)
        self.accelerator.backward(outcome.loss)
        if self.max_grad_norm is not None:
            self.accelerator.clip_grad_norm_(self.trained.parameters(), self.max_grad_norm)
        with stepping(self.rates[0]):
            self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.step(self.bare.parameters())
        return outcome

    def average(self) -> nn.Module:
        """Return a denoiser with the moving average of the weights, in evaluation mode."""
        self.ema.copy_to(self.averaged.parameters())
        for buffer, own in zip(self.averaged.buffers(), self.bare.buffers(), strict=True):
            buffer.copy_(own)
        return self.averaged

    def _loss(self, rows: Rows) -> Outcome:
        alpha, sigma = levels = self.process.levels(rows.timesteps)
        noisy = per_row(alpha, rows.clean) * rows.clean + per_row(sigma, rows.clean) * rows.noise
        aim = target(self.process.prediction, rows.clean, rows.noise, alpha, sigma)
        if self.auxiliary is None:
            output = predicted(self.model, noisy, rows.timesteps, rows.given)
        else:
            with self.auxiliary:
                output = predicted(self.model, noisy, rows.timesteps, rows.given)
        error = row_errors(output, aim)
        metrics = {"denoising": error.detach().mean()}
        if self.flow_weight:
            away = row_errors(output, aim[rows.other])
            metrics["flow_contrast"] = away.detach().mean()
            error = error - self.flow_weight * away  # before rows are weighted: each must have a minimum
        if self.snr_gamma is not None:
            error = error * min_snr_weight(self.process.prediction, alpha, sigma, self.snr_gamma)
        loss = error.mean()
        if self.auxiliary is not None:
            own = self.auxiliary.loss(**self._context(rows, levels.signal))
            loss = loss + self.weight * own
            metrics |= {"auxiliary": own.detach(), **self.auxiliary.metrics}
        return Outcome(loss, metrics)

    def _context(self, rows: Rows, signal: Tensor) -> dict[str, Tensor]:
        """Return of what there is that which the method takes."""
        given = {
            "timesteps": rows.timesteps,
            "identity": rows.identity,
            "labels": rows.classes,
            "clean": rows.clean,
            "signal": signal,
        }
        method = self.auxiliary.method if self.auxiliary is not None else None
        return {name: value for name, value in given.items() if method and name in (*method.context, *method.optional)}
