//! Server-side tables: what `kubectl get` prints.

use http::HeaderMap;
use http::header::ACCEPT;
use raft::Timestamp;
use raft::resources::{Column, Object, Status, row};
use serde_json::{Map, Value, json};

use super::options::IncludeObject;
use super::wire;

/// Whether the client prefers a table: its first choice among the forms served here is one.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    let accepted =
        headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    for choice in accepted {
        let mut parts = choice.split(';').map(str::trim);
        if !matches!(parts.next(), Some("application/json" | "application/*" | "*/*")) {
            continue;
        }
        let parameters: Vec<&str> = parts.filter(|part| !part.starts_with("q=")).collect();
        if parameters.is_empty() {
            return false;
        }
        if ["as=Table", "v=v1", "g=meta.k8s.io"].iter().all(|wanted| parameters.contains(wanted)) {
            return true;
        }
    }
    false
}

/// A table of `rows`, whose cells are a name and one of each column.
pub(super) fn write(columns: &[Column], resource_version: u64, rows: Vec<Value>) -> Value {
    let name = json!({"name": "Name", "type": "string", "format": "name", "description": "its name", "priority": 0});
    let columns = columns.iter().map(|column| {
        // Dates travel as text, already in the words kubectl prints.
        let kind = if column.format == "date" { "string" } else { column.format };
        json!({"name": column.name, "type": kind, "format": "", "description": column.description, "priority": column.priority})
    });
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": resource_version.to_string()},
        "columnDefinitions": std::iter::once(name).chain(columns).collect::<Vec<_>>(),
        "rows": rows,
    })
}

/// One row.
pub(super) fn line(object: &Object, status: &Status, now: Timestamp, include: IncludeObject) -> Value {
    let mut cells = vec![json!(object.key.name)];
    cells.extend(row(object, status, now));
    let mut line = Map::new();
    line.insert("cells".to_owned(), Value::Array(cells));
    match include {
        IncludeObject::None => {}
        IncludeObject::Metadata => {
            line.insert("object".to_owned(), partial(wire::metadata(object)));
        }
        IncludeObject::Object => {
            line.insert("object".to_owned(), wire::write(object, status));
        }
    }
    Value::Object(line)
}

/// An object of which only the metadata is sent.
pub(super) fn partial(metadata: Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_sent_to_who_prefers_one() {
        let cases = [
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                true,
            ),
            ("application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json", false),
            ("application/json", false),
            ("application/vnd.kubernetes.protobuf, application/json", false),
            ("application/json, application/json;as=Table;v=v1;g=meta.k8s.io", false),
            ("*/*", false),
            ("text/html", false),
        ];
        for (accept, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            assert_eq!(is_wanted(&headers), expected, "{accept}");
        }
    }
}
