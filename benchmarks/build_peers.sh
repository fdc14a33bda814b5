#!/bin/sh
# Builds llama.cpp, the peer that the benchmarks compare with: `make peers`, or
#
#   PYTHON=.venv/bin/python JOBS=2 benchmarks/build_peers.sh [FOLDER]
#
# The source package of llama-cpp-python carries llama.cpp whole, in one version that pip can check. Nothing of it is committed: all goes to FOLDER
# (build/peers), where bin/ then holds llama-bench, llama-quantize, llama-server and our llama-logits. Built for this very machine (-march=native), as
# someone who wants speed would. Needs cmake, make, a C++ compiler, 0.4 GB of disk and about 8 minutes of two cores.
set -eu

version=0.3.36
here=$(cd "$(dirname "$0")" && pwd)
into=${1:-$(dirname "$here")/build/peers}
python=${PYTHON:-python3}
jobs=${JOBS:-$(getconf _NPROCESSORS_ONLN)}

for tool in cmake make c++ tar; do
    command -v "$tool" >/dev/null || { echo "error: no $tool here, expected cmake, make and a C++ compiler to build llama.cpp" >&2; exit 1; }
done

mkdir -p "$into/bin"
source=$into/llama_cpp_python-$version/vendor/llama.cpp
if [ ! -f "$source/CMakeLists.txt" ]; then
    "$python" -m pip --disable-pip-version-check --no-input -qq download --no-binary llama-cpp-python --no-deps \
        --dest "$into" "llama-cpp-python==$version"
    tar -xzf "$into/llama_cpp_python-$version.tar.gz" -C "$into" "llama_cpp_python-$version/vendor/llama.cpp"
    rm "$into/llama_cpp_python-$version.tar.gz"
fi

# Makefiles, since Ninja loops on the package's time stamps. The number and commit are given, or it would take those of the repository around it, and no
# web page is fetched for the server.
cmake -S "$source" -B "$into/work" -G "Unix Makefiles" -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=OFF \
    -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF \
    -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF \
    -DLLAMA_BUILD_NUMBER=0 -DLLAMA_BUILD_COMMIT="llama-cpp-python-$version" >"$into/cmake.log" 2>&1 ||
    { tail -20 "$into/cmake.log" >&2; exit 1; }

for target in llama-bench llama-quantize llama-server; do
    cmake --build "$into/work" --target "$target" -j "$jobs" >>"$into/cmake.log" 2>&1 || { tail -20 "$into/cmake.log" >&2; exit 1; }
    cp "$into/work/bin/$target" "$into/bin/"
    if [ "$target" = llama-bench ]; then
        c++ -O2 -std=c++17 -fopenmp -I "$source/include" -I "$source/ggml/include" -o "$into/bin/llama-logits" "$here/llama_logits.cpp" \
            "$into/work/src/libllama.a" "$into/work/ggml/src/libggml.a" "$into/work/ggml/src/libggml-cpu.a" \
            "$into/work/ggml/src/libggml-base.a" -lpthread -ldl
    fi
done
echo "llama.cpp of llama-cpp-python $version: $into/bin"
