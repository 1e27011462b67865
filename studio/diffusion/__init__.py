"""The mathematics, the network and the pipelines. Importing this package registers its classes with diffusers."""

from studio.diffusion.registry import register

register()
