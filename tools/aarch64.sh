#!/bin/sh
# Decode tiles on aarch64, emulated: sh tools/aarch64.sh [WORK_FOLDER]
# Needs Debian or Ubuntu with qemu-user-static, and a Python with this package installed.
# Nothing is installed: packages and wheels for aarch64 are unpacked in the folder.
# ONNX Runtime 1.31 crashes while it is loaded under QEMU 7.2; 1.22 does not.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
work=${1:-$(mktemp -d)}
mkdir -p "$work/state" "$work/lists/partial" "$work/cache/archives/partial" "$work/root" "$work/site"
cd "$work"
touch status
cat > apt.conf <<CONF
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Sandbox::User "root";
Dir::State "$work/state";
Dir::State::Lists "$work/lists";
Dir::State::status "$work/status";
Dir::Cache "$work/cache";
CONF
export APT_CONFIG="$work/apt.conf"
apt-get -qq update
apt-get -qq -y --no-install-recommends --download-only install python3 libstdc++6
for package in cache/archives/*.deb; do dpkg -x "$package" root; done
version=$(ls root/usr/bin | sed -n 's/^python3\.\([0-9]*\)$/\1/p')
python3 -m pip download -q -d wheels --no-deps --only-binary=:all: --python-version "3.$version" \
    --platform manylinux2014_aarch64 --platform manylinux_2_28_aarch64 \
    --platform manylinux_2_27_aarch64 --implementation cp --abi "cp3$version" --abi abi3 --abi none \
    numpy safetensors onnxruntime==1.22.1 pillow protobuf flatbuffers
for wheel in wheels/*.whl; do python3 -m zipfile -e "$wheel" site; done
python3 "$here/tools/check_architecture.py" write "$work/cases.json"
PYTHONPATH="$work/site" OPENBLAS_NUM_THREADS=1 qemu-aarch64-static -L root \
    "root/usr/bin/python3.$version" "$here/tools/check_architecture.py" check "$work/cases.json"
