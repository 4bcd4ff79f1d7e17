#!/bin/sh
# Makes .venv in the repository root and installs wbvla with all its extras and its LeRobot plug-in.
# In: a Linux machine with Python 3.12 somewhere, and constraints.txt. Out: .venv/bin/wbvla and a working software
# renderer, or one message that says what to install. Running it again only repairs what is missing.
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "wbvla setup: $*" >&2; }

is_python312() {
    [ -n "${1:-}" ] && command -v "$1" >/dev/null 2>&1 &&
        "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' >/dev/null 2>&1
}

# Print the first Python 3.12 found: $PYTHON, PATH, pyenv, conda, uv's own folder.
find_python() {
    conda_root=$(conda info --base 2>/dev/null) || conda_root=$HOME/miniconda3
    for candidate in "${PYTHON:-}" python3.12 python3 python \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12*/bin/python3.12 \
        "${CONDA_PREFIX:-$conda_root}"/bin/python3.12 "$conda_root"/envs/*/bin/python3.12 \
        "$HOME"/miniconda3/envs/*/bin/python3.12 "$HOME"/anaconda3/envs/*/bin/python3.12 \
        "$HOME"/miniforge3/envs/*/bin/python3.12 "$HOME"/.conda/envs/*/bin/python3.12 \
        "${UV_PYTHON_INSTALL_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/uv/python}"/cpython-3.12*/bin/python3.12; do
        if is_python312 "$candidate"; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done
    return 1
}

as_root_with_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; }

apt_install() {
    say "installing $* through apt"
    apt-get update -qq >/dev/null || true
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

make_venv() {
    if is_python312 .venv/bin/python; then return 0; fi
    if ! python=$(find_python); then
        say "Python 3.12 was not found in PATH, pyenv, conda or uv. Install it with one of"
        say "  sudo apt install python3.12 python3.12-venv     (Ubuntu 24.04)"
        say "  pyenv install 3.12        conda create -n py312 python=3.12        uv python install 3.12"
        say "or name it: make setup PYTHON=/path/to/python3.12"
        exit 1
    fi
    say "using $("$python" -c 'import sys; print(sys.executable, sys.version.split()[0])')"
    if ! "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
        if as_root_with_apt; then
            apt_install python3.12-venv
        else
            say "this Python cannot make virtual environments; run: sudo apt install python3.12-venv"
            exit 1
        fi
    fi
    "$python" -m venv --clear .venv
}

install_packages() {
    .venv/bin/python -m uv --version >/dev/null 2>&1 ||
        .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
    # The machine's own certificates: behind a company's proxy the ones inside uv are not enough.
    UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-300} .venv/bin/python -m uv pip install --system-certs --python .venv/bin/python -c constraints.txt \
        -e '.[sim,train,mjlab,serve,dev]' -e plugins/lerobot_policy_wbvla
}

# The cameras are drawn by EGL: a real picture is the only proof that the libraries fit together.
can_render() {
    MUJOCO_GL=${MUJOCO_GL:-egl} .venv/bin/python - >/dev/null 2>&1 <<'PY'
import mujoco
model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><light pos="0 0 3"/><geom size="1"/></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 32, 32) as renderer:
    renderer.update_scene(data)
    assert renderer.render().any()
PY
}

ensure_rendering() {
    can_render && return 0
    if as_root_with_apt; then
        apt_install libegl1 libgl1 libgl1-mesa-dri || true
        can_render && return 0
    fi
    say "no software renderer (libEGL). Run this once, then make again:"
    say "  sudo apt install libegl1 libgl1 libgl1-mesa-dri     (Fedora: sudo dnf install mesa-libEGL mesa-dri-drivers)"
    exit 1
}

make_venv
install_packages
ensure_rendering
say "ready: .venv/bin/wbvla --help"
