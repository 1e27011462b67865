"""The mathematics and the network. Importing this registers its classes with diffusers."""

from studio.diffusion.registry import register

register()
