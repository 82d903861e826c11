#!/usr/bin/env bash
# Tests clients/python over the built proxy: pytest, ruff and mypy --strict, in a venv that is made anew when
# its packages change. Needs `npm run build`. PYTHON names another interpreter than python3.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
package=clients/python
venv=node_modules/.cache/python-$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
wanted=$(sha256sum "$package/pyproject.toml" scripts/test-python.sh)

if [ "$(cat "$venv/installed" 2>/dev/null)" != "$wanted" ]; then
  rm -rf "$venv"
  "$python" -m venv "$venv"
  export PIP_DISABLE_PIP_VERSION_CHECK=1
  "$venv/bin/pip" install -q --editable "./$package" 'pytest>=8' 'ruff==0.17.6' 'mypy>=1.15'
  # The SDKs, and httpx2, are not there for every version of Python.
  "$venv/bin/pip" install -q httpx2 openai anthropic || echo "without httpx2 and the SDKs: their tests are skipped"
  echo "$wanted" >"$venv/installed"
fi

"$venv/bin/ruff" check "$package"
"$venv/bin/ruff" format --check "$package"
(cd "$package" && "../../$venv/bin/mypy" && "../../$venv/bin/python" -m pytest -p no:cacheprovider)
