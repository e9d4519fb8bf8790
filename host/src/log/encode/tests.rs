use proptest::prelude::*;

use super::*;

fn headers() -> impl Strategy<Value = Vec<Header>> {
    let value = prop_oneof![
        any::<String>().prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..40),
        Just(vec![0]),
    ];
    let name = prop_oneof![any::<String>(), Just("base64".to_owned()), Just("\0".to_owned())];
    let header = (name, value).prop_map(|(name, value)| Header { name, value: value.into() });
    prop::collection::vec(header, 0..6)
}

proptest! {
    #[test]
    fn headers_come_back_as_they_went_in(headers in headers()) {
        match headers_to_json(&headers) {
            Some(json) => {
                prop_assert!(!json.to_string().contains("\\u0000"), "jsonb cannot hold it: {}", json);
                prop_assert_eq!(headers_from_json(&json), headers);
            }
            None => prop_assert!(headers.is_empty()),
        }
    }

    #[test]
    fn no_stored_headers_make_a_record_unreadable(json in any::<String>()) {
        prop_assert!(headers_from_slice(json.as_bytes()).len() <= json.len().max(1));
    }
}

#[test]
fn headers_are_stored_as_the_page_says() {
    let header =
        |name: &str, value: &'static [u8]| Header { name: name.to_owned(), value: Bytes::from_static(value) };
    let json = headers_to_json(&[header("trace", b"1"), header("trace", b"2"), header("raw", &[255, 0])]);
    let stored = r#"[["trace","1"],["trace","2"],["raw",{"base64":"/wA="}]]"#;
    assert_eq!(json.map(|json| json.to_string()).as_deref(), Some(stored));
}

#[test]
fn odd_headers_stay_readable() {
    let odd = headers_from_slice(br#"{"a":1}"#);
    assert_eq!((odd.len(), odd[0].name.as_str(), odd[0].value.as_ref()), (1, "headers", &br#"{"a":1}"#[..]));
}
