"""Tests of `studio.models.latent`."""
