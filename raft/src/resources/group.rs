//! Group: names users. A name with a colon may be written `b64:<base64>`.

/// A parsed Group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupSpec {
    /// Its members, decoded.
    pub users: Vec<String>,
}
