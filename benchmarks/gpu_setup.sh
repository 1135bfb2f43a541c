#!/usr/bin/env bash
# Brings PyCUDA, and what else ablate needs, onto a machine that has the CUDA toolkit, g++ and Python but no package index.
#
#   benchmarks/gpu_setup.sh collect FOLDER VERSION [HAS]   where there is an index
#   benchmarks/gpu_setup.sh install FOLDER [TARGET]        on that machine, without network
#
# VERSION is that machine's Python, 3.12 say. HAS is a file that names what is installed there, a package a line (what
# `python3 -m pip list --format=freeze` prints there): none of it is carried. TARGET is a folder to install into instead
# of the Python's own, to be named in PYTHONPATH afterwards. PYTHON names the Python that runs pip; by default python3.
#
# PyCUDA comes as source only. Where a Python VERSION and the toolkit are at hand, `collect` builds it, which takes a minute
# or two; else `install` does, once: the wheel stays in FOLDER. Delete it there to have it built anew.
set -euo pipefail

PYTHON=${PYTHON:-python3}
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

die() {
    echo "gpu_setup: $*" >&2
    exit 1
}

say() {
    echo "gpu_setup: $*"
}

# Run a command, its output into a file; where it fails, the first error in there is the message.
quietly() {
    local what=$1 log=$2
    shift 2
    "$@" >"$log" 2>&1 || die "$what: $(grep -m 1 -i -E '(^|[^:a-z_])(fatal )?error:|cannot find' "$log" || tail -n 1 "$log") (see $log)"
}

# The toolkit's folder. nvcc may be a link or a script that stands elsewhere: it is asked itself.
toolkit() {
    local nvcc folder
    for folder in "${CUDA_HOME:-}" "${CUDA_PATH:-}" "${CUDA_ROOT:-}"; do
        if [[ -n $folder && -f $folder/include/cuda.h ]]; then
            echo "$folder"
            return
        fi
    done
    nvcc=$(command -v nvcc || true)
    for folder in \
        "$(if [[ -n $nvcc ]]; then "$nvcc" --dryrun -x cu - </dev/null 2>&1 | sed -n 's/^#\$ TOP=//p'; fi)" \
        "${nvcc:+$(dirname "$(dirname "$nvcc")")}" /usr/local/cuda; do
        if [[ -n $folder && -f $folder/include/cuda.h ]]; then
            (cd "$folder" && pwd)
            return
        fi
    done
    return 1
}

# Build PyCUDA's wheel from the archive in a folder, with a Python that has setuptools, wheel and numpy.
build() {
    local folder=$1 python=$2 root scratch headers
    local archives=("$folder"/pycuda-*.tar.gz)
    [[ -f ${archives[0]} ]] || die "$folder: no PyCUDA in there; run 'collect' first"
    root=$(toolkit) || die "no CUDA toolkit with cuda.h was found: set CUDA_HOME to its folder"
    command -v g++ >/dev/null || die "g++ was not found: PyCUDA is built with it"
    headers=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    [[ -f $headers/Python.h ]] || die "$headers/Python.h was not found: PyCUDA cannot be built without Python's headers"
    scratch=$(mktemp -d)
    tar -xzf "${archives[0]}" -C "$scratch" --strip-components=1
    # The driver's library is bound by its name alone, so that PyCUDA can be built where there is none. Most linkers leave
    # out a library of which nothing is used, unless told otherwise before they meet it.
    mkdir "$scratch/stub"
    g++ -shared -x c++ /dev/null -Wl,-soname,libcuda.so.1 -o "$scratch/stub/libcuda.so"
    cat >"$scratch/siteconf.py" <<END
CUDA_ROOT = "$root"
CUDA_INC_DIR = ["$root/include"]
CUDA_ENABLE_CURAND = False
CUDADRV_LIB_DIR = ["$scratch/stub"]
END
    say "building PyCUDA with the toolkit in $root (a minute or two)"
    LDFLAGS="-Wl,--no-as-needed ${LDFLAGS:-}" quietly "PyCUDA cannot be built" "$folder/pycuda-build.log" \
        "$python" -m pip wheel --no-index --no-build-isolation --no-deps --wheel-dir "$folder" "$scratch"
    rm -rf "$scratch"
}

# The wheel of PyCUDA for a Python, if it is in the folder.
built() {
    local tag wheel
    tag=$("$2" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
    for wheel in "$1"/pycuda-*-"$tag-$tag"-*.whl; do
        if [[ -f $wheel ]]; then
            echo "$wheel"
            return
        fi
    done
    return 1
}

collect() {
    local folder=$1 version=$2 has=${3:-} platforms=() scratch machine minor
    [[ $version =~ ^3\.[0-9]+$ ]] || die "VERSION=$version: expected that machine's Python, such as 3.12"
    [[ -z $has || -f $has ]] || die "HAS=$has: no such file"
    mkdir -p "$folder"
    folder=$(cd "$folder" && pwd)
    scratch=$(mktemp -d)
    machine=$(uname -m)
    for minor in 39 34 31 28 27 24 17; do platforms+=(--platform "manylinux_2_${minor}_$machine"); done
    platforms+=(--platform "manylinux2014_$machine" --platform "linux_$machine")

    say "PyCUDA's source"
    [[ -n $(compgen -G "$folder/pycuda-*.tar.gz" || true) ]] || quietly "PyCUDA cannot be fetched" "$scratch/log" \
        "$PYTHON" -m pip download --no-deps --no-binary=pycuda --dest "$folder" 'pycuda>=2025.1.2'
    say "wheels for Python $version"
    mkdir "$scratch/wheels"
    # Hydra's parser comes as source only; what is built of it runs with any Python.
    quietly "antlr4 cannot be built" "$scratch/log" \
        "$PYTHON" -m pip wheel --no-deps --wheel-dir "$scratch/wheels" 'antlr4-python3-runtime==4.9.*'
    "$PYTHON" - "$HERE/../pyproject.toml" >"$scratch/wanted" <<'END'
import sys, tomllib
with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)["project"]
tests = [each for each in project["optional-dependencies"]["dev"] if each.startswith("pytest")]
# PyCUDA's own, and what it is built with besides NumPy.
pycuda = ["setuptools", "wheel", "pytools", "platformdirs", "mako"]
print(*project["dependencies"], *tests, *pycuda, sep="\n")
END
    quietly "the wheels cannot be fetched" "$scratch/log" "$PYTHON" -m pip download --only-binary=:all: \
        --implementation cp --python-version "$version" "${platforms[@]}" \
        --find-links "$scratch/wheels" --dest "$scratch/wheels" --requirement "$scratch/wanted"

    if built "$folder" "python$version" >/dev/null 2>&1; then
        say "PyCUDA is built already"
    elif toolkit >/dev/null && "python$version" -m venv "$scratch/venv" >/dev/null 2>&1; then
        quietly "PyCUDA's build needs cannot be installed" "$scratch/log" "$scratch/venv/bin/python" -m pip install \
            --no-index --find-links "$scratch/wheels" setuptools wheel numpy
        build "$folder" "$scratch/venv/bin/python"
    else
        say "no Python $version or no CUDA toolkit here: 'install' will build PyCUDA"
    fi
    [[ -z $has ]] || leave_out "$scratch/wheels" "$has"
    # Of every package one version: those of an earlier time go.
    find "$folder" -mindepth 1 -maxdepth 1 -name '*.whl' ! -name 'pycuda-*' -delete
    find "$scratch/wheels" -name '*.whl' -exec mv {} "$folder" \;
    rm -rf "$scratch"
    say "$(find "$folder" -name '*.whl' | wc -l) wheels, $(du -sh "$folder" | cut -f 1) in $folder"
}

# Delete the wheels of what the machine has.
leave_out() {
    "$PYTHON" - "$1" "$2" <<'END'
import pathlib, re, sys

def plain(name):
    return re.sub(r"[-_.]+", "-", name.strip()).lower()

lines = pathlib.Path(sys.argv[2]).read_text(encoding="utf-8").splitlines()
has = {plain(re.split(r"[=<>@ ]", line.strip())[0]) for line in lines if line.strip()} - {"pycuda"}
for wheel in pathlib.Path(sys.argv[1]).glob("*.whl"):
    if plain(wheel.name.split("-")[0]) in has:
        wheel.unlink()
END
}

install() {
    local folder=$1 target=${2:-} into=() wheel wheels=() log
    [[ -d $folder ]] || die "FOLDER=$folder: no such folder"
    folder=$(cd "$folder" && pwd)
    log=$folder/install.log
    if [[ -n $target ]]; then
        mkdir -p "$target"
        target=$(cd "$target" && pwd)
        into=(--target "$target" --upgrade)
        export PYTHONPATH=$target${PYTHONPATH:+:$PYTHONPATH}
    fi
    for wheel in "$folder"/*.whl; do
        [[ ! -f $wheel || $(basename "$wheel") == pycuda-* ]] || wheels+=("$wheel")
    done
    [[ ${#wheels[@]} -gt 0 || -n $(compgen -G "$folder/pycuda-*" || true) ]] || die "$folder: empty; run 'collect' first"
    if [[ ${#wheels[@]} -gt 0 ]]; then
        say "${#wheels[@]} wheels"
        quietly "the wheels cannot be installed" "$log" "$PYTHON" -m pip install --no-index --no-deps "${into[@]}" "${wheels[@]}"
    fi
    if ! built "$folder" "$PYTHON" >/dev/null; then
        "$PYTHON" -c 'import setuptools, wheel, numpy' 2>/dev/null || die "PyCUDA is built with setuptools, wheel and numpy: one is missing"
        build "$folder" "$PYTHON"
    fi
    wheel=$(built "$folder" "$PYTHON") || die "PyCUDA was built for another Python than $PYTHON"
    say "$(basename "$wheel")"
    quietly "PyCUDA cannot be installed" "$log" "$PYTHON" -m pip install --no-index --no-deps "${into[@]}" "$wheel"
    "$PYTHON" -m pip check 2>/dev/null | sed 's/^/gpu_setup: note: /' || true
    "$PYTHON" - <<'END' || die "PyCUDA is installed, but no GPU can be used"
import sys
try:
    import pycuda.driver as driver
    driver.init()
    print(f"gpu_setup: {driver.Device(0).name()}, driver for CUDA {driver.get_driver_version() // 1000}")
except Exception as error:
    print(f"gpu_setup: {type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(1)
END
    [[ -z $target ]] || say "export PYTHONPATH=$target"
}

usage="usage: gpu_setup.sh collect FOLDER VERSION [HAS] | install FOLDER [TARGET]"
command -v "$PYTHON" >/dev/null || die "PYTHON=$PYTHON was not found"
case ${1:-} in
    collect) [[ $# -ge 3 && $# -le 4 ]] || die "$usage"; collect "${@:2}" ;;
    install) [[ $# -ge 2 && $# -le 3 ]] || die "$usage"; install "${@:2}" ;;
    *) die "$usage" ;;
esac
