//! What names, labels and annotations may look like: the rules of Kubernetes, so that a manifest accepted here is
//! accepted there.
//!
//! One rule holds for the names of all kinds ([`check_name`]): whatever can be created can be named in a path, and so be read,
//! listed, watched and deleted. Most kinds have a stricter one on top.

use super::fields::Report;
use super::{Kind, NewObject, Scope};

/// A name, in bytes: as long as a DNS name may be.
const NAME_BYTES_MAX: usize = 253;
/// All annotations of an object together, in bytes.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;
/// An object's body, in bytes.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Whether `text` is a DNS label: up to 63 of `a-z`, `0-9`, `-`, a letter or digit first and last.
pub(super) fn is_dns_label(text: &str) -> bool {
    text.len() <= 63
        && edges(text, |c| c.is_ascii_lowercase() || c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// Whether `text` is a DNS subdomain: labels joined by dots, up to 253 characters.
pub(super) fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|part| {
            edges(part, |c| c.is_ascii_lowercase() || c.is_ascii_digit())
                && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        })
}

/// Checks an object's name, namespace, labels and annotations.
pub(super) fn check_metadata(report: &Report, object: &NewObject) {
    check_name(report, object);
    check_namespace(report, object);
    for (key, value) in &object.labels {
        check_key(report, "metadata.labels", key);
        if !(value.is_empty() || is_label_name(value)) {
            report.error(
                format!("metadata.labels.{key}"),
                format!("\"{value}\" is not a label value: up to 63 letters, digits, `-`, `_` or `.`, a letter or digit first and last"),
            );
        }
    }
    for key in object.annotations.keys() {
        check_key(report, "metadata.annotations", &key.to_ascii_lowercase());
    }
    let annotations: usize = object.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if annotations > ANNOTATIONS_BYTES_MAX {
        report.error(
            "metadata.annotations",
            format!("have {annotations} bytes: at most {ANNOTATIONS_BYTES_MAX} are kept"),
        );
    }
    if object.body.len() > BODY_BYTES_MAX {
        report.error("spec", format!("has {} bytes: at most {BODY_BYTES_MAX} are kept", object.body.len()));
    }
}

fn check_name(report: &Report, object: &NewObject) {
    let name = &object.key.name;
    let mistake = why_unaddressable(name).or_else(|| match object.key.kind {
        Kind::Namespace if !is_dns_label(name) => Some(
            "a Namespace is a DNS label: up to 63 lower-case letters, digits or `-`, a letter or digit first and last",
        ),
        Kind::Tenant if name != super::tenant::DEFAULT_TENANT => {
            Some("`default-tenant` is the only tenant of this version")
        }
        Kind::ServiceAccount | Kind::InferenceService | Kind::ModelRef | Kind::Subscription | Kind::AuthPolicy
            if !is_dns_subdomain(name) =>
        {
            Some("use a DNS name: up to 253 lower-case letters, digits, `-` or `.`, a letter or digit first and last")
        }
        // Groups come from identity providers, which call them anything.
        Kind::Group
        | Kind::Namespace
        | Kind::Tenant
        | Kind::ServiceAccount
        | Kind::InferenceService
        | Kind::ModelRef
        | Kind::Subscription
        | Kind::AuthPolicy => None,
    });
    if let Some(mistake) = mistake {
        report.error("metadata.name", format!("{name:?} cannot be a name: {mistake}"));
    }
}

/// Why an object of this name, whatever its kind, could not be named in a path, or be told from another by people.
fn why_unaddressable(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("it is empty"),
        "." | ".." => Some("in a path it means a place"),
        long if long.len() > NAME_BYTES_MAX => Some("it has more than 253 bytes"),
        name if name.contains(['/', '%']) => Some("leave out `/` and `%`, which mean something in a path"),
        name if name.contains(char::is_control) => Some("leave out control characters"),
        name if name.contains(is_invisible) => Some("leave out invisible characters"),
        name if name.trim() != name => Some("leave out blanks at its ends"),
        _ => None,
    }
}

/// Characters that take no place or turn the direction of writing: two names would look the same.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn check_namespace(report: &Report, object: &NewObject) {
    let namespace = &object.key.namespace;
    match object.key.kind.scope() {
        Scope::Cluster if !namespace.is_empty() => {
            report.error("metadata.namespace", format!("must be absent: a {} lives in no namespace", object.key.kind.name()));
        }
        Scope::Namespaced if !is_dns_label(namespace) => report.error(
            "metadata.namespace",
            format!("\"{namespace}\" is not a namespace: up to 63 lower-case letters, digits or `-`, a letter or digit first and last"),
        ),
        Scope::Cluster | Scope::Namespaced => {}
    }
}

/// A label's or annotation's key: a name, or a DNS subdomain, `/` and a name.
fn check_key(report: &Report, path: &str, key: &str) {
    let (prefix_fits, name) = match key.split_once('/') {
        Some((prefix, name)) => (is_dns_subdomain(prefix), name),
        None => (true, key),
    };
    if !(prefix_fits && is_label_name(name)) {
        report.error(
            path,
            format!("\"{key}\" is not a key: use `name` or `dns.prefix/name`, the name with up to 63 characters"),
        );
    }
}

fn is_label_name(text: &str) -> bool {
    text.len() <= 63
        && edges(text, |c| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// Whether there is a first and a last character and both fit.
fn edges(text: &str, fits: impl Fn(char) -> bool) -> bool {
    text.chars().next().is_some_and(&fits) && text.chars().next_back().is_some_and(&fits)
}
