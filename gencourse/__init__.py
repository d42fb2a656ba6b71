"""Image generation, from probability to diffusion: the models of the course, one file each."""

from gencourse.recipes import load

__all__ = ["load"]
