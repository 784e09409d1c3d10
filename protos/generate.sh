#!/usr/bin/env bash
# Generates the Python code of protos/ into fedbbpt/; with --check, only checks that the committed code does not differ.
set -euo pipefail
cd "$(dirname "$0")/.."
tools="$PWD/.venv-protos/bin"
out=.
if [ "${1:-}" = --check ]; then
    out=$(mktemp -d)
    trap 'rm -rf "$out"' EXIT
fi
mapfile -t files < <(find protos/fedbbpt -name '*.proto' | sort)
"$tools/python" -m grpc_tools.protoc --proto_path=protos \
    --plugin=protoc-gen-mypy="$tools/protoc-gen-mypy" --plugin=protoc-gen-mypy_grpc="$tools/protoc-gen-mypy_grpc" \
    --python_out="$out" --mypy_out=quiet:"$out" "${files[@]}"
mapfile -t services < <(grep -l '^service ' "${files[@]}")
"$tools/python" -m grpc_tools.protoc --proto_path=protos \
    --plugin=protoc-gen-mypy_grpc="$tools/protoc-gen-mypy_grpc" \
    --grpc_python_out="$out" --mypy_grpc_out=quiet:"$out" "${services[@]}"
if [ "$out" != . ]; then
    for folder in fedbbpt/v1 fedbbpt/ptm/v1; do
        diff --unified --exclude=__init__.py --exclude=__pycache__ "$out/$folder" "$folder" || {
            echo "The generated code and protos/ differ: run 'make protos' and commit what it writes."
            exit 1
        }
    done
fi
