//! Versions of the component `test-marked`: its bytes with another mark written over them.

use std::path::Path;

use crate::support::root;

const MARK: &[u8] = b"tidemill-mark:";

/// The component that does this wrong (see its source) and puts this name, filled up with zeros, on each record.
pub fn marked(fault: char, name: &str) -> Vec<u8> {
    let mut bytes =
        std::fs::read(root().join("plugins/dist/test-marked.wasm")).expect("the guests are built");
    let places: Vec<usize> =
        (0..bytes.len() - MARK.len()).filter(|at| bytes[*at..].starts_with(MARK)).collect();
    let [place] = places[..] else { panic!("the mark is at {places:?}") };
    let mark = format!("{fault}:{name:0>16}");
    let from = place + MARK.len();
    bytes[from..from + mark.len()].copy_from_slice(mark.as_bytes());
    bytes
}

/// Puts a file in its place in one step, as editors and build tools do.
pub fn rename_into(file: &Path, bytes: &[u8]) {
    let new = file.with_extension("new");
    std::fs::write(&new, bytes).expect("the new file can be written");
    std::fs::rename(&new, file).expect("it can be put in its place");
}

/// The same component under another digest: a section that nobody reads is added.
pub fn renamed(mut component: Vec<u8>) -> Vec<u8> {
    let section = b"\x0ctidemill-pad";
    component.extend([0, section.len() as u8]);
    component.extend(section);
    component
}
