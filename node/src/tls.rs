//! Certificates: a local CA for `tollgate dev`, and PEM files for `tollgate serve`.
