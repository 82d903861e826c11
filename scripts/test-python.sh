#!/usr/bin/env bash
# Tests clients/python over the built proxy: pytest, ruff, mypy --strict and pyright, in a venv that is made anew when
# its packages change; builds its sdist and wheel. Needs `npm run build`. PYTHON names another interpreter than python3.
# pytest also runs on the oldest supported Python and on the newest one that is found, on PATH or among pyenv's.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
package=clients/python
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
wanted=$(sha256sum "$package/pyproject.toml" scripts/test-python.sh)
export PIP_DISABLE_PIP_VERSION_CHECK=1

# Makes a venv with the client, unless it is there: venv FOLDER PACKAGE...
make_venv() {
  if [ "$(cat "$1/installed" 2>/dev/null)" != "$wanted" ]; then
    rm -rf "$1"
    "$python" -m venv "$1"
    "$1/bin/pip" install -q --editable "./$package" 'pytest>=8' "${@:2}"
  fi
}

venv=node_modules/.cache/python-$version
make_venv "$venv" 'ruff==0.17.6' 'mypy>=1.15' keyring 'build>=1.2'
if [ ! -e "$venv/installed" ]; then
  # The SDKs, and httpx2, are not there for every version of Python.
  "$venv/bin/pip" install -q httpx2 openai anthropic langchain-openai ||
    echo "without httpx2 and the SDKs: their tests are skipped"
  echo "$wanted" >"$venv/installed"
fi

"$venv/bin/ruff" check "$package"
"$venv/bin/ruff" format --check "$package"
(cd "$package" && npx --yes pyright@1.1.414 --pythonpath "../../$venv/bin/python")
dist=$(mktemp -d)
trap 'rm -rf "$dist"' EXIT
"$venv/bin/python" -m build --outdir "$dist" "$package" >/dev/null
(cd "$package" && "../../$venv/bin/mypy" && "../../$venv/bin/python" -m pytest -p no:cacheprovider)

# LlamaIndex takes no openai from 3 on, so it has a venv of its own; there the tests run over openai 2 and httpx as well.
llama=node_modules/.cache/python-$version-llama-index
make_venv "$llama"
if [ ! -e "$llama/installed" ]; then
  "$llama/bin/pip" install -q llama-index-llms-openai-like langchain-openai || echo "without LlamaIndex: its test is skipped"
  echo "$wanted" >"$llama/installed"
fi
(cd "$package" && "../../$llama/bin/python" -m pytest -p no:cacheprovider tests/test_sdks.py)

oldest=3.9
find_python() {
  command -v "python$1" 2>/dev/null | grep -v /shims/ || ls -d "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python 2>/dev/null | tail -n 1 || true
}
newest=$oldest
for minor in $(seq 10 30); do [ -z "$(find_python "3.$minor")" ] || newest=3.$minor; done
for other in $(printf '%s\n' "$oldest" "$newest" | sort -u); do
  if [ "$other" = "$version" ]; then continue; fi
  python=$(find_python "$other")
  if [ -z "$python" ]; then
    echo "SKIPPED: Python $other isn't installed"
    continue
  fi
  folder=node_modules/.cache/python-$other-alone
  make_venv "$folder"
  echo "$wanted" >"$folder/installed"
  echo "Python $other"
  (cd "$package" && "../../$folder/bin/python" -m pytest -q -p no:cacheprovider)
done
