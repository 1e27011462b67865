"""Latent diffusion models in the step engine: text encoding, samplers, rows, batched calls, decoding, previews."""
