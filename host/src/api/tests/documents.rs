//! The OpenAPI document and the router say the same.

use std::collections::BTreeSet;

use serde_json::Value;

use super::host::TestHost;
use crate::api::{openapi, routes};

#[test]
fn every_route_is_documented_and_every_documented_route_exists() {
    let document: Value = serde_json::from_str(openapi::DOCUMENT).unwrap();
    let mut documented = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            documented.insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    let routed: BTreeSet<String> =
        routes::all().iter().map(|route| format!("{} {}", route.method, route.path)).collect();
    assert_eq!(documented, routed);
}

#[test]
fn references_in_the_document_lead_somewhere() {
    fn walk(value: &Value, document: &Value, found: &mut usize) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(reference)) = map.get("$ref") {
                    let target = document.pointer(reference.trim_start_matches('#'));
                    assert!(target.is_some(), "{reference} leads nowhere");
                    *found += 1;
                }
                map.values().for_each(|value| walk(value, document, found));
            }
            Value::Array(list) => list.iter().for_each(|value| walk(value, document, found)),
            _ => {}
        }
    }
    let document: Value = serde_json::from_str(openapi::DOCUMENT).unwrap();
    let mut found = 0;
    walk(&document, &document, &mut found);
    assert!(found > 20, "only {found} references");
}

#[tokio::test]
async fn the_document_and_metrics_are_served() {
    let host = TestHost::start().await;
    let document = host.get("/v1/openapi.json").await;
    assert_eq!(document["openapi"], "3.1.0");
    host.topic("measured", 1, "bytes").await;
    host.lines("measured", "", "a\nb\n").await;
    let text = host.http.get(format!("{}/metrics", host.url)).send().await.unwrap().text().await.unwrap();
    assert!(text.contains("tidemill_http_records_in_total{topic=\"measured\"} 2"), "{text}");
}
