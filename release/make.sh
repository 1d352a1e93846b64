#!/usr/bin/env bash
# `make release`, into build/release: both packages, built twice; a software bill of materials, and the licences of what
# they bring; and the wheels tried in an empty environment outside this folder, under each Python that is here.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD tools=$PWD/build/tools/bin out=$PWD/build/release
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH

# Of what a package's licence says: nothing that asks more of who passes Thresher on than Apache-2.0 does, and nothing
# that is not known. MPL-2.0 asks it of its own files only, which stay as they are. Others by name, with a reason:
# release/licences.txt.
taken='Apache;BSD;CNRI;ISC;MIT;MPL;Mozilla Public;PSF;Python Software Foundation;Zlib'
refused='GPL;General Public;SSPL;BUSL;Business Source;Commons Clause;Elastic;CC-BY-NC;CC-BY-SA;NonCommercial;Proprietary;UNKNOWN'

say() { printf '\n== %s\n' "$*"; }

build() { # FOLDER INTO
  for package in . study; do
    "$tools/python" -m build --no-isolation --outdir "$2" "$1/$package" >>"$work/build.log" 2>&1 || {
      cat "$work/build.log" >&2
      exit 1
    }
  done
}

build_twice() {
  if [ -n "$(git status --porcelain)" ]; then
    echo 'error: a release is made of a commit; commit or stash what git status shows.' >&2
    exit 1
  fi
  SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
  export SOURCE_DATE_EPOCH
  say "building $(git rev-parse --short HEAD), here and from a copy with other times and rights"
  rm -rf "$out"
  mkdir -p "$out" "$work/copy"
  build "$root" "$out"
  git archive HEAD | tar -xm -C "$work/copy"
  chmod -R go-rwx "$work/copy"
  build "$work/copy" "$work/again"
  diff -r "$out" "$work/again" || {
    echo 'error: two builds of one commit differ.' >&2
    exit 1
  }
  (cd "$out" && ls -l)
}

into() { # ENVIRONMENT, and what pip is to install there
  local environment=$1
  shift
  "$tools/python" -m pip --python "$environment/bin/python" install --quiet "$@"
}

locked() { into "$1" --no-deps --only-binary :all: --require-hashes --requirement "$root/requirements/$2.txt"; }

list() { # ENVIRONMENT: what is in it, once
  say 'the bill of materials, and the licences'
  "$tools/cyclonedx-py" environment --pyproject "$root/pyproject.toml" --output-reproducible --of JSON \
    --output-file "$out/thresher-$version.cdx.json" "$1/bin/python"
  local packages licences excused
  packages=$(sed -nE 's/^([A-Za-z0-9._-]+)==.*/\1/p' "$root/requirements/runtime.txt" | sort -u)
  # shellcheck disable=SC2206 # one word a package
  licences=("$tools/pip-licenses" --python "$1/bin/python" --with-system --packages torch $packages)
  "${licences[@]}" --with-urls --format=markdown --output-file="$out/licences.md" >/dev/null
  excused=$(sed -nE 's/^([A-Za-z0-9._-]+): .*/\1/p' "$root/release/licences.txt")
  # shellcheck disable=SC2086
  "${licences[@]}" --partial-match --allow-only="$taken" --fail-on="$refused" ${excused:+--ignore-packages $excused} \
    --format=csv >"$work/licences.csv" || {
    echo 'error: a licence that release/make.sh does not take; do without the package, or give release/licences.txt a reason.' >&2
    exit 1
  }
  echo "$(($(wc -l <"$out/licences.md") - 2)) packages"
}

try() { # PYTHON: in a new environment, with nothing of this folder in reach
  local environment=$work/$1 here
  say "trying the wheels under $("$1" --version)"
  "$1" -m venv --without-pip "$environment"
  locked "$environment" runtime
  into "$environment" --constraint "$root/constraints.txt" torch
  into "$environment" --no-deps --no-index --find-links "$out" "thresher==$version"
  "$tools/python" -m pip --python "$environment/bin/python" check
  [ -e "$out/licences.md" ] || list "$environment"
  mkdir "$work/try-$1"
  cd "$work/try-$1"
  here=$("$environment/bin/python" -c 'import thresher; print([getattr(thresher, name) for name in thresher.__all__] and thresher.__file__)')
  if [ "${here#"$environment"/}" = "$here" ]; then
    echo "error: imported $here, not what was installed." >&2
    exit 1
  fi
  [ "$("$environment/bin/thresher" --version)" = "thresher $version" ]
  "$environment/bin/thresher" --help >/dev/null
  into "$environment" --no-deps --no-index --find-links "$out" "thresher-study==$version"
  "$environment/bin/thresher-study" --help >/dev/null
  # A first audit, of a packaged model; what would ask a hub fails.
  locked "$environment" demo
  for row in $(seq 30); do
    printf '{"text": "a lovely film, the best of %d", "label": "fresh"}\n' "$row"
    printf '{"text": "a dreadful film, the worst of %d", "label": "rotten"}\n' "$row"
  done >train.jsonl
  sed 's/film/play/' train.jsonl | head -20 >clean.jsonl
  HF_HUB_OFFLINE=1 "$environment/bin/thresher" audit --model packaged:minilm --train train.jsonl \
    --validation clean.jsonl --output run --quick --quiet
  "$environment/bin/thresher" clean run --output cleaned.jsonl
  [ -s cleaned.jsonl ]
  cd "$root"
  rm -rf "$environment"
}

version=$("$tools/python" -c 'import tomllib; print(tomllib.load(open("pyproject.toml", "rb"))["project"]["version"])')
build_twice
tried= skipped=
for python in python3.11 python3.12 python3.13; do
  if "$python" -c '' 2>/dev/null; then
    try "$python"
    tried="$tried $python"
  else
    skipped="$skipped $python"
  fi
done
[ -n "$tried" ] || {
  echo 'error: there is none of python3.11, python3.12, python3.13 to try the wheels under.' >&2
  exit 1
}
(cd "$out" && sha256sum -- * >"$work/sums" && mv "$work/sums" SHA256SUMS)
say "in build/release; tried under$tried; not here, so not tried:${skipped:- none}"
cat "$out/SHA256SUMS"
