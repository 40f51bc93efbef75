//! `spec.cors` of a Tenant: which web pages may call the gateway from a browser.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use super::fields::{Fields, Report};

/// Entries of the list, and characters of each.
const ORIGINS_MAX: usize = 100;
const ORIGIN_MAX: usize = 300;
/// The entry that stands for all.
const ANY: &str = "*";

/// The origins whose pages may call. The default is none.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AllowedOrigins(BTreeSet<String>);

impl AllowedOrigins {
    /// Whether any page may call, wherever it is from.
    pub fn is_any(&self) -> bool {
        self.0.contains(ANY)
    }

    /// Whether no page may.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether pages of `origin` may, which is written as browsers write it.
    pub fn allows(&self, origin: &str) -> bool {
        self.is_any() || self.0.contains(origin)
    }
}

/// Reads `{"allowedOrigins": [...]}`: up to 100 of `*` and `scheme://host[:port]`, each just as browsers write it. One that they would
/// write otherwise would never match.
pub(super) fn parse(report: &Report, cors: &Fields<'_>) -> AllowedOrigins {
    let entries = cors.list("allowedOrigins");
    if entries.len() > ORIGINS_MAX {
        cors.error("allowedOrigins", format!("has {} entries: at most {ORIGINS_MAX} are kept", entries.len()));
        return AllowedOrigins::default();
    }
    let mut origins = BTreeSet::new();
    for (path, entry) in entries {
        match entry.as_str().ok_or("must be a string").and_then(|text| check(text).map(|()| text)) {
            Ok(text) => drop(origins.insert(text.to_owned())),
            Err(wrong) => {
                let shown: String = entry.to_string().chars().take(80).collect();
                report.error(path, format!("{shown} {wrong}"));
            }
        }
    }
    AllowedOrigins(origins)
}

/// Whether browsers write an origin like this. Errors: what to write instead.
fn check(text: &str) -> Result<(), &'static str> {
    const FORM: &str = "is no origin: write scheme://host or scheme://host:port without a path, or \"*\" for all";
    if text == ANY {
        return Ok(());
    }
    if text.len() > ORIGIN_MAX {
        return Err("is too long for an origin");
    }
    if !text.is_ascii() {
        return Err("is not ASCII: write the host in Punycode, as browsers do");
    }
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("has capital letters: browsers write origins in lower case");
    }
    let (scheme, authority) = text.split_once("://").ok_or(FORM)?;
    if authority.contains('/') {
        return Err("has a path or a slash at its end: an origin has none");
    }
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    if !is_scheme || !is_host(host) {
        return Err(FORM);
    }
    match port {
        None => Ok(()),
        Some(port) if port.starts_with('0') || port.parse::<u16>().is_err() => Err(FORM),
        Some("80") if scheme == "http" => Err("names the port that http has anyway: browsers leave it out"),
        Some("443") if scheme == "https" => Err("names the port that https has anyway: browsers leave it out"),
        Some(_) => Ok(()),
    }
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok_and(|parsed| parsed.to_string() == address);
    }
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
    !host.is_empty() && !host.starts_with(['.', '-']) && !host.contains("..") && host.bytes().all(is_letter)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::{DEFAULT_TENANT, FieldError, Kind, TENANT_NAMESPACE, validate};
    use crate::state::testing::object;

    #[test]
    fn origins_are_written_as_browsers_write_them() {
        let cors = |origins: Value| json!({ "spec": { "cors": { "allowedOrigins": origins } } });
        let good = [
            "*",
            "https://app.example.com",
            "https://xn--bcher-kva.example:8443",
            "http://localhost:3000",
            "http://127.0.0.1:5173",
            "http://[::1]:3000",
            "https://[2001:db8::1]",
            "chrome-extension://abcdefghijklmnop",
            "tauri://localhost",
        ];
        const FORM: &str = "is no origin: write scheme://host or scheme://host:port without a path, or \"*\" for all";
        let bad = [
            (json!("app.example.com"), FORM),
            (json!("https://*.example.com"), FORM),
            (json!("https://ann@example.com"), FORM),
            (json!("https://"), FORM),
            (json!("null"), FORM),
            (json!(""), FORM),
            (json!("https://a b"), FORM),
            (json!("https://a?b"), FORM),
            (json!("https://a:0"), FORM),
            (json!("https://a:65536"), FORM),
            (json!("https://a:"), FORM),
            (json!("https://[::01]"), FORM),
            (json!("1http://a"), FORM),
            (json!("https://a/"), "has a path or a slash at its end: an origin has none"),
            (json!("https://a/app"), "has a path or a slash at its end: an origin has none"),
            (json!("https://App.example.com"), "has capital letters: browsers write origins in lower case"),
            (json!("https://bücher.example"), "is not ASCII: write the host in Punycode, as browsers do"),
            (json!("http://a:80"), "names the port that http has anyway: browsers leave it out"),
            (json!("https://a:443"), "names the port that https has anyway: browsers leave it out"),
            (json!(7), "must be a string"),
        ];
        let said: Vec<String> =
            bad.iter().map(|(origin, why)| format!("spec.cors.allowedOrigins[0]: {origin} {why}")).collect();
        let mut cases: Vec<(Value, &str)> = good.iter().map(|origin| (cors(json!([origin])), "")).collect();
        cases.extend(bad.iter().zip(&said).map(|((origin, _), said)| (cors(json!([origin])), said.as_str())));
        let many = |count: usize| cors(json!((0..count).map(|port| format!("https://a{port}")).collect::<Vec<_>>()));
        cases.push((many(100), ""));
        cases.push((many(101), "spec.cors.allowedOrigins: has 101 entries: at most 100 are kept"));
        cases.push((cors(json!("https://a")), "spec.cors.allowedOrigins: must be a list, not \"https://a\""));
        for (body, wanted) in cases {
            let tenant = object(Kind::Tenant, TENANT_NAMESPACE, DEFAULT_TENANT, &body.to_string());
            let errors = validate(&tenant).err().unwrap_or_default();
            let found: Vec<String> = errors.iter().map(FieldError::to_string).collect();
            assert_eq!(found.join("\n"), wanted, "{body}");
        }
    }
}
