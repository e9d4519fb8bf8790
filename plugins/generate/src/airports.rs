//! The major airports for `flight-watch` in other languages.

use std::fmt::Write as _;

use airports::{AIRPORTS, Airport};

use crate::Generated;

const ORIGIN: &str = "Generated from plugins/airports: cargo run -p generate.";

/// One table for each language.
pub fn tables() -> Vec<Generated> {
    let files = [
        ("typescript/airports.ts", typescript as fn() -> String),
        ("python/airports.py", python),
        ("c/airports.h", c),
    ];
    files.map(|(path, table)| Generated { path: format!("languages/{path}"), contents: table() }).into()
}

fn typescript() -> String {
    let head = format!(
        "// {ORIGIN}\n\n/** Code, degrees north and east, feet above the sea. */\n\
         export const AIRPORTS: readonly (readonly [string, number, number, number])[] = [\n"
    );
    table(head, "  [\"", ["\", ", ", ", ", "], "],\n", "];\n")
}

fn python() -> String {
    let head = format!(
        "\"\"\"{ORIGIN}\"\"\"\n\n# Code, degrees north and east, feet above the sea.\nAIRPORTS = (\n"
    );
    table(head, "    (\"", ["\", ", ", ", ", "], "),\n", ")\n")
}

fn c() -> String {
    let head = format!(
        "// {ORIGIN}\n#pragma once\n\nstruct airport {{\n    const char *code;\n    double lat, lon;\n    \
         int elevation_ft;\n}};\n\nstatic const struct airport AIRPORTS[] = {{\n"
    );
    table(head, "    {\"", ["\", ", ", ", ", "], "},\n", "};\n")
}

fn table(mut text: String, before: &str, between: [&str; 3], after: &str, end: &str) -> String {
    let [first, second, third] = between;
    for Airport { code, lat, lon, elevation_ft, .. } in AIRPORTS.iter().filter(|airport| airport.is_major()) {
        // Writing to a string does not fail.
        let _ = write!(text, "{before}{code}{first}{lat:?}{second}{lon:?}{third}{elevation_ft}{after}");
    }
    text + end
}
