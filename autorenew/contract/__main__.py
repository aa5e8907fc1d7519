"""``python -m autorenew.contract [--check]``: write contract and models anew, or check them."""

import sys

from autorenew.contract import FOLDER, files, models, outdated


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print("usage: python -m autorenew.contract [--check]", file=sys.stderr)
        return 2
    old, wanted_models = outdated(), models.source()
    are_models_fresh = models.FILE.exists() and models.FILE.read_text() == wanted_models
    if arguments:
        for name in old:
            print(f"docs/contract/{name} is out of date: make contract", file=sys.stderr)
        if not are_models_fresh:
            print("producers/client/models.py is out of date: make contract", file=sys.stderr)
        return 0 if are_models_fresh and not old else 1
    models.FILE.write_text(wanted_models)
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
