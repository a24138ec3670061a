"""Players of a GAN without any norm, so that no image has a part in what comes of another."""

from torch import nn

from contraux.clgen.training_gan import Backbone, Discriminator, dcgan


def plain(*, size, channels, classes, width, latent, head):
    """Return DCGAN's players, every batch norm left out."""
    made = dcgan(size=size, channels=channels, classes=classes, width=width, latent=latent, head=head)
    for module in made:
        for part in list(module.modules()):
            for name, child in part.named_children():
                if isinstance(child, nn.BatchNorm2d):
                    setattr(part, name, nn.Identity())
    return Backbone(made.generator, Discriminator(made.discriminator.body, made.discriminator.head))
