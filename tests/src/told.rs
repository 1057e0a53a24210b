//! JSON output of programs, as lines that can be compared.
//!
//! Output for people changes from one version to the next.

use serde_json::{Deserializer, Value};

use crate::error::{Error, Result};

/// One line an object: words `path=value`, sorted, without the words that are not kept.
///
/// `keep` is asked with a word's path and value.
///
/// # Errors
/// When it is not JSON.
pub fn lines(text: &str, keep: &dyn Fn(&str, &Value) -> bool) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for document in Deserializer::from_str(text).into_iter::<Value>() {
        let document = document.map_err(|error| {
            Error::output(text.lines().next().unwrap_or_default().to_owned(), error)
        })?;
        for object in objects(&document) {
            let mut words = Vec::new();
            flatten("", object, keep, &mut words);
            words.sort();
            lines.push(words.join(" "));
        }
    }
    lines.retain(|line| !line.is_empty());
    lines.sort();
    Ok(lines)
}

/// The objects of an answer, which some programs wrap in lists by kind.
fn objects(document: &Value) -> Vec<&Value> {
    match document {
        Value::Array(all) => all.iter().flat_map(objects).collect(),
        Value::Object(map) if !map.is_empty() && map.values().all(is_list_of_objects) => {
            map.values().flat_map(objects).collect()
        }
        other => vec![other],
    }
}

fn is_list_of_objects(value: &Value) -> bool {
    let list = value.as_array();
    list.is_some_and(|list| list.iter().all(Value::is_object))
}

fn flatten(
    path: &str,
    value: &Value,
    keep: &dyn Fn(&str, &Value) -> bool,
    words: &mut Vec<String>,
) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                flatten(&path, value, keep, words);
            }
        }
        Value::Array(list) if list.iter().any(Value::is_object) => {
            for (place, value) in list.iter().enumerate() {
                flatten(&format!("{path}[{place}]"), value, keep, words);
            }
        }
        Value::Array(list) => words.extend(
            list.iter()
                .filter(|value| keep(path, value))
                .map(|value| format!("{path}={}", bare(value))),
        ),
        other if keep(path, other) => words.push(format!("{path}={}", bare(other))),
        _ => {}
    }
}

/// A value without quotation marks.
fn bare(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// The last part of a path, without its place in a list.
pub fn key(path: &str) -> &str {
    let last = path.rsplit('.').next().unwrap_or(path);
    last.split('[').next().unwrap_or(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_a_line_of_words_in_their_order() {
        let text = r#"[{"ifname":"a","flags":["UP","LOWER_UP"],"linkinfo":{"info_kind":"veth"}},
            {}, {"ifname":"b","addr_info":[{"local":"::1"},{"local":"::2"}]}]"#;
        let keep = |path: &str, value: &Value| key(path) != "flags" || value != "LOWER_UP";
        assert_eq!(
            lines(text, &keep).unwrap(),
            [
                "addr_info[0].local=::1 addr_info[1].local=::2 ifname=b",
                "flags=UP ifname=a linkinfo.info_kind=veth"
            ]
        );
    }

    #[test]
    fn lists_by_kind_are_taken_apart_and_answers_in_a_row_together() {
        let text = r#"[{"xdp":[],"tc":[{"name":"x"}]}] {"nftables":[{"table":{"name":"t"}}]}"#;
        let all = |_: &str, _: &Value| true;
        assert_eq!(lines(text, &all).unwrap(), ["name=x", "table.name=t"]);
        assert_eq!(lines("", &all).unwrap(), Vec::<String>::new());
        assert!(lines("eth0: UP", &all).is_err());
    }

    #[test]
    fn a_key_is_the_end_of_its_path() {
        assert_eq!(key("linkinfo.info_data[3].state"), "state");
        assert_eq!(key("a.flags[0]"), "flags");
    }
}
