"""One line of what `brainseg doctor` and `brainseg check` say."""

from typing import NamedTuple


class Finding(NamedTuple):
    """``fix`` is empty if nothing needs to be done; ``fails``: nothing can be run until it is done."""

    subject: str
    found: str
    fix: str = ""
    fails: bool = False

    def __str__(self) -> str:
        mark = "FAIL" if self.fails else "WARN" if self.fix else "PASS"
        line = f"{mark}  {self.subject:<11}{self.found}"
        return f"{line}. Fix: {self.fix}" if self.fix else line


def show_bytes(number: float) -> str:
    """``1.2 GiB``, ``340 MiB``."""
    return f"{number / 2**30:,.1f} GiB" if number >= 2**30 else f"{number / 2**20:,.0f} MiB"


def show_minutes(minutes: float) -> str:
    return f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"
