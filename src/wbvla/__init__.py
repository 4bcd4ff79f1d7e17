"""wbvla: humanoid loco-manipulation from egocentric video to legs that carry it out."""

__version__ = "0.1.0"
