"""Latent action models. In: action-free video. Out: discrete codes for pairs of frames, one model for each family.

`train` fits a model, `label` writes its codes as a sidecar, `load_lam` (in `model`) opens one, `probe` measures what
the codes know about true motion.
"""
