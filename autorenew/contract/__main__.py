"""``python -m autorenew.contract [--check]``: write the contract anew, or see that it is fresh."""

import sys

from autorenew.contract import FOLDER, files, outdated


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print("usage: python -m autorenew.contract [--check]", file=sys.stderr)
        return 2
    old = outdated()
    if arguments:
        for name in old:
            print(f"docs/contract/{name} is out of date: make contract", file=sys.stderr)
        return 1 if old else 0
    FOLDER.mkdir(exist_ok=True)
    wanted = files()
    for name in old:
        if name in wanted:
            (FOLDER / name).write_text(wanted[name])
        else:
            (FOLDER / name).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
