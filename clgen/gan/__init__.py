"""Contrastive objectives for GAN discriminators: one method a file."""

from .class_supcon import ClassSupCon
from .contrad import ContraD
from .contragan import ContraGAN
from .heads import Head
from .infomax import InfoMaxGAN
from .insgen import InsGen
from .reacgan import ReACGAN
from .real_fake_supcon import RealFakeSupCon

__all__ = ["ClassSupCon", "ContraD", "ContraGAN", "Head", "InfoMaxGAN", "InsGen", "ReACGAN", "RealFakeSupCon"]
