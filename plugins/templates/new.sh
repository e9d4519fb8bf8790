#!/bin/sh
# Makes the project of a new transform: new.sh LANGUAGE NAME FOLDER
#
# The project needs nothing of this checkout afterwards: it holds the template with its name put in, and copies of the
# language's SDK, of the interface, and of the list of tools.
#
#     templates/LANGUAGE/*      to .
#     templates/*.json, *.toml  to .
#     sdk-LANGUAGE              to sdk      (Rust: sdk)
#     ../wit/0.1.0              to wit
#     tools                     to tools    (not for Rust)
#     Cargo.lock                to .        (Rust: the versions that its dependencies have here)
#
# `tidemill plugin new` makes the same out of the copies that are in the program.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
language=$1 name=$2 folder=$3

case $language in
    rust) sdk=sdk ;;
    typescript) sdk="sdk-js" ;;
    python | c) sdk=sdk-$language ;;
    *) echo "error: there is no language $language; there are rust, typescript, python, c" >&2 && exit 1 ;;
esac
if [ -e "$folder" ]; then
    echo "error: $folder is there already" >&2
    exit 1
fi

mkdir -p "$folder/wit"
cp -R "$here/templates/$language/." "$folder/"
cp "$here/templates/vectors.json" "$here/templates/pipeline.toml" "$folder/"
cp "$here/../wit/0.1.0/"*.wit "$folder/wit/"
cp -R "$here/$sdk" "$folder/sdk"
if [ "$language" = rust ]; then
    cp "$here/Cargo.lock" "$folder/"
else
    cp -R "$here/tools" "$folder/tools"
fi
grep -rlF '{{name}}' "$folder" | while read -r file; do
    sed "s/{{name}}/$name/g" "$file" >"$file.named"
    cat "$file.named" >"$file"
    rm "$file.named"
done
