//! `docs/schema/v1.json`, by which `--output json` is judged.

use std::{fs, io, path::Path};

use serde_json::{Map, Value};

/// The schema, of which only what it uses is understood.
#[derive(Debug)]
pub struct Schema(Value);

/// The keywords of a definition that this reads.
const KEYWORDS: [&str; 10] = [
    "$ref",
    "additionalProperties",
    "anyOf",
    "const",
    "description",
    "enum",
    "items",
    "properties",
    "required",
    "type",
];

impl Schema {
    /// The one of this workspace; an error if it is no JSON.
    pub fn read() -> io::Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema/v1.json");
        Ok(Self(serde_json::from_str(&fs::read_to_string(path)?)?))
    }

    /// Its definitions by their names.
    pub fn definitions(&self) -> Option<&Map<String, Value>> {
        self.0["$defs"].as_object()
    }

    /// All that is wrong with a value, with its place.
    pub fn faults(&self, definition: &str, value: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        self.check(&self.0["$defs"][definition], value, definition, &mut faults);
        faults
    }

    fn check(&self, schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
        let Some(says) = schema.as_object() else {
            faults.push(format!("{at}: the schema has no such definition"));
            return;
        };
        let unknown = says
            .keys()
            .filter(|word| !KEYWORDS.contains(&word.as_str()));
        faults.extend(unknown.map(|word| format!("{at}: {word} is not understood")));
        if let Some(other) = says.get("$ref").and_then(Value::as_str) {
            let name = other.trim_start_matches("#/$defs/");
            self.check(&self.0["$defs"][name], value, at, faults);
        }
        if let Some(choices) = says.get("anyOf").and_then(Value::as_array) {
            let fits = |choice: &&Value| {
                let mut wrong = Vec::new();
                self.check(choice, value, at, &mut wrong);
                wrong.is_empty()
            };
            if !choices.iter().any(|choice| fits(&choice)) {
                faults.push(format!("{at}: {value} is none of the choices"));
            }
        }
        if let Some(only) = says.get("const").filter(|only| *only != value) {
            faults.push(format!("{at}: {value} is not {only}"));
        }
        let allowed = says.get("enum").and_then(Value::as_array);
        if allowed.is_some_and(|allowed| !allowed.contains(value)) {
            faults.push(format!("{at}: {value} is not a word of the list"));
        }
        if let Some(kind) = says.get("type").filter(|kind| !is_of(kind, value)) {
            faults.push(format!("{at}: {value} is no {kind}"));
        }
        if let (Some(items), Some(list)) = (says.get("items"), value.as_array()) {
            for (number, item) in list.iter().enumerate() {
                self.check(items, item, &format!("{at}[{number}]"), faults);
            }
        }
        if let Some(object) = value.as_object() {
            self.check_object(says, object, at, faults);
        }
    }

    fn check_object(
        &self,
        says: &Map<String, Value>,
        object: &Map<String, Value>,
        at: &str,
        faults: &mut Vec<String>,
    ) {
        let required = says.get("required").and_then(Value::as_array);
        for name in required.into_iter().flatten().filter_map(Value::as_str) {
            if !object.contains_key(name) {
                faults.push(format!("{at}: {name} is missing"));
            }
        }
        let Some(known) = says.get("properties").and_then(Value::as_object) else {
            return;
        };
        // Readers must bear with more; what we print is to be described.
        let open = says.get("additionalProperties") == Some(&Value::Bool(true));
        for (name, value) in object {
            match known.get(name) {
                Some(schema) => self.check(schema, value, &format!("{at}.{name}"), faults),
                None if open => {}
                None => faults.push(format!("{at}: {name} is not described")),
            }
        }
    }
}

fn is_of(kind: &Value, value: &Value) -> bool {
    let is = |kind: &str| match kind {
        "array" => value.is_array(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "null" => value.is_null(),
        "object" => value.is_object(),
        "string" => value.is_string(),
        _ => false,
    };
    match kind {
        Value::String(kind) => is(kind),
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).any(is),
        _ => false,
    }
}
