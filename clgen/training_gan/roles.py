"""Whether a run has what its method asks for."""

from typing import Any

from ..auxiliary import Auxiliary
from ..images import Images
from .augment import Augment
from .draws import STREAMS


def check_roles(
    auxiliary: Auxiliary | None, images: Images, conditional: bool, augment: Augment, *, own_term: bool
) -> None:
    """Raise where a method asks for what this run has not; `own_term`: whether the generator has a term of it.

    Raises:
        ValueError: a role or context that is unknown, views without augmentation, or labels that there are not.
    """
    labelled = bool(images.classes) and bool((images.labels >= 0).all())
    if conditional and not labelled:
        raise ValueError("conditional=true needs images that all have a class, and these have none: conditional=false")
    if auxiliary is None:
        return
    method: Any = auxiliary.method
    name = type(method).__name__
    asked = (*method.roles, *method.key_roles, *method.generator_roles, *method.generator_key_roles)
    for role in asked:
        if role not in STREAMS:
            raise ValueError(f"{name} asks for {role!r} images, and there are real, view, fake, real_key and fake_key")
    if {"view", "real_key"} & set(asked) and augment.numbers == 0:
        raise ValueError(f"{name} compares views of an image, which need an augmentation: augment=affine")
    if "labels" in method.context and not labelled:
        raise ValueError(f"{name} needs images that all have a class, and these have none")
    if own_term and "labels" in method.generator_context and not conditional:
        raise ValueError(
            f"{name} looks at the classes of generated images: conditional=true, or generator_weight=0 for its term of "
            "the discriminator alone"
        )
