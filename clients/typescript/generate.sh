#!/usr/bin/env bash
# Copies the protos to dist/protos, where the client loads them, and generates their types in src/generated.
set -euo pipefail
cd "$(dirname "$0")"
protos="${PROTOS:-../../protos}"
rm -rf dist src/generated
mkdir -p dist/protos src/generated
cp -r "$protos/fedbbpt" "$protos/google" dist/protos/
npx proto-loader-gen-types --grpcLib=@grpc/grpc-js --outDir=src/generated --includeDirs=dist/protos \
    --importFileExtension=.js --targetFileExtension=.ts --longs=String --enums=String --defaults --oneofs \
    --inputTemplate=%sInput --outputTemplate=%s \
    fedbbpt/v1/coordinator.proto fedbbpt/ptm/v1/ptm.proto \
    google/rpc/status.proto google/rpc/error_details.proto
