"""One step of each player. Shape legend: B images of this process, Z latent dimension."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ...core.distributed import average_gradients, averaged
from ...core.encoders import MomentumEncoder
from ...core.training.optimizers import stepping
from ..auxiliary import Auxiliary
from .adversarial import Adversarial
from .augment import Augment
from .draws import Draws
from .losses import accuracy

Metrics = dict[str, Tensor]


class Players(nn.Module):
    """Everything of a run that a checkpoint keeps, beside the optimizers.

    Attributes:
        generator: trained.
        discriminator: trained.
        average: moving average of the generator, which is what a run leaves.
        augment: of what the discriminator sees.
        auxiliary: the contrastive method's heads, or None.
        won: steps on end in which the discriminator's loss was vanishing.
    """

    won: Tensor

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        augment: Augment,
        auxiliary: Auxiliary | None,
        momentum: float,
    ) -> None:
        super().__init__()
        self.generator, self.discriminator, self.augment = generator, discriminator, augment
        self.average = MomentumEncoder(generator, momentum)
        self.auxiliary = auxiliary
        self.register_buffer("won", torch.zeros(()))

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return images of the averaged generator."""
        images: Tensor = self.average(latents, labels) if labels is not None else self.average(latents)
        return images


class Engine:
    """Takes the steps of both players.

    Args:
        accelerator: says where and in which precision.
        players: where they train.
        optimizers: of generator and of discriminator, whose second has the auxiliary's heads too.
        adversarial: their losses.
        draws: everything random.
        weight: of the auxiliary in the discriminator's step; 0 leaves it out, its gradient stop and extra images too.
        generator_weight: of the auxiliary in the generator's step, where the method has a term for it; likewise.
        perturbation: standard deviation of what is added to latents for `fake_key` images (InsGen).
        conditional: whether the players are given labels.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        players: Players,
        optimizers: tuple[Any, Any],
        adversarial: Adversarial,
        draws: Draws,
        *,
        weight: float,
        generator_weight: float,
        perturbation: float,
        conditional: bool,
    ) -> None:
        self.accelerator, self.players, self.adversarial, self.draws = accelerator, players, adversarial, draws
        self.optimizers = optimizers
        self.weight, self.generator_weight, self.perturbation = weight, generator_weight, perturbation
        self.conditional = conditional
        self.one_call = not mixes_rows(players.discriminator)
        self.learns = [parameter for parameter in players.discriminator.parameters() if parameter.requires_grad]
        auxiliary = players.auxiliary
        self.auxiliary = auxiliary if weight > 0 else None
        has_term = auxiliary is not None and bool(auxiliary.method.generator_roles) and generator_weight > 0
        self.generator_auxiliary = auxiliary if has_term else None

    def discriminator_step(self, step: int, real: Tensor, labels: Tensor) -> Metrics:
        """Train the discriminator on one batch, and return what it found.

        Args:
            step: of the discriminator, from 0.
            real: `(B, C, H, W)`.
            labels: `(B,)`; the fakes are given the same.
        """
        players, auxiliary = self.players, self.auxiliary
        roles = () if auxiliary is None else auxiliary.method.roles
        keys = () if auxiliary is None else auxiliary.method.key_roles
        latents = self.draws.normal("latents", step, self._latent())
        with torch.no_grad(), self.accelerator.autocast():
            images = self._images((*roles, *keys, "real", "fake"), "", step, real, latents, labels)
        scores: dict[str, Tensor] = {}
        if auxiliary is not None:
            with auxiliary:
                scores |= self._scores({role: images[role] for role in roles}, labels)
        others = [role for role in ("real", "fake") if role not in scores]
        if others:
            scores |= self._scores({role: images[role] for role in others}, labels)
        game = self.adversarial.discriminator(scores["real"], scores["fake"])
        loss, found = game, {"discriminator": game.detach()}
        if auxiliary is not None:
            method = auxiliary.method
            own = self._own(auxiliary, (*method.context, *method.optional), keys, images, labels)
            loss = loss + self.weight * own
            found |= {"auxiliary": own.detach(), **{f"auxiliary/{k}": v for k, v in auxiliary.metrics.items()}}
        if self.adversarial.penalised:
            penalty = self._penalty(step, images, labels)
            loss = loss + penalty
            found["penalty"] = penalty.detach()
        self._update(1, loss, (players.discriminator, *([] if auxiliary is None else [auxiliary])))
        found |= self._watched(scores, step)
        return {"loss": loss.detach(), **found}

    def generator_step(self, step: int, real: Tensor, labels: Tensor) -> Metrics:
        """Train the generator on one batch, move its average, and return what it found.

        Args:
            step: of the generator, from 0.
            real: `(B, C, H, W)`, the discriminator's last batch, for losses and methods that look at real images.
            labels: `(B,)`, what the fakes are to be.
        """
        players, auxiliary = self.players, self.generator_auxiliary
        roles = () if auxiliary is None else auxiliary.method.generator_roles
        keys = () if auxiliary is None else auxiliary.method.generator_key_roles
        latents = self.draws.normal("generator/latents", step, self._latent())
        wanted = ("fake", *(("real",) if self.adversarial.paired else ()))
        with self._discriminator_stands_still():
            with self.accelerator.autocast():
                images = self._images((*roles, *keys, *wanted), "generator/", step, real, latents, labels)
            scores: dict[str, Tensor] = {}
            if auxiliary is not None:
                with auxiliary.for_generator():
                    scores |= self._scores({role: images[role] for role in roles}, labels)
            others = [role for role in wanted if role not in scores]
            if others:
                scores |= self._scores({role: images[role] for role in others}, labels)
            loss = game = self.adversarial.generator(scores.get("real"), scores["fake"])
            found = {"generator": game.detach()}
            if auxiliary is not None:
                own = self._own(auxiliary, auxiliary.method.generator_context, keys, images, labels)
                loss = loss + self.generator_weight * own
                metrics = {f"generator_auxiliary/{k}": v for k, v in auxiliary.metrics.items()}
                found |= {"generator_auxiliary": own.detach(), **metrics}
            self._update(0, loss, (players.generator,))
        momentum = min(players.average.momentum, (1 + step) / (10 + step))  # the first steps are soon forgotten
        players.average.update(players.generator, momentum)
        return found

    @contextmanager
    def _discriminator_stands_still(self) -> Iterator[None]:
        """Let what the discriminator learns get no gradient; what its owner froze stays so afterwards."""
        try:
            for parameter in self.learns:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in self.learns:
                parameter.requires_grad_(True)

    def _latent(self) -> int:
        return int(self.players.generator.latent)  # type: ignore[arg-type]

    def _images(
        self, roles: Iterable[str], phase: str, step: int, real: Tensor, latents: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        """Return what each role sees: real images or fakes, each augmented by numbers of its own."""
        augment, found, fakes = self.players.augment, {}, None
        for role in dict.fromkeys(roles):
            if role == "fake_key" and not phase:
                noise = self.draws.normal("perturbation", step, latents.shape[1])
                with torch.no_grad():
                    images = self._generated(latents + self.perturbation * noise, labels)
            elif role in ("fake", "fake_key"):  # for the generator, keys are the same fakes
                fakes = self._generated(latents, labels) if fakes is None else fakes
                images = fakes if role == "fake" else fakes.detach()
            else:
                images = real
            found[role] = augment(images, self.draws.uniform(f"{phase}{role}", step, augment.numbers))
        return found

    def _generated(self, latents: Tensor, labels: Tensor) -> Tensor:
        generator = self.players.generator
        return (generator(latents, labels) if self.conditional else generator(latents)).float()

    def _scores(self, images: Mapping[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
        """Return scores `(B,)` in float32 of each role's images; in one call where no image influences another's."""
        with self.accelerator.autocast():
            if self.one_call and len(images) > 1:
                inputs = torch.cat(list(images.values()))
                scores = list(self._score(inputs, labels.repeat(len(images))).chunk(len(images)))
            else:
                scores = [self._score(one, labels) for one in images.values()]
        return dict(zip(images, scores, strict=True))

    def _score(self, images: Tensor, labels: Tensor) -> Tensor:
        discriminator = self.players.discriminator
        scores: Tensor = discriminator(images, labels) if self.conditional else discriminator(images)
        return scores.float().flatten() if scores.dtype != torch.float64 else scores.flatten()

    def _own(
        self, auxiliary: Auxiliary, named: Iterable[str], keys: Iterable[str], images: Mapping[str, Tensor],
        labels: Tensor,
    ) -> Tensor:  # fmt: skip
        """Return the method's loss, given what it takes by name; its momentum passes are in the run's precision."""
        context: dict[str, Any] = {"labels": labels} if "labels" in named else {}
        if "fake_labels" in named and self.conditional:
            context["fake_labels"] = labels
        context |= {key: (images[key], labels) if self.conditional else images[key] for key in keys}
        with self.accelerator.autocast():
            return auxiliary.loss(**context)

    def _penalty(self, step: int, images: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        if step % self.adversarial.interval:
            return torch.zeros((), device=labels.device)
        mix = self.draws.uniform("mix", step, 1).squeeze(1)

        def score(inputs: Tensor) -> Tensor:
            return self._score(inputs, labels)

        with torch.autocast(labels.device.type, enabled=False):
            return self.adversarial.penalty(score, score, images["real"].float(), images["fake"].float(), mix)

    @torch.no_grad()
    def _watched(self, scores: Mapping[str, Tensor], step: int) -> Metrics:
        """Return what tells how the game goes, after a look at it by the augmentation."""
        real, fake = scores["real"].detach(), scores["fake"].detach()
        self.players.augment.observe(real, step + 1)
        found = {"accuracy": accuracy(real, fake), "real_score": real.mean(), "fake_score": fake.mean()}
        probability = getattr(self.players.augment, "probability", None)
        if probability is not None:
            found["augment_probability"] = probability.clone()
        if self.adversarial.vanishing is not None:
            game = averaged(self.adversarial.discriminator(real, fake))
            won = self.players.won
            won.copy_(torch.where(game < self.adversarial.vanishing, won + 1, 0.0))
            found["won"] = won.clone()
        return found

    def _update(self, which: int, loss: Tensor, modules: Iterable[nn.Module]) -> None:
        """Take one optimizer step on the gradient, averaged over processes.

        The modules are not in DistributedDataParallel, which neither several forward passes with penalties between
        them nor hooks need: one all_reduce does what it would.
        """
        self.accelerator.backward(loss)
        if self.accelerator.num_processes > 1:
            average_gradients(parameter for module in modules for parameter in module.parameters())
        optimizer = self.optimizers[which]
        with stepping(optimizer.param_groups[0]["lr"]):
            optimizer.step()
        optimizer.zero_grad()


def mixes_rows(module: nn.Module) -> bool:
    """Return whether an image has a part in what comes of another of its batch, by batch norm."""
    return any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())
