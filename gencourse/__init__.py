"""Image generation, from probability to diffusion: the models of the course, one file each."""


def __getattr__(name):
    # Imported when asked for, so that `import gencourse.data` does not load Jupyter's display.
    if name == "load":
        from gencourse.recipes import load

        return load
    if name in ("setup", "within"):
        from gencourse import lesson

        return getattr(lesson, name)
    raise AttributeError(f"module 'gencourse' has no attribute {name!r}")
