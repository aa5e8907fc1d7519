#!/bin/sh
# Resolve requirements/*.txt: every version pinned, with the hashes of its files, no index named.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder"
"$folder/bin/pip" install -q uv
for kind in run dev; do
    extras=
    if [ "$kind" = dev ]; then extras="--extra dev --extra bench"; fi
    # shellcheck disable=SC2086
    printf "hatchling\neditables\n" | "$folder/bin/uv" pip compile -q --universal --python-version 3.11 \
        --generate-hashes --no-emit-index-url --no-header --no-annotate $extras \
        pyproject.toml - -o "requirements/$kind.txt"
done
