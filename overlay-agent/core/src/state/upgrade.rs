//! State files of earlier versions.

use serde_json::{Map, Value, json};

/// Layout of the file; a higher number is a later program's file.
pub(super) const FORMAT: u32 = 2;

/// Brings what is in a file into the present layout; the error says what does not fit.
pub fn upgrade(mut file: Value) -> Result<Value, String> {
    match file.get("format").and_then(Value::as_u64) {
        Some(1) => {
            from_first(&mut file);
            Ok(file)
        }
        Some(format) if format == u64::from(FORMAT) => Ok(file),
        Some(format) => Err(format!("format {format} is not {FORMAT}")),
        None => Err("it has no format".to_owned()),
    }
}

/// Format 1 knew no IPv6, no forwarding endpoints and no packet filter.
fn from_first(file: &mut Value) {
    let Some(file) = file.as_object_mut() else {
        return;
    };
    file.insert("format".to_owned(), json!(FORMAT));
    file.insert("packet_filter".to_owned(), json!(false));
    let allocations = file.get_mut("allocations").and_then(Value::as_object_mut);
    for allocation in allocations.into_iter().flat_map(Map::values_mut) {
        one_to_many(allocation);
    }
    let endpoints = file.get_mut("endpoints").and_then(Value::as_array_mut);
    for endpoint in endpoints.into_iter().flatten() {
        one_to_many(endpoint);
        if let Some(endpoint) = endpoint.as_object_mut() {
            endpoint.insert("forwarding".to_owned(), json!(false));
            endpoint.insert("allowed_sources".to_owned(), json!([]));
        }
    }
}

/// `address`, which could be null, became `addresses`.
fn one_to_many(value: &mut Value) {
    if let Some(fields) = value.as_object_mut() {
        let address = fields
            .remove("address")
            .filter(|address| !address.is_null());
        let addresses: Vec<Value> = address.into_iter().collect();
        fields.insert("addresses".to_owned(), json!(addresses));
    }
}
