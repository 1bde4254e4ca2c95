#!/usr/bin/env bash
# Runs `client.py` against the service: `python/check.sh FOLDER`. Installs grpcio into a virtual
# environment in that folder, unless it is there.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

environment=$1/grpc-python
if [ ! -x "$environment/bin/python" ]; then
    python3 -m venv "$environment"
fi
"$environment/bin/python" -c "import grpc, grpc_tools, grpc_health, grpc_reflection" 2>/dev/null ||
    "$environment/bin/pip" install --quiet \
        grpcio grpcio-tools grpcio-health-checking grpcio-reflection
if [ "${2:-}" = --install ]; then
    exit
fi

cargo build --bins --examples
programs=${CARGO_TARGET_DIR:-target}/debug
generated=$(mktemp -d)
trap 'rm -rf "$generated"' EXIT
"$environment/bin/python" -m grpc_tools.protoc --proto_path proto \
    --python_out "$generated" --grpc_python_out "$generated" offload.proto
"$programs/examples/self_signed" "$generated"
PYTHONPATH="$generated" "$environment/bin/python" python/client.py \
    "$programs/grpc_offload" "$generated/certificate.pem" "$generated/key.pem"
