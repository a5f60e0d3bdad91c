"""``python -m tests.torture KIND [COUNT]``: run one kind; ends with 1 if a case failed. ``page`` writes the page."""

import argparse
import importlib
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.torture import report


def main() -> int:
    arguments = parse_arguments()
    if arguments.kind == "page":
        report.write_page()
        return 0
    kind = importlib.import_module(f"tests.torture.{arguments.kind}")
    first, count = arguments.seed, arguments.count or kind.COUNT
    if arguments.only is not None:
        first, count = arguments.only, 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every block is left, and what it started ends
    work = Path(tempfile.mkdtemp(prefix="brainseg-torture-"))
    counted = report.collect(arguments.kind, kind.run(range(first, first + count), work), kind.GOOD, count)
    if arguments.record:
        report.record(arguments.kind, counted)
    seeds = counted["runs"][0]["seeds"]
    done = seeds[1] - seeds[0] + 1
    if counted["failures"]:
        print(f"{len(counted['failures']):,} failures; what they left is in {work}")
    else:
        shutil.rmtree(work)
    if done < count:
        print(f"ended after {done:,} of {count:,}; the others: python -m tests.torture {arguments.kind} "
              f"{count - done} --seed {first + done}")  # fmt: skip
    return int(bool(counted["failures"]) or done < count)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("kind", choices=[*report.KINDS, "page"])
    parser.add_argument("count", type=int, nargs="?", help="how many cases; default: as many as the page asks for")
    parser.add_argument("--seed", type=int, default=0, help="of the first case; the others follow it")
    parser.add_argument("--only", type=int, metavar="SEED", help="run the case of this seed again, alone")
    parser.add_argument("--record", action="store_true", help="write the counts into docs/")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
