"""A pickle that runs something."""

import os


class Trap:
    """Leaves the folder `sprung` where its pickle is loaded."""

    def __reduce__(self):
        return os.mkdir, ("sprung",)
