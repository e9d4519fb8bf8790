//! A file goes in through `produce` and comes out through `consume`, byte for byte.

use std::collections::HashMap;

use crate::support::{Host, scratch, stderr};

/// Lines like a real feed's: keys repeat, lengths differ, some are not JSON, some not UTF-8.
fn lines(count: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|i| {
            let id = i.wrapping_mul(2_654_435_761) % 997;
            let mut line =
                format!("a{id}\t{{\"seq\":{i},\"note\":\"{}\"}}", "é~\\\"x".repeat(i % 7)).into_bytes();
            if i % 1000 == 17 {
                line.extend_from_slice(&[0xff, 0xfe, b'\r']);
            }
            line
        })
        .collect()
}

#[test]
fn a_file_comes_out_as_it_went_in_and_in_order_per_key() {
    let folder = scratch();
    let host = Host::start(&folder.path().join("data"), &[]);
    let created = host.cli(&["topic", "create", "flights", "--partitions", "4", "--format", "bytes"]);
    assert!(created.status.success(), "{}", stderr(&created));

    let lines = lines(60_000);
    let file = folder.path().join("flights.txt");
    let mut text = lines.join(&b'\n');
    text.push(b'\n');
    std::fs::write(&file, &text).expect("written");
    let produced = host.cli(&["produce", "flights", &file.display().to_string(), "--key-separator", "\t"]);
    assert!(produced.status.success(), "{}", stderr(&produced));

    let consumed = host.cli(&["consume", "flights", "--from", "earliest", "--format", "raw"]);
    assert!(consumed.status.success(), "{}", stderr(&consumed));
    // The key before the separator is not part of the payload; the sequence number tells which line it was.
    let mut expected: HashMap<Vec<u8>, Vec<&[u8]>> = HashMap::new();
    let mut payloads: HashMap<&[u8], Vec<u8>> = HashMap::new();
    for line in &lines {
        let tab = line.iter().position(|b| *b == b'\t').expect("a separator");
        expected.entry(line[..tab].to_vec()).or_default().push(&line[tab + 1..]);
        payloads.insert(&line[tab + 1..], line[..tab].to_vec());
    }
    let mut seen: HashMap<Vec<u8>, Vec<&[u8]>> = HashMap::new();
    let out = consumed.stdout.strip_suffix(b"\n").expect("a last line end");
    for line in out.split(|b| *b == b'\n') {
        let key = payloads
            .get(line)
            .unwrap_or_else(|| panic!("an unknown line: {:?}", String::from_utf8_lossy(line)));
        seen.entry(key.clone()).or_default().push(line);
    }
    assert_eq!(seen, expected, "lines lost, repeated, changed, or out of order within a key");
}
